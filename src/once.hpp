/// Which jobs are to be there once: the keys of their claims (claim.hpp), as every sender makes them. Pure.
///
/// `python/leveret/once.py` is the same in Python; contracts/README.md says the form.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "codec.hpp"

namespace leveret::core {

/// How long a key is held where nobody says it.
inline constexpr std::chrono::milliseconds kClaimWindow{86'400'000};
inline constexpr std::size_t kMostIdempotencyKeyBytes = 255;

/// The claim's key of a job that is sent with an idempotency key. Throws std::invalid_argument for too long a one.
[[nodiscard]] std::string claim_key(std::string_view task, std::string_view idempotency_key);
/// The claim's key of a job that is known by its arguments. Throws unsupported where there is no SHA-256.
[[nodiscard]] std::string claim_key(std::string_view task, leveret_value args, leveret_value kwargs);

}  // namespace leveret::core
