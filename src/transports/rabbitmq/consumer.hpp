/// Subscriptions: deliveries in, acknowledgements out. The I/O thread's own; subscribers are called on the loop.
///
/// A subscription consumes on a channel of its own, a *stream*. A changed window is a new stream: the old one is
/// cancelled, the new one begins when the broker has confirmed that, and the old channel stays until its deliveries are
/// settled.
///
/// Before 3.10.9 the broker's channel dies of a delivery that is under way when its consumer is cancelled (a badkey in
/// rabbit_fifo_client, rabbitmq-server #5927), and all its deliveries come back as lost. There a stream is made quiet
/// first: acknowledgements and returns wait until the prefetch is full or nothing has come for a while, since then the
/// broker has nothing to send; what waited goes out right behind the cancel.
///
/// A consumer that the broker has forgotten looks like one that has nothing to do. So a stream that brings nothing is
/// looked after (consumer_watch.cpp): twice a heartbeat the broker is asked how many consumers the queue has, on the
/// stream's own channel, and a stream that it does not count or answer is replaced.
///
/// An ordered queue has a single active consumer, whose prefetch is 1. Its stream is never cancelled: it *leaves*
/// (consumer_order.cpp).
///
/// The window holds by itself: what the broker sends beyond it (the prefetch counts messages, not bytes; an old
/// stream's deliveries count too) waits here, in order, and was not handed out yet.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ack_window.hpp"
#include "link.hpp"
#include "operations.hpp"

namespace leveret::core::rabbitmq {

class consumers {
 public:
  consumers(reactor& r, link& l, loop& to, operations& ops, const limits& lim, random_source random);
  ~consumers();

  void subscribe(subscription_id id, const std::string& queue, window w, subscriber events);
  void resize(subscription_id id, window w);
  void unsubscribe(subscription_id id, std::function<void()> then);

  /// The queue was declared: what it is, and that it is to be made again if it vanishes (ours).
  void note(const std::string& queue, found_queue found);
  /// Before `queue` is declared: makes where the consumers of an ordered queue are counted. Calls `then` in any case.
  void make_members(const std::string& queue, std::function<void()> then);

  /// Marks a delivery as being settled. False: it is not ours any more (or was settled).
  [[nodiscard]] bool begin_settle(delivery_token token);
  /// Not settled after all.
  void give_up_settle(delivery_token token);
  [[nodiscard]] bool holds(delivery_token token) const { return deliveries_.count(token) != 0; }
  /// Acknowledges. `then(true)` when the acknowledgement is on its way, false when the delivery was lost before.
  void finish(delivery_token token, small_function<void(bool)> then);
  /// Back to the queue; `then` when the broker has taken them (or the connection is lost, which comes to the same).
  void release(const std::vector<delivery_token>& tokens, std::function<void()> then);

  /// Why a subscription does not consume although it should; empty: all do, or have just begun.
  [[nodiscard]] std::string problem() const;
  /// Called whenever `problem` may have changed.
  void on_problem(std::function<void()> then) { on_problem_ = std::move(then); }

  /// Stops receiving; acknowledgements are sent without delay. What is not settled goes back with `close`.
  void drain();
  /// Nothing waits to be acknowledged or returned.
  [[nodiscard]] bool idle() const noexcept;
  void close();

 private:
  struct subscription;
  struct stream;

  struct held {
    std::shared_ptr<stream> from;
    incoming message;
  };
  struct handed {
    std::shared_ptr<stream> from;
    std::uint64_t tag;
    std::size_t size;
    bool settling;
  };

  void up();
  void start(const std::shared_ptr<subscription>& s);
  void consume(const std::shared_ptr<subscription>& s);
  void begin(const std::shared_ptr<stream>& st);
  void swap(const std::shared_ptr<subscription>& s);
  void renew(const std::shared_ptr<subscription>& s);
  using stopped = std::function<void(bool)>;
  void stop_stream(const std::shared_ptr<stream>& st, stopped then);
  void await_quiet(const std::shared_ptr<stream>& st, stopped then, int rounds);
  void cancel(const std::shared_ptr<stream>& st, stopped then);
  void give_back(const std::shared_ptr<stream>& st);
  void caught_up(const std::shared_ptr<stream>& st, stopped then);
  void return_held(subscription& s);
  void retry_later(const std::shared_ptr<subscription>& s);
  void end(const std::shared_ptr<subscription>& s, failure why);
  void arrived(const std::shared_ptr<stream>& st, incoming&& message);
  /// Whether a delivery of `size` bytes may be handed out now.
  [[nodiscard]] bool has_room(const subscription& s, std::size_t size) const;
  /// Of what waits, as much as there is room for.
  void hand_out(subscription& s);
  void hand_out(subscription& s, const std::shared_ptr<stream>& from, incoming&& message);
  void post_batch(const std::shared_ptr<subscription>& s);
  [[nodiscard]] delivery make_delivery(subscription& s, const std::shared_ptr<stream>& from, incoming&& message);
  void remove(std::unordered_map<delivery_token, handed>::iterator which);
  void after_finish(const std::shared_ptr<stream>& st);
  void flush(const std::shared_ptr<stream>& st);
  void retire(const std::shared_ptr<stream>& st);
  void lose_stream(const std::shared_ptr<stream>& st);
  void stream_ended(const std::shared_ptr<stream>& st, std::uint16_t code, const std::string& text);
  void leave(const std::shared_ptr<stream>& st, std::function<void(bool)> then);
  [[nodiscard]] bool has_out(const std::shared_ptr<stream>& st) const;
  void cancel_and_leave(const std::shared_ptr<stream>& st);
  [[nodiscard]] bool keep_until_the_end(const std::shared_ptr<stream>& st);
  void end_leaving(const std::shared_ptr<stream>& st, bool as_meant);
  void join(const std::string& base);
  void rebalance();
  void rebalance(const std::string& base, std::uint64_t workers);
  void watch();
  void watch(const std::shared_ptr<subscription>& s);
  void look(const std::shared_ptr<stream>& st);
  void tell_problem(subscription& s, const std::string& text);
  /// What the window has room for, of whatever size the messages are.
  [[nodiscard]] static std::uint32_t most_prefetch(const subscription& s);
  [[nodiscard]] std::uint32_t wanted_prefetch(const subscription& s) const;
  void judge_prefetch(const stream& st);

  reactor& reactor_;
  link& link_;
  loop& loop_;
  operations& operations_;
  const limits limits_;
  const random_source random_;
  bool draining_ = false;
  std::function<void()> on_problem_;
  reactor::timer_id watch_ = 0;
  std::unordered_map<subscription_id, std::shared_ptr<subscription>> subscriptions_;
  std::unordered_map<delivery_token, handed> deliveries_;
  std::unordered_map<std::string, found_queue> known_;
  std::unordered_set<std::shared_ptr<stream>> streams_;  // those that are open
  delivery_token last_token_ = 0;
  /// Where this worker is counted, by the queue whose ordered queues it consumes.
  std::map<std::string, subscription_id> memberships_;
  struct making {
    bool done = false;
    std::vector<std::function<void()>> waiting;
  };
  std::map<std::string, making> made_;  // members queues
};

}  // namespace leveret::core::rabbitmq
