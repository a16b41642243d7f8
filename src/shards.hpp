/// Queues whose messages are spread over several queues of the broker, for more than one queue can carry.
///
/// Shard 0 of a queue is the queue itself, the others are `<queue>.shard.1`, `<queue>.shard.2`, … Senders say how many
/// there are, and put each message into the one with the fewest unanswered ones, by turns among equals. Workers need
/// not be told: a queue's shards have numbers without gaps, so who consumes it finds those that are there, and messages
/// of shard 0 say in a header how many there are for workers who came before them. A sender's first message goes to
/// shard 0, so there is always one that says so.
///
/// A shard is a FIFO; the queue as a whole is none. Ordered queues (ordered.hpp) are not spread: they are shards by
/// key.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "message.hpp"

namespace leveret::core {

/// Each costs the broker two queues (work, dead), and workers a consumer.
inline constexpr std::uint32_t kMostShards = 256;
inline constexpr const char* kShardInfix = ".shard.";
inline constexpr const char* kHeaderShards = "x-leveret-shards";  ///< decimal, from 2 on; in messages of shard 0

/// The queue of a shard; 0: `queue` itself.
[[nodiscard]] std::string shard_queue(std::string_view queue, std::uint32_t shard);
/// Whether it is named as a shard other than shard 0 is. Brokers of many machines put those on different ones.
[[nodiscard]] bool is_shard(std::string_view queue) noexcept;
/// How many shards a message's queue has, as the message says; 1: it says nothing, or nonsense.
[[nodiscard]] std::uint32_t shards_said(const message& m) noexcept;
/// Throws std::invalid_argument unless `shards` is from 1 to kMostShards and the names of all are queue names.
void check_shards(const std::string& queue, std::uint32_t shards);

/// Chooses the shard of each message that one client publishes. Thread-safe; its mutex is a leaf.
class shard_chooser {
 public:
  /// Which of the `shards` queues of `queue` the next message goes to; it counts as unanswered there.
  [[nodiscard]] std::uint32_t take(const std::string& queue, std::uint32_t shards);
  void answered(const std::string& queue, std::uint32_t shard);

 private:
  struct spread_queue {
    std::vector<std::uint32_t> unanswered;  // messages, by shard
    std::uint32_t next = 0;                 // whose turn it is among equals
  };
  std::mutex mutex_;
  std::unordered_map<std::string, spread_queue> queues_;
};

}  // namespace leveret::core
