/// Jobs in order: which queue keeps the jobs of a key. Pure.
///
/// Jobs with a key go to one of 16 *ordered queues* beside their queue, `<queue>.ordered.0` to `<queue>.ordered.15`, by
/// a hash of the key: so one key is in one queue. An ordered queue has one message out at a time, whoever consumes it,
/// and the lines of a message run one after another. The name alone says that a queue is ordered: transports, workers
/// and programs in other languages decide by it alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace leveret::core {

inline constexpr std::uint32_t kOrderedShards = 16;
inline constexpr const char* kOrderedInfix = ".ordered.";
/// Jobs of an ordered message, at most: a worker that stops ends the message that it has begun, and one that dies
/// leaves all of it to be run again.
inline constexpr std::uint32_t kOrderedJobs = 100;

/// RabbitMQ: `<queue>.ordered` has no messages; who consumes ordered queues of `queue` consumes it too, to be counted.
inline constexpr const char* kOrderedSuffix = ".ordered";

/// Which of the ordered queues a key's jobs go to: the CRC-32 (of zlib, PNG, IEEE 802.3) of its UTF-8 text, modulo 16.
[[nodiscard]] std::uint32_t shard_of(std::string_view key) noexcept;
/// The queue of a shard, below kOrderedShards.
[[nodiscard]] std::string ordered_queue(std::string_view queue, std::uint32_t shard);
/// All 16.
[[nodiscard]] std::vector<std::string> ordered_queues(std::string_view queue);
/// Whether it is an ordered queue.
[[nodiscard]] bool is_ordered(std::string_view queue) noexcept;
/// The queue that an ordered queue belongs to; any other is its own.
[[nodiscard]] std::string_view unordered_queue(std::string_view queue) noexcept;

}  // namespace leveret::core
