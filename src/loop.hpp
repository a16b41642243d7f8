/// The event loop's seam. One loop makes all of a worker's or a client's decisions, on one thread; transports and pools
/// post to it. Injected, so that the whole logic runs single-threaded under a seed in tests (`manual_loop`).
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include "message.hpp"
#include "small_function.hpp"

namespace leveret::core {

class loop {
 public:
  using clock = std::chrono::steady_clock;
  using task = small_function<void()>;
  using timer_id = std::uint64_t;

  loop() = default;
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;
  virtual ~loop() = default;

  /// Runs `t` on the loop, after everything posted before. Any thread. Posted after the loop ended: dropped.
  virtual void post(task t) = 0;
  /// As `post`; if the loop sleeps, the calling thread may run `t` itself, as the loop: nothing else runs meanwhile,
  /// and `on_loop` holds. It saves two changes of threads, and is for short tasks whose end somebody waits for. The
  /// caller holds no lock.
  virtual void post_or_run(task t) { post(std::move(t)); }
  /// Runs `t` on the loop at `when` or soon after. Any thread.
  virtual timer_id at(clock::time_point when, task t) = 0;
  timer_id after(clock::duration delay, task t) { return at(now() + delay, std::move(t)); }
  /// Forgets a timer. On the loop's thread it is certain not to run afterwards. Unknown ids are ignored.
  virtual void cancel(timer_id id) = 0;

  /// Monotonic time, for durations. Any thread.
  [[nodiscard]] virtual clock::time_point now() const = 0;
  /// Wall-clock time, for due times. Any thread.
  [[nodiscard]] virtual unix_ms wall() const = 0;
  /// Whether the calling thread is the loop's.
  [[nodiscard]] virtual bool on_loop() const = 0;
};

}  // namespace leveret::core
