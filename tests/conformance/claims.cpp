// Keys that messages claim: who gets one, and when it is free again.
#include <algorithm>
#include <chrono>
#include <random>
#include <set>
#include <thread>

#include "claim.hpp"
#include "conformance/fixture.hpp"
#include "ids.hpp"
#include "wall_clock.hpp"

namespace leveret::conformance {
namespace {

using core::claim;
using core::delivery;
using core::held_until;
using core::message;
using core::publish_outcome;
using core::publish_status;
using core::settlement;

constexpr core::unix_ms kDay = 86'400'000;

/// Keys that no other test uses, where the store is shared.
std::string fresh_key() {
  static const std::string run = std::to_string(std::random_device{}());
  static std::atomic<int> last{0};
  return "4:work:" + run + "-" + std::to_string(++last);
}

std::string job_of(const message& m) { return core::make_job_id(m.id, 1); }

message claiming(side& s, const std::string& queue, const std::string& key, held_until until = held_until::end,
                 core::unix_ms window = kDay) {
  message m = make_message(queue, "{\"task\":\"work\",\"retry_count\":0}\n");
  m.headers = {{core::kHeaderClaim, core::claim_text({until, s.loop().wall() + window, job_of(m), key})}};
  return m;
}

/// What a send of the message came to: "sent", the job that has the key, or what went wrong.
std::string sent(side& s, const message& m) {
  const publish_outcome outcome = s.publish({m}).front();
  if (outcome.status != publish_status::accepted) return outcome.why.text;
  return outcome.existing.empty() ? "sent" : outcome.existing;
}

/// The system's time at its begin, and what the test adds.
class held_clock {
 public:
  held_clock() { core::stopped_wall_clock() = core::wall_clock_now(); }
  ~held_clock() { core::stopped_wall_clock() = 0; }
  held_clock(const held_clock&) = delete;
  held_clock& operator=(const held_clock&) = delete;
  void advance(core::unix_ms by) { core::stopped_wall_clock() += by; }
};

class claims : public conformance {};

TEST_P(claims, the_capability_is_told) {
  side s(broker());
  EXPECT_TRUE(s.transport().what_it_can().claims);
}

TEST_P(claims, a_second_message_of_a_key_is_not_stored_and_names_the_first_ones_job) {
  side s(broker());
  side other(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key, held_until::window);
  EXPECT_EQ(sent(s, first), "sent");
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(first));
  EXPECT_EQ(sent(other, claiming(other, queue, key)), job_of(first));
  const message another = claiming(s, queue, fresh_key());
  EXPECT_EQ(sent(s, another), "sent") << "keys have nothing to do with each other";
  consumer c(s, queue, {});
  EXPECT_EQ(ids_of(c.next(2)), (std::vector<std::string>{first.id, another.id}));
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0; }));
}

TEST_P(claims, messages_of_one_call_are_answered_each_and_keep_their_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message plain = make_message(queue, "1\n");
  const message first = claiming(s, queue, key);
  const message second = claiming(s, queue, key);
  const message last = make_message(queue, "2\n");
  const std::vector<publish_outcome> outcomes = s.publish({plain, first, second, last});
  ASSERT_EQ(outcomes.size(), 4u);
  for (const publish_outcome& each : outcomes) EXPECT_EQ(each.status, publish_status::accepted) << each.why.text;
  EXPECT_EQ(outcomes[1].existing, "");
  EXPECT_EQ(outcomes[2].existing, job_of(first));
  consumer c(s, queue, {});
  EXPECT_EQ(ids_of(c.next(3)), (std::vector<std::string>{plain.id, first.id, last.id}));
}

// A sender that got no answer sends the same message again: its own claim is no other job's.
TEST_P(claims, the_same_message_again_is_accepted_and_stored_once) {
  side s(broker());
  const std::string queue = declared(s);
  const message m = claiming(s, queue, fresh_key());
  EXPECT_EQ(sent(s, m), "sent");
  EXPECT_EQ(sent(s, m), "sent");
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 1; }));
  consumer c(s, queue, {});
  c.settle(c.next());
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0; }));
  EXPECT_EQ(c.delivered(), 1u);
}

TEST_P(claims, the_claim_arrives_with_its_message) {
  side s(broker());
  const std::string queue = declared(s);
  const message m = claiming(s, queue, "4:work:\xe2\x82\xac " + fresh_key(), held_until::start);
  EXPECT_EQ(sent(s, m), "sent");
  consumer c(s, queue, {});
  const delivery got = c.next();
  ASSERT_NE(got.msg.find_header(core::kHeaderClaim), nullptr);
  EXPECT_EQ(*got.msg.find_header(core::kHeaderClaim), m.headers.front().value);
}

