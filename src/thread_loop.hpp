/// The real loop: one thread, one queue, timers on the steady clock.
///
/// Lock order: a thread_loop's mutex is a leaf. It is never held while a task runs or is destroyed, so a task may call
/// every function of its loop but `stop`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace leveret::core {

/// A loop on a thread of its own. Tasks must not throw: an exception that leaves one ends the program, as from any
/// thread.
///
/// Cost: a post is a push under an uncontended mutex; the thread takes all that was posted in one swap, and is only
/// notified when it sleeps. Timers due are run between two such batches, so a timer is late by one batch at most.
class thread_loop final : public loop {
 public:
  /// Starts the thread. It is named `name` (the first 15 bytes) and blocks all signals: they are for the program's own
  /// threads. Throws std::system_error if there can be no thread.
  explicit thread_loop(const std::string& name = "leveret-io");
  /// As `stop`, and waits for who has posted and is about to notify.
  ~thread_loop() override;

  void post(task t) override;
  void post_or_run(task t) override;
  timer_id at(clock::time_point when, task t) override;
  void cancel(timer_id id) override;
  [[nodiscard]] clock::time_point now() const override { return clock::now(); }
  [[nodiscard]] unix_ms wall() const override;
  [[nodiscard]] bool on_loop() const override;

  /// Ends the loop: runs everything posted before and whatever that posts, until nothing is left; forgets the timers;
  /// joins the thread. Idempotent; any thread but the loop's own, where it would wait for itself: there it only marks
  /// the end, and the destructor joins.
  void stop();

 private:
  using timer_key = std::pair<clock::time_point, timer_id>;  // by time, then in the order made

  // What one round of timers may run: a timer that makes another, due at once, must not keep posts waiting.
  struct due_bound {
    clock::time_point time;
    timer_id newest;
  };

  // These with the lock; who notifies gives it up.
  void wake(std::unique_lock<std::mutex>& lock);
  void notify(std::unique_lock<std::mutex>& lock);
  [[nodiscard]] clock::time_point next_timer() const;

  void run(const std::string& name);
  [[nodiscard]] due_bound due_now();
  [[nodiscard]] bool take_due(const due_bound& bound, task& out);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<task> posted_;
  std::map<timer_key, task> timers_;
  std::unordered_map<timer_id, clock::time_point> timer_times_;
  timer_id last_timer_ = 0;
  bool sleeping_ = false;             // the thread waits, and nobody has notified it yet
  clock::time_point sleeps_until_{};  // while it sleeps; max: for no timer
  bool lent_ = false;                 // another thread runs a task as this loop; the loop's own waits for it
  bool stopping_ = false;
  bool ended_ = false;  // the thread runs nothing more; posts are dropped

  std::atomic<std::uint32_t> notifying_{0};  // threads about to notify without the lock

  std::mutex join_mutex_;  // several threads may call stop; taken before mutex_
  std::thread thread_;
};

}  // namespace leveret::core
