// Looking at queues: stats, dead jobs, purging.
#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::maybe_failure;
using core::message;
using core::queue_stats;
using core::settlement;

std::string record_of(const std::string& queue, int number) {
  return R"({"id":"job/)" + std::to_string(number) + R"(","task":"t","queue":")" + queue +
         R"(","reason":"exception","error":"é","attempts":[],"body":{"task":"t"}})";
}

// Makes jobs dead, as a worker does: with the settlement of a message.
void make_dead(side& s, const std::string& queue, int first, int count) {
  consumer c(s, queue, {1, 32u << 20});
  s.must_publish(make_messages(queue, 1));
  settlement end;
  end.token = c.next().token;
  for (int i = first; i < first + count; ++i)
    end.dead.push_back({queue, "job/" + std::to_string(i), record_of(queue, i)});
  s.must_settle(end);
  c.unsubscribe();
}

TEST_P(conformance, stats_count_messages_and_jobs) {
  side s(broker());
  const std::string queue = declared(s);
  queue_stats stats = s.must_stats(queue);
  EXPECT_EQ(stats.ready, 0u);
  EXPECT_EQ(stats.running.value_or(0), 0u);
  EXPECT_EQ(stats.delayed.value_or(0), 0u);
  EXPECT_EQ(stats.dead.value_or(0), 0u);
  EXPECT_EQ(stats.consumers.value_or(0), 0u);
  s.must_publish({make_message(queue, "a\nb\nc\n"), make_message(queue, "d\n"), make_message(queue, "e\nf\n")});
  EXPECT_TRUE(s.stats_become(queue, [](const queue_stats& q) { return q.ready == 3; }));
  EXPECT_EQ(s.must_stats(queue).ready_jobs.value_or(6), 6u);

  side other(broker());
  consumer c(other, queue, {1, 32u << 20});
  const delivery d = c.next();
  EXPECT_TRUE(s.stats_become(queue, [](const queue_stats& q) {
    return q.ready == 2 && q.running.value_or(1) == 1 && q.consumers.value_or(1) == 1;
  }));
  EXPECT_EQ(s.must_stats(queue).ready_jobs.value_or(3), 3u);
  settlement end;
  end.token = d.token;
  end.dead = {{queue, "job/1", record_of(queue, 1)}};
  other.must_settle(end);
  c.wait_delivered(2);
  EXPECT_TRUE(s.stats_become(queue, [](const queue_stats& q) {
    return q.ready == 1 && q.running.value_or(1) == 1 && q.dead.value_or(1) == 1;
  }));
  other.close();
  EXPECT_TRUE(s.stats_become(queue, [](const queue_stats& q) {
    return q.ready == 2 && q.running.value_or(0) == 0 && q.consumers.value_or(0) == 0;
  }));
}

TEST_P(conformance, stats_of_an_unknown_queue_are_not_found) {
  side s(broker());
  const std::string unknown = broker().unique("unknown");
  auto [then, answered] = s.once<std::vector<queue_stats>, maybe_failure>("stats");
  s.transport().stats(unknown, std::move(then));
  const auto [stats, why] = answered.get();
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::not_found);
  EXPECT_NE(why->text.find(unknown), std::string::npos) << why->text;
}

TEST_P(conformance, stats_of_all_queues_or_unsupported) {
  side s(broker());
  const std::string one = declared(s, "one");
  const std::string two = declared(s, "two");
  s.must_publish(make_messages(two, 2));
  auto [then, answered] = s.once<std::vector<queue_stats>, maybe_failure>("stats");
  s.transport().stats("", std::move(then));
  const auto [stats, why] = answered.get();
  if (!s.transport().what_it_can().list_queues) {
    ASSERT_TRUE(why);
    EXPECT_EQ(why->code, errc::unsupported);
    return;
  }
  EXPECT_FALSE(why) << why->text;
  std::vector<std::pair<std::string, std::uint64_t>> seen;
  for (const queue_stats& q : stats) {
    if (q.queue == one || q.queue == two) seen.emplace_back(q.queue, q.ready);
  }
  EXPECT_EQ(seen, (std::vector<std::pair<std::string, std::uint64_t>>{{one, 0}, {two, 2}}));
}

