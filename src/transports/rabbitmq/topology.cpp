#include "topology.hpp"

#include <cstring>

#include "../../ordered.hpp"
#include "../../shards.hpp"

namespace leveret::core::rabbitmq {
namespace {

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

std::string dead_queue_of(const std::string& queue) {
  const std::string_view base = queue;
  if (ends_with(base, kSuspectsSuffix)) {
    return std::string(base.substr(0, base.size() - std::strlen(kSuspectsSuffix))) + kDeadSuffix;
  }
  return queue + kDeadSuffix;
}

bool is_dead_queue(std::string_view queue) { return ends_with(queue, kDeadSuffix); }

std::string members_queue_of(const std::string& queue) { return queue + kOrderedSuffix; }

bool has_dead_queue(std::string_view queue) {
  return !is_dead_queue(queue) && !ends_with(queue, kOrderedSuffix) &&
         queue.substr(0, std::strlen(kReplyPrefix)) != kReplyPrefix;
}

std::string delay_name(std::uint32_t level) { return "leveret.delay.32ms." + std::to_string(level); }

declaration declaration::full(std::string queue, std::int64_t reply_expires_ms) {
  const kind k = is_dead_queue(queue)                                             ? kind::dead
                 : queue.compare(0, std::strlen(kReplyPrefix), kReplyPrefix) == 0 ? kind::reply
                 : ends_with(queue, kOrderedSuffix)                               ? kind::members
                                                                                  : kind::work;
  return {k, std::move(queue), reply_expires_ms};
}

declaration declaration::level(std::uint32_t level) { return {kind::level, delay_name(level), level}; }

amqp_queue_declare_t* declaration::method() {
  method_ = {};
  method_.queue = as_bytes(queue_);
  arguments_ = {};
  if (kind_ == kind::passive) {
    method_.passive = 1;
    return &method_;
  }
  method_.durable = 1;
  arguments_.text("x-queue-type", "quorum");
  switch (kind_) {
    case kind::passive:
    case kind::members:
      break;
    case kind::dead:
      arguments_.integer("x-delivery-limit", kDeadDeliveryLimit);
      break;
    case kind::reply:
      // Quorum and not classic, although it costs more to make: a result confirmed by it survives the loss of a node,
      // and a classic queue of a node that is down would return results, which counts as stored.
      arguments_.integer("x-delivery-limit", kDeadDeliveryLimit).integer("x-expires", number_);
      break;
    case kind::work:
      target_ = dead_queue_of(queue_);
      arguments_.integer("x-delivery-limit", kDeliveryLimit)
          .text("x-dead-letter-exchange", "")
          .text("x-dead-letter-routing-key", target_)
          .text("x-dead-letter-strategy", "at-least-once")
          .text("x-overflow", "reject-publish");
      if (is_ordered(queue_)) arguments_.boolean("x-single-active-consumer", true);
      // Else all of them would be led by the node that the first sender is connected to.
      if (is_shard(queue_)) arguments_.text("x-queue-leader-locator", "balanced");
      break;
    case kind::level:
      target_ = number_ == 0 ? kDelayOut : delay_name(static_cast<std::uint32_t>(number_ - 1));
      arguments_.integer("x-message-ttl", kDelayUnit << number_)
          .text("x-dead-letter-exchange", target_)
          .text("x-dead-letter-strategy", "at-least-once")
          .text("x-overflow", "reject-publish");
      break;
  }
  method_.arguments = arguments_.raw();
  return &method_;
}

std::uint32_t highest_level(std::uint32_t units) {
  std::uint32_t level = 0;
  while ((units >> (level + 1)) != 0) ++level;
  return level;
}

std::string delay_key(std::uint32_t units, std::string_view queue) {
  std::string key;
  key.reserve(std::size_t{2} * kDelayLevels + queue.size());
  for (std::uint32_t level = kDelayLevels; level-- > 0;) {
    key += (units >> level & 1) != 0 ? '1' : '0';
    key += '.';
  }
  return key.append(queue);
}

std::string destination_pattern(std::string_view queue) {
  std::string key;
  for (std::uint32_t level = 0; level < kDelayLevels; ++level) key += "*.";
  return key.append(queue);
}

std::string level_pattern(std::uint32_t level, bool set) {
  std::string key;
  for (std::uint32_t above = level + 1; above < kDelayLevels; ++above) key += "*.";
  return key + (set ? "1.#" : "0.#");
}

}  // namespace leveret::core::rabbitmq
