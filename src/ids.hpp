/// Identities: message ids are UUIDv7 (RFC 9562), a job's id is `<id of its first message>/<line, from 1>`.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>

#include "message.hpp"

namespace leveret::core {

/// 64 random bits. Injected where tests need a seed.
using random_source = std::function<std::uint64_t()>;
/// The system's: seeded from std::random_device, one engine a thread. Thread-safe.
[[nodiscard]] random_source system_random();
/// Repeatable; not thread-safe.
[[nodiscard]] random_source seeded_random(std::uint64_t seed);

/// A UUIDv7 in text (36 characters, lower case).
[[nodiscard]] std::string make_message_id(unix_ms now, const random_source& random);

[[nodiscard]] std::string make_job_id(std::string_view message_id, std::uint32_t line);
/// Splits `<message id>/<line>`; false if it isn't one.
[[nodiscard]] bool split_job_id(std::string_view job_id, std::string_view& message_id, std::uint32_t& line);

}  // namespace leveret::core
