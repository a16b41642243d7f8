/// Interrupt moderation of a consumer: when a connection looks at its socket less often (docs/adr/0030).
#pragma once

#include <chrono>
#include <cstddef>

namespace leveret::core::rabbitmq {

/// What a connection looks away for.
inline constexpr std::chrono::microseconds kModeration{150};

/// Whether small messages come faster than one by one, and more are on their way: a round brought several, of so many
/// bytes on the average, and the broker may send half of the prefetch unasked. With large messages a round costs little
/// beside what it brings; a broker that waits for acknowledgements is not to wait longer.
[[nodiscard]] constexpr bool is_flood(std::size_t messages, double mean_bytes, std::size_t unsettled,
                                      std::size_t prefetch) noexcept {
  constexpr std::size_t kSeveral = 4;
  constexpr double kSmall = 4 * 1024;
  return messages >= kSeveral && mean_bytes <= kSmall && unsettled <= prefetch / 2;
}

}  // namespace leveret::core::rabbitmq
