// Leaving an ordered queue, and who consumes which of them.
//
// The broker hands an ordered queue to one consumer at a time, one message at a time, and to the next consumer when
// that one is gone. When a consumer is cancelled, or its channel closed, the next one gets the successor of the message
// that is out at once, and only then, perhaps, the message itself. When its connection ends, in whatever way, the
// message goes back first. (RabbitMQ 3.10.8: 20 of 20 channels closed, none of 32 connections.) So:
// - A consumer that goes on elsewhere (`rebalance`) leaves when a message has been settled but not acknowledged: the
//   cancel comes first, then the acknowledgement. With a prefetch of 1 nothing else can be under way.
// - One that stops does the same, if a message is out. What comes later is never handed out: it goes back with the
//   connection.
#include <algorithm>
#include <map>
#include <utility>

#include "../../ordered.hpp"
#include "consumer_state.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr subscription_id kFirstMembership = subscription_id{1} << 63;  // not the transport's

}  // namespace

void consumers::leave(const std::shared_ptr<stream>& st, std::function<void(bool)> then) {
  st->leaving = true;
  st->left.push_back(std::move(then));
  if (st->sub->stopping && !has_out(st)) end_leaving(st, true);
}

bool consumers::has_out(const std::shared_ptr<stream>& st) const {
  return std::any_of(deliveries_.begin(), deliveries_.end(), [&](const auto& each) { return each.second.from == st; });
}

// Its last message was settled: the acknowledgement follows the cancel.
void consumers::cancel_and_leave(const std::shared_ptr<stream>& st) {
  const std::string tag = st->consumer_tag();
  amqp_basic_cancel_t method{};
  method.consumer_tag = as_bytes(tag);
  st->ch->call(AMQP_BASIC_CANCEL_METHOD, &method, [this, st](const call_result& r) {
    if (!r.done()) return;
    st->consuming = false;
    flush(st);
  });
}

// Given back while it leaves: before it has run, by a worker that stops. False: it does not leave any more.
bool consumers::keep_until_the_end(const std::shared_ptr<stream>& st) {
  if (st->sub->stopping) {
    end_leaving(st, true);
    return true;
  }
  st->leaving = false;
  st->sub->swapping = false;
  end_leaving(st, false);
  return false;
}

void consumers::end_leaving(const std::shared_ptr<stream>& st, bool as_meant) {
  const auto left = std::exchange(st->left, {});
  for (const auto& then : left) then(as_meant);
}

// Before the ordered queue itself, and once: RabbitMQ (3.10.8) shows a queue to everybody before its leader runs, and
// ends the connection of who consumes it then (`noproc` in rabbit_quorum_queue:consume). So it is there and running
// when the first worker gets the first message, and the second worker comes. Where it can't be made, `join` says why.
void consumers::make_members(const std::string& queue, std::function<void()> then) {
  if (!is_ordered(queue)) {
    then();
    return;
  }
  const std::string members = members_queue_of(std::string(unordered_queue(queue)));
  const auto [made, first] = made_.emplace(members, making{});
  if (made->second.done) {
    then();
    return;
  }
  made->second.waiting.push_back(std::move(then));
  if (!first) return;
  declare_queue(operations_, members, 0, true, [this, members](const found_queue&, const maybe_failure&) {
    making& m = made_[members];
    m.done = true;
    for (const auto& go_on : std::exchange(m.waiting, {})) go_on();
  });
}

// The broker tells of an ordered queue no more than whether somebody consumes it: those who wait are not counted, and
// nobody knows whose turn it is. So each worker also consumes a queue that gets no messages, where all are counted.
void consumers::join(const std::string& base) {
  if (memberships_.count(base) != 0) return;
  const std::string members = members_queue_of(base);
  const subscription_id id = kFirstMembership + memberships_.size();
  memberships_[base] = id;
  note(members, {true, false});
  subscriber events;
  events.on_delivery = [](const delivery&) {};  // whoever publishes there: it stays
  subscribe(id, members, {1, 1, 1}, std::move(events));
}

// Who comes first is the active consumer of all, and those who come later would wait for ever.
void consumers::rebalance() {
  for (const auto& [base, id] : memberships_) {
    const auto member = subscriptions_.find(id);
    if (member == subscriptions_.end() || !member->second->current || !member->second->current->confirmed) continue;
    member->second->current->count([this, base = base](const call_result& r, const queue_counts& found) {
      if (r.done() && !draining_) rebalance(base, found.consumers);
    });
  }
}

void consumers::rebalance(const std::string& base, std::uint64_t workers) {
  if (workers < 2) return;
  const std::uint64_t share = (kOrderedShards + workers - 1) / workers;
  std::vector<std::shared_ptr<subscription>> active;
  for (const auto& [id, s] : subscriptions_) {
    // A stream that has brought something is its queue's active consumer.
    if (s->ordered && s->base == base && s->current && s->current->arrivals > 0 && !s->swapping) active.push_back(s);
  }
  std::size_t most = active.size();
  for (const auto& s : active) {
    if (most <= share) return;
    if (!has_out(s->current)) continue;
    renew(s);
    --most;
  }
}

}  // namespace leveret::core::rabbitmq
