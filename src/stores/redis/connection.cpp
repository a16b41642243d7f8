#include "connection.hpp"

#include <poll.h>

#include "explain.hpp"

namespace leveret::core::redis {
namespace {

constexpr std::size_t kReadBuffer = 64u << 10;
constexpr int kReadRounds = 16;  // then others' turn: timers, posts
constexpr std::size_t kCompactAt = 1u << 20;

bool begins(const std::string& text, std::string_view with) { return text.compare(0, with.size(), with) == 0; }

}  // namespace

connection::connection(net::reactor& r, endpoint where, std::chrono::milliseconds patience, std::string name)
    : reactor_(r),
      where_(std::move(where)),
      patience_(patience),
      name_(std::move(name)),
      socket_(r, {where_.host, where_.port, where_.tls, where_.verify}) {}

connection::~connection() {
  reactor_.remove(this);
  if (silence_ != 0) reactor_.cancel(silence_);
}

void connection::open(events e) {
  events_ = std::move(e);
  reactor_.add(this);
  socket_.open([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self && self->state_ == state::connecting) self->progress();
  });
}

void connection::progress() {
  switch (socket_.advance()) {
    case net::socket::progress::pending:
      return;
    case net::socket::progress::failed:
      lose(socket_.error());
      return;
    case net::socket::progress::ready:
      break;
  }
  in_.resize(kReadBuffer);
  state_ = state::greeting;
  greet();
}

void connection::greet() {
  if (!where_.password.empty()) {
    greeting_step login;
    login.words = {"AUTH"};
    if (!where_.user.empty()) login.words.push_back(where_.user);
    login.words.push_back(where_.password);
    login.refused = [this](const std::string& error) { return login_refused(error, where_); };
    greeting_.push_back(std::move(login));
  }
  if (where_.database != 0) {
    greeting_.push_back({{"SELECT", std::to_string(where_.database)},
                         [this](const std::string& error) { return database_refused(error, where_); }});
  }
  // For people who look at CLIENT LIST.
  greeting_.push_back({{"CLIENT", "SETNAME", name_}, [](const std::string&) { return std::string(); }});
  // A server that still loads its data, or wants a password, says so to this one.
  greeting_.push_back({{"PING"}, [](const std::string& error) {
                         const bool matters =
                             begins(error, "NOAUTH") || begins(error, "LOADING") || begins(error, "MASTERDOWN");
                         return matters ? explained(error) : std::string();
                       }});
  for (const greeting_step& step : greeting_) {
    append_command(out_, command(step.words.begin(), step.words.end()));
    owe();
  }
}

void connection::greeted(const reply& answer) {
  const greeting_step step = std::move(greeting_.front());
  greeting_.pop_front();
  if (answer.is_error()) {
    // Commands before the login are answered with NOAUTH too; the reason stands in the first refusal.
    if (const std::string why = step.refused(answer.text); !why.empty()) {
      lose(why);
      return;
    }
  }
  if (!greeting_.empty()) return;
  state_ = state::open;
  events_.on_open();
}

void connection::send(const command& words) {
  append_command(out_, words);
  owe();
}

std::pair<int, short> connection::prepare() {
  if (state_ == state::connecting) return {socket_.descriptor(), socket_.wanted()};
  while (!write_blocked_ && unsent() > 0) write();  // writing makes room for more
  if (state_ == state::lost) return {-1, 0};
  return {socket_.descriptor(), static_cast<short>(write_blocked_ ? POLLIN | POLLOUT : POLLIN)};
}

void connection::ready(short events) {
  const auto self = shared_from_this();  // a callback may drop it
  if (state_ == state::connecting) {
    progress();
    return;
  }
  if ((events & POLLOUT) != 0) write_blocked_ = false;
  if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) read();
}

void connection::write() {
  const std::size_t before = unsent();
  while (unsent() > 0) {
    const iovec part{out_.data() + written_, unsent()};
    std::size_t size = 0;
    const net::socket::io how = socket_.write(&part, 1, size);
    if (how == net::socket::io::closed) {
      // At the round's end: the store may be in the middle of sending.
      reactor_.at_round_end([weak = weak_from_this(), why = socket_.error()] {
        if (const auto self = weak.lock()) self->lose(why);
      });
      write_blocked_ = true;
      return;
    }
    if (how == net::socket::io::again) {
      write_blocked_ = true;
      break;
    }
    written_ += size;
    last_sign_ = net::reactor::clock::now();
  }
  if (unsent() == 0) {
    out_.clear();
    written_ = 0;
  } else if (written_ > kCompactAt) {
    out_.erase(0, written_);
    written_ = 0;
  }
  if (state_ == state::open && unsent() < before) events_.on_written();
}

void connection::read() {
  for (int round = 0; round < kReadRounds; ++round) {
    const iovec part{in_.data(), in_.size()};
    std::size_t size = 0;
    const net::socket::io how = socket_.read(&part, 1, size);
    if (how == net::socket::io::again) return;
    if (how == net::socket::io::closed) {
      lose(state_ == state::greeting ? socket_.error() + " during the greeting (is it a Redis port" +
                                           (where_.tls ? "?)" : ", and not one for TLS, rediss://?)")
                                     : socket_.error());
      return;
    }
    last_sign_ = net::reactor::clock::now();
    replies_.feed(in_.data(), size);
    if (!take_replies()) return;
  }
  // poll() tells again of what is left in the socket, but TLS may hold decrypted bytes that it knows nothing of.
  if (socket_.holds_input()) {
    reactor_.at_round_end([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->state_ != state::lost) self->read();
    });
  }
}

// False: lost.
bool connection::take_replies() {
  while (true) {
    reply next;
    const reply_reader::got got = replies_.next(next);
    if (got == reply_reader::got::nothing_yet) return true;
    if (got == reply_reader::got::malformed || owed_ == 0) {
      lose("what it answers is not Redis's protocol (is it a Redis port?)");
      return false;
    }
    --owed_;
    if (state_ == state::greeting) {
      greeted(next);
    } else {
      events_.on_reply(std::move(next));
    }
    if (state_ == state::lost) return false;
  }
}

void connection::owe() {
  if (owed_++ == 0) last_sign_ = net::reactor::clock::now();
  if (silence_ == 0) watch_silence();
}

void connection::watch_silence() {
  silence_ = reactor_.at(last_sign_ + patience_, [this] {
    silence_ = 0;
    if (owed_ == 0) return;
    if (net::reactor::clock::now() < last_sign_ + patience_) {
      watch_silence();
      return;
    }
    lose("no answer within " + std::to_string(patience_.count()) + " ms");
  });
}

void connection::lose(const std::string& why) {
  if (state_ == state::lost) return;
  state_ = state::lost;
  if (silence_ != 0) reactor_.cancel(silence_);
  silence_ = 0;
  reactor_.remove(this);
  socket_.close();
  events_.on_lost(why);
}

}  // namespace leveret::core::redis
