#include "replies.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

namespace leveret::core::rabbitmq {
namespace {

constexpr std::uint16_t kRepliesPrefetch = 256;

std::uint32_t line_header(const properties& p, std::string_view name) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(number_header(p, name), 0, UINT32_MAX));
}

}  // namespace

struct replies::watch_state final : channel_events, std::enable_shared_from_this<watch_state> {
  void on_deliver(incoming&& message) override { owner->deliver(shared_from_this(), std::move(message)); }
  void on_cancelled() override {
    const auto self = shared_from_this();
    if (ch) ch->close();
    owner->closed(self, AMQP_NOT_FOUND, "the reply queue was deleted");
  }
  void on_closed(std::uint16_t code, const std::string& text) override {
    owner->closed(shared_from_this(), code, text);
  }

  replies* owner = nullptr;
  std::string reply;
  std::function<void(result_chunk)> on_result;
  done then;            // until the first consumer is there
  bool proven = false;  // consumed once: made again when it vanishes
  bool ended = false;
  bool starting = false;
  std::uint32_t failures = 0;
  std::shared_ptr<channel> ch;
  std::shared_ptr<std::atomic<bool>> alive = std::make_shared<std::atomic<bool>>(true);
  std::uint64_t last_tag = 0;  // posted and not acknowledged
  bool ack_armed = false;
};

replies::replies(reactor& r, link& l, loop& to, operations& ops, const limits& lim, random_source random)
    : reactor_(r), link_(l), loop_(to), operations_(ops), limits_(lim), random_(std::move(random)) {
  link::user u;
  u.on_up = [this] { up(); };
  link_.add(std::move(u));
}

void replies::answer(const std::shared_ptr<watch_state>& w, maybe_failure why) {
  if (w->then) std::exchange(w->then, nullptr)(std::move(why));
}

void replies::watch(const std::string& reply, std::function<void(result_chunk)> on_result, done then) {
  if (watches_.count(reply) != 0) {
    then(failure{errc::invalid_argument, "cannot watch \"" + reply + "\": it is watched already"});
    return;
  }
  const auto w = std::make_shared<watch_state>();
  w->owner = this;
  w->reply = reply;
  w->on_result = std::move(on_result);
  w->then = std::move(then);
  watches_.emplace(reply, w);
  link_.need();
  start(w);
}

void replies::up() {
  const auto all = watches_;
  for (const auto& entry : all) {
    if (!entry.second->ch && !entry.second->starting) start(entry.second);
  }
}

// The queue is looked at first; one that vanished (its client was away for longer than result_ttl) is made again, so
// that results of jobs still running have a place.
void replies::start(const std::shared_ptr<watch_state>& w) {
  if (w->ended || closing_) return;
  w->starting = true;
  const std::int64_t expires = std::chrono::milliseconds(limits_.result_ttl).count();
  declare_queue(operations_, w->reply, expires, w->proven, [this, w](found_queue, maybe_failure why) {
    w->starting = false;
    if (w->ended || closing_) return;
    if (why && (why->code != errc::broker_unavailable || !w->proven)) {
      why->text = "cannot watch \"" + w->reply + "\": " + why->text;
      w->ended = true;
      watches_.erase(w->reply);
      answer(w, std::move(why));
      return;
    }
    connection* const c = link_.up();
    if (!why && c != nullptr) w->ch = c->open_channel(w);
    if (why || c == nullptr || !w->ch) {
      if (c != nullptr) closed(w, AMQP_CHANNEL_ERROR, "no channel");
      return;
    }
    amqp_basic_qos_t qos{};
    qos.prefetch_count = kRepliesPrefetch;
    w->ch->call(AMQP_BASIC_QOS_METHOD, &qos, nullptr);
    amqp_basic_consume_t consume{};
    consume.queue = as_bytes(w->reply);
    consume.consumer_tag = as_bytes("leveret");
    w->ch->call(AMQP_BASIC_CONSUME_METHOD, &consume, [this, w](const call_result& r) {
      if (!r.done()) return;
      w->proven = true;
      w->failures = 0;
      answer(w, {});
    });
  });
}

void replies::deliver(const std::shared_ptr<watch_state>& w, incoming message) {
  if (w->ended) return;  // unacknowledged: it goes back when the channel closes
  if (message.props.type == kResultsType) {
    result_chunk chunk;
    chunk.id = std::move(message.props.message_id);
    chunk.reply = w->reply;
    chunk.first_line = line_header(message.props, "first_line");
    chunk.last_line = line_header(message.props, "last_line");
    chunk.data = std::string(message.data.view());
    const auto shared = std::make_shared<result_chunk>(std::move(chunk));
    loop_.post([w, alive = w->alive, shared] {
      if (*alive) w->on_result(std::move(*shared));
    });
  }
  for (const header& h : message.props.headers) {
    if (h.name != kProgressHeader) continue;
    // Told apart by its lines: results have some.
    const auto shared = std::make_shared<result_chunk>();
    shared->id = h.value;
    shared->reply = w->reply;
    shared->data = std::string(message.data.view());
    loop_.post([w, alive = w->alive, shared] {
      if (*alive) w->on_result(std::move(*shared));
    });
  }
  // What is no result of ours (somebody published to the queue by hand) is of no use to anybody: away with it.
  w->last_tag = message.tag;
  if (w->ack_armed) return;
  w->ack_armed = true;
  reactor_.at_round_end([w] {
    w->ack_armed = false;
    if (w->last_tag != 0 && w->ch) w->ch->ack(w->last_tag, true);
    w->last_tag = 0;
  });
}

void replies::closed(const std::shared_ptr<watch_state>& w, std::uint16_t code, const std::string& /*text*/) {
  w->ch = nullptr;
  w->last_tag = 0;
  if (w->ended || closing_ || code == 0) return;  // a lost connection: `up` starts it again
  w->starting = true;
  reactor_.after(full_jitter(w->failures++, limits_.reconnect_min, limits_.reconnect_max, random_),
                 [this, w] { start(w); });
}

void replies::unwatch(const std::string& reply, const done& then) {
  const auto found = watches_.find(reply);
  if (found == watches_.end()) {
    then({});
    return;
  }
  const auto w = found->second;
  watches_.erase(found);
  w->ended = true;
  if (w->ch) {
    if (w->last_tag != 0) w->ch->ack(w->last_tag, true);
    w->last_tag = 0;
    w->ch->close();
    w->ch = nullptr;
  }
  answer(w, failure{errc::closed, "cannot watch \"" + reply + "\": unwatched meanwhile"});
  // On the loop, where `then` runs too: what was posted before is still handed over, nothing after `then`.
  loop_.post([alive = w->alive] { *alive = false; });
  then({});
}

void replies::close() {
  closing_ = true;
  const auto all = watches_;
  for (const auto& entry : all) {
    const auto& w = entry.second;
    if (w->ch && w->last_tag != 0) w->ch->ack(w->last_tag, true);
    w->last_tag = 0;
    w->ended = true;
    answer(w, failure{errc::closed, "cannot watch \"" + w->reply + "\": closed"});
  }
  watches_.clear();
}

}  // namespace leveret::core::rabbitmq
