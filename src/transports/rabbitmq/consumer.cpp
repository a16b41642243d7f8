#include <algorithm>
#include <utility>

#include "../../ordered.hpp"
#include "consumer_state.hpp"
#include "moderation.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr std::chrono::seconds kMostHolding{1};
/// Acknowledgements of one frame, about: rarer ones bring the broker no more.
constexpr std::size_t kMostAcks = 128;
/// Under load a broker delivers a few at a time. When all of them have ended, more are on their way, and it may still
/// send many: acknowledging each few doubles what it does for a message.
constexpr std::chrono::milliseconds kAckPause{1};

}  // namespace

consumers::consumers(reactor& r, link& l, loop& to, operations& ops, const limits& lim, random_source random)
    : reactor_(r), link_(l), loop_(to), operations_(ops), limits_(lim), random_(std::move(random)) {
  link::user u;
  u.on_up = [this] { up(); };
  link_.add(std::move(u));
}

consumers::~consumers() = default;

// ---- subscribing ----

void consumers::subscribe(subscription_id id, const std::string& queue, window w, subscriber events) {
  const auto s = std::make_shared<subscription>();
  s->id = id;
  s->queue = queue;
  s->ordered = is_ordered(queue);
  s->base = unordered_queue(queue);
  s->w = w;
  s->events = std::make_shared<subscriber>(std::move(events));
  subscriptions_.emplace(id, s);
  if (s->ordered) join(s->base);
  if (watch_ == 0) watch();
  link_.need();
  start(s);
}

void consumers::up() {
  const auto all = subscriptions_;
  for (const auto& entry : all) {
    if (!entry.second->starting && !entry.second->current) start(entry.second);
  }
}

void consumers::note(const std::string& queue, found_queue found) { known_[queue] = found; }

// Looks at the queue first: whether it is there, ours (made again if it vanished), or keeps no count.
void consumers::start(const std::shared_ptr<subscription>& s) {
  if (s->stopping || draining_) return;
  s->starting = true;
  s->waits_since = reactor::clock::now();
  const auto known = known_.find(s->queue);
  const bool again = known != known_.end() && known->second.ours;
  const std::int64_t expires = std::chrono::milliseconds(limits_.result_ttl).count();
  declare_queue(operations_, s->queue, expires, again, [this, s](found_queue found, maybe_failure why) {
    s->starting = false;
    if (s->stopping || draining_) return;
    if (why && why->code == errc::broker_unavailable) {
      tell_problem(*s, why->text);
      retry_later(s);
    } else if (why) {
      end(s, std::move(*why));
    } else {
      // A queue that nobody declared through this transport is not made again.
      const auto before = known_.find(s->queue);
      if (before != known_.end()) before->second = found;
      s->counts = s->counts || found.ours;
      if (!found.ours && before == known_.end()) known_[s->queue] = {false, found.classic};
      consume(s);
    }
  });
}

void consumers::retry_later(const std::shared_ptr<subscription>& s) {
  s->starting = true;
  s->timer = reactor_.after(full_jitter(s->failures++, limits_.reconnect_min, limits_.reconnect_max, random_),
                            [this, s] { start(s); });
}

void consumers::consume(const std::shared_ptr<subscription>& s) {
  connection* const c = link_.up();
  if (c == nullptr) return;  // `up` starts it again
  const auto st = std::make_shared<stream>(*this, s, wanted_prefetch(*s));
  st->ch = c->open_channel(st);
  if (!st->ch) {
    retry_later(s);
    return;
  }
  s->current = st;
  streams_.insert(st);
  begin(st);
}

// With the stream's prefetch; RabbitMQ gives a channel's to the consumers that begin after it was said.
void consumers::begin(const std::shared_ptr<stream>& st) {
  const std::shared_ptr<subscription>& s = st->sub;
  ++st->begun;
  st->carried = st->acks.out() + st->acks.finished();
  st->confirmed = false;
  amqp_basic_qos_t qos{};
  qos.prefetch_count = static_cast<std::uint16_t>(st->prefetch);
  st->ch->call(AMQP_BASIC_QOS_METHOD, &qos, nullptr);
  const std::string tag = st->consumer_tag();
  amqp_basic_consume_t consume{};
  consume.queue = as_bytes(s->queue);
  consume.consumer_tag = as_bytes(tag);
  s->waits_since = reactor::clock::now();
  st->ch->call(AMQP_BASIC_CONSUME_METHOD, &consume, [this, s, st](const call_result& r) {
    if (!r.done()) return;
    st->confirmed = true;
    s->failures = 0;
    tell_problem(*s, {});
  });
}

