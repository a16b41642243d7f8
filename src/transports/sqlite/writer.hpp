/// The transport's thread: it uses the database connections. It takes what was handed in since its last round, does all
/// of it in one transaction (group commit), and posts the answers to the loop after the commit. While it sleeps, a
/// thread that would only wait for what it hands in may do a round in its place (`lend_thread`): two wake-ups less, a
/// fifth to a third of a send's time.
///
/// A round:
///   1. take the inbox and the doorbell's marks
///   2. every 250 ms or so (the net under the doorbell): renew, look after other owners, the sidecar, the file
///   3. a transaction, if anything needs one: writes handed in, due messages, leases to give back, claims into free
///   windows. Settlements that store nothing wait for others as limits.ack_flush says: their commit has to be synced,
///   and while it is nobody else can write
///   4. reads and subscriptions handed in
///   5. cancelled jobs, before what was claimed: a job cancelled before its delivery is known by then
///   6. bodies of what was claimed, read outside the write lock; deliveries
///   7. results for watched addresses, a bounded batch at a time: the next one when the loop has taken the last
///   8. post all that to the loop; sleep on the doorbell
///
/// Locks: `round_mutex_` is held by who does a round, callbacks of `flush` included; the gate of fork.hpp and all other
/// locks are taken after it. `inbox_mutex_`, `health_mutex_` and the kick's mutex are leaves; nothing is called under
/// them. All other state is guarded by `round_mutex_`.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "loop.hpp"
#include "ordered.hpp"
#include "transport.hpp"
#include "transports/sqlite/bell.hpp"
#include "transports/sqlite/location.hpp"
#include "transports/sqlite/observer.hpp"
#include "transports/sqlite/operations.hpp"
#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

inline constexpr std::size_t kTrimAtOnce = 128;  // results dropped beside another write

class writer {
 public:
  /// Opens the file and starts the thread. Throws as open_sqlite.
  writer(const location& at, loop& l, const limits& lim);
  /// As `close` without grace.
  ~writer();
  writer(const writer&) = delete;
  writer& operator=(const writer&) = delete;

  /// Any thread. False: closed; the operation is left as it is.
  [[nodiscard]] bool hand_in(operation&& op);
  /// As transport::lend_thread. Any thread that is in no callback of this transport.
  void lend_thread(const std::function<void()>& hand_over);
  [[nodiscard]] bool closed() const;
  [[nodiscard]] health how_it_is() const;
  /// Blocks until the thread has ended. Any thread but the loop's.
  void close(loop::clock::time_point deadline);

 private:
  using steady = std::chrono::steady_clock;

  struct subscription {
    std::string queue;
    queue_key key = 0;
    window w;
    std::shared_ptr<subscriber> events;
    std::uint64_t messages = 0;  // handed out or claimed
    std::uint64_t bytes = 0;
    std::uint64_t freed_messages = 0;  // by the running transaction
    std::uint64_t freed_bytes = 0;
    bool maybe_ready = true;  // something may wait in its queue
    // Of an ordered queue (else empty): the queue that it belongs to; of how many such queues this process holds a
    // message before it leaves them to others; whether others have had their chance (`share_out`).
    std::string base;
    std::uint64_t share = kOrderedShards;
    bool overdue = false;
    bool active = true;  // false: unsubscribed, kept to tell it what it loses of what it still holds
  };
  struct held {
    lease l;
    subscription_id sub = 0;
  };
  struct claimed {
    lease l;
    subscription_id sub = 0;
    delivery_token token = 0;
  };
  struct watcher {
    std::shared_ptr<std::function<void(result_chunk)>> on_result;
    std::int64_t cursor = 0;
    bool maybe = true;                             // results may have come
    std::shared_ptr<std::atomic<bool>> in_flight;  // the loop has not taken the last batch yet
  };
  // How tasks on the loop wake the thread, also after it ended.
  struct kick {
    std::mutex mutex;
    seat* at = nullptr;
    void ring() {
      const std::lock_guard lock(mutex);
      if (at != nullptr) at->ring_self();
    }
  };

  // writer.cpp: the thread.
  void run();
  /// Steps 1 to 8 but the sleep. False: no transaction was needed.
  bool round();
  [[nodiscard]] bool only_publishes() const;
  void take_inbox();
  void note_rings(std::uint64_t rung);
  void tick();
  void sleep(std::uint32_t seen, std::unique_lock<std::mutex>& in_round);
  void flush();
  void finish();
  [[nodiscard]] bool ending() const;
  void set_health(health_state state, const std::string& detail);
  void on_database_error(const database_error& e);
  [[nodiscard]] failure describe(const database_error& e, const std::string& doing) const;
  [[nodiscard]] bool file_replaced();
  [[nodiscard]] failure closed_failure(const std::string& doing) const;

