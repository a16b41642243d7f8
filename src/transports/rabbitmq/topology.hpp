/// What Leveret declares: work queues, dead queues, reply queues, and the levels of delayed messages.
///
/// Delays: L = 29 levels of 32 ms * 2^k. Level k is a topic exchange `leveret.delay.32ms.k` and a queue of the same
/// name whose messages expire after 32 ms * 2^k into the exchange of level k-1 (of level 0: into
/// `leveret.delay.32ms.out`). A message carries its delay as routing key: L bits, highest first, separated by dots, and
/// then the queue. The exchange of level k sends a key whose bit k is 1 to its queue and one with a 0 on to the next
/// exchange; that of `out` is bound to the queues by their exact keys. Published to the exchange of its highest set
/// bit, a message waits once for each bit that is set, and nobody polls. The unit stands in the names: a queue's
/// arguments can't be changed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "../../message.hpp"
#include "wire.hpp"

namespace leveret::core::rabbitmq {

inline constexpr std::uint32_t kDelayLevels = 29;
inline constexpr std::int64_t kDelayUnit = 32;  ///< milliseconds
inline constexpr std::int64_t kDeliveryLimit = 1000;
inline constexpr std::int64_t kDeadDeliveryLimit =
    1'000'000;  ///< listing is get and requeue; each counts as a delivery
inline constexpr const char* kDelayOut = "leveret.delay.32ms.out";
/// Of a queue: with the bits of a delay before it, it must fit into a routing key.
inline constexpr std::size_t kMostQueueName = 255 - 2 * kDelayLevels;
inline constexpr const char* kDeadType = "leveret.dead";
inline constexpr const char* kResultsType = "leveret.results";
inline constexpr const char* kProgressHeader = "x-leveret-progress";  ///< of a message to a reply queue: the job's id
inline constexpr const char* kReplyPrefix = "leveret.reply.";

/// Where dead jobs of `queue` are kept: `<queue>.dead`; of `<queue>.suspects` too.
[[nodiscard]] std::string dead_queue_of(const std::string& queue);
[[nodiscard]] bool is_dead_queue(std::string_view queue);
/// Where the consumers of a queue's ordered queues are counted.
[[nodiscard]] std::string members_queue_of(const std::string& queue);
/// Whether dead jobs of it are kept: of a work queue.
[[nodiscard]] bool has_dead_queue(std::string_view queue);
[[nodiscard]] std::string delay_name(std::uint32_t level);

/// A queue's declaration with the arguments that its kind calls for (design.md section 7).
class declaration {
 public:
  /// Asks whether it exists.
  [[nodiscard]] static declaration passive(std::string queue) { return {kind::passive, std::move(queue), 0}; }
  /// A work, dead or reply queue, as its name says.
  [[nodiscard]] static declaration full(std::string queue, std::int64_t reply_expires_ms);
  [[nodiscard]] static declaration level(std::uint32_t level);

  /// Lives as long as this, and until the next call.
  [[nodiscard]] amqp_queue_declare_t* method();

 private:
  enum class kind { passive, work, members, dead, reply, level };
  declaration(kind k, std::string queue, std::int64_t number) : kind_(k), queue_(std::move(queue)), number_(number) {}

  kind kind_;
  std::string queue_;
  std::int64_t number_;  // reply: expires; level: which
  std::string target_;   // of dead-lettering
  table arguments_;
  amqp_queue_declare_t method_{};
};

/// The level that a delay of `units` is published to: its highest set bit. `units` > 0.
[[nodiscard]] std::uint32_t highest_level(std::uint32_t units);
[[nodiscard]] std::string delay_key(std::uint32_t units, std::string_view queue);
/// The key by which `leveret.delay.32ms.out` hands over to `queue`, whatever the delay was. Exact on purpose: with
/// `#.queue` a queue `b` would get the messages for `a.b` too.
[[nodiscard]] std::string destination_pattern(std::string_view queue);
/// By which the exchange of `level` sends on: bit set (to its queue) or not (to the next exchange).
[[nodiscard]] std::string level_pattern(std::uint32_t level, bool set);

}  // namespace leveret::core::rabbitmq
