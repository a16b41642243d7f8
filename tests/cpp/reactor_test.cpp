/// The I/O thread of what speaks to a server: how it pauses while much comes in.
#include "net/reactor.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <stdexcept>
#include <utility>

namespace leveret::core::net {
namespace {

using std::chrono::milliseconds;
using time_point = reactor::clock::time_point;

constexpr milliseconds kPause{60};

/// A descriptor that can be read once; says when the reactor saw it.
class source final : public pollable {
 public:
  source() : event_(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~source() override { ::close(event_); }
  source(const source&) = delete;
  source& operator=(const source&) = delete;

  std::pair<int, short> prepare() override { return {event_, std::int16_t{POLLIN}}; }
  void ready(short) override {
    std::uint64_t count = 0;
    EXPECT_EQ(::read(event_, &count, sizeof count), static_cast<ssize_t>(sizeof count));
    seen.set_value(reactor::clock::now());
  }

  std::promise<time_point> seen;

 private:
  int event_;
};

template <class T>
T get(std::future<T> f) {
  if (f.wait_for(std::chrono::seconds(30)) != std::future_status::ready) throw std::runtime_error("it does not end");
  return f.get();
}

}  // namespace

TEST(reactor, looks_at_no_socket_and_no_post_while_it_is_moderated) {
  reactor r;
  source input;
  std::promise<time_point> began;
  std::promise<time_point> ran;
  std::promise<void> ended;
  r.start("reactor");
  r.post([&] {
    r.add(&input);
    r.moderate(kPause);
    began.set_value(reactor::clock::now());
  });
  const time_point from = get(began.get_future());
  r.post([&] { ran.set_value(reactor::clock::now()); });
  EXPECT_GE(get(ran.get_future()) - from, kPause);
  EXPECT_GE(get(input.seen.get_future()) - from, kPause);
  // The pause was for one round: the next posts are answered as ever.
  r.post([&] {
    r.remove(&input);
    ended.set_value();
  });
  get(ended.get_future());
  r.stop();
}

TEST(reactor, a_timer_and_what_a_round_left_to_do_end_a_pause) {
  reactor r;
  std::promise<time_point> began;
  std::promise<time_point> timer;
  std::promise<void> rest;
  r.start("reactor");
  r.post([&] {
    began.set_value(reactor::clock::now());
    r.moderate(std::chrono::minutes(1));
    r.after(milliseconds(20), [&] { timer.set_value(reactor::clock::now()); });
  });
  EXPECT_GE(get(timer.get_future()) - get(began.get_future()), milliseconds(20));
  r.post([&] {
    r.set_round_hook([&r, &rest, once = false]() mutable {
      if (std::exchange(once, true)) return;
      r.moderate(std::chrono::minutes(1));
      r.at_round_end([&rest] { rest.set_value(); });
    });
  });
  get(rest.get_future());
  r.stop();
}

TEST(reactor, a_pause_does_not_outlive_what_is_posted_again_and_again) {
  reactor r;
  r.start("reactor");
  int ran = 0;
  for (int i = 0; i < 200; ++i) {
    std::promise<void> done;
    r.post([&] {
      ++ran;
      r.moderate(std::chrono::microseconds(i % 3 * 50));
      done.set_value();
    });
    get(done.get_future());
  }
  EXPECT_EQ(ran, 200);
  r.stop();
}

}  // namespace leveret::core::net
