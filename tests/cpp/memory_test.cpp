// What only the memory transport promises, on top of the conformance suite: lifetime of the contents, virtual time,
// bounds.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "manual_loop.hpp"
#include "transport.hpp"
#include "transports/memory/faults.hpp"
#include "transports/memory/result_store.hpp"

namespace leveret::core {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string fresh_url() {
  static int last = 0;
  return "memory://memory-test-" + std::to_string(++last);
}

// A transport on a loop in virtual time; what comes is kept.
struct end_point {
  explicit end_point(const std::string& url, const limits& lim = {}) : t(open_memory(url, l, lim)) {}

  void declare(const std::string& queue) {
    t->declare(queue, [](transport::declared, const maybe_failure& why) { EXPECT_FALSE(why) << why->text; });
    l.run_until_idle();
  }
  publish_outcome publish(const std::string& queue, const std::string& id, unix_ms due = 0) {
    message m;
    m.id = id;
    m.queue = queue;
    m.data = body("{}\n");
    m.jobs = 1;
    m.due = due;
    publish_outcome outcome;
    t->publish({m}, l.now(), [&](const std::vector<publish_outcome>& outcomes) { outcome = outcomes.at(0); });
    l.run_until_idle();
    return outcome;
  }
  void subscribe(const std::string& queue, std::uint32_t messages = 64) {
    subscriber events;
    events.on_delivery = [this](delivery d) { got.push_back(std::move(d)); };
    events.on_lost = [this](const std::vector<delivery_token>& tokens) { lost = tokens; };
    events.on_ended = [this](const failure& why) { ended.push_back(why); };
    t->subscribe(queue, {messages, 1u << 20}, std::move(events));
    l.run_until_idle();
  }
  settle_status settle(const delivery& d, std::vector<result_chunk> results = {}) {
    settlement s;
    s.token = d.token;
    s.results = std::move(results);
    settle_status status = settle_status::failed;
    t->settle({s}, [&](const std::vector<settle_outcome>& outcomes) { status = outcomes.at(0).status; });
    l.run_until_idle();
    return status;
  }
  queue_stats stats(const std::string& queue) {
    queue_stats found;
    t->stats(queue, [&](const std::vector<queue_stats>& all, const maybe_failure&) { found = all.at(0); });
    l.run_until_idle();
    return found;
  }
  std::vector<result_chunk> fetch(const std::string& id) {
    std::vector<result_chunk> found;
    t->fetch({id}, [&](std::vector<result_chunk> chunks, const maybe_failure&) { found = std::move(chunks); });
    l.run_until_idle();
    return found;
  }
  [[nodiscard]] std::vector<std::string> ids() const {
    std::vector<std::string> all;
    all.reserve(got.size());
    for (const delivery& d : got) all.push_back(d.msg.id);
    return all;
  }

  manual_loop l;
  std::unique_ptr<transport> t;
  std::vector<delivery> got;
  std::vector<delivery_token> lost;
  std::vector<failure> ended;
};

result_chunk chunk_of(const std::string& id, const std::string& reply, std::size_t bytes = 10) {
  result_chunk chunk;
  chunk.id = id;
  chunk.reply = reply;
  chunk.first_line = chunk.last_line = 1;
  chunk.data = std::string(bytes, 'x');
  return chunk;
}

std::vector<std::string> ids_of(const std::vector<result_chunk>& chunks) {
  std::vector<std::string> ids;
  ids.reserve(chunks.size());
  for (const result_chunk& chunk : chunks) ids.push_back(chunk.id);
  return ids;
}

TEST(memory_transport, contents_live_until_the_last_transport_of_their_name_is_closed) {
  const std::string url = fresh_url();
  auto first = std::make_unique<end_point>(url);
  first->declare("q");
  EXPECT_EQ(first->publish("q", "m1").status, publish_status::accepted);
  auto second = std::make_unique<end_point>(url);
  first.reset();
  EXPECT_EQ(second->stats("q").ready, 1u);
  second->t->close({});
  end_point third(url);
  maybe_failure why;
  third.t->stats("q", [&](const std::vector<queue_stats>&, maybe_failure failed) { why = std::move(failed); });
  third.l.run_until_idle();
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::not_found);
}

