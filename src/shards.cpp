#include "shards.hpp"

#include <charconv>
#include <stdexcept>

#include "transport.hpp"

namespace leveret::core {

std::string shard_queue(std::string_view queue, std::uint32_t shard) {
  std::string name(queue);
  if (shard > 0) name += kShardInfix + std::to_string(shard);
  return name;
}

bool is_shard(std::string_view queue) noexcept {
  const std::size_t infix = queue.rfind(kShardInfix);
  if (infix == std::string_view::npos || infix == 0) return false;
  const std::string_view number = queue.substr(infix + std::string_view(kShardInfix).size());
  std::uint32_t shard = 0;
  const std::from_chars_result read = std::from_chars(number.data(), number.data() + number.size(), shard);
  return read.ec == std::errc{} && read.ptr == number.data() + number.size() && number.front() != '0' &&
         shard < kMostShards;
}

std::uint32_t shards_said(const message& m) noexcept {
  const std::string* const text = m.find_header(kHeaderShards);
  if (text == nullptr) return 1;
  std::uint32_t shards = 0;
  const char* const end = text->data() + text->size();
  const std::from_chars_result read = std::from_chars(text->data(), end, shards);
  return read.ec == std::errc{} && read.ptr == end && shards >= 1 && shards <= kMostShards ? shards : 1;
}

void check_shards(const std::string& queue, std::uint32_t shards) {
  if (shards < 1 || shards > kMostShards) {
    throw std::invalid_argument("a queue has 1 to " + std::to_string(kMostShards) + " shards, \"" + queue +
                                "\" can't have " + std::to_string(shards));
  }
  check_queue_name(shard_queue(queue, shards - 1));
}

std::uint32_t shard_chooser::take(const std::string& queue, std::uint32_t shards) {
  const std::lock_guard<std::mutex> lock(mutex_);
  spread_queue& q = queues_[queue];
  if (q.unanswered.size() < shards) q.unanswered.resize(shards);
  std::uint32_t chosen = q.next % shards;
  for (std::uint32_t i = 1; i < shards && q.unanswered[chosen] > 0; ++i) {
    const std::uint32_t other = (q.next + i) % shards;
    if (q.unanswered[other] < q.unanswered[chosen]) chosen = other;
  }
  q.next = (chosen + 1) % shards;
  ++q.unanswered[chosen];
  return chosen;
}

void shard_chooser::answered(const std::string& queue, std::uint32_t shard) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --queues_.at(queue).unanswered.at(shard);
}

}  // namespace leveret::core