TEST_P(claims, a_settlement_lets_a_key_go) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key);
  EXPECT_EQ(sent(s, first), "sent");
  consumer c(s, queue, {});
  const delivery d = c.next();
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(first)) << "it runs";
  settlement end;
  end.token = d.token;
  end.let_go = {{key, job_of(first)}};
  s.must_settle(end);
  const message second = claiming(s, queue, key);
  EXPECT_EQ(sent(s, second), "sent");
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(second));
}

TEST_P(claims, a_settlement_that_is_not_final_lets_a_key_go_and_keeps_the_delivery) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key, held_until::start);
  EXPECT_EQ(sent(s, first), "sent");
  consumer c(s, queue, {});
  settlement start;
  start.token = c.next().token;
  start.final = false;
  start.let_go = {{key, job_of(first)}};
  s.must_settle(start);
  EXPECT_EQ(sent(s, claiming(s, queue, key)), "sent");
  s.must_settle(start.token);
}

TEST_P(claims, a_key_is_let_go_by_the_job_that_holds_it_alone) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key);
  EXPECT_EQ(sent(s, first), "sent");
  consumer c(s, queue, {});
  settlement end;
  end.token = c.next().token;
  end.let_go = {{key, "01936c7a-0000-7000-8000-000000000000/1"}};
  s.must_settle(end);
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(first));
}

TEST_P(claims, a_message_that_is_refused_holds_no_key) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  EXPECT_EQ(s.publish({claiming(s, broker().unique("unknown"), key)}).front().status, publish_status::refused);
  EXPECT_EQ(sent(s, claiming(s, queue, key)), "sent");
}

TEST_P(claims, a_window_ends) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  if (!promises().windows_by_loop) {
    // By the store's own clock.
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(sent(s, claiming(s, queue, key, held_until::window, 300)), "sent");
    while (sent(s, claiming(s, queue, key, held_until::window, 300)) != "sent") std::this_thread::yield();
    EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(290));
    return;
  }
  held_clock clock;
  const message first = claiming(s, queue, key, held_until::window);
  const message until_end = claiming(s, queue, key + "'", held_until::end);
  EXPECT_EQ(sent(s, first), "sent");
  EXPECT_EQ(sent(s, until_end), "sent");
  clock.advance(kDay - 1);
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(first));
  EXPECT_EQ(sent(s, claiming(s, queue, key + "'")), job_of(until_end));
  clock.advance(1);
  EXPECT_EQ(sent(s, claiming(s, queue, key)), "sent");
  EXPECT_EQ(sent(s, claiming(s, queue, key + "'")), "sent") << "nothing is held for ever";
}

// Many windows end; what is over is dropped, and what is not stays.
TEST_P(claims, keys_whose_windows_are_over_are_dropped_and_the_others_stay) {
  if (!promises().windows_by_loop) return;
  side s(broker());
  const std::string queue = declared(s);
  held_clock clock;
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key, held_until::window, 2 * kDay);
  EXPECT_EQ(sent(s, first), "sent");
  std::vector<message> many;
  many.reserve(300);
  for (int i = 0; i < 300; ++i) many.push_back(claiming(s, queue, key + "-" + std::to_string(i)));
  s.must_publish(many);
  clock.advance(kDay);
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(sent(s, claiming(s, queue, key + "-" + std::to_string(i))), "sent") << i;
  }
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(first));
}

TEST_P(claims, threads_that_send_the_same_keys_at_once_get_one_job_for_each) {
  constexpr int kKeys = 200;
  constexpr int kThreads = 4;
  side first(broker());
  const std::string queue = declared(first);
  const std::string key = fresh_key();
  std::vector<std::vector<std::string>> jobs(kThreads);
  {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        side s(broker());
        for (int i = 0; i < kKeys; ++i) {
          const message m = claiming(s, queue, key + "-" + std::to_string(i));
          const std::string found = sent(s, m);
          jobs[static_cast<std::size_t>(t)].push_back(found == "sent" ? job_of(m) : found);
        }
      });
    }
    for (std::thread& t : threads) t.join();
  }
  for (int t = 1; t < kThreads; ++t) EXPECT_EQ(jobs[static_cast<std::size_t>(t)], jobs[0]);
  consumer c(first, queue, {static_cast<std::uint32_t>(kKeys + 1), 32u << 20});
  std::set<std::string> stored;
  for (const delivery& d : c.next(kKeys)) stored.insert(job_of(d.msg));
  EXPECT_EQ(stored, std::set<std::string>(jobs[0].begin(), jobs[0].end()));
  EXPECT_TRUE(first.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0; }));
}

