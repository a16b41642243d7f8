// Ordered queues: one message out at a time, whoever consumes, and always the first one.
#include <algorithm>
#include <chrono>
#include <thread>

#include "conformance/fixture.hpp"
#include "ordered.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::message;

constexpr core::window kOne{1, 32u << 20, 1};

std::string ordered(side& s, harness& h, std::uint32_t shard = 0) {
  const std::string queue = core::ordered_queue(h.unique("work"), shard);
  s.must_declare(queue);
  return queue;
}

std::vector<std::string> bodies(const std::vector<delivery>& all) {
  std::vector<std::string> out;
  for (const delivery& d : all) out.emplace_back(d.msg.data.view());
  return out;
}

TEST_P(conformance, an_ordered_queue_has_one_message_out_at_a_time) {
  side s(broker());
  side other(broker());
  const std::string queue = ordered(s, broker());
  consumer first(s, queue, {7, 32u << 20});
  consumer second(other, queue, {7, 32u << 20});
  s.must_publish(make_messages(queue, 40));
  std::vector<std::string> got;
  std::size_t from_first = 0;
  std::size_t from_second = 0;
  while (got.size() < 40) {
    ASSERT_TRUE(s.stats_become(queue, [&](const core::queue_stats& stats) {
      return first.delivered() + second.delivered() == got.size() + 1 && stats.ready == 39 - got.size();
    }));
    consumer& holder = first.delivered() > from_first ? first : second;
    const delivery d = holder.next();
    got.emplace_back(d.msg.data.view());
    from_first = first.delivered();
    from_second = second.delivered();
    holder.settle(d);
  }
  EXPECT_EQ(from_first + from_second, 40u);
  std::vector<std::string> sent;
  for (int i = 0; i < 40; ++i) sent.push_back(std::to_string(i) + "\n");
  EXPECT_EQ(got, sent);
}

TEST_P(conformance, ordered_queues_do_not_hold_each_other_back) {
  side s(broker());
  const std::string base = broker().unique("work");
  const std::string one = core::ordered_queue(base, 0);
  const std::string two = core::ordered_queue(base, 15);
  s.must_declare(one);
  s.must_declare(two);
  consumer first(s, one, kOne);
  consumer second(s, two, kOne);
  s.must_publish(make_messages(one, 2));
  s.must_publish(make_messages(two, 2));
  const delivery held = first.next();
  second.settle(second.next());
  EXPECT_EQ(second.next().msg.data.view(), "1\n");
  first.settle(held);
  EXPECT_EQ(first.next().msg.data.view(), "1\n");
}

TEST_P(conformance, an_ordered_queue_begins_again_with_what_a_killed_consumer_held) {
  side s(broker());
  const std::string queue = ordered(s, broker());
  const std::unique_ptr<other_consumer> killed = broker().consume(queue, kOne);
  s.must_publish(make_messages(queue, 10));
  EXPECT_EQ(killed->take(1).size(), 1u);
  consumer next(s, queue, kOne);
  next.settle_all_by_itself();
  killed->vanish();
  next.wait_delivered(10);
  const std::vector<delivery> got = next.next(10);
  std::vector<std::string> sent;
  for (int i = 0; i < 10; ++i) sent.push_back(std::to_string(i) + "\n");
  EXPECT_EQ(bodies(got), sent);
  EXPECT_EQ(got.front().returns, counted(s, 1));
}

TEST_P(conformance, what_a_consumer_of_an_ordered_queue_gives_back_comes_first_again) {
  side s(broker());
  const std::string queue = ordered(s, broker());
  s.must_publish(make_messages(queue, 5));
  consumer c(s, queue, kOne);
  const delivery d = c.next();
  EXPECT_EQ(d.msg.data.view(), "0\n");
  c.release({d});
  const delivery again = c.next();
  EXPECT_EQ(again.msg.data.view(), "0\n");
  c.settle(again);
  EXPECT_EQ(c.next().msg.data.view(), "1\n");
}

// A consumer, and how many of its deliveries were seen.
struct taker {
  taker(harness& h, const std::string& queue) : at(std::make_unique<side>(h)), c(*at, queue, kOne) {}
  std::unique_ptr<side> at;
  consumer c;
  std::size_t seen = 0;
};