TEST_P(conformance, dead_jobs_are_listed_in_pages_oldest_first_and_stay) {
  side s(broker());
  const std::string queue = declared(s);
  make_dead(s, queue, 0, 3);
  make_dead(s, queue, 3, 2);
  EXPECT_TRUE(s.stats_become(
      queue, [this](const queue_stats& q) { return q.dead.value_or(5) == (promises().counts_dead_jobs ? 5u : 2u); }));
  for (int round = 0; round < 2; ++round) {
    std::vector<std::string> records;
    std::string cursor;
    for (const std::size_t expected : {2u, 2u, 1u}) {
      const auto [page, why] = s.browse_dead(queue, cursor, 2);
      ASSERT_FALSE(why) << why->text;
      ASSERT_EQ(page.entries.size(), expected);
      EXPECT_EQ(page.more, expected == 2);
      for (const core::browse_entry& entry : page.entries) {
        records.push_back(entry.record);
        EXPECT_EQ(entry.queue, queue);
        EXPECT_EQ(entry.id, "job/" + std::to_string(records.size() - 1));
      }
      cursor = page.entries.back().cursor;
    }
    const auto [past, why] = s.browse_dead(queue, cursor, 2);
    EXPECT_FALSE(why) << why->text;
    EXPECT_TRUE(past.entries.empty());
    EXPECT_FALSE(past.more);
    std::vector<std::string> wanted;
    wanted.reserve(5);
    for (int i = 0; i < 5; ++i) wanted.push_back(record_of(queue, i));
    EXPECT_EQ(records, wanted) << "in round " << round;
  }
}

TEST_P(conformance, a_queue_without_dead_jobs_lists_none) {
  side s(broker());
  const std::string queue = declared(s);
  const auto [page, why] = s.browse_dead(queue, "", 10);
  EXPECT_FALSE(why) << why->text;
  EXPECT_TRUE(page.entries.empty());
  EXPECT_FALSE(page.more);
}

TEST_P(conformance, dead_jobs_of_an_unknown_queue_are_not_found) {
  side s(broker());
  const auto [page, why] = s.browse_dead(broker().unique("unknown"), "", 10);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::not_found);
}

TEST_P(conformance, a_cursor_that_is_none_is_refused) {
  side s(broker());
  const std::string queue = declared(s);
  const auto [page, why] = s.browse_dead(queue, "no cursor", 10);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::invalid_argument);
}

TEST_P(conformance, purging_removes_what_waits_and_leaves_what_runs_and_the_dead) {
  side s(broker());
  const std::string queue = declared(s);
  make_dead(s, queue, 0, 2);
  side other(broker());
  s.must_publish(make_messages(queue, 4));
  consumer c(other, queue, {1, 32u << 20});
  const delivery running = c.next();
  c.unsubscribe();
  if (s.must_stats(queue).delayed) {
    message later = make_message(queue, "later\n");
    later.due = s.loop().wall() + 86'400'000;
    s.must_publish({later});
  }
  const bool counts_delayed = s.must_stats(queue).delayed.has_value();
  const auto [removed, why] = s.purge(queue);
  EXPECT_FALSE(why) << why->text;
  EXPECT_EQ(removed, counts_delayed ? 4u : 3u);
  const std::uint64_t dead = promises().counts_dead_jobs ? 2 : 1;
  EXPECT_TRUE(s.stats_become(queue, [dead](const queue_stats& q) {
    return q.ready == 0 && q.ready_jobs.value_or(0) == 0 && q.delayed.value_or(0) == 0 && q.running.value_or(1) == 1 &&
           q.dead.value_or(dead) == dead;
  }));
  other.must_settle(running.token);
}

TEST_P(conformance, purging_the_dead_list_removes_the_dead_only) {
  side s(broker());
  const std::string queue = declared(s);
  make_dead(s, queue, 0, 3);
  s.must_publish(make_messages(queue, 1));
  const std::uint64_t counted = promises().counts_dead_jobs ? 3 : 1;
  EXPECT_TRUE(
      s.stats_become(queue, [&](const queue_stats& q) { return q.dead.value_or(counted) == counted && q.ready == 1; }));
  const auto [removed, why] = s.purge(queue + core::kDeadSuffix);
  EXPECT_FALSE(why) << why->text;
  EXPECT_EQ(removed, counted);
  EXPECT_TRUE(s.browse_dead(queue, "", 10).first.entries.empty());
  EXPECT_EQ(s.must_stats(queue).ready, 1u);
}

TEST_P(conformance, purging_an_unknown_queue_is_not_found) {
  side s(broker());
  const auto [removed, why] = s.purge(broker().unique("unknown"));
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::not_found);
  EXPECT_EQ(removed, 0u);
}

TEST_P(conformance, a_suspects_queue_is_a_queue) {
  side s(broker());
  const std::string queue = declared(s) + core::kSuspectsSuffix;
  s.must_declare(queue);
  s.must_publish(make_messages(queue, 1));
  consumer c(s, queue, {1, 32u << 20});
  c.settle(c.next());
}

TEST_P(conformance, a_queue_cannot_have_a_dead_lists_name) {
  side s(broker());
  auto [then, answered] = s.once<core::transport::declared, maybe_failure>("declare");
  s.transport().declare(broker().unique("work") + core::kDeadSuffix, std::move(then));
  const auto [declared, why] = answered.get();
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::invalid_argument);
}

}  // namespace
}  // namespace leveret::conformance