void consumers::resize(subscription_id id, window w) {
  const auto found = subscriptions_.find(id);
  if (found == subscriptions_.end() || found->second->stopping) return;
  found->second->w = w;
  swap(found->second);
  hand_out(*found->second);
}

// Returns what was not handed out and what was released, once everything else of the stream is settled, or after a
// second: each return is a command of its own, and acknowledgements behind too many of them can be lost (see
// `caught_up`).
void consumers::give_back(const std::shared_ptr<stream>& st) {
  if (st->quieting || (!st->holding && st->releases.empty())) return;
  subscription& s = *st->sub;
  if (st->holding && !st->hurried) {
    const auto held_here =
        std::count_if(s.waiting.begin(), s.waiting.end(), [&](const held& h) { return h.from == st; });
    const std::size_t returning = static_cast<std::size_t>(held_here) + st->release_tokens;
    if (st->acks.out() > returning || st->acks.finished() > 0 || st->asking > 0) return;
  }
  if (std::exchange(st->holding, false)) return_held(s);
  st->release_tokens = 0;
  const auto releases = std::exchange(st->releases, {});
  for (const auto& release_now : releases) release_now();
}

// Calls `then` when the queue has seen what was sent on this channel before. Acknowledgements and returns have no
// answer, and the broker's channel keeps them back while more than 32 of its commands to a quorum queue are open: those
// of a channel that is closed then are lost. Asking the queue itself makes the channel wait for it.
void consumers::caught_up(const std::shared_ptr<stream>& st, stopped then) {
  ++st->asking;
  st->count([this, st, then = std::move(then)](const call_result& r, const queue_counts&) {
    --st->asking;
    then(r.done());
    give_back(st);
    if (r.done()) retire(st);
  });
}

void consumers::return_held(subscription& s) {
  // From the back: RabbitMQ puts each to its own place, and older versions to the front.
  while (!s.waiting.empty()) {
    const held h = std::move(s.waiting.back());
    s.waiting.pop_back();
    h.from->acks.gone(h.message.tag);
    h.from->ch->requeue(h.message.tag);
  }
}

void consumers::unsubscribe(subscription_id id, std::function<void()> then) {
  const auto found = subscriptions_.find(id);
  if (found == subscriptions_.end()) {
    then();
    return;
  }
  const auto s = found->second;
  subscriptions_.erase(found);
  s->stopping = true;
  if (on_problem_) on_problem_();
  reactor_.cancel(s->timer);
  post_batch(s);  // before `then`
  if (s->ordered) {
    if (s->current) {
      leave(s->current, [then = std::move(then)](bool) { then(); });
    } else {
      then();
    }
    return;
  }
  for (const auto& open : streams_) {
    if (open->sub != s) continue;
    open->holding = true;
    reactor_.after(kMostHolding, [this, open] {
      open->hurried = true;
      give_back(open);
    });
  }
  // Being swapped: the cancel is on its way.
  const auto st = s->current;
  if (st && !s->swapping && st->ch->open()) {
    stop_stream(st, [this, s, st, then = std::move(then)](bool stopped) {
      if (stopped) {
        s->current = nullptr;
        retire(st);
      }
      then();
    });
    return;
  }
  if (st) give_back(st);
  then();
}

void consumers::end(const std::shared_ptr<subscription>& s, failure why) {
  subscriptions_.erase(s->id);
  s->stopping = true;
  if (on_problem_) on_problem_();
  loop_.post([events = s->events, why = std::move(why)] {
    if (events->on_ended) events->on_ended(why);
  });
}

// ---- deliveries ----