TEST(memory_transport, names_are_separate_brokers_and_no_name_is_one_too) {
  end_point named(fresh_url());
  end_point unnamed("memory://");
  end_point unnamed_too("memory://");
  unnamed.declare("q");
  EXPECT_EQ(unnamed_too.publish("q", "m1").status, publish_status::accepted);
  EXPECT_EQ(named.publish("q", "m1").status, publish_status::refused);
}

TEST(memory_transport, refuses_urls_that_are_no_name) {
  manual_loop l;
  for (const char* url : {"memory:///x", "memory://a/b", "memory://a?b=c", "memory://a b", "sqlite://x", "memory:x"}) {
    EXPECT_THROW((void)open_memory(url, l, {}), std::invalid_argument) << url;
  }
}

TEST(memory_transport, due_times_go_by_the_consumers_wall_clock) {
  end_point e(fresh_url());
  e.declare("q");
  e.subscribe("q");
  (void)e.publish("q", "late", e.l.wall() + 3'600'000);
  (void)e.publish("q", "soon", e.l.wall() + 500);
  e.l.advance(milliseconds(499));
  EXPECT_TRUE(e.got.empty());
  e.l.advance(milliseconds(1));
  EXPECT_EQ(e.ids(), std::vector<std::string>{"soon"});
  e.l.advance(hours(1));
  EXPECT_EQ(e.ids(), (std::vector<std::string>{"soon", "late"}));
}

TEST(memory_transport, a_step_of_the_wall_clock_is_noticed_within_ten_seconds) {
  end_point e(fresh_url());
  e.declare("q");
  e.subscribe("q");
  (void)e.publish("q", "m", e.l.wall() + 3'600'000);
  e.l.step_wall(hours(2));
  e.l.advance(seconds(10));
  EXPECT_EQ(e.ids(), std::vector<std::string>{"m"});
}

