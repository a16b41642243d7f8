// Acknowledgements that share a commit: which wait for company, and what ends their waiting.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/session.hpp"

namespace leveret::core {
namespace {

using test::folder;
using test::kPatience;
using test::make_messages;
using test::session;
using test::subscription;

/// Who waits, waits until something else ends it: the time never does.
limits patient() {
  limits lim;
  lim.ack_flush = std::chrono::hours(1);
  lim.ack_flush_messages = 4;
  lim.ack_flush_commits = 0;
  return lim;
}

window messages(std::uint32_t count) {
  window w;
  w.messages = count;
  return w;
}

struct acks : testing::Test {
  using outcomes = std::vector<settle_outcome>;

  const folder f;
  session s{f.url(), patient()};

  acks() {
    s.declare("q");
    s.must_publish(make_messages("q", 20));
  }
  std::future<outcomes> acknowledge(const delivery& d) {
    settlement one;
    one.token = d.token;
    auto answer = std::make_shared<std::promise<outcomes>>();
    std::vector<settlement> all;
    all.push_back(std::move(one));
    s.transport().settle(std::move(all), [answer](outcomes o) { answer->set_value(std::move(o)); });
    return answer->get_future();
  }
  /// Whether it waits after the transport has done all that was handed in before.
  bool waits(const std::future<outcomes>& answer) {
    (void)s.queue("q");
    return answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  }
  static void expect_settled(std::future<outcomes>& answer) {
    ASSERT_EQ(answer.wait_for(kPatience), std::future_status::ready);
    EXPECT_EQ(answer.get().at(0).status, settle_status::settled);
  }
};

TEST_F(acks, wait_until_there_are_enough) {
  subscription c(s, "q", messages(100));
  const std::vector<delivery> got = c.next(4);
  std::vector<std::future<outcomes>> answers;
  for (std::size_t i = 0; i < 3; ++i) answers.push_back(acknowledge(got[i]));
  EXPECT_TRUE(waits(answers[0]));
  EXPECT_TRUE(waits(answers[2]));
  answers.push_back(acknowledge(got[3]));
  for (auto& answer : answers) expect_settled(answer);
}

TEST_F(acks, go_with_any_other_write) {
  subscription c(s, "q", messages(100));
  auto answer = acknowledge(c.next());
  EXPECT_TRUE(waits(answer));
  s.must_publish(make_messages("q", 1));
  expect_settled(answer);
}

TEST_F(acks, wait_for_nothing_when_a_window_is_full) {
  subscription c(s, "q", messages(1));
  for (int i = 0; i < 20; ++i) {
    auto answer = acknowledge(c.next());
    expect_settled(answer);
  }
}

TEST_F(acks, wait_for_nothing_when_they_store_something) {
  subscription c(s, "q", messages(100));
  const delivery d = c.next();
  settlement with_result;
  with_result.token = d.token;
  with_result.results.push_back({d.msg.id, "reply", 1, 1, "r\n"});
  EXPECT_EQ(s.settle(std::move(with_result)).status, settle_status::settled);
}

TEST_F(acks, are_done_when_their_consumer_leaves) {
  auto c = std::make_unique<subscription>(s, "q", messages(100));
  auto answer = acknowledge(c->next());
  EXPECT_TRUE(waits(answer));
  c->unsubscribe();
  expect_settled(answer);
}

TEST_F(acks, are_done_before_a_close) {
  subscription c(s, "q", messages(100));
  auto answer = acknowledge(c.next());
  EXPECT_TRUE(waits(answer));
  s.close();
  expect_settled(answer);
  session again(f.url());
  EXPECT_EQ(again.queue("q").ready, 19u);
}

TEST(acks_in_time, are_done_by_themselves) {
  const folder f;
  session s(f.url());
  s.declare("q");
  s.must_publish(make_messages("q", 2));
  subscription c(s, "q", messages(100));
  EXPECT_EQ(s.settle(c.next()).status, settle_status::settled);
}

}  // namespace
}  // namespace leveret::core