// The next delivery of an ordered queue, and whose it is.
taker& wait_for_next(const std::vector<std::unique_ptr<taker>>& all) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    for (const auto& each : all) {
      if (each->c.delivered() > each->seen) {
        ++each->seen;
        return *each;
      }
    }
    std::this_thread::yield();
  }
  throw std::runtime_error("nobody gets the next message");
}

// As workers that are told to stop: they unsubscribe, end what runs or give back what has not begun, and close, while
// others wait for their places.
TEST_P(conformance, an_ordered_queue_stays_in_order_while_consumers_stop) {
  constexpr std::size_t kMessages = 60;
  side s(broker());
  const std::string queue = ordered(s, broker());
  s.must_publish(make_messages(queue, kMessages));
  std::vector<std::string> got;
  std::vector<std::unique_ptr<taker>> takers;
  takers.push_back(std::make_unique<taker>(broker(), queue));
  for (std::size_t turn = 0; got.size() < kMessages; ++turn) {
    takers.push_back(std::make_unique<taker>(broker(), queue));
    for (int i = 0; i < 3 && got.size() < kMessages; ++i) {
      taker& t = wait_for_next(takers);
      const delivery d = t.c.next();
      got.emplace_back(d.msg.data.view());
      t.c.settle(d);
    }
    if (got.size() == kMessages) break;
    taker& t = wait_for_next(takers);
    const delivery running = t.c.next();
    auto [then, unsubscribed] = t.at->once<core::maybe_failure>("unsubscribe");
    t.at->transport().unsubscribe(t.c.id(), std::move(then));
    if (turn % 2 == 0) {
      got.emplace_back(running.msg.data.view());
      t.at->must_settle(running.token);
    } else {
      t.at->must_release({running.token});
    }
    (void)unsubscribed.get();
    t.at->close();
    takers.erase(std::find_if(takers.begin(), takers.end(), [&](const auto& each) { return each.get() == &t; }));
  }
  std::vector<std::string> sent;
  for (std::size_t i = 0; i < kMessages; ++i) sent.push_back(std::to_string(i) + "\n");
  EXPECT_EQ(got, sent);
}

// Order needs no luck here: an idle consumer stops just when messages come.
TEST_P(conformance, an_ordered_queue_stays_in_order_when_an_idle_consumer_stops) {
  side s(broker());
  const std::string queue = ordered(s, broker());
  for (int turn = 0; turn < 5; ++turn) {
    auto stopping = std::make_unique<taker>(broker(), queue);
    const message first = make_message(queue, "first\n");
    s.must_publish({first});
    stopping->c.settle(stopping->c.next());  // it is the active consumer
    taker heir(broker(), queue);
    const std::vector<message> sent = make_messages(queue, 8);
    auto [then, unsubscribed] = stopping->at->once<core::maybe_failure>("unsubscribe");
    auto [stored, published] = s.once<std::vector<core::publish_outcome>>("publish");
    s.transport().publish(sent, s.soon(), std::move(stored));
    stopping->at->transport().unsubscribe(stopping->c.id(), std::move(then));
    (void)published.get();
    std::vector<std::string> got;
    // It may have begun before it heard of the stop, and leaves when that is settled.
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (!unsubscribed.called() && std::chrono::steady_clock::now() < until) {
      if (stopping->c.delivered() - 1 == got.size()) {
        std::this_thread::yield();
        continue;
      }
      const delivery d = stopping->c.next();
      got.push_back(d.msg.id);
      stopping->at->must_settle(d.token);
    }
    (void)unsubscribed.get();
    // One is out: with the heir, or with the one that stops, who may not even know it.
    EXPECT_TRUE(s.stats_become(queue, [&](const core::queue_stats& stats) { return stats.ready + got.size() == 7; }));
    for (std::size_t i = got.size(); i < stopping->c.delivered() - 1; ++i) {
      const delivery d = stopping->c.next();
      got.push_back(d.msg.id);
      stopping->at->must_settle(d.token);
    }
    stopping->at->close();
    while (got.size() < sent.size()) {
      const delivery d = heir.c.next();
      got.push_back(d.msg.id);
      heir.at->must_settle(d.token);
    }
    EXPECT_EQ(got, ids_of(sent));
  }
}

}  // namespace
}  // namespace leveret::conformance
