/// The wall clock that this process's loops and sends go by: the system's, unless a test has stopped it.
#pragma once

#include <atomic>
#include <chrono>

#include "message.hpp"

namespace leveret::core {

/// What a test says the time is, milliseconds since 1970; 0: the system's. For inline_worker.
inline std::atomic<unix_ms>& stopped_wall_clock() noexcept {
  static std::atomic<unix_ms> time{0};
  return time;
}

/// Milliseconds since 1970.
[[nodiscard]] inline unix_ms wall_clock_now() noexcept {
  const unix_ms stopped = stopped_wall_clock().load(std::memory_order_relaxed);
  if (stopped != 0) return stopped;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace leveret::core