void consumers::arrived(const std::shared_ptr<stream>& st, incoming&& message) {
  st->acks.delivered();
  ++st->arrivals;
  const auto s = st->sub;
  if (draining_ || st->leaving) return;  // the end of the channel returns it
  if (st->holding) {
    s->waiting.push_back({st, std::move(message)});
    return;
  }
  if (s->stopping) {
    st->acks.gone(message.tag);
    st->ch->requeue(message.tag);
    return;
  }
  const auto size = static_cast<double>(message.data.size());
  s->mean_size = s->sizes == 0 ? size : s->mean_size * 0.875 + size * 0.125;
  ++s->sizes;
  if (message.props.delivery_count >= 0) s->counts = true;
  if (s->waiting.empty() && has_room(*s, message.data.size())) {
    hand_out(*s, st, std::move(message));
  } else {
    s->waiting.push_back({st, std::move(message)});
    hand_out(*s);
  }
  judge_prefetch(*st);
}

bool consumers::has_room(const subscription& s, std::size_t size) const {
  // What is held waits for the cancel to be returned.
  if (s.stopping || draining_ || (s.ordered && s.current && s.current->leaving)) return false;
  return s.out == 0 || (s.out < s.w.messages && s.out_bytes + size <= s.w.bytes);
}

void consumers::hand_out(subscription& s) {
  while (!s.waiting.empty() && has_room(s, s.waiting.front().message.data.size())) {
    held h = std::move(s.waiting.front());
    s.waiting.pop_front();
    hand_out(s, h.from, std::move(h.message));
  }
}

void consumers::hand_out(subscription& s, const std::shared_ptr<stream>& from, incoming&& message) {
  ++s.out;
  s.out_bytes += message.data.size();
  if (s.batch.empty()) s.batch.reserve(s.last_batch);
  s.batch.push_back(make_delivery(s, from, std::move(message)));
  if (s.batch_posted) return;
  s.batch_posted = true;
  const auto found = subscriptions_.find(s.id);
  if (found != subscriptions_.end()) {
    reactor_.at_round_end([this, keep = found->second] { post_batch(keep); });
  }
}

void consumers::post_batch(const std::shared_ptr<subscription>& s) {
  s->batch_posted = false;
  if (s->batch.empty()) return;
  s->last_batch = s->batch.size();
  loop_.post([events = s->events, batch = std::exchange(s->batch, {})]() mutable {
    for (delivery& d : batch) events->on_delivery(std::move(d));
  });
  // Each round wakes three threads, on processors that the broker needs. What waits here came before, and is no sign of
  // more.
  const auto& st = s->current;
  if (st != nullptr && st->consuming && s->waiting.empty() &&
      is_flood(s->last_batch, s->mean_size, st->acks.out() + st->acks.finished(), st->prefetch)) {
    reactor_.moderate(kModeration);
  }
}

delivery consumers::make_delivery(subscription& s, const std::shared_ptr<stream>& from, incoming&& message) {
  delivery d;
  d.token = ++last_token_;
  deliveries_.emplace(d.token, handed{from, message.tag, message.data.size(), false});
  properties& p = message.props;
  d.redelivered = message.redelivered;
  const auto known = known_.find(s.queue);
  const bool classic = known != known_.end() && known->second.classic;
  if (p.delivery_count >= 0) {
    d.returns = static_cast<std::int32_t>(std::min<std::int64_t>(p.delivery_count, INT32_MAX));
  } else if (s.counts) {
    d.returns = 0;  // from 3.13 on the header is absent until there is something to count
  } else {
    // Not known to count: a first delivery was never returned in any case.
    d.returns = classic || d.redelivered ? -1 : 0;
  }
  d.msg.id = p.message_id.empty() ? make_message_id(loop_.wall(), random_) : std::move(p.message_id);
  d.msg.queue = s.queue;
  d.msg.data = std::move(message.data);
  d.msg.jobs = static_cast<std::uint32_t>(std::clamp<std::int64_t>(p.jobs, 0, UINT32_MAX));
  d.msg.due = p.due;
  d.msg.reply = std::move(p.reply_to);
  d.msg.headers = std::move(p.headers);
  return d;
}

// ---- settling ----

bool consumers::begin_settle(delivery_token token) {
  const auto found = deliveries_.find(token);
  if (found == deliveries_.end() || found->second.settling) return false;
  found->second.settling = true;
  return true;
}