TEST(memory_transport, a_due_message_joins_the_end_of_its_queue) {
  end_point e(fresh_url());
  e.declare("q");
  (void)e.publish("q", "delayed", e.l.wall() + 1'000);
  (void)e.publish("q", "before");
  e.l.advance(seconds(2));
  EXPECT_EQ(e.stats("q").ready, 2u);  // it became due when somebody looked
  (void)e.publish("q", "after");
  e.subscribe("q");
  EXPECT_EQ(e.ids(), (std::vector<std::string>{"before", "delayed", "after"}));
}

TEST(memory_transport, the_ids_of_ended_messages_are_remembered_up_to_a_bound) {
  end_point e(fresh_url());
  e.declare("q");
  e.subscribe("q");
  (void)e.publish("q", "first");
  EXPECT_EQ(e.settle(e.got.at(0)), settle_status::settled);
  EXPECT_EQ(e.publish("q", "first").status, publish_status::accepted);
  EXPECT_EQ(e.got.size(), 1u);
  for (int i = 0; i < 65'536; ++i) {
    (void)e.publish("q", std::to_string(i));
    (void)e.settle(e.got.back());
    e.got.resize(1);
  }
  (void)e.publish("q", "first");
  ASSERT_EQ(e.got.size(), 2u);
  EXPECT_EQ(e.got.back().msg.id, "first");
}

TEST(memory_transport, the_same_id_in_another_queue_is_another_message) {
  end_point e(fresh_url());
  e.declare("q");
  e.declare("r");
  (void)e.publish("q", "m");
  (void)e.publish("r", "m");
  EXPECT_EQ(e.stats("q").ready, 1u);
  EXPECT_EQ(e.stats("r").ready, 1u);
}

TEST(memory_transport, a_killed_transport_calls_nothing_back_and_charges_what_it_held) {
  const std::string url = fresh_url();
  end_point victim(url);
  end_point other(url);
  other.declare("q");
  victim.subscribe("q", 2);
  for (const char* id : {"a", "b", "c"}) (void)other.publish("q", id);
  kill_memory_transport(*victim.t);  // before its loop has run: handed out, and never seen
  victim.l.run_until_idle();
  EXPECT_TRUE(victim.got.empty());
  EXPECT_TRUE(victim.ended.empty());
  victim.t->close({});
  other.subscribe("q");
  EXPECT_EQ(other.ids(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(other.got.at(0).returns, 1);
  EXPECT_EQ(other.got.at(1).returns, 1);
  EXPECT_EQ(other.got.at(2).returns, 0);
}

TEST(memory_transport, lost_deliveries_are_named_come_again_and_are_fenced) {
  end_point e(fresh_url());
  e.declare("q");
  e.subscribe("q");
  (void)e.publish("q", "m");
  const delivery before = e.got.at(0);
  lose_memory_deliveries(*e.t);
  e.l.run_until_idle();
  EXPECT_EQ(e.lost, std::vector<delivery_token>{before.token});
  ASSERT_EQ(e.got.size(), 2u);
  EXPECT_EQ(e.got.at(1).returns, 1);
  EXPECT_EQ(e.settle(before), settle_status::fenced);
  EXPECT_EQ(e.settle(e.got.at(1)), settle_status::settled);
}

TEST(memory_transport, consumers_take_turns) {
  const std::string url = fresh_url();
  end_point a(url);
  end_point b(url);
  a.declare("q");
  a.subscribe("q");
  b.subscribe("q");
  for (int i = 0; i < 6; ++i) (void)a.publish("q", std::to_string(i));
  b.l.run_until_idle();
  EXPECT_EQ(a.ids(), (std::vector<std::string>{"0", "2", "4"}));
  EXPECT_EQ(b.ids(), (std::vector<std::string>{"1", "3", "5"}));
}

TEST(memory_transport, results_leave_when_their_time_is_over) {
  limits lim;
  lim.result_ttl = seconds(60);
  end_point e(fresh_url(), lim);
  e.declare("q");
  e.subscribe("q");
  (void)e.publish("q", "m");
  (void)e.settle(e.got.at(0), {chunk_of("m", "somebody")});
  e.l.advance(seconds(59));
  EXPECT_EQ(e.fetch("m").size(), 1u);
  e.l.advance(seconds(1));
  EXPECT_TRUE(e.fetch("m").empty());
}

TEST(result_store, drops_the_oldest_past_the_cap) {
  memory::result_store store;
  for (int i = 0; i < 10; ++i) store.add(chunk_of(std::to_string(i), "r", 10'000), false, 1'000, 35'000);
  EXPECT_EQ(ids_of(store.take("r")), (std::vector<std::string>{"7", "8", "9"}));
  EXPECT_TRUE(store.find("6").empty());
  EXPECT_EQ(store.find("7").size(), 1u);
}

TEST(result_store, of_what_watchers_had_only_the_newest_megabytes_are_kept) {
  constexpr std::uint64_t kNoCap = 1ull << 40;
  constexpr std::size_t kMebibyte = 1u << 20;
  memory::result_store store;
  store.add(chunk_of("waiting", "w", kMebibyte), false, 1'000, kNoCap);
  for (int i = 0; i < 100; ++i) store.add(chunk_of(std::to_string(i), "r", kMebibyte), true, 1'000, kNoCap);
  EXPECT_TRUE(store.find("36").empty());
  EXPECT_EQ(store.find("37").size(), 1u);
  EXPECT_EQ(store.find("99").size(), 1u);
  EXPECT_TRUE(store.take("r").empty());
  EXPECT_EQ(ids_of(store.take("w")), std::vector<std::string>{"waiting"});
  EXPECT_TRUE(store.find("37").empty());  // it counts as handed now, and pushed the oldest out
}

TEST(result_store, forgets_what_expired_everywhere) {
  memory::result_store store;
  store.add(chunk_of("a", "r"), false, 100, 1u << 20);
  store.add(chunk_of("b", "r"), false, 200, 1u << 20);
  store.expire(100);
  EXPECT_TRUE(store.find("a").empty());
  EXPECT_EQ(ids_of(store.take("r")), std::vector<std::string>{"b"});
}

}  // namespace
}  // namespace leveret::core
