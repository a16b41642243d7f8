/// The I/O thread of what speaks to a server: one poll() over its few sockets, an eventfd for what other threads post,
/// and timers. Connections and everything behind them (RabbitMQ: publisher, consumers, operations) live on this one
/// thread, so none of them needs a lock; `post` is the only way in.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "small_function.hpp"

namespace leveret::core::net {

/// A file descriptor that the reactor watches.
class pollable {
 public:
  pollable() = default;
  pollable(const pollable&) = delete;
  pollable& operator=(const pollable&) = delete;
  virtual ~pollable() = default;

  /// Called before each wait: writes what can be written and gives the descriptor (-1: none now) and poll events
  /// wanted.
  [[nodiscard]] virtual std::pair<int, short> prepare() = 0;
  virtual void ready(short events) = 0;
};

class reactor {
 public:
  using clock = std::chrono::steady_clock;
  using task = small_function<void()>;
  using timer_id = std::uint64_t;

  /// Throws std::system_error when the system has no descriptor or thread left.
  reactor();
  ~reactor();
  reactor(const reactor&) = delete;
  reactor& operator=(const reactor&) = delete;

  void start(const std::string& name);
  /// Any thread. After `stop`: dropped.
  void post(task t);
  /// Ends the thread after the current round; tasks posted before are run. Any thread but its own.
  void stop();

  // ---- the I/O thread only ----
  timer_id at(clock::time_point when, task t);
  timer_id after(clock::duration delay, task t) { return at(clock::now() + delay, std::move(t)); }
  void cancel(timer_id id);
  /// Runs `t` once everything of this round that came from sockets, posts and timers is handled.
  void at_round_end(task t) { round_end_.push_back(std::move(t)); }
  void add(pollable* p) { pollables_.push_back(p); }
  void remove(pollable* p);
  /// Interrupt moderation: once this round has written what it had to, the thread looks at nothing for `time`, or until
  /// the next timer, so that more comes together to the next round; `stop` waits meanwhile. For who knows that much is
  /// coming: each round costs wake-ups of several threads, whatever it brings. Nothing happens if the round leaves work
  /// to its end.
  void moderate(clock::duration time) { moderated_ = time; }
  /// Called at the end of every round.
  void set_round_hook(task t) { round_hook_ = std::move(t); }

 private:
  void run();
  void run_posted();
  void run_timers();
  void run_round_end();
  bool look_away();

  int event_ = -1;
  std::mutex mutex_;  // guards the next three; a leaf, never held while a task runs
  std::vector<task> posted_;
  bool stopping_ = false;
  bool looks_away_ = false;  // and so need not be woken: it comes back by itself

  clock::duration moderated_{};
  std::map<std::pair<clock::time_point, timer_id>, task> timers_;
  std::map<timer_id, clock::time_point> timer_times_;
  timer_id last_timer_ = 0;
  std::vector<task> round_end_;
  std::vector<pollable*> pollables_;
  task round_hook_;
  std::thread thread_;
};

}  // namespace leveret::core::net
