/// A lock for what takes some ten nanoseconds and hardly ever meets anybody.
#pragma once

#include <atomic>
#include <thread>

namespace leveret::core {

/// Half of what a std::mutex costs where nobody waits: it is let go by a plain store, since nobody sleeps for it. Who
/// waits yields its processor until it is free, so no caller may block while holding it. For std::lock_guard.
class short_lock {
 public:
  void lock() noexcept {
    while (taken_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() noexcept { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

}  // namespace leveret::core
