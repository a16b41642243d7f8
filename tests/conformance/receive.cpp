// Receiving: order, release, windows, several consumers, unsubscribing.
#include <algorithm>
#include <set>

#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::message;

std::vector<std::string> slice(const std::vector<std::string>& all, std::size_t from, std::size_t to) {
  return {all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(to)};
}

TEST_P(conformance, messages_are_handed_out_in_queue_order) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {7, 32u << 20});
  c.settle_all_by_itself();
  std::vector<std::string> sent;
  for (std::size_t i = 0; i < 300; i += 3) {
    const std::vector<message> some = make_messages(queue, 3, i);
    for (const std::string& id : ids_of(some)) sent.push_back(id);
    s.must_publish(some);
  }
  c.wait_delivered(300);
  EXPECT_EQ(c.ids(), sent);
}

TEST_P(conformance, messages_of_several_queues_do_not_mix) {
  side s(broker());
  const std::string one = declared(s, "one");
  const std::string two = declared(s, "two");
  consumer first(s, one, {});
  consumer second(s, two, {});
  const message a = make_message(one, "a\n");
  const message b = make_message(two, "b\n");
  const message c = make_message(one, "c\n");
  s.must_publish({a, b, c});
  EXPECT_EQ(ids_of(first.next(2)), ids_of(std::vector<message>{a, c}));
  EXPECT_EQ(second.next().msg.id, b.id);
}

TEST_P(conformance, released_messages_come_again_before_later_ones_in_their_old_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 10);
  const std::vector<std::string> ids = ids_of(sent);
  s.must_publish(sent);
  consumer c(s, queue, {5, 32u << 20});
  const std::vector<delivery> first = c.next(5);
  EXPECT_EQ(ids_of(first), slice(ids, 0, 5));
  c.release({first[1], first[2], first[3]});
  const std::vector<delivery> again = c.next(3);
  EXPECT_EQ(ids_of(again), slice(ids, 1, 4));
  for (const delivery& d : again) {
    EXPECT_EQ(d.returns, counted(s, promises().release_is_uncharged ? 0 : 1));
    EXPECT_NE(d.token, first[1].token);
  }
  c.settle(first[0]);
  EXPECT_EQ(ids_of(c.next(1)), slice(ids, 5, 6));
}

TEST_P(conformance, what_a_consumer_gives_back_another_gets_in_queue_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 10);
  s.must_publish(sent);
  side first_side(broker());
  consumer first(first_side, queue, {6, 32u << 20});
  std::vector<delivery> held = first.next(6);
  first.unsubscribe();
  first.release(held);
  consumer second(s, queue, {});
  const std::vector<delivery> got = second.next(10);
  EXPECT_EQ(ids_of(got), ids_of(sent));
  EXPECT_EQ(got[0].returns, counted(s, promises().release_is_uncharged ? 0 : 1));
  EXPECT_EQ(got[9].returns, counted(s, 0));
}

TEST_P(conformance, releasing_again_and_again_charges_nothing) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 1));
  consumer c(s, queue, {});
  for (int i = 0; i < 5; ++i) {
    const delivery d = c.next();
    EXPECT_EQ(d.returns, counted(s, promises().release_is_uncharged ? 0 : i));
    c.release({d});
  }
  c.settle(c.next());
}

TEST_P(conformance, releasing_what_is_not_held_is_ignored) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 2));
  consumer c(s, queue, {1, 32u << 20});
  const delivery d = c.next();
  s.must_release({});
  s.must_release({d.token + 1'000'000});
  c.settle(d);
  s.must_release({d.token});
  EXPECT_EQ(c.next().msg.data.view(), "1\n");
}

TEST_P(conformance, no_more_messages_than_the_window_are_held) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 60));
  consumer c(s, queue, {4, 32u << 20});
  c.wait_delivered(4);
  for (int i = 0; i < 60; ++i) c.settle(c.next());
  EXPECT_EQ(c.most_held(), 4u);
}

TEST_P(conformance, no_more_bytes_than_the_window_are_held_but_one_message_always) {
  side s(broker());
  const std::string queue = declared(s);
  std::vector<message> sent;
  sent.reserve(30);
  for (std::size_t i = 0; i < 30; ++i) sent.push_back(make_message(queue, std::string(i == 10 ? 9'000 : 1'000, 'x')));
  s.must_publish(sent);
  consumer c(s, queue, {20, 3'500});
  std::vector<std::string> got;
  for (std::size_t i = 0; i < 30; ++i) {
    const delivery d = c.next();
    got.push_back(d.msg.id);
    c.settle(d);
  }
  EXPECT_EQ(got, ids_of(sent));
  EXPECT_LE(c.most_held(), 20u);
  if (promises().byte_window) {
    EXPECT_EQ(c.most_bytes_held(), 9'000u);  // alone
    EXPECT_LE(c.most_held(), 3u);
  }
}

TEST_P(conformance, a_wider_window_takes_effect_at_once) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 10));
  consumer c(s, queue, {1, 32u << 20});
  std::vector<delivery> held = c.next(1);
  c.resize({5, 32u << 20});
  for (delivery& d : c.next(4)) held.push_back(std::move(d));
  EXPECT_EQ(held.size(), 5u);
  for (const delivery& d : held) c.settle(d);
  EXPECT_EQ(c.next(5).back().msg.data.view(), "9\n");
  EXPECT_EQ(c.most_held(), 5u);
}

