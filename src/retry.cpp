#include "retry.hpp"

#include <algorithm>

namespace leveret::core {

bool may_retry(const retry_policy& policy, std::uint32_t retry_count, std::int32_t line_max,
               std::int32_t task_max) noexcept {
  std::int32_t limit = policy.max_retries;
  if (task_max >= 0) limit = task_max;
  if (line_max >= 0) limit = line_max;
  return retry_count < static_cast<std::uint32_t>(limit);
}

std::chrono::milliseconds backoff(const retry_policy& policy, std::uint32_t retry_count, const random_source& random) {
  // 2^20 seconds is past any cap; the shift stays defined.
  const std::int64_t grown = policy.backoff_base.count() << std::min<std::uint32_t>(retry_count, 20);
  const std::int64_t most = std::min<std::int64_t>(policy.backoff_cap.count(), grown);
  if (most <= 0) return std::chrono::milliseconds(0);
  return std::chrono::milliseconds(static_cast<std::int64_t>(random() % (static_cast<std::uint64_t>(most) + 1)));
}

}  // namespace leveret::core
