// Publishing: what is accepted, what is refused, what arrives.
#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::delivery;
using core::message;
using core::publish_status;

TEST_P(conformance, a_published_message_is_delivered) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  const message sent = make_message(queue, "{\"task\":\"add\",\"args\":[1,2],\"retry_count\":0}\n");
  s.must_publish({sent});
  const delivery got = c.next();
  EXPECT_NE(got.token, 0u);
  EXPECT_EQ(got.msg.id, sent.id);
  EXPECT_EQ(got.msg.queue, queue);
  EXPECT_EQ(got.msg.data.view(), sent.data.view());
  EXPECT_EQ(got.msg.jobs, 1u);
  EXPECT_EQ(got.msg.due, 0);
  EXPECT_EQ(got.msg.reply, "");
  EXPECT_TRUE(got.msg.headers.empty());
  EXPECT_EQ(got.returns, counted(s, 0));
  EXPECT_FALSE(got.redelivered);
  c.settle(got);
}

TEST_P(conformance, a_message_published_before_anybody_consumes_is_delivered) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 3));
  side other(broker());
  consumer c(other, queue, {});
  EXPECT_EQ(c.next(3).back().msg.data.view(), "2\n");
}

TEST_P(conformance, everything_in_a_message_arrives_byte_for_byte) {
  side s(broker());
  const std::string queue = declared(s);
  std::string bytes;
  for (int i = 0; i < 1024; ++i) bytes += static_cast<char>(i & 0xff);
  message sent = make_message(queue, bytes);
  sent.id = "an id of another producer: \"7\" /\xc3\xa9";
  sent.jobs = 3;
  sent.due = s.loop().wall() - 1'234;
  sent.reply = s.must_make_reply();
  sent.headers = {{"x-leveret-empty", ""},
                  {"x-leveret-text", "line\nbreak, \"quotes\", tab\t, \xe2\x82\xac"},
                  {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}};
  consumer c(s, queue, {});
  s.must_publish({sent});
  const delivery got = c.next();
  EXPECT_EQ(got.msg.id, sent.id);
  EXPECT_EQ(got.msg.data.view(), bytes);
  EXPECT_EQ(got.msg.jobs, 3u);
  EXPECT_EQ(got.msg.due, sent.due);
  EXPECT_EQ(got.msg.reply, sent.reply);
  ASSERT_EQ(got.msg.headers.size(), sent.headers.size());
  for (const core::header& h : sent.headers) {
    const std::string* value = got.msg.find_header(h.name);
    ASSERT_NE(value, nullptr) << h.name;
    EXPECT_EQ(*value, h.value) << h.name;
  }
}

TEST_P(conformance, what_is_read_past_a_body_is_zero) {
  // The codec reads in place, past the end: see body::kPadding.
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  s.must_publish({make_message(queue, std::string(4096 - 7, 'x'))});
  const delivery got = c.next();
  const std::string_view padding(got.msg.data.data() + got.msg.data.size(), core::body::kPadding);
  EXPECT_EQ(padding, std::string(core::body::kPadding, '\0'));
}

TEST_P(conformance, an_empty_body_and_the_largest_arrive) {
  side s(broker());
  const std::string queue = declared(s);
  std::string large(1u << 20, '\0');
  std::minstd_rand random(7);  // NOLINT(bugprone-random-generator-seed): the same bytes each time
  for (char& c : large) c = static_cast<char>(random());
  consumer c(s, queue, {});
  s.must_publish({make_message(queue, ""), make_message(queue, large)});
  EXPECT_EQ(c.next().msg.data.view(), "");
  EXPECT_TRUE(c.next().msg.data.view() == large);
}

TEST_P(conformance, a_batch_is_accepted_and_arrives_whole_and_in_order) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> sent = make_messages(queue, 500);
  s.must_publish(sent);
  consumer c(s, queue, {1000, 32u << 20});
  EXPECT_EQ(ids_of(c.next(500)), ids_of(sent));
}

TEST_P(conformance, publishing_nothing_is_answered) {
  side s(broker());
  EXPECT_TRUE(s.publish({}).empty());
}

