#include "publisher.hpp"

#include <algorithm>

namespace leveret::core::rabbitmq {
namespace {

// Handed to the connection beyond what the socket took; more would only wait in memory instead of in `ready_`.
constexpr std::size_t kUnwritten = 8u << 20;
constexpr std::chrono::milliseconds kNackRetryMin{50};
constexpr std::chrono::milliseconds kNackRetryMax{2'000};
// A channel that was opened while a quorum queue elected a leader may be told to refuse, and refuses for ever after,
// leader or not (3.10.8: its enqueuer is never registered). A new channel asks again.
constexpr std::uint32_t kNacksToDoubt = 3;
constexpr std::chrono::milliseconds kDoubtAgain{1'000};

}  // namespace

publish_end refused(errc code, std::string text) {
  publish_end e;
  e.outcome.status = publish_status::refused;
  e.outcome.why = {code, std::move(text)};
  return e;
}

void publish_group::end(std::size_t index, publish_end how) {
  if (told_[index]) return;
  told_[index] = true;
  ends_[index] = std::move(how);
  if (--left_ > 0) return;
  reactor_.cancel(timer);
  reactor_.at_round_end([then = std::move(then_), ends = std::move(ends_)]() mutable {
    if (then) then(std::move(ends));
  });
}

publisher::publisher(reactor& r, link& l, const limits& lim, random_source random)
    : reactor_(r), link_(l), limits_(lim), random_(std::move(random)) {}

void publisher::start() {
  link::user u;
  u.on_up = [this] { up(); };
  link_.add(std::move(u));  // a lost connection is told by the channel
}

void publisher::up() {
  // What was on its way when the connection broke is probably sound: only a channel error makes it careful.
  open_channel();
}

void publisher::open_channel() {
  connection* const c = link_.up();
  if (c == nullptr) return;
  channel_ = c->open_channel(weak_from_this());
  if (!channel_) return;
  amqp_confirm_select_t select{};
  channel_->call(AMQP_CONFIRM_SELECT_METHOD, &select, nullptr);
  base_tag_ = 1;
  nacks_ = 0;
  opened_ = reactor::clock::now();
  pump();
}

// Only with nothing on its way: what is unconfirmed would have to be sent twice.
bool publisher::doubted() const {
  return nacks_ >= kNacksToDoubt && open_ == 0 && reactor::clock::now() - opened_ > kDoubtAgain;
}

void publisher::publish(std::vector<outgoing> messages) {
  link_.need();
  for (outgoing& m : messages) ready_.push_back(std::move(m));
  if (closed_) {
    close();
  } else {
    pump();
  }
}

void publisher::set_deadline(const std::shared_ptr<publish_group>& group, reactor::clock::time_point deadline) {
  if (group->all_ended()) return;
  group->timer = reactor_.at(deadline, [this, group] { expire(group); });
}

void publisher::pump() {
  if (!channel_ || !channel_->open() || link_.blocked()) return;
  if (doubted()) {
    unconfirmed_.clear();
    std::exchange(channel_, nullptr)->close();
    open_channel();
    return;
  }
  const std::size_t most = careful_ > 0 ? 1 : limits_.confirm_window_messages;
  while (!ready_.empty() && channel_->open()) {
    outgoing& next = ready_.front();
    if (next.group->ended(next.index)) {  // answered at its deadline
      ready_.pop_front();
      continue;
    }
    const std::size_t size = next.data.size();
    if (open_ >= most || (open_ > 0 && open_bytes_ + size > limits_.confirm_window_bytes)) return;
    // The socket is slow; a confirm of what it took calls again.
    if (open_ > 0 && link_.up()->unwritten() > kUnwritten) return;
    if (!channel_->publish(next.exchange, next.routing_key, next.props, next.data)) {
      next.group->end(next.index, refused(errc::refused, "cannot publish " + next.what +
                                                             ": its headers or id are too large for AMQP"));
      ready_.pop_front();
      continue;
    }
    if (!channel_->open()) return;  // lost while writing: `take_back` did not know it yet, and it stays ready
    next.sent = true;
    next.returned = false;
    unconfirmed_.push_back({std::move(next), true});
    ready_.pop_front();
    ++open_;
    open_bytes_ += size;
  }
}

void publisher::on_returned(incoming&& message) {
  // A return comes before its confirm and carries no tag. Returns come in the order published, so of equal ids (a
  // caller may publish one twice) the first not yet returned is meant.
  for (slot& s : unconfirmed_) {
    if (!s.open || s.message.returned || s.message.props.message_id != message.props.message_id ||
        s.message.routing_key != message.routing_key) {
      continue;
    }
    s.message.returned = true;
    s.message.last_problem = std::to_string(message.reply_code) + " " + message.reply_text;
    return;
  }
}

void publisher::pop_front() {
  while (!unconfirmed_.empty() && !unconfirmed_.front().open) {
    unconfirmed_.pop_front();
    ++base_tag_;
  }
}

void publisher::finish(slot& s, bool acked) {
  if (!s.open) return;
  s.open = false;
  --open_;
  open_bytes_ -= s.message.data.size();
  if (careful_ > 0) --careful_;
  nacks_ = acked ? 0 : nacks_ + 1;
  outgoing message = std::move(s.message);
  s.message = {};
  if (message.group->ended(message.index)) return;
  if (!acked) {
    message.last_problem = "the broker refused it for now (nack: the queue is full, or its leader unavailable)";
    retry(std::move(message));
    return;
  }
  if (message.returned) {
    publish_end e = refused(errc::not_found, "cannot publish " + message.what + ": there is no such queue (" +
                                                 message.last_problem + "); declare the queue first");
    e.missing = true;
    message.group->end(message.index, std::move(e));
    return;
  }
  publish_end e;
  e.outcome.status = publish_status::accepted;
  message.group->end(message.index, std::move(e));
}

void publisher::on_confirm(std::uint64_t tag, bool multiple, bool acked) {
  if (unconfirmed_.empty() || tag < base_tag_ || tag - base_tag_ >= unconfirmed_.size()) return;
  const auto self = shared_from_this();
  const auto last = static_cast<std::size_t>(tag - base_tag_);
  for (std::size_t i = multiple ? 0 : last; i <= last; ++i) finish(unconfirmed_[i], acked);
  pop_front();
  channel_errors_ = 0;
  pump();
}

void publisher::retry(outgoing message) {
  const std::chrono::milliseconds wait =
      full_jitter(message.nacks++, kNackRetryMin, kNackRetryMax, random_) + std::chrono::milliseconds(1);
  // The timer's number is known only after it is made; it runs later in any case.
  const auto number = std::make_shared<reactor::timer_id>(0);
  *number = reactor_.after(wait, [this, number] {
    auto node = waiting_.extract(*number);
    if (node.empty()) return;
    ready_.push_back(std::move(node.mapped()));
    pump();
  });
  waiting_.emplace(*number, std::move(message));
}

// What was sent and not confirmed becomes ready again, before the rest, in its order.
void publisher::take_back() {
  for (auto s = unconfirmed_.rbegin(); s != unconfirmed_.rend(); ++s) {
    if (s->open && !s->message.group->ended(s->message.index)) ready_.push_front(std::move(s->message));
  }
  unconfirmed_.clear();
  open_ = 0;
  open_bytes_ = 0;
  channel_ = nullptr;
}

void publisher::on_closed(std::uint16_t code, const std::string& text) {
  const auto self = shared_from_this();
  const std::size_t suspects = unconfirmed_.size();
  const bool alone = open_ == 1 && careful_ > 0;
  take_back();
  if (code == 0) {
    for (outgoing& m : ready_) {
      if (m.sent) m.last_problem = "the connection was lost before the broker confirmed it (" + text + ")";
    }
    careful_ = 0;
    return;
  }
  // The broker closed the channel because of one of these messages and did not say which (too large for it, no
  // permission, no such exchange). Sent one by one, the next one that closes it is the one.
  if (alone && !ready_.empty()) {
    outgoing guilty = std::move(ready_.front());
    ready_.pop_front();
    careful_ = careful_ > 0 ? careful_ - 1 : 0;
    const std::string remedy = access_remedy(code, text, "write");
    publish_end e =
        refused(errc::refused, "cannot publish " + guilty.what + ": the broker refused it (" + std::to_string(code) +
                                   " " + text + ")" + (remedy.empty() ? "" : "; " + remedy));
    e.missing = code == AMQP_NOT_FOUND;
    guilty.group->end(guilty.index, std::move(e));
  } else {
    careful_ = std::max(careful_, suspects);
  }
  ++channel_errors_;
  // Not at once for ever: a broker that closes each new channel must not make a busy loop.
  if (channel_errors_ < 3) {
    reactor_.at_round_end([weak = weak_from_this()] {
      if (const auto p = weak.lock(); p && !p->channel_) p->open_channel();
    });
  } else {
    reactor_.after(full_jitter(channel_errors_, kNackRetryMin, kNackRetryMax, random_), [weak = weak_from_this()] {
      if (const auto p = weak.lock(); p && !p->channel_) p->open_channel();
    });
  }
}

publish_end publisher::unanswered(const outgoing& message) const {
  publish_end e;
  e.outcome.status = publish_status::unknown;
  std::string why = message.last_problem;
  if (why.empty() || link_.up() == nullptr || link_.blocked()) {
    if (link_.up() == nullptr) {
      why = "there is no connection (" + link_.detail() + ")";
    } else if (link_.blocked()) {
      why = link_.detail();
    } else if (why.empty()) {
      why = "the broker did not answer in time";
    }
  }
  e.outcome.why.code = message.sent ? errc::unknown_outcome : errc::broker_unavailable;
  e.outcome.why.text =
      "cannot tell whether the message " + message.what + " is stored: " + why + "; publish it again with the same id";
  if (!message.sent) {
    e.outcome.why.text = "cannot publish " + message.what + ": " + why + "; it was not sent, publish it again later";
  }
  return e;
}

void publisher::expire(const std::shared_ptr<publish_group>& group) {
  const auto self = shared_from_this();
  const auto expire_one = [&](outgoing& m) {
    if (m.group != group || m.group->ended(m.index)) return;
    if (m.nacks > 0) {
      m.group->end(m.index, refused(errc::refused, "cannot publish " + m.what + ": " + m.last_problem));
    } else {
      m.group->end(m.index, unanswered(m));
    }
  };
  for (auto& entry : waiting_) expire_one(entry.second);
  for (slot& s : unconfirmed_) {
    if (s.open) expire_one(s.message);
  }
  for (outgoing& m : ready_) expire_one(m);
  // Those that are elsewhere (waiting for their delay levels).
  for (std::size_t i = 0; i < group->size(); ++i) {
    outgoing m;
    m.what = "to a delayed queue";
    if (!group->ended(i)) group->end(i, unanswered(m));
  }
}

bool publisher::idle() const noexcept {
  // What was answered at its deadline may still wait for a confirm; nobody waits for that.
  const auto waits = [](const outgoing& m) { return !m.group->ended(m.index); };
  for (const slot& s : unconfirmed_) {
    if (s.open && waits(s.message)) return false;
  }
  for (const auto& entry : waiting_) {
    if (waits(entry.second)) return false;
  }
  return std::none_of(ready_.begin(), ready_.end(), waits);
}

void publisher::close() {
  closed_ = true;
  const auto self = shared_from_this();
  const auto end = [](outgoing& m) {
    publish_end e;
    e.outcome.status = publish_status::unknown;
    e.outcome.why = {errc::closed,
                     "cannot tell whether the message " + m.what +
                         " is stored: closed before the broker answered; publish it again with the same id"};
    m.group->end(m.index, std::move(e));
  };
  for (slot& s : unconfirmed_) {
    if (s.open) end(s.message);
  }
  for (auto& entry : waiting_) end(entry.second);
  for (outgoing& m : ready_) end(m);
  unconfirmed_.clear();
  waiting_.clear();
  ready_.clear();
  open_ = 0;
  open_bytes_ = 0;
}

}  // namespace leveret::core::rabbitmq
