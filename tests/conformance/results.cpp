// Results: watching an address, looking up by message id.
#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::message;
using core::result_chunk;
using core::settlement;

// Stores one result, as a worker does: with the settlement of a message of its own.
class worker {
 public:
  worker(harness& h, const std::string& queue) : side_(h), queue_(queue), consumer_(side_, queue, {}) {}
  void store(const result_chunk& chunk) {
    side_.must_publish(make_messages(queue_, 1));
    settlement s;
    s.token = consumer_.next().token;
    s.results = {chunk};
    side_.must_settle(std::move(s));
  }

 private:
  side side_;
  std::string queue_;
  consumer consumer_;
};

TEST_P(conformance, reply_addresses_are_distinct) {
  side s(broker());
  side other(broker());
  const std::string a = s.must_make_reply();
  const std::string b = s.must_make_reply();
  const std::string c = other.must_make_reply();
  EXPECT_NE(a, b);
  EXPECT_NE(a, c);
  EXPECT_NE(b, c);
}

TEST_P(conformance, a_watcher_gets_what_was_stored_before_and_after) {
  side s(broker());
  worker w(broker(), declared(s));
  const std::string reply = s.must_make_reply();
  w.store(make_chunk("m1", reply, 1, "1"));
  w.store(make_chunk("m1", reply, 2, "2"));
  result_reader results(s, reply);
  (void)results.wait(2);
  w.store(make_chunk("m2", reply, 1, "3"));
  const std::vector<result_chunk> got = results.wait(3);
  EXPECT_EQ(got[0].data, "{\"line\":1,\"result\":1}\n");
  EXPECT_EQ(got[1].data, "{\"line\":2,\"result\":2}\n");
  EXPECT_EQ(got[2].data, "{\"line\":1,\"result\":3}\n");
  EXPECT_EQ(got[0].id, "m1");
  EXPECT_EQ(got[2].id, "m2");
  EXPECT_EQ(got[1].first_line, 2u);
  EXPECT_EQ(got[1].last_line, 2u);
}

TEST_P(conformance, a_watcher_gets_the_results_of_its_address_only) {
  side s(broker());
  worker w(broker(), declared(s));
  const std::string mine = s.must_make_reply();
  const std::string others = s.must_make_reply();
  result_reader reader(s, mine);
  w.store(make_chunk("m1", others, 1, "0"));
  w.store(make_chunk("m2", mine, 1, "1"));
  EXPECT_EQ(reader.wait(1)[0].id, "m2");
  result_reader other_reader(s, others);
  EXPECT_EQ(other_reader.wait(1)[0].id, "m1");
  EXPECT_EQ(reader.count(), 1u);
}

TEST_P(conformance, a_result_keeps_its_bytes_and_lines) {
  side s(broker());
  worker w(broker(), declared(s));
  const std::string reply = s.must_make_reply();
  result_reader reader(s, reply);
  result_chunk chunk;
  chunk.id = "an id \"of\" another producer";
  chunk.reply = reply;
  chunk.first_line = 7;
  chunk.last_line = 70'000;
  chunk.data = "{\"line\":7,\"result\":\"\xe2\x82\xac \\u0000\"}\n" + std::string(200'000, ' ') + "\n";
  w.store(chunk);
  const result_chunk got = reader.wait(1)[0];
  EXPECT_EQ(got.id, chunk.id);
  EXPECT_EQ(got.reply, reply);
  EXPECT_EQ(got.first_line, 7u);
  EXPECT_EQ(got.last_line, 70'000u);
  EXPECT_TRUE(got.data == chunk.data);
}

TEST_P(conformance, unwatched_results_wait_for_the_next_watcher) {
  side s(broker());
  worker w(broker(), declared(s));
  const std::string reply = s.must_make_reply();
  result_reader first(s, reply);
  w.store(make_chunk("m1", reply, 1, "1"));
  (void)first.wait(1);
  auto [then, answered] = s.once<core::maybe_failure>("unwatch");
  s.transport().unwatch(reply, std::move(then));
  EXPECT_FALSE(std::get<0>(answered.get()));
  w.store(make_chunk("m2", reply, 1, "2"));
  result_reader second(s, reply);
  const std::vector<result_chunk> got = second.wait(1);
  EXPECT_EQ(got.back().id, "m2");
  EXPECT_EQ(first.count(), 1u) << "called after unwatch was answered";
}

TEST_P(conformance, results_that_nobody_wants_are_no_failure) {
  side s(broker());
  const std::string queue = declared(s);
  worker w(broker(), queue);
  w.store(make_chunk("m1", "", 1, "1"));
  EXPECT_TRUE(
      s.stats_become(queue, [](const core::queue_stats& q) { return q.ready == 0 && q.running.value_or(0) == 0; }));
}

TEST_P(conformance, results_are_looked_up_by_message_or_that_is_unsupported) {
  side s(broker());
  worker w(broker(), declared(s));
  const std::string reply = s.must_make_reply();
  w.store(make_chunk("m1", reply, 1, "1"));
  w.store(make_chunk("m2", reply, 1, "2"));
  w.store(make_chunk("m1", reply, 2, "3"));
  side other(broker());
  auto [then, answered] = other.once<std::vector<result_chunk>, core::maybe_failure>("fetch");
  other.transport().fetch({"m1", "unknown"}, std::move(then));
  const auto [chunks, why] = answered.get();
  if (!other.transport().what_it_can().fetch) {
    ASSERT_TRUE(why);
    EXPECT_EQ(why->code, errc::unsupported);
    EXPECT_NE(why->text.find("results="), std::string::npos) << "names no remedy: " << why->text;
    return;
  }
  EXPECT_FALSE(why) << why->text;
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"result\":1}\n");
  EXPECT_EQ(chunks[1].data, "{\"line\":2,\"result\":3}\n");
  EXPECT_EQ(chunks[0].id, "m1");
  EXPECT_EQ(chunks[0].reply, reply);
  // Looking up takes nothing away.
  result_reader reader(s, reply);
  EXPECT_EQ(reader.wait(3).size(), 3u);
}

TEST_P(conformance, results_can_be_kept_for_looking_up_alone) {
  side s(broker());
  auto [kept, was_kept] = s.once<core::maybe_failure>("keep_results");
  s.transport().keep_results({make_chunk("m1", "elsewhere", 1, "1"), make_chunk("m2", "elsewhere", 1, "2")},
                             std::move(kept));
  const auto [why] = was_kept.get();
  if (!s.transport().what_it_can().fetch) {
    ASSERT_TRUE(why);
    EXPECT_EQ(why->code, errc::unsupported);
    return;
  }
  EXPECT_FALSE(why) << why->text;
  side other(broker());
  auto [then, answered] = other.once<std::vector<result_chunk>, core::maybe_failure>("fetch");
  other.transport().fetch({"m2"}, std::move(then));
  const auto [chunks, none] = answered.get();
  EXPECT_FALSE(none);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"result\":2}\n");
}

}  // namespace
}  // namespace leveret::conformance