void consumers::give_up_settle(delivery_token token) {
  const auto found = deliveries_.find(token);
  if (found != deliveries_.end()) found->second.settling = false;
}

void consumers::remove(std::unordered_map<delivery_token, handed>::iterator which) {
  subscription& s = *which->second.from->sub;
  --s.out;
  s.out_bytes -= which->second.size;
  deliveries_.erase(which);
}

void consumers::finish(delivery_token token, small_function<void(bool)> then) {
  const auto found = deliveries_.find(token);
  if (found == deliveries_.end()) {
    then(false);
    return;
  }
  const auto st = found->second.from;
  st->acks.finish(found->second.tag);
  st->waiting.push_back(std::move(then));
  remove(found);
  if (st->leaving) {
    cancel_and_leave(st);
    return;
  }
  hand_out(*st->sub);
  after_finish(st);
}

// Flushes now, at the round's end, or within ack_flush: many deliveries are to share one frame, but nothing may wait
// while the broker holds back the next ones.
void consumers::after_finish(const std::shared_ptr<stream>& st) {
  if (st->flush_soon || st->quieting) return;
  const bool all_ended = st->acks.out() == 0;
  const std::size_t enough = std::clamp<std::size_t>(st->prefetch / 8, 1, kMostAcks);
  const bool may_wait = !draining_ && st->consuming && !st->sub->stopping && st->acks.finished() < enough &&
                        !(all_ended && st->is_full());
  if (!may_wait || (all_ended && reactor::clock::now() - st->flushed >= kAckPause)) {
    st->flush_soon = true;
    reactor_.at_round_end([this, st] { flush(st); });
  } else if (all_ended && !st->pause_armed) {
    st->pause_armed = true;
    reactor_.after(kAckPause, [this, st] {
      st->pause_armed = false;
      flush(st);
    });
  } else if (!all_ended && !st->flush_armed) {
    st->flush_armed = true;
    reactor_.after(limits_.ack_flush, [this, st] {
      st->flush_armed = false;
      flush(st);
    });
  }
}

void consumers::flush(const std::shared_ptr<stream>& st) {
  st->flush_soon = false;
  if (st->quieting) return;  // the cancel flushes
  if (st->waiting.empty()) {
    retire(st);
    return;
  }
  st->flushed = reactor::clock::now();
  for (const ack_window::ack& a : st->acks.flush()) st->ch->ack(a.tag, a.multiple);
  const bool sent = st->ch->open();
  std::vector<small_function<void(bool)>> waiting;
  waiting.swap(st->waiting);
  if (sent &&
      (draining_ || st->sub->stopping || st->leaving)) {  // the channel may be closed as soon as this is answered
    caught_up(st, [told = std::make_shared<decltype(waiting)>(std::move(waiting))](bool) {
      for (const auto& then : *told) then(true);
    });
    return;
  }
  for (const auto& then : waiting) then(sent);
  waiting.clear();
  if (st->waiting.empty()) st->waiting.swap(waiting);  // its room is for the next ones
  retire(st);
}

void consumers::release(const std::vector<delivery_token>& tokens, std::function<void()> then) {
  for (const delivery_token token : tokens) {
    const auto found = deliveries_.find(token);
    if (found == deliveries_.end() || !(found->second.from->holding || found->second.from->quieting)) continue;
    const auto st = found->second.from;
    st->release_tokens += tokens.size();
    st->releases.emplace_back([this, tokens, then = std::move(then)] { release(tokens, then); });
    give_back(st);
    return;
  }
  std::unordered_set<std::shared_ptr<stream>> streams;
  for (const delivery_token token : tokens) {
    const auto found = deliveries_.find(token);
    if (found == deliveries_.end() || found->second.settling) continue;
    const auto st = found->second.from;
    if (st->leaving && keep_until_the_end(st)) {
      remove(found);
      continue;
    }
    st->acks.gone(found->second.tag);
    st->ch->requeue(found->second.tag);
    remove(found);
    hand_out(*st->sub);
    streams.insert(st);
  }
  const auto left = std::make_shared<std::size_t>(streams.size() + 1);
  const auto one_done = [left, then = std::move(then)] {
    if (--*left == 0) then();
  };
  for (const auto& st : streams) {
    caught_up(st, [one_done](bool) { one_done(); });
  }
  one_done();
}

