// Consumers that vanish, and consumers that lose their deliveries and do not know it yet.
#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::message;
using core::settle_status;

TEST_P(conformance, what_a_vanished_consumer_held_comes_again_counted_and_in_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 5);
  s.must_publish(sent);
  const auto vanishing = broker().consume(queue, {3, 32u << 20});
  const std::vector<std::string> taken = vanishing->take(3);
  EXPECT_EQ(taken, (std::vector<std::string>{sent[0].id, sent[1].id, sent[2].id}));
  vanishing->vanish();
  consumer c(s, queue, {});
  const std::vector<delivery> got = c.next(5);
  EXPECT_EQ(ids_of(got), ids_of(sent));
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(got[i].returns, counted(s, i < 3 ? 1 : 0)) << i;
    EXPECT_EQ(got[i].redelivered, i < 3) << i;
    EXPECT_EQ(got[i].msg.data.view(), sent[i].data.view());
    c.settle(got[i]);
  }
}

TEST_P(conformance, every_unclean_end_is_counted) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 1);
  s.must_publish(sent);
  for (int i = 0; i < 3; ++i) {
    const auto vanishing = broker().consume(queue, {1, 32u << 20});
    EXPECT_EQ(vanishing->take(1), ids_of(sent));
    vanishing->vanish();
  }
  consumer c(s, queue, {});
  const delivery d = c.next();
  EXPECT_EQ(d.returns, counted(s, 3));
  c.settle(d);
}

TEST_P(conformance, a_waiting_consumer_gets_what_a_vanished_one_held) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 2);
  s.must_publish(sent);
  const auto vanishing = broker().consume(queue, {2, 32u << 20});
  (void)vanishing->take(2);
  consumer c(s, queue, {});
  // Subscribed, and nothing there for it.
  EXPECT_TRUE(
      s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0 && q.consumers.value_or(2) == 2; }));
  vanishing->vanish();
  EXPECT_EQ(ids_of(c.next(2)), ids_of(sent));
}

TEST_P(conformance, a_late_settlement_after_a_loss_is_fenced) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  result_reader results(s, reply);
  const std::vector<message> sent = make_messages(queue, 1);
  s.must_publish(sent);
  const auto losing = broker().consume(queue, {1, 32u << 20});
  EXPECT_EQ(losing->take(1), ids_of(sent));
  losing->lose(after_loss::takes_nothing);
  // Somebody else's now; and the loser may find it out only by settling.
  consumer c(s, queue, {});
  const delivery d = c.next();
  EXPECT_EQ(d.msg.id, sent[0].id);
  EXPECT_EQ(d.returns, counted(s, 1));
  const std::vector<settle_status> late = losing->settle_late(reply);
  EXPECT_EQ(late, std::vector<settle_status>{settle_status::fenced});
  core::settlement mine;
  mine.token = d.token;
  mine.results = {make_chunk(d.msg.id, reply, 1, "\"mine\"")};
  s.must_settle(mine);
  const auto chunks = results.wait(1);
  EXPECT_EQ(chunks.back().data, mine.results[0].data);
  if (s.transport().what_it_can().exactly_one_end) {
    EXPECT_EQ(results.count(), 1u) << "a fenced settlement stored its results";
  }
  EXPECT_TRUE(
      s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0 && q.running.value_or(0) == 0; }));
}

TEST_P(conformance, a_consumer_is_told_what_it_lost) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 3));
  const auto losing = broker().consume(queue, {3, 32u << 20});
  (void)losing->take(3);
  consumer c(s, queue, {3, 32u << 20});
  losing->lose(after_loss::takes_nothing);
  c.wait_delivered(3);
  losing->wait_told(3);
}

TEST_P(conformance, a_consumer_goes_on_after_a_loss) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 1));
  const auto losing = broker().consume(queue, {1, 32u << 20});
  const std::vector<std::string> first = losing->take(1);
  losing->lose(after_loss::goes_on);
  losing->wait_told(1);
  // Nobody else is there: its own message comes to it again.
  const std::vector<std::string> again = losing->take(2);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[1], first[0]);
}

}  // namespace
}  // namespace leveret::conformance
