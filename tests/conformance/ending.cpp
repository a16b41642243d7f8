// Closing: what was under way, what was held, what is called afterwards.
#include <algorithm>

#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::health_state;
using core::maybe_failure;
using core::message;

TEST_P(conformance, what_is_held_at_close_goes_back_in_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 8);
  s.must_publish(sent);
  {
    side closing(broker());
    consumer c(closing, queue, {5, 32u << 20});
    c.settle(c.next(5)[0]);
    closing.close();
  }
  consumer c(s, queue, {});
  const std::vector<delivery> got = c.next(7);
  const std::vector<std::string> ids = ids_of(sent);
  EXPECT_EQ(ids_of(got), std::vector<std::string>(ids.begin() + 1, ids.end()));
  EXPECT_EQ(got.front().returns, counted(s, promises().release_is_uncharged ? 0 : 1));
  EXPECT_EQ(got.back().returns, counted(s, 0));
}

TEST_P(conformance, closing_while_messages_come_loses_none_and_calls_everything_back_once) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 400);
  s.must_publish(sent);
  std::vector<std::string> seen;
  {
    side closing(broker());
    consumer c(closing, queue, {16, 32u << 20});
    c.settle_all_by_itself();
    c.wait_delivered(20);
    // Calls of each kind that are on their way when it closes: side checks that each is answered exactly once.
    for (int i = 0; i < 20; ++i) {
      auto [published, p] = closing.once<std::vector<core::publish_outcome>>("publish at close");
      closing.transport().publish(make_messages(queue, 2), closing.soon(), std::move(published));
      auto [stats, q] = closing.once<std::vector<core::queue_stats>, maybe_failure>("stats at close");
      closing.transport().stats(queue, std::move(stats));
      auto [settled, r] = closing.once<std::vector<core::settle_outcome>>("settle at close");
      core::settlement none;
      none.token = 1'000'000'000;
      closing.transport().settle({none}, std::move(settled));
      auto [released, t] = closing.once<maybe_failure>("release at close");
      closing.transport().release({1'000'000'000}, std::move(released));
      auto [reply, u] = closing.once<std::string, maybe_failure>("make_reply at close");
      closing.transport().make_reply(std::move(reply));
    }
    closing.close();
    closing.drain_and_stop();
    EXPECT_EQ(c.ended(), 1);
    EXPECT_EQ(c.wait_ended().code, errc::closed);
    seen = c.ids();
  }
  // Each message was seen there and settled, or comes here; those of the end of the first may do both.
  consumer rest(s, queue, {64, 32u << 20});
  rest.settle_all_by_itself();
  EXPECT_TRUE(
      s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0 && q.running.value_or(0) == 0; }));
  for (std::string& id : rest.ids()) seen.push_back(std::move(id));
  std::sort(seen.begin(), seen.end());
  for (const message& m : sent) {
    EXPECT_TRUE(std::binary_search(seen.begin(), seen.end(), m.id)) << "lost " << m.data.view();
  }
}

TEST_P(conformance, calls_after_close_are_answered_with_closed) {
  side s(broker());
  const std::string queue = declared(s);
  EXPECT_EQ(s.transport().how_it_is().state, health_state::connected);
  s.close();
  EXPECT_EQ(s.transport().how_it_is().state, health_state::closed);
  const core::publish_outcome published = s.publish(make_messages(queue, 1)).front();
  EXPECT_EQ(published.status, core::publish_status::refused);
  EXPECT_EQ(published.why.code, errc::closed);
  core::settlement none;
  none.token = 1;
  EXPECT_NE(s.settle({none}).front().status, core::settle_status::settled);
  EXPECT_EQ(consumer(s, queue, {}).wait_ended().code, errc::closed);

  const auto closed = [](const maybe_failure& why) { return why && why->code == errc::closed; };
  auto [declare, declare_answer] = s.once<core::transport::declared, maybe_failure>("declare");
  s.transport().declare(queue, std::move(declare));
  EXPECT_TRUE(closed(std::get<1>(declare_answer.get())));
  auto [stats, stats_answer] = s.once<std::vector<core::queue_stats>, maybe_failure>("stats");
  s.transport().stats(queue, std::move(stats));
  EXPECT_TRUE(closed(std::get<1>(stats_answer.get())));
  EXPECT_TRUE(closed(s.browse_dead(queue, "", 1).second));
  EXPECT_TRUE(closed(s.purge(queue).second));
  auto [reply, reply_answer] = s.once<std::string, maybe_failure>("make_reply");
  s.transport().make_reply(std::move(reply));
  EXPECT_TRUE(closed(std::get<1>(reply_answer.get())));
  auto [watch, watch_answer] = s.once<maybe_failure>("watch");
  s.transport().watch("x", [](const core::result_chunk&) {}, std::move(watch));
  EXPECT_TRUE(closed(std::get<0>(watch_answer.get())));
  // Nothing is left to do for these: answered is enough.
  auto [released, released_answer] = s.once<maybe_failure>("release");
  s.transport().release({1}, std::move(released));
  (void)released_answer.get();
  auto [unwatch, unwatch_answer] = s.once<maybe_failure>("unwatch");
  s.transport().unwatch("x", std::move(unwatch));
  (void)unwatch_answer.get();
  auto [unsubscribe, unsubscribe_answer] = s.once<maybe_failure>("unsubscribe");
  s.transport().unsubscribe(1, std::move(unsubscribe));
  (void)unsubscribe_answer.get();
  s.transport().resize(1, {});
}

TEST_P(conformance, closing_twice_and_from_two_threads_is_allowed) {
  side s(broker());
  std::thread other([&s] { s.close(); });
  s.close();
  other.join();
  s.close();
}

TEST_P(conformance, what_was_accepted_before_close_is_there_after_it) {
  std::string queue;
  std::vector<message> sent;
  {
    side s(broker());
    queue = declared(s);
    sent = make_messages(queue, 50);
    s.must_publish(sent);
  }
  side s(broker());
  consumer c(s, queue, {});
  EXPECT_EQ(ids_of(c.next(50)), ids_of(sent));
}

TEST_P(conformance, it_says_where_it_is) {
  side s(broker());
  EXPECT_FALSE(s.transport().where().empty());
}

}  // namespace
}  // namespace leveret::conformance