TEST_P(conformance, a_narrower_window_holds_once_what_was_handed_out_has_ended) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 12));
  consumer c(s, queue, {4, 32u << 20});
  const std::vector<delivery> held = c.next(4);
  c.resize({1, 32u << 20});
  for (const delivery& d : held) c.settle(d);
  // What a broker had sent ahead under the wider window may still come; then one at a time.
  std::vector<std::string> got;
  std::size_t in_hand = 0;
  for (int i = 4; i < 12; ++i) {
    const delivery d = c.next();
    got.emplace_back(d.msg.data.view());
    c.settle(d);
    in_hand = c.delivered() - static_cast<std::size_t>(i) - 1;
  }
  EXPECT_LE(in_hand, 1u);
  EXPECT_EQ(got, (std::vector<std::string>{"4\n", "5\n", "6\n", "7\n", "8\n", "9\n", "10\n", "11\n"}));
  EXPECT_EQ(c.most_held(), 4u);
}

TEST_P(conformance, two_consumers_share_and_each_message_goes_to_one) {
  side producer(broker());
  const std::string queue = declared(producer);
  side one(broker());
  side two(broker());
  consumer first(one, queue, {1, 32u << 20});
  consumer second(two, queue, {1, 32u << 20});
  producer.must_publish(make_messages(queue, 200));
  // Neither settles yet: both have room for one, so both get one.
  first.wait_delivered(1);
  second.wait_delivered(1);
  first.settle_all_by_itself();
  second.settle_all_by_itself();
  // The last ones may still be on their way where the broker does not say what runs.
  EXPECT_TRUE(producer.stats_become(queue, [&](const core::queue_stats& s) {
    return s.ready == 0 && s.running.value_or(0) == 0 && first.delivered() + second.delivered() >= 200;
  }));
  const std::vector<std::string> a = first.ids();
  const std::vector<std::string> b = second.ids();
  std::set<std::string> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(a.size() + b.size(), 200u);
  EXPECT_EQ(all.size(), 200u);
}

TEST_P(conformance, one_transport_may_have_two_subscriptions_to_a_queue) {
  side s(broker());
  const std::string queue = declared(s);
  consumer first(s, queue, {1, 32u << 20});
  consumer second(s, queue, {1, 32u << 20});
  s.must_publish(make_messages(queue, 2));
  const delivery a = first.next();
  const delivery b = second.next();
  EXPECT_NE(a.msg.id, b.msg.id);
  EXPECT_NE(a.token, b.token);
  first.settle(a);
  second.settle(b);
}

TEST_P(conformance, subscribing_to_an_unknown_queue_ends_with_not_found) {
  side s(broker());
  const std::string unknown = broker().unique("unknown");
  consumer c(s, unknown, {});
  const core::failure why = c.wait_ended();
  EXPECT_EQ(why.code, errc::not_found);
  EXPECT_NE(why.text.find(unknown), std::string::npos) << why.text;
  s.close();
  s.drain_and_stop();
  EXPECT_EQ(c.ended(), 1);
}

TEST_P(conformance, after_unsubscribing_nothing_comes_and_what_is_held_can_be_settled) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 10));
  side other(broker());
  consumer c(other, queue, {3, 32u << 20});
  const std::vector<delivery> held = c.next(3);
  c.unsubscribe();
  const std::size_t delivered = c.delivered();
  s.must_publish(make_messages(queue, 1, 10));
  for (const delivery& d : held) c.settle(d);
  // Everything else is there for the next consumer, in order, and nothing was sent to the first.
  consumer next(s, queue, {});
  std::vector<std::string> bodies;
  for (const delivery& d : next.next(8)) bodies.emplace_back(d.msg.data.view());
  EXPECT_EQ(bodies, (std::vector<std::string>{"3\n", "4\n", "5\n", "6\n", "7\n", "8\n", "9\n", "10\n"}));
  EXPECT_EQ(c.delivered(), delivered);
  other.close();
  other.drain_and_stop();
  EXPECT_EQ(c.delivered(), delivered);
  EXPECT_EQ(c.ended(), 0) << "a subscription that was unsubscribed ended again";
}

TEST_P(conformance, unsubscribing_what_is_not_subscribed_is_answered) {
  side s(broker());
  auto [then, answered] = s.once<core::maybe_failure>("unsubscribe");
  s.transport().unsubscribe(4711, std::move(then));
  (void)answered.get();
}

TEST_P(conformance, a_callback_may_call_the_transport) {
  side s(broker());
  const std::string queue = declared(s);
  auto [then, answered] = s.once<std::vector<core::queue_stats>, core::maybe_failure>("stats inside a callback");
  auto [published, publish_answered] = s.once<std::vector<core::publish_outcome>>("publish");
  s.transport().publish(make_messages(queue, 1), s.soon(),
                        [&, then = std::move(then), published = std::move(published)](auto outcomes) mutable {
                          s.transport().stats(queue, std::move(then));
                          published(std::move(outcomes));
                        });
  (void)publish_answered.get();
  const auto [stats, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  EXPECT_EQ(stats.size(), 1u);
}

}  // namespace
}  // namespace leveret::conformance
