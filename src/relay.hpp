/// Threads that wait for answers, woken one after another.
///
/// One answer is often that of many threads. Woken at once they would only meet at the next lock, Python's for one,
/// where each of them sleeps and is woken a second time. So each wakes the next one as it runs. Should one not run
/// (nobody gives it a processor), all are woken after a millisecond.
#pragma once

#include <semaphore.h>

#include <cstdint>
#include <deque>
#include <mutex>

#include "loop.hpp"

namespace leveret::core {

/// Thread-safe. It must outlive its loop's tasks.
class relay {
 public:
  /// One thread that waits for one answer. Not for use by hand.
  class runner {
   public:
    runner();
    ~runner();
    runner(const runner&) = delete;
    runner& operator=(const runner&) = delete;

   private:
    friend class relay;
    enum class state : std::uint8_t { waits, answered, woken };

    // Not a condition variable: who is woken by that takes the relay's lock first, which the waker still has.
    sem_t wake_;
    state state_ = state::waits;
  };

  explicit relay(loop& l) : loop_(l) {}

  /// The runner's answer is there. Once for each.
  void answered(runner& r);
  /// Blocks until the answer is there. Then the runner may be destroyed.
  void wait(runner& r);

 private:
  // These with the lock.
  [[nodiscard]] runner* take_next();
  void watch();
  // Without it. The runner may be gone as soon as it is woken.
  static void wake(runner* r);

  loop& loop_;
  std::mutex mutex_;
  std::deque<runner*> next_;  // answered, not woken
  bool waking_ = false;       // one was woken and does not run yet
  loop::clock::time_point woken_;
  bool watching_ = false;
};

}  // namespace leveret::core
