// Consumers that do not consume: found by asking, told by the transport's health, replaced.
//
// What was seen or is known: a channel's process that ended without a word; a consumer that its queue forgot (after
// partitions, rabbitmq-server had several defects of this kind); a basic.consume to a queue without a leader, which is
// never answered. A connection that is silent as a whole is its heartbeat's business.
#include "consumer_state.hpp"

namespace leveret::core::rabbitmq {
namespace {

// Between a consumer's beginning and its being counted another node's answer may be old: one look proves nothing.
constexpr int kLooksToMiss = 2;

// A consumer can be counted and get nothing all the same: where a queue is deleted and made again by somebody else at
// once, RabbitMQ (3.10.8) consumes the new queue for the old channel, which then drops what comes without a word to
// anybody. So a stream that has long brought nothing is replaced; its end gives back what was handed out to it.
constexpr int kHeartbeatsToRenew = 6;

std::string seconds(reactor::clock::duration time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

}  // namespace

void consumers::watch() {
  watch_ = reactor_.after(limits_.heartbeat / 2, [this] {
    const auto all = subscriptions_;
    for (const auto& entry : all) watch(entry.second);
    rebalance();
    watch();
  });
}

void consumers::watch(const std::shared_ptr<subscription>& s) {
  if (s->stopping || s->swapping || link_.up() == nullptr) return;
  const auto now = reactor::clock::now();
  const auto st = s->current;
  if (!st || !st->confirmed) {
    const auto waited = now - s->waits_since;
    if (waited > limits_.heartbeat && s->problem.empty()) {
      tell_problem(*s, "the broker has not let it begin for " + seconds(waited));
    }
    if (st && waited > 2 * limits_.heartbeat) {
      stream_ended(st, AMQP_INTERNAL_ERROR, "the broker did not answer basic.consume within " + seconds(waited));
    }
    return;
  }
  if (st->quieting || st->leaving) return;
  if (st->looking) {
    const auto waited = now - st->looked;
    if (waited > limits_.heartbeat) tell_problem(*s, "its channel has not answered for " + seconds(waited));
    if (waited > 2 * limits_.heartbeat) {
      stream_ended(st, AMQP_INTERNAL_ERROR, "its channel did not answer within " + seconds(waited));
    }
    return;
  }
  if (std::exchange(st->arrivals_seen, st->arrivals) != st->arrivals) {
    st->missed = 0;
    st->idle_since = now;
    return;
  }
  // An ordered queue's consumer may wait for its turn as long as it takes.
  if (!s->ordered && now - st->idle_since > kHeartbeatsToRenew * limits_.heartbeat && st->acks.out() == 0 &&
      st->waiting.empty()) {
    st->idle_since = now;
    renew(s);
    return;
  }
  look(st);
}

void consumers::look(const std::shared_ptr<stream>& st) {
  st->looking = true;
  st->looked = reactor::clock::now();
  st->count([this, st](const call_result& r, const queue_counts& found) {
    st->looking = false;
    subscription& s = *st->sub;
    if (!r.done() || s.current != st || s.stopping) return;  // an end of the channel is told to the stream
    if (found.consumers > 0) {
      st->missed = 0;
      tell_problem(s, {});
    } else if (++st->missed < kLooksToMiss) {
      tell_problem(s, "the broker counts no consumer of it");
    } else {
      stream_ended(st, AMQP_INTERNAL_ERROR, "the broker has forgotten its consumer");
    }
  });
}

void consumers::tell_problem(subscription& s, const std::string& text) {
  if (s.problem == text) return;
  s.problem = text;
  if (on_problem_) on_problem_();
}

std::string consumers::problem() const {
  for (const auto& entry : subscriptions_) {
    const subscription& s = *entry.second;
    if (!s.problem.empty()) return "queue \"" + s.queue + "\" is not consumed: " + s.problem;
  }
  return {};
}

}  // namespace leveret::core::rabbitmq
