// A thread that waits for what it publishes does the transport's work itself: see writer::lend_thread.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/session.hpp"

namespace leveret::core {
namespace {

using test::body_of;
using test::folder;
using test::kPatience;
using test::make_message;
using test::make_messages;
using test::session;
using test::subscription;

struct answer {
  publish_outcome outcome;
  std::thread::id by;
};

/// Publishes by `transport::lend_thread`. Gives the answer, and whether it was there when that returned.
std::pair<answer, bool> lend(session& s, message m) {
  auto answered = std::make_shared<std::promise<answer>>();
  std::future<answer> waiting = answered->get_future();
  s.transport().lend_thread([&] {
    std::vector<message> one;
    one.push_back(std::move(m));
    s.transport().publish(std::move(one), s.loop().now() + kPatience,
                          [answered](std::vector<publish_outcome> outcomes) {
                            answered->set_value({outcomes.at(0), std::this_thread::get_id()});
                          });
  });
  const bool at_once = waiting.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  if (waiting.wait_for(kPatience) != std::future_status::ready) throw std::runtime_error("no answer");
  return {waiting.get(), at_once};
}

/// Until the transport's thread sleeps: then a lender does its work.
int lend_until_at_once(session& s) {
  for (int sent = 1;; ++sent) {
    const auto [got, at_once] = lend(s, make_message("q", "1\n"));
    EXPECT_EQ(got.outcome.status, publish_status::accepted) << got.outcome.why.text;
    if (at_once && got.by == std::this_thread::get_id()) return sent;
    if (sent == 10'000) {
      ADD_FAILURE() << "its own thread never answered";
      return sent;
    }
  }
}

TEST(sqlite_lending, the_senders_thread_commits_and_answers) {
  const folder f;
  session s(f.url());
  s.declare("q");
  const int sent = lend_until_at_once(s);
  session other(f.url());
  EXPECT_EQ(other.queue("q").ready, static_cast<std::uint64_t>(sent));
}

TEST(sqlite_lending, an_error_comes_as_an_answer_too) {
  const folder f;
  session s(f.url());
  s.declare("q");
  lend_until_at_once(s);
  const auto [got, at_once] = lend(s, make_message("nowhere", "1\n"));
  EXPECT_EQ(got.outcome.status, publish_status::refused);
  EXPECT_EQ(got.outcome.why.code, errc::not_found);
  s.close();
  EXPECT_EQ(lend(s, make_message("q", "1\n")).first.outcome.why.code, errc::closed);
}

TEST(sqlite_lending, what_a_lender_throws_leaves_the_work_to_the_thread) {
  const folder f;
  session s(f.url());
  s.declare("q");
  lend_until_at_once(s);
  const std::uint64_t before = s.queue("q").ready;
  std::promise<publish_status> answered;
  const auto thrower = [&] {
    s.transport().publish(make_messages("q", 1), s.loop().now() + kPatience,
                          [&](std::vector<publish_outcome> outcomes) { answered.set_value(outcomes.at(0).status); });
    throw std::runtime_error("meant");
  };
  EXPECT_THROW(s.transport().lend_thread(thrower), std::runtime_error);
  EXPECT_EQ(answered.get_future().get(), publish_status::accepted);
  EXPECT_EQ(s.queue("q").ready, before + 1);
}

TEST(sqlite_lending, the_thread_is_not_kept_from_its_own_work) {
  const folder f;
  session s(f.url());
  s.declare("q");
  std::atomic<bool> stop{false};
  std::atomic<int> sent{0};
  std::thread lender([&] {
    while (!stop) {
      EXPECT_EQ(lend(s, make_message("q", "1\n")).first.outcome.status, publish_status::accepted);
      ++sent;
    }
  });
  // Reads, a consumer that comes and goes, and what it takes.
  std::uint64_t seen = 0;
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t now = s.queue("q").ready;
    EXPECT_GE(now + 10, seen);
    seen = now;
  }
  {
    window w;
    w.messages = 10;
    subscription c(s, "q", w);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(s.settle(c.next()).status, settle_status::settled);
    c.unsubscribe();
  }
  stop = true;
  lender.join();
  EXPECT_GT(sent.load(), 0);
}

TEST(sqlite_lending, lenders_of_many_threads_store_each_message_once) {
  constexpr int kThreads = 6;
  constexpr int kEach = 50;
  const folder f;
  session s(f.url());
  s.declare("q");
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&s, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::string text = std::to_string(t * kEach + i) + "\n";
        EXPECT_EQ(lend(s, make_message("q", text)).first.outcome.status, publish_status::accepted);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  window w;
  w.messages = kThreads * kEach;
  subscription c(s, "q", w);
  std::set<std::string> bodies;
  for (const delivery& d : c.next(kThreads * kEach)) bodies.insert(body_of(d));
  EXPECT_EQ(bodies.size(), static_cast<std::size_t>(kThreads * kEach));
}

}  // namespace
}  // namespace leveret::core
