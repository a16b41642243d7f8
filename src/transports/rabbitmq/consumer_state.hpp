/// What `consumers` keeps of a subscription and of its streams.
#pragma once

#include <algorithm>

#include "consumer.hpp"
#include "queue_counts.hpp"

namespace leveret::core::rabbitmq {

struct consumers::stream final : channel_events, std::enable_shared_from_this<stream> {
  stream(consumers& o, std::shared_ptr<subscription> s, std::uint32_t p) : owner(&o), sub(std::move(s)), prefetch(p) {}

  void on_deliver(incoming&& message) override { owner->arrived(shared_from_this(), std::move(message)); }
  /// Asks for the queue's counts on this channel, behind all that was sent on it.
  void count(on_counts then);

  void on_cancelled() override {
    owner->stream_ended(shared_from_this(), AMQP_NOT_FOUND, "the broker cancelled the consumer (queue deleted?)");
  }
  void on_closed(std::uint16_t code, const std::string& text) override {
    owner->stream_ended(shared_from_this(), code, text);
  }

  consumers* owner;
  std::shared_ptr<subscription> sub;
  std::shared_ptr<channel> ch;
  std::uint32_t prefetch;
  std::uint32_t begun = 0;  // consumers, one after the other, each with a prefetch of its own
  std::size_t carried = 0;  // deliveries of consumers before this one that were out when it began, or more
  bool consuming = true;    // false: cancelled, kept for its unsettled deliveries
  ack_window acks;
  std::vector<small_function<void(bool)>> waiting;  // for the next flush
  bool flush_soon = false;
  bool flush_armed = false;
  bool pause_armed = false;
  reactor::clock::time_point flushed{};
  /// The broker has sent all that it may until something is acknowledged.
  [[nodiscard]] bool is_full() const { return acks.out() + acks.finished() >= prefetch + carried; }
  [[nodiscard]] std::string consumer_tag() const { return "leveret." + std::to_string(begun); }
  bool quieting = false;  // about to be cancelled: nothing is sent that would make the broker deliver
  std::uint64_t arrivals = 0;
  // Watching (consumer_watch.cpp).
  bool confirmed = false;  // the broker said that it consumes
  bool looking = false;    // a look is under way, since:
  reactor::clock::time_point looked{};
  std::uint64_t arrivals_seen = 0;
  reactor::clock::time_point idle_since = reactor::clock::now();
  int missed = 0;          // looks in a row that found no consumer
  std::size_t asking = 0;  // `caught_up` calls that are open
  // Unsubscribed: what goes back waits until what runs is settled (`give_back`).
  bool holding = false;
  bool hurried = false;            // it has waited long enough
  std::size_t release_tokens = 0;  // deliveries that `releases` will give back
  std::vector<std::function<void()>> releases;
  // Ordered (consumer_order.cpp): nothing that comes is handed out any more.
  bool leaving = false;
  std::vector<std::function<void(bool)>> left;  // true: as it was meant; false: the channel was lost before
};

struct consumers::subscription {
  subscription_id id = 0;
  std::string queue;
  bool ordered = false;
  std::string base;  // ordered: the queue that it belongs to
  window w;
  std::shared_ptr<subscriber> events;
  std::shared_ptr<stream> current;
  bool swapping = false;  // the old stream is being cancelled
  bool stopping = false;  // unsubscribed
  bool starting = false;  // probing the queue, or waiting to try again
  std::uint32_t failures = 0;
  reactor::timer_id timer = 0;
  reactor::clock::time_point waits_since = reactor::clock::now();  // for the broker's word that it consumes
  std::string problem;                                             // why it does not; empty: it does, or has just begun

  std::deque<held> waiting;
  std::size_t out = 0;  // handed out and not settled
  std::uint64_t out_bytes = 0;
  std::vector<delivery> batch;
  std::size_t last_batch = 0;  // how many the one before had
  bool batch_posted = false;

  double mean_size = 0;
  std::uint64_t sizes = 0;
  bool counts = false;  // a delivery count was seen
};

inline void consumers::stream::count(on_counts then) {
  ask_counts([channel = ch](amqp_method_number_t id, void* method,
                            on_reply reply) { channel->call(id, method, std::move(reply)); },
             sub->queue, std::move(then));
}

}  // namespace leveret::core::rabbitmq
