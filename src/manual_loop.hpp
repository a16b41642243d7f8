/// A loop for tests and simulation: it runs when it is told to, on the caller's thread, in virtual time. The same calls
/// lead to the same order of tasks, always.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "loop.hpp"

namespace leveret::core {

/// Posting, `at` and `cancel` are thread-safe, so that parts with threads of their own can be tested on it too; the
/// functions that run tasks belong to one thread at a time, and are not called from a task.
class manual_loop final : public loop {
 public:
  /// More tasks than this in one call are taken for a loop that never comes to rest.
  static constexpr std::size_t kMaxTasks = 1'000'000;

  /// Virtual time starts at an hour past the clock's epoch (so that "earlier" exists), wall-clock time at `wall`.
  explicit manual_loop(unix_ms wall = 1'700'000'000'000) : wall_offset_(wall) {}

  void post(task t) override {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(t));
  }

  timer_id at(clock::time_point when, task t) override {
    const std::lock_guard lock(mutex_);
    const timer_id id = ++last_timer_;
    timers_.emplace(timer_key{when, id}, std::move(t));
    timer_times_.emplace(id, when);
    return id;
  }

  void cancel(timer_id id) override {
    task forgotten;  // destroyed without the lock: what it owns may call the loop
    const std::lock_guard lock(mutex_);
    const auto found = timer_times_.find(id);
    if (found == timer_times_.end()) return;
    const auto timer = timers_.find(timer_key{found->second, id});
    forgotten = std::move(timer->second);
    timers_.erase(timer);
    timer_times_.erase(found);
  }

  [[nodiscard]] clock::time_point now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }

  [[nodiscard]] unix_ms wall() const override {
    const std::lock_guard lock(mutex_);
    return wall_offset_ + std::chrono::duration_cast<std::chrono::milliseconds>(now_ - kStart).count();
  }

  /// True inside a task only: a test's own code is "another thread".
  [[nodiscard]] bool on_loop() const override {
    const std::lock_guard lock(mutex_);
    return running_ == std::this_thread::get_id();
  }

  /// Runs the next task: the oldest post, else the first timer due. False: nothing to run now.
  bool run_one() {
    task next;
    {
      const std::lock_guard lock(mutex_);
      if (!posted_.empty()) {
        next = std::move(posted_.front());
        posted_.pop_front();
      } else if (!timers_.empty() && timers_.begin()->first.first <= now_) {
        const auto first = timers_.begin();
        next = std::move(first->second);
        timer_times_.erase(first->first.second);
        timers_.erase(first);
      } else {
        return false;
      }
      running_ = std::this_thread::get_id();
    }
    const leave left{*this};
    next();
    return true;
  }

  /// Runs what is posted and due, and what that posts, until nothing is left at this time. Gives the number of tasks
  /// run.
  std::size_t run_until_idle() {
    std::size_t tasks = 0;
    while (run_one()) {
      if (++tasks > kMaxTasks) {
        throw std::runtime_error("manual_loop: still not idle after " + std::to_string(kMaxTasks) +
                                 " tasks at one time; some task posts itself again");
      }
    }
    return tasks;
  }

  /// Lets `duration` pass: runs all that is posted and every timer that becomes due, each at its own time.
  std::size_t advance(clock::duration duration) {
    std::size_t tasks = run_until_idle();
    const clock::time_point end = now() + duration;
    while (const std::optional<clock::time_point> next = next_timer()) {
      if (*next > end) break;
      set_now(*next);
      tasks += run_until_idle();
    }
    set_now(end);
    return tasks;
  }

  /// Lets time pass without running anything, so that several loops can go through the same time together.
  void pass_to(clock::time_point time) { set_now(time); }

  /// Steps the wall clock, as an administrator or NTP does; monotonic time is not touched.
  void step_wall(std::chrono::milliseconds step) {
    const std::lock_guard lock(mutex_);
    wall_offset_ += step.count();
  }

  /// When the first timer is due.
  [[nodiscard]] std::optional<clock::time_point> next_timer() const {
    const std::lock_guard lock(mutex_);
    if (timers_.empty()) return std::nullopt;
    return timers_.begin()->first.first;
  }

  /// Whether `run_one` would run nothing.
  [[nodiscard]] bool idle() const {
    const std::lock_guard lock(mutex_);
    return posted_.empty() && (timers_.empty() || timers_.begin()->first.first > now_);
  }

 private:
  using timer_key = std::pair<clock::time_point, timer_id>;  // by time, then in the order made
  static constexpr clock::time_point kStart{std::chrono::hours(1)};

  // Ends running_ also when a task throws (a failed check of a test).
  struct leave {
    manual_loop& self;
    ~leave() {
      const std::lock_guard lock(self.mutex_);
      self.running_ = std::thread::id();
    }
  };

  void set_now(clock::time_point time) {
    const std::lock_guard lock(mutex_);
    if (time > now_) now_ = time;  // a timer made for the past runs now
  }

  mutable std::mutex mutex_;
  std::deque<task> posted_;
  std::map<timer_key, task> timers_;
  std::unordered_map<timer_id, clock::time_point> timer_times_;
  timer_id last_timer_ = 0;
  clock::time_point now_ = kStart;
  unix_ms wall_offset_;
  std::thread::id running_;
};

}  // namespace leveret::core
