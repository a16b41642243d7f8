// How many messages a stream may have unsettled, and how it is given another number: by another consumer.
#include <algorithm>
#include <utility>

#include "../../ordered.hpp"
#include "consumer_state.hpp"
#include "link.hpp"
#include "topology.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr std::uint32_t kMostPrefetch = 65'535;
constexpr std::uint64_t kSizesBeforeJudging = 8;
constexpr std::chrono::milliseconds kQuietRound{20};
constexpr int kQuietRounds = 25;  // a queue that never rests is cancelled after half a second all the same

}  // namespace

std::uint32_t consumers::most_prefetch(const subscription& s) {
  if (s.ordered) return 1;
  return std::clamp<std::uint32_t>(s.w.most != 0 ? s.w.most : s.w.messages, 1, kMostPrefetch);
}

std::uint32_t consumers::wanted_prefetch(const subscription& s) const {
  std::uint64_t most = most_prefetch(s);
  if (s.sizes >= kSizesBeforeJudging) {
    const auto fits = static_cast<std::uint64_t>(static_cast<double>(s.w.bytes) / std::max(s.mean_size, 1.0));
    most = std::clamp<std::uint64_t>(fits, 1, most);
  } else {
    // The broker sends as many as it may before the first size is known: twice the bytes, if all are of the largest.
    most = std::clamp<std::uint64_t>(2 * s.w.bytes / std::max<std::size_t>(limits_.max_message_bytes, 1), 1, most);
  }
  return static_cast<std::uint32_t>(most);
}

void consumers::judge_prefetch(const stream& st) {
  const std::shared_ptr<subscription>& s = st.sub;
  if (s->sizes < kSizesBeforeJudging || s->current.get() != &st) return;
  // Only a large difference is worth a new channel; or that between some and all that the window has room for.
  const std::uint32_t wanted = wanted_prefetch(*s);
  const bool less = wanted < st.prefetch / 2;
  const bool more = wanted > st.prefetch && (wanted / 2 >= st.prefetch || wanted == most_prefetch(*s));
  if (less || more) swap(s);
}

// Brings the prefetch to what is wanted, by a new consumer.
void consumers::swap(const std::shared_ptr<subscription>& s) {
  if (s->current && s->current->prefetch != wanted_prefetch(*s)) renew(s);
}

void consumers::renew(const std::shared_ptr<subscription>& s) {
  if (s->swapping || s->stopping || draining_ || !s->current) return;
  s->swapping = true;
  const auto old = s->current;
  if (s->ordered) {
    leave(old, [this, s](bool left) {
      if (!left) return;  // its channel has ended, and `stream_ended` does the rest
      s->swapping = false;
      if (!s->stopping && !draining_) consume(s);
    });
    return;
  }
  stop_stream(old, [this, s, old](bool stopped) {
    if (!stopped) return;  // its channel has ended, and `stream_ended` does the rest
    s->swapping = false;
    const bool over = s->stopping || draining_;
    // One that has been idle for long gets a channel of its own: whatever is wrong with the old one ends with it.
    if (over || old->prefetch == wanted_prefetch(*s)) {
      if (s->current == old) s->current = nullptr;
      retire(old);
      if (!over) consume(s);
      return;
    }
    // On the same channel: closing it would need to know that all of its acknowledgements have arrived.
    old->prefetch = wanted_prefetch(*s);
    old->consuming = true;
    begin(old);
  });
}

// Cancels once nothing is under way; `then(true)` when no delivery can come any more, `then(false)` when the channel
// ended meanwhile. A delivery that meets the cancel kills the channel before RabbitMQ 3.10.9, and goes back to the
// queue since: the next consumer would get it behind its successors.
void consumers::stop_stream(const std::shared_ptr<stream>& st, stopped then) {
  st->quieting = true;
  await_quiet(st, std::move(then), kQuietRounds);
}

void consumers::await_quiet(const std::shared_ptr<stream>& st, stopped then, int rounds) {
  if (st->is_full() || rounds == 0 || !st->ch->open()) {
    cancel(st, std::move(then));
    return;
  }
  reactor_.after(kQuietRound, [this, st, before = st->arrivals, rounds, then = std::move(then)]() mutable {
    await_quiet(st, std::move(then), st->arrivals == before ? 0 : rounds - 1);
  });
}

void consumers::cancel(const std::shared_ptr<stream>& st, stopped then) {
  const std::string tag = st->consumer_tag();
  amqp_basic_cancel_t method{};
  method.consumer_tag = as_bytes(tag);
  st->ch->call(AMQP_BASIC_CANCEL_METHOD, &method, [st, then = std::move(then)](const call_result& r) {
    if (r.done()) st->consuming = false;
    then(r.done());
  });
  // Behind the cancel on the same channel, so nothing is delivered for it.
  st->quieting = false;
  flush(st);
  give_back(st);
}

}  // namespace leveret::core::rabbitmq
