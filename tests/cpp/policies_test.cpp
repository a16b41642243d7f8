#include <gtest/gtest.h>

#include <algorithm>

#include "redelivery.hpp"
#include "retry.hpp"
#include "start_window.hpp"

using namespace leveret::core;
using std::chrono::milliseconds;

TEST(retry, backoff_is_full_jitter_below_the_doubled_base_and_the_cap) {
  const retry_policy policy;
  const random_source random = seeded_random(7);
  for (std::uint32_t n = 0; n < 40; ++n) {
    const std::int64_t most = n < 9 ? 1'000ll << n : 300'000;
    std::int64_t low = most;
    std::int64_t high = 0;
    for (int i = 0; i < 2'000; ++i) {
      const std::int64_t delay = backoff(policy, n, random).count();
      ASSERT_GE(delay, 0);
      ASSERT_LE(delay, most);
      low = std::min(low, delay);
      high = std::max(high, delay);
    }
    EXPECT_LT(low, most / 50) << "full jitter reaches down to nothing";
    EXPECT_GT(high, most - most / 50) << "and up to the limit";
  }
}

TEST(retry, the_line_beats_the_task_and_the_task_the_default) {
  const retry_policy policy;  // 3
  EXPECT_TRUE(may_retry(policy, 2, -1, -1));
  EXPECT_FALSE(may_retry(policy, 3, -1, -1));
  EXPECT_TRUE(may_retry(policy, 3, -1, 5));
  EXPECT_FALSE(may_retry(policy, 1, 1, 5));
  EXPECT_FALSE(may_retry(policy, 0, 0, 5));
}

namespace {
delivery returned(std::int32_t returns, std::vector<header> headers = {}) {
  delivery d;
  d.returns = returns;
  d.msg.headers = std::move(headers);
  return d;
}
}  // namespace

TEST(redelivery, a_message_runs_in_place_twice_and_then_moves_to_the_suspects) {
  for (const int n : {-1, 0, 1, 2}) EXPECT_EQ(on_return(returned(n), false, true, 3), redelivery_action::run) << n;
  EXPECT_EQ(on_return(returned(3), false, true, 3), redelivery_action::move_to_suspects);
  EXPECT_EQ(on_return(returned(9), false, false, 3), redelivery_action::run) << "a foreign queue has no suspects";
}

TEST(redelivery, a_suspect_batch_is_split_at_its_first_crash) {
  EXPECT_EQ(on_return(returned(0, {{kHeaderSuspect, kSuspectBatch}}), true, false, 3), redelivery_action::run);
  EXPECT_EQ(on_return(returned(1, {{kHeaderSuspect, kSuspectBatch}}), true, false, 3),
            redelivery_action::split_into_singles);
}

TEST(redelivery, a_single_suspect_is_dead_after_max_crashes_also_those_before_a_clean_return) {
  const header single{kHeaderSuspect, kSuspectSingle};
  EXPECT_EQ(on_return(returned(2, {single}), true, false, 3), redelivery_action::run);
  EXPECT_EQ(on_return(returned(3, {single}), true, false, 3), redelivery_action::dead_crashed);
  EXPECT_EQ(on_return(returned(1, {single, {kHeaderCrashes, "1"}}), true, false, 3), redelivery_action::run);
  EXPECT_EQ(on_return(returned(1, {single, {kHeaderCrashes, "2"}}), true, false, 3), redelivery_action::dead_crashed);
}

namespace {
constexpr std::chrono::duration<double> kFast{0.001};
}

TEST(start_window, restarts_at_one_after_an_unclean_end_and_doubles_with_each_settled_message) {
  start_window w(64, 4);
  EXPECT_EQ(w.size(), 4u) << "one message a thread";
  for (const std::uint32_t next : {8u, 16u, 32u, 64u}) {
    EXPECT_TRUE(w.settled(100, kFast));
    EXPECT_EQ(w.size(), next);
  }
  EXPECT_FALSE(w.settled(100, kFast)) << "it never grows past its most";
  EXPECT_TRUE(w.unclean());
  EXPECT_EQ(w.size(), 1u);
  EXPECT_FALSE(w.unclean());
  EXPECT_TRUE(w.settled(100, kFast));
  EXPECT_EQ(w.size(), 2u);
}

TEST(start_window, holds_no_more_than_a_second_of_work) {
  start_window w(64, 1);
  for (int i = 0; i < 20; ++i) (void)w.settled(12, std::chrono::milliseconds(480));
  EXPECT_EQ(w.size(), 2u);
  for (int i = 0; i < 20; ++i) (void)w.settled(12, std::chrono::seconds(30));
  EXPECT_EQ(w.size(), 1u);
  for (int i = 0; i < 60; ++i) (void)w.settled(12, kFast);
  EXPECT_EQ(w.size(), 64u);
}

TEST(start_window, keeps_every_thread_busy_with_slow_single_jobs) {
  start_window w(64, 8);
  for (int i = 0; i < 20; ++i) (void)w.settled(1, std::chrono::seconds(5));
  EXPECT_EQ(w.size(), 8u);
  for (int i = 0; i < 40; ++i) (void)w.settled(3, std::chrono::seconds(5));
  EXPECT_EQ(w.size(), 3u) << "three messages of three jobs fill eight threads";
}
