#include "link.hpp"

#include <algorithm>

namespace leveret::core::rabbitmq {

std::chrono::milliseconds full_jitter(std::uint32_t failures, std::chrono::milliseconds least,
                                      std::chrono::milliseconds most, const random_source& random) {
  const auto low = static_cast<std::uint64_t>(std::max<std::int64_t>(least.count(), 1));
  const auto high = static_cast<std::uint64_t>(std::max<std::int64_t>(most.count(), 1));
  const std::uint64_t cap = std::min(high, low << std::min<std::uint32_t>(failures, 20));
  return std::chrono::milliseconds(static_cast<std::int64_t>(random() % (cap + 1)));
}

link::link(reactor& r, std::vector<endpoint> servers, const limits& lim, random_source random, std::string purpose)
    : reactor_(r),
      servers_(std::move(servers)),
      limits_(lim),
      random_(std::move(random)),
      purpose_(std::move(purpose)) {
  for (std::size_t left = servers_.size(); left > 1; --left) std::swap(servers_[left - 1], servers_[random_() % left]);
}

void link::need() {
  if (needed_ || closing_) return;
  needed_ = true;
  detail_ = "connecting";
  changed();
  connect();
}

void link::connect() {
  connection_ = std::make_shared<connection>(reactor_, servers_[at_], limits_, purpose_);
  connection* const attempt = connection_.get();
  timer_ = reactor_.after(limits_.connect_timeout, [this, attempt] {
    attempt->cut("no answer within " + std::to_string(limits_.connect_timeout.count()) + " ms");
  });
  connection::events e;
  e.on_open = [this] {
    reactor_.cancel(timer_);
    up_ = true;
    failures_ = 0;
    tried_ = 0;
    problems_.clear();
    detail_.clear();
    server_ = connection_->server();
    if (servers_.size() > 1) server_ += " at " + servers_[at_].where();
    changed();
    if (on_first_) std::exchange(on_first_, nullptr)({});
    for (const user& u : users_) {
      if (up_ && u.on_up) u.on_up();
    }
  };
  e.on_lost = [this](failure why) { lost(std::move(why)); };
  e.on_blocked = [this](bool blocked, const std::string& reason) {
    blocked_ = blocked;
    detail_ = blocked ? "the broker accepts no messages now (" + reason + ")" : "";
    changed();
  };
  connection_->open(std::move(e));
}

void link::lost(failure why) {
  reactor_.cancel(timer_);
  const bool was_up = up_;
  up_ = false;
  blocked_ = false;
  const std::string there = servers_[at_].where();
  detail_ = servers_.size() > 1 ? there + ": " + why.text : why.text;
  // Whoever called into it may still be inside.
  reactor_.at_round_end([old = std::move(connection_)] {});
  connection_ = nullptr;
  changed();
  why.code = errc::broker_unavailable;
  why.text = there + ": " + why.text;
  at_ = (at_ + 1) % servers_.size();
  if (!was_up) {
    ++tried_;
    problems_ += (problems_.empty() ? "" : "; ") + why.text;
  }
  const bool round_over = tried_ % servers_.size() == 0;
  if (on_first_ && (round_over || closing_)) {
    failure all = why;
    all.text = problems_;
    std::exchange(on_first_, nullptr)(std::move(all));
  }
  if (round_over) problems_.clear();
  if (was_up) {
    for (const user& u : users_) {
      if (u.on_down) u.on_down(why);
    }
  }
  if (closing_) return;
  // The next server of a round at once, nearly: all clients of one that is gone come together.
  const std::uint32_t failures = round_over ? failures_++ : 0;
  timer_ = reactor_.after(full_jitter(failures, limits_.reconnect_min, limits_.reconnect_max, random_),
                          [this] { connect(); });
}

void link::close() {
  if (closing_) return;
  closing_ = true;
  if (connection_) {
    connection_->close();
  } else {
    reactor_.cancel(timer_);
  }
}

void link::cut() {
  closing_ = true;
  if (connection_) {
    connection_->cut("closed");
  } else {
    reactor_.cancel(timer_);
  }
}

}  // namespace leveret::core::rabbitmq
