/// A lock for what mostly takes some ten nanoseconds and hardly ever meets anybody.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace leveret::core {

/// Half of what a std::mutex costs where nobody waits: it is let go by a plain store, since nobody sleeps for it. Who
/// waits yields its processor until it is free, and in the end sleeps, so that a holder of lower priority gets on. Hold
/// it for what is short, or rare. For std::lock_guard.
class short_lock {
 public:
  void lock() noexcept {
    for (int tries = 0; taken_.exchange(true, std::memory_order_acquire); ++tries) {
      if (tries < kYields) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }
  void unlock() noexcept { taken_.store(false, std::memory_order_release); }

 private:
  static constexpr int kYields = 200;

  std::atomic<bool> taken_{false};
};

}  // namespace leveret::core
