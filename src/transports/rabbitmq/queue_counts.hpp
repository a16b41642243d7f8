/// How many messages and consumers a queue has, as far as its leader has said so.
///
/// When the leader of a quorum queue does not answer the broker's channel within 250 ms, the broker's answer is 0
/// messages and 0 consumers, and nothing tells that it was made up (seen with 3.10.8; `rabbit_quorum_queue:stat`). A
/// machine that is loaded for a moment is enough. So zeros that took that long are asked for again, until they come
/// sooner, or soon behind what the way to the broker and back takes, measured by questions that concern no queue. Times
/// are taken from question to answer: a program that is slow to read what has come asks once more than it needs to.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "connection.hpp"
#include "wire.hpp"

namespace leveret::core::rabbitmq {

struct queue_counts {
  std::uint64_t messages = 0;  ///< ready ones
  std::uint64_t consumers = 0;
};

/// Sends a method on the asker's channel; the replies come in their order.
using ask_broker = std::function<void(amqp_method_number_t id, void* method, on_reply then)>;
/// The counts are 0 unless the result is `done`.
using on_counts = std::function<void(const call_result&, queue_counts)>;

/// Asks until the leader has answered or `ask` reports another end; whoever asks limits the time.
void ask_counts(const ask_broker& ask, const std::string& queue, on_counts then);

}  // namespace leveret::core::rabbitmq
