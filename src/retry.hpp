/// What becomes of a job whose attempt failed, and when. Pure: random numbers are passed in.
#pragma once

#include <chrono>
#include <cstdint>

#include "ids.hpp"

namespace leveret::core {

struct retry_policy {
  std::int32_t max_retries = 3;  ///< where neither the line nor the task says
  std::chrono::milliseconds backoff_base{1'000};
  std::chrono::milliseconds backoff_cap{300'000};
};

/// Whether an attempt that failed is followed by another. `retry_count` is the failed attempt's.
/// Line beats task beats default; negative means "not said".
[[nodiscard]] bool may_retry(const retry_policy& policy, std::uint32_t retry_count, std::int32_t line_max,
                             std::int32_t task_max) noexcept;

/// Exponential backoff with full jitter: uniform in [0, min(cap, base * 2^retry_count)]. The rule is "Full Jitter" of
/// M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
[[nodiscard]] std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t retry_count,
                                                const random_source& random);

}  // namespace leveret::core
