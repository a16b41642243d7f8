/// The worker's decisions, all on the loop: which deliveries run, when they are settled, what goes back, when to stop.
/// Owns no thread and blocks nowhere; loop, transport, pool, random source are injected.
///
/// A delivery's way: on_delivery -> a work in the pool -> on_ended -> one settlement -> settled. A delivery that is
/// lost on the way (connection, lease) starts no more lines, and what it led to is dropped: it is somebody else's now.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "call_frame.hpp"
#include "pool.hpp"
#include "recent_ids.hpp"
#include "redelivery.hpp"
#include "settling.hpp"
#include "start_window.hpp"
#include "transport.hpp"
#include "worker_report.hpp"

namespace leveret::core {

struct tracker_settings {
  std::vector<std::string> queues;
  window most;  ///< messages and bytes held at once, per queue
  settling_settings settling;
  std::int32_t max_crashes = 3;
  bool burst = false;
  std::chrono::milliseconds result_flush{50};
  std::chrono::milliseconds slow_after{1'000};  ///< then a message is shared with idle consumers
  std::chrono::milliseconds burst_check{50};
  std::chrono::milliseconds settle_retry{1'000};
  std::chrono::milliseconds unsubscribe_patience{2'000};
  std::size_t deduplication = 4'096;  ///< message ids whose settling completed
};

class tracker {
 public:
  /// `stopping` is what handlers see; set by stop().
  tracker(transport& t, loop& l, pool& p, tracker_settings settings, random_source random, log_sink& log,
          std::atomic<bool>& stopping);

  /// Declares the queues and subscribes. `ready` is called once with the first failure or none.
  void start(std::function<void(maybe_failure)> ready);
  /// Starts nothing more; what runs may end; the rest goes back uncharged. `drained` is called when all of it is done.
  void stop(std::function<void()> drained);
  /// The grace is over: running lines are given back too. What their handlers still do is dropped.
  void abandon();
  /// Called (on the loop) when a burst's queues are empty and nothing runs; call stop() then.
  void when_empty(std::function<void()> then) { when_empty_ = std::move(then); }

  /// What was settled so far.
  [[nodiscard]] const tally& counts() const noexcept { return counts_; }
  /// When the first delivery came and when the last settlement completed.
  [[nodiscard]] loop::clock::time_point first_delivery() const noexcept { return first_delivery_; }
  [[nodiscard]] loop::clock::time_point last_settled() const noexcept { return last_settled_; }
  /// Jobs that run right now, at most `most`; those of the oldest deliveries first.
  [[nodiscard]] std::vector<running_job> running(std::size_t most);
  /// Whether every queue is subscribed to. A lost connection is the transport's to tell.
  [[nodiscard]] bool consuming() const noexcept {
    return !stopping_ && !queues_.empty() && subscribed_ == queues_.size();
  }
  [[nodiscard]] std::size_t held() const noexcept { return active_.size() + settling_; }

 private:
  struct consumed_queue {
    std::string name;
    bool suspects = false;
    bool isolate = false;  ///< has a suspects queue
    bool ordered = false;  ///< one message at a time, its lines one after another (ordered.hpp)
    /// Of a queue that is spread over others (shards.hpp): how many it has, itself included, and, of the others, which.
    std::uint32_t shards = 1;
    consumed_queue* shard_of = nullptr;
    std::uint32_t most = 1;  ///< see window
    /// Ordered: what came while lines of a delivery that was lost still run here.
    std::deque<delivery> behind;
    subscription_id subscription = 0;
    start_window size{1};
    loop::clock::time_point last_end{};
  };
  struct active {
    std::shared_ptr<work> running;
    consumed_queue* queue = nullptr;
    loop::clock::time_point since;
    bool lost = false;
    bool splitting = false;
    bool flushing = false;  ///< a flush of results is unanswered: the end waits for it, else it could be fenced by it
    bool ended = false;
    std::vector<result_chunk> unstored;  ///< of a flush that failed
  };
  struct pending {
    planned plan;
    consumed_queue* queue = nullptr;
    std::string message_id;
    std::uint32_t lines = 0;  ///< 0: not run here, says nothing about its speed
    loop::clock::time_point since{};
    bool last = true;  ///< the delivery ends with it
  };

  // Which queues (tracker_queues.cpp).
  consumed_queue& add_queue(std::string name);
  void subscribe_next(std::size_t index, std::function<void(maybe_failure)> ready);
  /// Subscribes to a queue that is there, once. Gives the queue of its suspects if that is new, and still to be
  /// consumed.
  consumed_queue* subscribe_declared(consumed_queue& queue, const transport::declared& is);
  /// Declares a queue and subscribes, again every second until it can.
  void consume(consumed_queue& queue);
  void subscribe(consumed_queue& queue);
  void on_subscription_ended(consumed_queue& queue, const failure& why);
  [[nodiscard]] window window_of(const consumed_queue& queue) const;
  [[nodiscard]] static bool may_have_shards(const consumed_queue& queue) noexcept;
  /// Looks which shards a queue has, from one on.
  void find_shards(consumed_queue& queue, std::uint32_t shard, std::function<void()> then);
  void add_shards(consumed_queue& queue, std::uint32_t shards);
  void hear_of_shards(consumed_queue& queue, const message& m);

  void on_delivery(consumed_queue& queue, delivery&& d);
  void run(consumed_queue& queue, delivery&& d);
  void run_behind(consumed_queue& queue);
  [[nodiscard]] std::shared_ptr<work> start(consumed_queue& queue, delivery&& d);
  void let_go(delivery_token token, const claimed_key& key, const std::function<void(bool)>& then);
  void on_lost(consumed_queue& queue, const std::vector<delivery_token>& tokens);
  void on_ended(const std::shared_ptr<work>& w);
  [[nodiscard]] bool runs_of(const consumed_queue& queue) const;
  void settle(pending&& p);
  void flush_settlements();
  void on_settled(pending&& p, const settle_outcome& outcome, loop::clock::time_point now);
  void unclean(consumed_queue& queue);
  void release(delivery_token token);
  void tick_results();
  void tick_slow();
  void split(const std::shared_ptr<work>& w);
  void check_burst();
  void schedule_burst_check();
  void check_drained();
  void log_dead(const planned& plan);
  [[nodiscard]] bool idle() const noexcept { return active_.empty() && settling_ == 0 && releasing_ == 0; }

  transport& transport_;
  loop& loop_;
  pool& pool_;
  tracker_settings settings_;
  random_source random_;
  log_sink& log_;
  std::atomic<bool>& stopping_flag_;
  line_returner returner_;
  line_reader reader_;

  std::vector<std::unique_ptr<consumed_queue>> queues_;
  std::unordered_map<delivery_token, active> active_;
  std::unordered_set<delivery_token> lost_;  ///< lost while their settlement waits
  std::vector<pending> ready_to_settle_;
  bool flush_posted_ = false;
  std::size_t settling_ = 0;  ///< settlements made and not answered
  std::size_t releasing_ = 0;
  std::size_t subscribed_ = 0;
  bool starting_ = false;  ///< subscribes to one after the other of `queues_`
  recent_ids settled_ids_;

  bool stopping_ = false;
  bool results_timer_ = false;
  bool slow_timer_ = false;
  bool burst_timer_ = false;
  bool keys_stay_logged_ = false;
  std::uint64_t deliveries_ = 0;
  std::uint64_t deliveries_at_check_ = UINT64_MAX;
  unix_ms last_retry_due_ = 0;
  std::function<void()> drained_;
  std::function<void()> when_empty_;
  tally counts_;
  loop::clock::time_point first_delivery_{};
  loop::clock::time_point last_settled_{};
};

}  // namespace leveret::core
