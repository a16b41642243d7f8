// Settling: results, retries and dead jobs in one step; what is refused; what a token is.
#include <algorithm>

#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::dead_job;
using core::delivery;
using core::message;
using core::settle_outcome;
using core::settle_status;
using core::settlement;

settlement settlement_of(const delivery& d) {
  settlement s;
  s.token = d.token;
  return s;
}

bool is_drained(const core::queue_stats& s) { return s.ready == 0 && s.running.value_or(0) == 0; }

TEST_P(conformance, a_settled_message_does_not_come_again) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 3));
  {
    side other(broker());
    consumer c(other, queue, {});
    const std::vector<delivery> got = c.next(3);
    c.settle(got[0]);
    c.settle(got[2]);
  }
  consumer again(s, queue, {});
  EXPECT_EQ(again.next().msg.data.view(), "1\n");
  EXPECT_EQ(s.must_stats(queue).ready, 0u);
  EXPECT_EQ(again.delivered(), 1u);
}

TEST_P(conformance, results_retries_and_dead_jobs_are_stored_in_one_step) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  result_reader results(s, reply);
  consumer c(s, queue, {});
  message job = make_message(queue, "{\"task\":\"a\",\"retry_count\":0}\n");
  job.reply = reply;
  s.must_publish({job});
  const delivery d = c.next();

  settlement all = settlement_of(d);
  const message retry = make_message(queue, R"({"id":")" + job.id + "/3\",\"task\":\"a\",\"retry_count\":1}\n");
  all.publish = {retry};
  const std::string record = R"({"id":")" + job.id + R"(/2","task":"a","queue":")" + queue +
                             R"(","reason":"rejected","error":"no","attempts":[],"body":{}})";
  all.dead = {{queue, job.id + "/2", record}};
  all.results = {make_chunk(job.id, reply, 1, "42"), make_chunk(job.id, reply, 2, "null")};
  s.must_settle(all);

  EXPECT_EQ(c.next().msg.id, retry.id);
  const auto chunks = results.wait(2);
  EXPECT_EQ(chunks[0].id, job.id);
  EXPECT_EQ(chunks[0].reply, reply);
  EXPECT_EQ(chunks[0].first_line, 1u);
  EXPECT_EQ(chunks[0].last_line, 1u);
  EXPECT_EQ(chunks[0].data, all.results[0].data);
  EXPECT_EQ(chunks[1].data, all.results[1].data);
  const auto [page, why] = s.browse_dead(queue, "", 10);
  EXPECT_FALSE(why) << why->text;
  ASSERT_EQ(page.entries.size(), 1u);
  EXPECT_EQ(page.entries[0].id, job.id + "/2");
  EXPECT_EQ(page.entries[0].queue, queue);
  EXPECT_EQ(page.entries[0].record, record);
  EXPECT_TRUE(s.stats_become(queue, [](const core::queue_stats& q) {
    return q.ready == 0 && q.running.value_or(1) == 1 && q.dead.value_or(1) == 1;
  }));
}

TEST_P(conformance, a_retry_with_a_due_time_waits_for_it) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  s.must_publish(make_messages(queue, 1));
  settlement later = settlement_of(c.next());
  message retry = make_message(queue, "retry\n");
  retry.due = s.loop().wall() + 600;
  later.publish = {retry};
  s.must_settle(later);
  const delivery got = c.next();
  EXPECT_GE(s.loop().wall(), retry.due);
  EXPECT_EQ(got.msg.id, retry.id);
  EXPECT_EQ(got.returns, counted(s, 0));
  c.settle(got);
}

TEST_P(conformance, a_settlement_may_publish_to_another_queue) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string other = broker().unique("other");
  s.must_declare(other);
  consumer c(s, queue, {});
  consumer at_other(s, other, {});
  s.must_publish(make_messages(queue, 1));
  settlement move = settlement_of(c.next());
  move.publish = make_messages(other, 3);
  const std::vector<std::string> ids = ids_of(move.publish);
  s.must_settle(move);
  EXPECT_EQ(ids_of(at_other.next(3)), ids);
}

TEST_P(conformance, a_settlement_that_publishes_to_an_unknown_queue_fails_and_keeps_the_delivery) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string unknown = broker().unique("unknown");
  side other(broker());
  consumer c(other, queue, {});
  s.must_publish(make_messages(queue, 1));
  settlement bad = settlement_of(c.next());
  bad.publish = make_messages(unknown, 1);
  const settle_outcome outcome = other.settle({bad}).front();
  EXPECT_EQ(outcome.status, settle_status::failed);
  EXPECT_NE(outcome.why.find(unknown), std::string::npos) << outcome.why;
  // Not acknowledged, and still this consumer's: it may be settled another way.
  EXPECT_EQ(c.delivered(), 1u);
  bad.publish.clear();
  other.must_settle(bad);
  EXPECT_TRUE(s.stats_become(queue, is_drained));
}

TEST_P(conformance, a_delivery_whose_settlement_failed_comes_again_when_its_consumer_closes) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 1);
  s.must_publish(sent);
  {
    side other(broker());
    consumer c(other, queue, {});
    settlement bad = settlement_of(c.next());
    bad.publish = make_messages(broker().unique("unknown"), 1);
    EXPECT_EQ(other.settle({bad}).front().status, settle_status::failed);
  }
  consumer c(s, queue, {});
  EXPECT_EQ(c.next().msg.id, sent[0].id);
}