// A message that waits and is taken away has no job that could let its key go. RabbitMQ shows nobody what it removes.
TEST_P(claims, a_purged_or_cancelled_job_holds_no_key_but_a_windows_stays) {
  side s(broker());
  if (!s.transport().what_it_can().browse_live) return;
  const std::string queue = declared(s);
  for (const bool purge : {true, false}) {
    for (const core::unix_ms delay : {core::unix_ms{0}, kDay}) {
      const std::string key = fresh_key();
      message until_end = claiming(s, queue, key);
      message window = claiming(s, queue, key + "'", held_until::window);
      for (message* m : {&until_end, &window}) {
        if (delay != 0) m->due = s.loop().wall() + delay;
      }
      EXPECT_EQ(sent(s, until_end), "sent");
      EXPECT_EQ(sent(s, window), "sent");
      if (purge) {
        EXPECT_EQ(s.purge(queue).first, 2u);
      } else {
        for (const message* m : {&until_end, &window}) {
          auto [then, answered] = s.once<std::vector<core::cancel_outcome>, core::maybe_failure>("cancel");
          s.transport().cancel({{job_of(*m), m->id, 1, "{\"line\":1,\"state\":\"cancelled\"}\n", false}},
                               std::move(then));
          EXPECT_EQ(std::get<0>(answered.get()), std::vector<core::cancel_outcome>{core::cancel_outcome::ended});
        }
      }
      EXPECT_EQ(sent(s, claiming(s, queue, key)), "sent") << purge << delay;
      EXPECT_EQ(sent(s, claiming(s, queue, key + "'")), job_of(window)) << purge << delay;
      s.purge(queue);
    }
  }
}

TEST_P(claims, a_replayed_job_is_stored_whoever_has_its_key) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  for (const bool taken : {false, true}) {
    const std::string key = fresh_key();
    const message first = claiming(s, queue, key);
    EXPECT_EQ(sent(s, first), "sent");
    settlement dead;
    dead.token = c.next().token;
    dead.let_go = {{key, job_of(first)}};
    dead.dead = {{queue, job_of(first),
                  R"({"id":"x","task":"work","queue":"q","reason":"rejected","error":"","attempts":[],"body":""})"}};
    s.must_settle(dead);
    const message second = claiming(s, queue, key);
    if (taken) {
      EXPECT_EQ(sent(s, second), "sent");
      EXPECT_EQ(c.next().msg.id, second.id);
    }
    message again = make_message(queue, "again\n");
    again.headers = first.headers;
    auto [then, answered] = s.once<std::uint64_t, core::maybe_failure>("revise_dead");
    s.transport().revise_dead(
        queue, [again](const core::browse_entry&) { return core::dead_fate{false, again}; }, std::move(then));
    EXPECT_EQ(std::get<0>(answered.get()), 1u);
    EXPECT_EQ(c.next().msg.id, again.id);
    // RabbitMQ's store can't be asked in the step that replays: the job goes on without a key.
    const message third = claiming(s, queue, key);
    const std::string holder = taken ? job_of(second) : promises().replay_claims ? job_of(first) : "sent";
    EXPECT_EQ(sent(s, third), holder);
    if (holder == "sent") {
      EXPECT_EQ(c.next().msg.id, third.id);
    }
  }
}

// ---- a sender is gone between the store and the broker ----

/// The key's value in the store, changed from `expected`.
std::string exchanged(side& s, const std::string& key, const std::string& expected, const std::string& value) {
  auto [then, answered] = s.once<std::string, core::maybe_failure>("exchange");
  s.transport().exchange({key, expected, value, std::chrono::milliseconds(kDay)}, std::move(then));
  const auto [found, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  return found;
}

core::limits impatient(harness& h) {
  core::limits lim = h.test_limits();
  lim.sending_lease = std::chrono::milliseconds(300);
  return lim;
}

class store_claims : public conformance {};

TEST_P(store_claims, a_key_whose_sender_is_gone_is_taken_over_under_that_ones_job) {
  side s(broker(), impatient(broker()));
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message lost = claiming(s, queue, key);
  const std::string left = "?" + job_of(lost) + " mark";
  EXPECT_EQ(exchanged(s, key, "", left), left);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(lost));
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(290));
  EXPECT_EQ(exchanged(s, key, "", ""), "!" + job_of(lost));
  EXPECT_EQ(sent(s, claiming(s, queue, key)), job_of(lost));
  consumer c(s, queue, {});
  const delivery got = c.next();
  EXPECT_EQ(got.msg.id, lost.id);
  const std::optional<claim> carried = core::claim_of(got.msg);
  ASSERT_TRUE(carried.has_value());
  EXPECT_EQ(carried->job, job_of(lost));
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0; }));
}