  // transaction.cpp: step 3.
  [[nodiscard]] bool may_wait(const write_op& op) const;
  [[nodiscard]] bool acks_are_due() const;
  [[nodiscard]] std::chrono::nanoseconds ack_patience() const;
  void join_acks();
  [[nodiscard]] bool needs_transaction();
  void transact();
  [[nodiscard]] bool wait_for_lock();
  void refuse_expired(const std::string& why);
  void run_steps();
  void step(publish_op& op);
  void step(declare_op& op);
  void step(settle_op& op);
  void step(release_op& op);
  void step(purge_op& op);
  // control.cpp: what people and other processes ask for.
  void step(revise_op& op);
  void step(cancel_op& op);
  void step(keep_op& op);
  void step(report_op& op);
  void step(exchange_op& op);
  void serve(browse_messages_op& op);
  void serve(watch_cancelled_op& op);
  void serve(known_op& op);
  void serve_cancelled();
  [[nodiscard]] settle_outcome settle_one(settlement& s);
  void step_owners();
  void step_claims();
  void committed();
  void rolled_back(const database_error& e);
  void answer(write_op& op);
  void refuse(write_op& op, const failure& why, bool unknown);
  void free_room(const held& h);
  void forget(delivery_token token);
  void give_back_later(delivery_token token);
  [[nodiscard]] bool has_room(const subscription& s) const;
  [[nodiscard]] bool has_its_share(const subscription& s) const;
  void share_out();

  // reads.cpp: steps 4 to 7.
  void serve_others();
  void serve(subscribe_op& op);
  void serve(resize_op& op);
  void serve(unsubscribe_op& op);
  void serve(watch_op& op);
  void serve(unwatch_op& op);
  void serve(stats_op& op);
  void serve(browse_op& op);
  void serve(fetch_op& op);
  void refuse(other_op& op, const failure& why);
  void deliver();
  void lose_everything();
  void serve_watchers();
  void update_interest();

  void post(std::function<void()> task) {
    out_.push_back(std::move(task));
    out_is_short_ = false;
  }
  /// As `post`, for an answer that somebody waits for and that does next to nothing.
  void post_short(std::function<void()> task) {
    if (out_.empty()) out_is_short_ = true;
    out_.push_back(std::move(task));
  }

  loop& loop_;
  const limits limits_;
  const location at_;
  file_identity file_;
  store store_;
  seat seat_;
  observer observer_;
  std::mt19937_64 random_;
  std::shared_ptr<kick> kick_;

  std::mutex round_mutex_;
  std::atomic<bool> thread_wants_round_{false};  // then nobody else takes it: a mutex knows no turns
  std::atomic<std::thread::id> lender_;          // whose operations ring for nobody: it does them itself
  mutable std::mutex inbox_mutex_;
  std::vector<operation> inbox_;
  bool closing_ = false;
  loop::clock::time_point close_by_;
  mutable std::mutex health_mutex_;
  health health_;
  std::mutex join_mutex_;
  std::thread thread_;

  // Of who does the round.
  std::deque<write_op> writes_;
  std::vector<write_op> acks_;  // settlements that wait for company, up to limits.ack_flush
  std::size_t acked_ = 0;       // deliveries in them
  steady::time_point acks_due_;
  std::chrono::nanoseconds commit_took_{0};  // the last one that was synced
  std::vector<other_op> others_;
  std::vector<std::function<void()>> out_;
  bool out_is_short_ = false;
  bool published_ = false;  // since the last sleep
  std::map<subscription_id, subscription> subs_;
  std::size_t active_subs_ = 0;
  std::unordered_map<delivery_token, held> held_;
  delivery_token last_token_ = 0;
  std::deque<claimed> unread_;     // claimed, bodies not read yet
  std::vector<lease> give_backs_;  // to be given back uncharged as soon as a commit works
  std::map<std::string, watcher> watchers_;
  std::map<std::string, std::int64_t> watched_;  // how far addresses no longer watched were read: a result comes once
  owner_key owner_ = 0;
  bool owner_moved_ = false;
  std::map<queue_key, std::int64_t> consumers_;  // as they should stand in the database
  bool consumers_changed_ = false;
  std::vector<owner_key> gone_;
  std::optional<unix_ms> first_due_;
  bool look_for_due_ = true;
  bool trim_ = false;
  std::function<void(cancelled_job)> on_cancelled_;
  std::int64_t cancelled_cursor_ = 0;
  bool maybe_cancelled_ = false;
  steady::time_point next_control_trim_;
  bool blocked_ = false;  // health says so
  steady::time_point next_tick_;
  steady::time_point next_trim_look_;
  steady::time_point retry_at_;  // nothing of its own accord before: the disk failed

  // Of the running transaction.
  std::size_t in_transaction_ = 0;  // the first so many of writes_
  owner_key new_owner_ = 0;
  std::unordered_set<delivery_token> ended_;
  std::vector<claimed> claimed_;
  std::vector<subscription_id> exhausted_;
  bool gone_done_ = false;
};

}  // namespace leveret::core::sqlite