TEST_P(conformance, a_retry_that_grew_past_the_largest_message_is_stored) {
  // Refused, its jobs would run again for ever: each attempt adds its error to the line.
  core::limits lim = broker().test_limits();
  lim.max_message_bytes = 5'000;
  side s(broker(), lim);
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  s.must_publish({make_message(queue, std::string(4'999, 'x') + "\n")});
  settlement grown = settlement_of(c.next());
  grown.publish = {make_message(queue, std::string(5'100, 'y') + "\n")};
  s.must_settle(grown);
  const delivery d = c.next();
  EXPECT_EQ(d.msg.data.size(), 5'101u);
  c.settle(d);
}

TEST_P(conformance, a_partial_settlement_stores_results_and_the_message_goes_on) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  result_reader results(s, reply);
  consumer c(s, queue, {1, 32u << 20});
  std::vector<message> sent = make_messages(queue, 2);
  s.must_publish(sent);
  const delivery d = c.next();
  for (std::uint32_t line = 1; line <= 3; ++line) {
    settlement part = settlement_of(d);
    part.final = false;
    part.results = {make_chunk(d.msg.id, reply, line, "1")};
    s.must_settle(part);
    EXPECT_EQ(results.wait(line).back().first_line, line);
  }
  EXPECT_EQ(c.delivered(), 1u) << "the window is full as long as the message goes on";
  if (const auto running = s.must_stats(queue).running) {
    EXPECT_EQ(*running, 1u);
  }
  settlement last = settlement_of(d);
  last.results = {make_chunk(d.msg.id, reply, 4, "1")};
  s.must_settle(last);
  EXPECT_EQ(results.wait(4).back().first_line, 4u);
  const delivery second = c.next();
  EXPECT_EQ(second.msg.id, sent[1].id);
  s.must_settle(second.token);
  EXPECT_TRUE(s.stats_become(queue, is_drained));
}

TEST_P(conformance, partly_settled_messages_come_again_whole) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  const std::vector<message> sent = make_messages(queue, 1);
  s.must_publish(sent);
  {
    side other(broker());
    consumer c(other, queue, {});
    settlement part = settlement_of(c.next());
    part.final = false;
    part.results = {make_chunk(sent[0].id, reply, 1, "1")};
    other.must_settle(part);
  }
  consumer c(s, queue, {});
  EXPECT_EQ(c.next().msg.id, sent[0].id);
  EXPECT_EQ(result_reader(s, reply).wait(1).front().first_line, 1u);
}

TEST_P(conformance, settling_twice_is_fenced) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  consumer c(s, queue, {});
  s.must_publish(make_messages(queue, 1));
  const delivery d = c.next();
  s.must_settle(d.token);
  settlement again = settlement_of(d);
  again.publish = make_messages(queue, 1);
  again.results = {make_chunk(d.msg.id, reply, 1, "1")};
  EXPECT_EQ(s.settle({again}).front().status, settle_status::fenced);
  settlement part = again;
  part.final = false;
  EXPECT_EQ(s.settle({part}).front().status, settle_status::fenced);
  EXPECT_TRUE(s.stats_become(queue, is_drained));
  EXPECT_EQ(c.delivered(), 1u) << "a fenced settlement published";
}

TEST_P(conformance, settling_what_was_released_is_fenced) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  s.must_publish(make_messages(queue, 1));
  const delivery d = c.next();
  c.release({d});
  EXPECT_EQ(s.settle({settlement_of(d)}).front().status, settle_status::fenced);
  const delivery again = c.next();
  EXPECT_EQ(again.msg.id, d.msg.id);
  c.settle(again);
}

TEST_P(conformance, a_token_means_nothing_to_another_transport) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 1));
  side owner(broker());
  consumer c(owner, queue, {});
  const delivery d = c.next();
  EXPECT_EQ(s.settle({settlement_of(d)}).front().status, settle_status::fenced);
  s.must_release({d.token});
  owner.must_settle(d.token);
}

TEST_P(conformance, many_settlements_are_answered_in_order) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  s.must_publish(make_messages(queue, 50));
  std::vector<settlement> all;
  for (const delivery& d : c.next(50)) all.push_back(settlement_of(d));
  all[20].token += 1'000'000;
  const std::vector<settle_outcome> outcomes = s.settle(all);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_EQ(outcomes[i].status, i == 20 ? settle_status::fenced : settle_status::settled) << i;
  }
  EXPECT_TRUE(s.settle({}).empty());
}

TEST_P(conformance, many_results_of_many_settlements_come_once_each) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  result_reader results(s, reply);
  consumer c(s, queue, {200, 32u << 20});
  s.must_publish(make_messages(queue, 200));
  std::vector<settlement> all;
  for (const delivery& d : c.next(200)) {
    settlement one = settlement_of(d);
    one.results = {make_chunk(d.msg.id, reply, 1, std::string(d.msg.data.view().substr(0, d.msg.data.size() - 1)))};
    all.push_back(std::move(one));
  }
  for (const settle_outcome& outcome : s.settle(all)) EXPECT_EQ(outcome.status, settle_status::settled) << outcome.why;
  std::vector<std::string> got;
  for (const core::result_chunk& chunk : results.wait(200)) got.push_back(chunk.data);
  std::vector<std::string> wanted;
  wanted.reserve(200);
  for (const settlement& one : all) wanted.push_back(one.results[0].data);
  std::sort(got.begin(), got.end());
  std::sort(wanted.begin(), wanted.end());
  EXPECT_EQ(got, wanted);
}

}  // namespace
}  // namespace leveret::conformance