// Ends a stream that was cancelled and has nothing left to settle.
void consumers::retire(const std::shared_ptr<stream>& st) {
  if (st->consuming || st->asking > 0 || st->acks.out() > 0 || st->acks.finished() > 0 || !st->waiting.empty()) return;
  st->ch->close();
  streams_.erase(st);
  if (!st->leaving) return;
  if (st->sub->current == st) st->sub->current = nullptr;
  end_leaving(st, true);
}

// ---- losing ----

// Everything that this stream brought is somebody else's now.
void consumers::lose_stream(const std::shared_ptr<stream>& st) {
  streams_.erase(st);
  subscription& s = *st->sub;
  s.waiting.erase(std::remove_if(s.waiting.begin(), s.waiting.end(), [&](const held& h) { return h.from == st; }),
                  s.waiting.end());
  std::vector<delivery_token> lost;
  for (auto d = deliveries_.begin(); d != deliveries_.end();) {
    const auto next = std::next(d);
    if (d->second.from == st) {
      lost.push_back(d->first);
      remove(d);
    }
    d = next;
  }
  std::sort(lost.begin(), lost.end());
  std::vector<small_function<void(bool)>> waiting;
  waiting.swap(st->waiting);
  for (const auto& then : waiting) then(false);
  st->quieting = st->holding = false;
  const auto releases = std::exchange(st->releases, {});
  for (const auto& release_now : releases) release_now();
  end_leaving(st, false);
  hand_out(s);
  if (lost.empty()) return;
  // Behind the deliveries themselves, if those are still to be posted.
  reactor_.at_round_end([this, events = s.events, lost = std::move(lost)] {
    loop_.post([events, lost] {
      if (events->on_lost) events->on_lost(lost);
    });
  });
}

void consumers::stream_ended(const std::shared_ptr<stream>& st, std::uint16_t code, const std::string& text) {
  const auto s = st->sub;
  lose_stream(st);
  st->ch->close();  // after a cancel it is still open
  if (s->current != st) return;
  s->current = nullptr;
  s->swapping = false;
  s->waits_since = reactor::clock::now();
  if (s->stopping || draining_) return;
  if (code == 0) return;  // the connection; `up` starts it again
  if (code == AMQP_ACCESS_REFUSED || code == AMQP_RESOURCE_LOCKED) {
    const std::string remedy = access_remedy(code, text, "read");
    end(s, {errc::refused, "cannot consume queue \"" + s->queue + "\": " + text + " (" + std::to_string(code) + ")" +
                               (remedy.empty() ? "" : "; " + remedy)});
    return;
  }
  tell_problem(*s, text);
  retry_later(s);
}

void consumers::drain() {
  draining_ = true;
  reactor_.cancel(watch_);
  for (const auto& entry : subscriptions_) reactor_.cancel(entry.second->timer);
  // No cancel: the end of the channel returns what is not settled.
  const auto streams = streams_;
  for (const auto& st : streams) flush(st);
}

bool consumers::idle() const noexcept {
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& st) { return st->waiting.empty() && st->releases.empty() && st->asking == 0; });
}

void consumers::close() {
  const auto streams = streams_;
  for (const auto& st : streams) {
    std::vector<small_function<void(bool)>> waiting;
    waiting.swap(st->waiting);
    for (const auto& then : waiting) then(false);
    st->quieting = st->holding = false;
    const auto releases = std::exchange(st->releases, {});
    for (const auto& release_now : releases) release_now();
    end_leaving(st, false);
  }
  const auto all = subscriptions_;
  for (const auto& entry : all) {
    post_batch(entry.second);
    end(entry.second, {errc::closed, "the subscription of queue \"" + entry.second->queue + "\" ended: closed"});
  }
  // Streams and subscriptions hold each other.
  for (const auto& st : streams) {
    st->sub->current = nullptr;
    st->sub->waiting.clear();
  }
  streams_.clear();
  deliveries_.clear();
}

}  // namespace leveret::core::rabbitmq