TEST_P(store_claims, a_sender_that_goes_on_is_waited_for) {
  side s(broker());  // its lease is longer than this test
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key);
  const std::string sending = "?" + job_of(first) + " mark";
  EXPECT_EQ(exchanged(s, key, "", sending), sending);
  auto [then, answered] = s.once<std::vector<publish_outcome>>("publish");
  s.transport().publish({claiming(s, queue, key)}, s.soon(), std::move(then));
  // One that may not wait is answered behind it: it has looked too by then.
  auto [then_too, answered_too] = s.once<std::vector<publish_outcome>>("publish");
  s.transport().publish({claiming(s, queue, key)}, s.loop().now(), std::move(then_too));
  EXPECT_EQ(std::get<0>(answered_too.get()).front().status, publish_status::refused);
  EXPECT_FALSE(answered.called());
  EXPECT_EQ(exchanged(s, key, sending, "!" + job_of(first)), "!" + job_of(first));
  const publish_outcome outcome = std::get<0>(answered.get()).front();
  EXPECT_EQ(outcome.status, publish_status::accepted) << outcome.why.text;
  EXPECT_EQ(outcome.existing, job_of(first));
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0; })) << "nobody sent it here";
}

TEST_P(store_claims, a_sender_whose_deadline_comes_first_is_told_that_nothing_was_stored) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const std::string sending = "?01936c7a-0000-7000-8000-000000000000/1 mark";
  EXPECT_EQ(exchanged(s, key, "", sending), sending);
  auto [then, answered] = s.once<std::vector<publish_outcome>>("publish");
  s.transport().publish({claiming(s, queue, key)}, s.loop().now(), std::move(then));
  const publish_outcome outcome = std::get<0>(answered.get()).front();
  EXPECT_EQ(outcome.status, publish_status::refused);
  EXPECT_NE(outcome.why.text.find("another sender has taken the key"), std::string::npos) << outcome.why.text;
  EXPECT_EQ(exchanged(s, key, "", ""), sending);
}

// Its worker was faster than its sender.
TEST_P(store_claims, a_job_that_ends_before_its_sender_has_noted_it_lets_its_key_go) {
  side s(broker(), impatient(broker()));
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  const message first = claiming(s, queue, key);
  EXPECT_EQ(sent(s, first), "sent");
  EXPECT_EQ(exchanged(s, key, "!" + job_of(first), "?" + job_of(first) + " mark"), "?" + job_of(first) + " mark");
  consumer c(s, queue, {});
  settlement end;
  end.token = c.next().token;
  end.let_go = {{key, job_of(first)}};
  s.must_settle(end);
  EXPECT_EQ(exchanged(s, key, "", ""), "");
}

TEST_P(store_claims, what_waits_is_answered_when_the_transport_closes) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  EXPECT_NE(exchanged(s, key, "", "?01936c7a-0000-7000-8000-000000000000/1 mark"), "");
  auto [then, answered] = s.once<std::vector<publish_outcome>>("publish");
  s.transport().publish({claiming(s, queue, key)}, s.soon(), std::move(then));
  const auto began = std::chrono::steady_clock::now();
  s.transport().close(s.soon());
  EXPECT_EQ(std::get<0>(answered.get()).front().status, publish_status::refused);
  EXPECT_LT(std::chrono::steady_clock::now() - began, core::limits().sending_lease) << "it is not waited for";
}

TEST_P(store_claims, another_programs_value_is_left_alone) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string key = fresh_key();
  EXPECT_EQ(exchanged(s, key, "", "mine"), "mine");
  EXPECT_NE(sent(s, claiming(s, queue, key)).find("has something else under that key"), std::string::npos);
  EXPECT_EQ(exchanged(s, key, "", ""), "mine");
}

INSTANTIATE_TEST_SUITE_P(transports, store_claims,
                         testing::Values(rabbitmq_with_sqlite_kind(), rabbitmq_with_redis_kind()),
                         [](const testing::TestParamInfo<kind>& of) { return of.param.name; });

INSTANTIATE_TEST_SUITE_P(transports, claims,
                         testing::Values(memory_kind(), sqlite_kind(), rabbitmq_with_sqlite_kind(),
                                         rabbitmq_with_redis_kind()),
                         [](const testing::TestParamInfo<kind>& of) { return of.param.name; });

}  // namespace
}  // namespace leveret::conformance