TEST_P(conformance, a_message_of_the_largest_size_is_accepted_and_one_byte_more_is_refused) {
  core::limits lim = broker().test_limits();
  lim.max_message_bytes = 5'000;
  side s(broker(), lim);
  const std::string queue = declared(s);
  const auto outcomes = s.publish({make_message(queue, std::string(5'000, 'a')),
                                   make_message(queue, std::string(5'001, 'b')), make_message(queue, "c")});
  EXPECT_EQ(outcomes[0].status, publish_status::accepted) << outcomes[0].why.text;
  EXPECT_EQ(outcomes[1].status, publish_status::refused);
  EXPECT_EQ(outcomes[1].why.code, errc::refused);
  EXPECT_NE(outcomes[1].why.text.find("5001"), std::string::npos) << outcomes[1].why.text;
  EXPECT_NE(outcomes[1].why.text.find("5000"), std::string::npos) << outcomes[1].why.text;
  EXPECT_EQ(outcomes[2].status, publish_status::accepted) << outcomes[2].why.text;
  consumer c(s, queue, {});
  EXPECT_EQ(c.next().msg.data.size(), 5'000u);
  EXPECT_EQ(c.next().msg.data.view(), "c");
}

TEST_P(conformance, publishing_to_an_unknown_queue_is_refused_and_its_neighbours_are_not) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string unknown = broker().unique("unknown");
  const message before = make_message(queue, "before\n");
  const message after = make_message(queue, "after\n");
  const auto outcomes = s.publish({before, make_message(unknown, "x\n"), after});
  EXPECT_EQ(outcomes[0].status, publish_status::accepted) << outcomes[0].why.text;
  EXPECT_EQ(outcomes[1].status, publish_status::refused);
  EXPECT_EQ(outcomes[1].why.code, errc::not_found);
  EXPECT_NE(outcomes[1].why.text.find(unknown), std::string::npos) << outcomes[1].why.text;
  EXPECT_EQ(outcomes[2].status, publish_status::accepted) << outcomes[2].why.text;
  // Refused is refused: a queue of that name made later is empty.
  s.must_declare(unknown);
  EXPECT_EQ(s.must_stats(unknown).ready, 0u);
  consumer c(s, queue, {});
  EXPECT_EQ(ids_of(c.next(2)), ids_of(std::vector<message>{before, after}));
}

TEST_P(conformance, declaring_again_keeps_what_is_there) {
  side s(broker());
  const std::string queue = declared(s);
  s.must_publish(make_messages(queue, 1));
  s.must_declare(queue);
  side other(broker());
  other.must_declare(queue);
  consumer c(other, queue, {});
  EXPECT_EQ(c.next().msg.data.view(), "0\n");
}

TEST_P(conformance, sending_an_id_again_stores_it_once) {
  side s(broker());
  const std::string queue = declared(s);
  const message sent = make_message(queue, "once\n");
  const message last = make_message(queue, "last\n");
  s.must_publish({sent});
  s.must_publish({sent});
  s.must_publish({sent, last});
  consumer c(s, queue, {});
  // Without the promise: at least once, each copy with the id by which a worker knows it.
  std::vector<delivery> got = c.next(2);
  while (got.back().msg.id != last.id) got.push_back(c.next());
  if (promises().deduplicates) {
    EXPECT_EQ(ids_of(got), (std::vector<std::string>{sent.id, last.id}));
  }
  for (std::size_t i = 0; i + 1 < got.size(); ++i) EXPECT_EQ(got[i].msg.id, sent.id);
  for (const delivery& d : got) c.settle(d);
}

TEST_P(conformance, sending_an_id_again_after_it_was_settled_stores_nothing) {
  side s(broker());
  const std::string queue = declared(s);
  const message sent = make_message(queue, "once\n");
  const message last = make_message(queue, "last\n");
  s.must_publish({sent});
  consumer c(s, queue, {});
  c.settle(c.next());
  s.must_publish({sent});
  s.must_publish({last});
  delivery got = c.next();
  if (promises().deduplicates && promises().remembers_settled) {
    EXPECT_EQ(got.msg.id, last.id);
  }
  while (got.msg.id != last.id) {
    EXPECT_EQ(got.msg.id, sent.id);
    c.settle(got);
    got = c.next();
  }
  c.settle(got);
}

TEST_P(conformance, threads_can_publish_at_once_and_each_keeps_its_order) {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kEach = 150;
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {16, 32u << 20});
  std::vector<std::vector<message>> sent(kThreads);
  std::vector<std::thread> threads;
  std::vector<std::function<void(std::vector<core::publish_outcome>)>> thens;
  std::vector<answer<std::vector<core::publish_outcome>>> answers;
  for (std::size_t t = 0; t < kThreads; ++t) {
    sent[t] = make_messages(queue, kEach);
    for (std::size_t i = 0; i < kEach; i += 10) {
      auto [then, answered] = s.once<std::vector<core::publish_outcome>>("publish from a thread");
      thens.push_back(std::move(then));
      answers.push_back(std::move(answered));
    }
  }
  threads.reserve(kThreads);
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < kEach; i += 10) {
        const auto first = sent[t].begin() + static_cast<std::ptrdiff_t>(i);
        s.transport().publish(std::vector<message>(first, first + 10), s.soon(), thens[(t * kEach + i) / 10]);
      }
    });
  }
  c.settle_all_by_itself();
  for (std::thread& t : threads) t.join();
  for (const auto& a : answers) {
    const auto [outcomes] = a.get();
    for (const core::publish_outcome& outcome : outcomes) {
      EXPECT_EQ(outcome.status, publish_status::accepted) << outcome.why.text;
    }
  }
  c.wait_delivered(kThreads * kEach);
  const std::vector<std::string> got = c.ids();
  EXPECT_EQ(std::set<std::string>(got.begin(), got.end()).size(), kThreads * kEach);
  for (const std::vector<message>& mine : sent) {
    const std::vector<std::string> wanted = ids_of(mine);
    std::vector<std::string> seen;
    for (const std::string& id : got) {
      if (std::find(wanted.begin(), wanted.end(), id) != wanted.end()) seen.push_back(id);
    }
    EXPECT_EQ(seen, wanted);
  }
}

TEST_P(conformance, a_message_is_not_handed_out_before_it_is_due) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  const core::unix_ms now = s.loop().wall();
  message late = make_message(queue, "late\n");
  late.due = now + 1'600;
  message soon = make_message(queue, "soon\n");
  soon.due = now + 500;
  const message at_once = make_message(queue, "at once\n");
  s.must_publish({late, soon, at_once});
  std::map<std::string, core::unix_ms> came;
  for (int i = 0; i < 3; ++i) {  // in any order, if the machine was busy until all were due
    const delivery got = c.next();
    came[got.msg.id] = s.loop().wall();
    EXPECT_EQ(got.msg.due, got.msg.id == late.id ? late.due : got.msg.id == soon.id ? soon.due : 0);
    EXPECT_EQ(got.returns, counted(s, 0));
    c.settle(got);
  }
  ASSERT_EQ(came.size(), 3u);
  EXPECT_EQ(came.count(at_once.id), 1u);
  EXPECT_GE(came.at(soon.id), soon.due);
  EXPECT_GE(came.at(late.id), late.due);
}

TEST_P(conformance, a_message_that_is_due_comes_no_later_than_it_may) {
  side s(broker());
  const std::string queue = declared(s);
  consumer c(s, queue, {});
  // Half a second is for the machine. A busy one needs several tries; a transport that is late is late each time.
  const core::unix_ms bound = promises().due_granularity.count() + 500;
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  core::unix_ms least = bound + 1;
  while (least > bound && std::chrono::steady_clock::now() < give_up) {
    message soon = make_message(queue, "soon\n");
    soon.due = s.loop().wall() + 500;
    s.must_publish({soon});
    const delivery got = c.next();
    least = std::min(least, s.loop().wall() - soon.due);
    c.settle(got);
  }
  EXPECT_LE(least, bound);
}

TEST_P(conformance, a_message_not_due_yet_counts_as_delayed) {
  side s(broker());
  const std::string queue = declared(s);
  message m = make_message(queue, "tomorrow\n");
  m.due = s.loop().wall() + 86'400'000;
  s.must_publish({m});
  const core::queue_stats stats = s.must_stats(queue);
  EXPECT_EQ(stats.ready, 0u);
  if (stats.delayed) {
    EXPECT_EQ(*stats.delayed, 1u);
  }
}

}  // namespace
}  // namespace leveret::conformance
