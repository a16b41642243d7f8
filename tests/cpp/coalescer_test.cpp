/// Jobs sent one by one sharing messages, on a loop whose time the test moves.
#include "coalescer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "manual_loop.hpp"

using namespace leveret::core;
using leveret::errc;
using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

/// The publisher behind a coalescer, which answers when the test says so.
struct fixture {
  struct message {
    std::string queue;
    std::string lines;
    std::uint32_t jobs = 0;
    coalescer::on_answer answer;
  };

  explicit fixture(std::size_t batch_bytes = 100, microseconds linger = microseconds(0))
      : made(loop, batch_bytes, linger,
             {[this](const envelope&, const std::function<void(maybe_failure)>& then) {
                if (ready) return true;
                preparing = then;
                return false;
              },
              [this](const envelope& e, std::string_view lines, std::uint32_t jobs, loop::clock::time_point,
                     const coalescer::on_answer& then) {
                messages.push_back({e.queue, std::string(lines), jobs, then});
              }}) {}

  void send(const std::string& line, const std::string& group = "", const envelope& e = {"q"}) {
    EXPECT_TRUE(made.send(e, group, line + "\n", [this, line](const published& m, std::uint32_t at, const auto& o) {
      told.push_back(line + "=" + m.id + "/" + std::to_string(at) +
                     (o.status == publish_status::accepted ? "" : " " + o.why.text));
      if (on_told) on_told(line);
    }));
  }
  /// Answers the message as the broker would, `later`.
  void answer(std::size_t i, microseconds later = milliseconds(1),
              const publish_outcome& outcome = {publish_status::accepted, {}, {}}) {
    loop.advance(later);
    loop.post([this, i, outcome] {
      const auto then = std::exchange(messages[i].answer, nullptr);
      then({"m" + std::to_string(i), messages[i].jobs}, outcome);
    });
    loop.run_until_idle();
  }

  manual_loop loop;
  bool ready = true;
  std::function<void(maybe_failure)> preparing;
  std::vector<message> messages;
  std::vector<std::string> told;
  std::function<void(const std::string&)> on_told;
  coalescer made;
};

using lines = std::vector<std::string>;

}  // namespace

TEST(coalescer, one_after_the_other_share_nothing_and_wait_for_nothing) {
  fixture f;
  for (std::size_t i = 0; i < 3; ++i) {
    f.send("a" + std::to_string(i));
    ASSERT_EQ(f.messages.size(), i + 1);
    f.answer(i);
  }
  EXPECT_EQ(f.told, (lines{"a0=m0/1", "a1=m1/1", "a2=m2/1"}));
}

TEST(coalescer, what_comes_while_a_message_is_on_its_way_goes_together_behind_it) {
  fixture f;
  for (const char* line : {"a", "b", "c"}) f.send(line);
  ASSERT_EQ(f.messages.size(), 1u);
  f.answer(0);
  f.loop.advance(milliseconds(1));  // whoever was told does not come again
  ASSERT_EQ(f.messages.size(), 2u);
  EXPECT_EQ(f.messages[1].lines, "b\nc\n");
  EXPECT_EQ(f.messages[1].jobs, 2u);
  f.answer(1);
  EXPECT_EQ(f.told, (lines{"a=m0/1", "b=m1/1", "c=m1/2"}));
}

TEST(coalescer, senders_that_come_again_at_once_end_up_in_one_message) {
  fixture f;
  int rounds = 0;
  f.on_told = [&](const std::string& line) {
    if (++rounds <= 12) f.send(line);
  };
  for (const char* line : {"a", "b", "c"}) f.send(line);
  f.answer(0);  // "a" alone; "b" and "c" wait for it
  ASSERT_EQ(f.messages.size(), 2u) << "all three have come: nothing is waited for";
  EXPECT_EQ(f.messages[1].jobs, 3u);
  f.answer(1);
  ASSERT_EQ(f.messages.size(), 3u);
  EXPECT_EQ(f.messages[2].jobs, 3u);
}

TEST(coalescer, senders_that_do_not_come_again_cost_half_an_answers_time) {
  fixture f;
  for (const char* line : {"a", "b"}) f.send(line);
  f.answer(0, milliseconds(2));
  EXPECT_EQ(f.messages.size(), 1u);
  f.loop.advance(microseconds(990));
  EXPECT_EQ(f.messages.size(), 1u);
  f.loop.advance(microseconds(20));
  ASSERT_EQ(f.messages.size(), 2u);
  f.answer(1);
  // And then nobody is expected.
  f.loop.advance(milliseconds(10));
  f.send("c");
  EXPECT_EQ(f.messages.size(), 3u);
}

TEST(coalescer, others_that_come_meanwhile_do_not_make_the_wait_longer) {
  fixture f;
  for (const char* line : {"a", "b", "c"}) f.send(line);
  f.answer(0, milliseconds(1));
  f.loop.advance(microseconds(600));  // "a" does not come
  ASSERT_EQ(f.messages.size(), 2u);
  f.answer(1, milliseconds(1));  // two are expected; others come, one in a time, and never as many
  f.loop.advance(microseconds(400));
  f.send("d");
  f.loop.advance(microseconds(150));
  ASSERT_EQ(f.messages.size(), 3u);
  EXPECT_EQ(f.messages[2].lines, "d\n");
}

TEST(coalescer, senders_that_came_the_last_time_are_waited_for_while_they_come_and_not_for_ever) {
  fixture f;
  for (const char* line : {"a", "b", "c", "d", "e", "f"}) f.send(line);
  f.answer(0, milliseconds(1));
  f.send("a2");
  ASSERT_EQ(f.messages.size(), 2u) << "all six have come again";
  f.answer(1, milliseconds(1));
  f.loop.advance(microseconds(900));
  f.send("b2");
  f.loop.advance(microseconds(900));
  EXPECT_EQ(f.messages.size(), 2u) << "one has come in the time of an answer";
  f.send("c2");
  f.loop.advance(microseconds(150));
  EXPECT_EQ(f.messages.size(), 2u);
  f.loop.advance(microseconds(100));
  ASSERT_EQ(f.messages.size(), 3u) << "two milliseconds are the most";
  EXPECT_EQ(f.messages[2].lines, "b2\nc2\n");
  f.answer(2, milliseconds(1));  // of two, who have half the time again
  f.loop.advance(microseconds(400));
  f.send("b3");
  f.loop.advance(microseconds(150));
  EXPECT_EQ(f.messages.size(), 4u);
}

TEST(coalescer, a_wait_ends_at_its_own_time_whatever_timer_the_one_before_has_left) {
  // Left by a wait that ended early: sooner than the next one's end.
  fixture f;
  for (const char* line : {"a", "b"}) f.send(line);
  f.answer(0, milliseconds(2));  // until 1 ms from now
  f.send("a");
  ASSERT_EQ(f.messages.size(), 2u);
  f.answer(1, microseconds(900));
  EXPECT_EQ(f.messages.size(), 2u);
  f.loop.advance(microseconds(200));  // the first wait's end
  EXPECT_EQ(f.messages.size(), 2u);
  f.send("a");
  f.loop.advance(microseconds(600));
  EXPECT_EQ(f.messages.size(), 2u);
  f.loop.advance(microseconds(400));
  ASSERT_EQ(f.messages.size(), 3u);
  // Later than the next one's end.
  fixture g(4, milliseconds(5));
  g.send("a");
  g.send("b");
  ASSERT_EQ(g.messages.size(), 1u) << "full";
  g.send("c");
  g.answer(0, microseconds(200));
  g.loop.advance(microseconds(50));
  EXPECT_EQ(g.messages.size(), 1u);
  g.loop.advance(microseconds(100));
  EXPECT_EQ(g.messages.size(), 2u);
}

TEST(coalescer, a_queue_that_was_idle_meanwhile_is_not_bound_by_an_old_timer) {
  fixture f;
  for (const char* line : {"a", "b"}) f.send(line);
  f.answer(0, milliseconds(2));  // until 1 ms from now
  f.send("a");
  f.answer(1, microseconds(100));
  f.loop.advance(microseconds(120));  // nobody comes: it is forgotten
  f.send("x");
  f.send("y");
  ASSERT_EQ(f.messages.size(), 3u);
  f.answer(2, microseconds(100));
  f.loop.advance(milliseconds(1));
  ASSERT_EQ(f.messages.size(), 4u);
}

TEST(coalescer, a_full_message_waits_for_nothing_and_none_overtakes_another) {
  fixture f(10);
  for (const char* line : {"a1", "b234", "c234", "d2345678901234", "e"}) f.send(line);
  lines sent;
  for (const auto& m : f.messages) sent.push_back(m.lines);
  EXPECT_EQ(sent, (lines{"a1\n", "b234\nc234\n", "d2345678901234\n"}));
  for (std::size_t i = 0; i < 3; ++i) f.answer(i);
  f.loop.advance(milliseconds(10));
  ASSERT_EQ(f.messages.size(), 4u);
  EXPECT_EQ(f.messages[3].lines, "e\n");
}

TEST(coalescer, groups_queues_and_due_jobs_do_not_mix) {
  fixture f;
  envelope later{"q"};
  later.due = 5;
  envelope no_results{"q"};
  no_results.want_results = false;
  f.send("a", "one");
  f.send("b", "two");
  f.send("c", "one", {"other"});
  f.send("d", "one", later);
  f.send("e", "one", later);
  f.send("f", "one", no_results);
  EXPECT_EQ(f.messages.size(), 6u);
  f.send("g", "one");
  EXPECT_EQ(f.messages.size(), 6u) << "this one has its like on the way";
}

TEST(coalescer, linger_waits_for_company_and_no_longer_than_said) {
  fixture f(10, milliseconds(5));
  f.send("a");
  f.loop.advance(milliseconds(4));
  f.send("b");
  EXPECT_TRUE(f.messages.empty());
  f.loop.advance(milliseconds(2));
  ASSERT_EQ(f.messages.size(), 1u);
  EXPECT_EQ(f.messages[0].lines, "a\nb\n");
  f.answer(0);
  f.loop.advance(milliseconds(10));
  f.send("c123");
  f.send("d1234");
  EXPECT_EQ(f.messages.size(), 2u) << "full";
}

TEST(coalescer, what_comes_while_the_queue_is_made_ready_goes_in_order_in_messages_of_bounded_size) {
  fixture f(10);
  f.ready = false;
  for (const char* line : {"a1", "b234", "c234", "d"}) f.send(line);
  EXPECT_TRUE(f.messages.empty());
  f.ready = true;
  f.loop.post([&f] { std::exchange(f.preparing, nullptr)({}); });
  f.loop.run_until_idle();
  lines sent;
  for (const auto& m : f.messages) sent.push_back(m.lines);
  EXPECT_EQ(sent, (lines{"a1\nb234\n", "c234\nd\n"}));
}

TEST(coalescer, a_queue_that_cannot_be_made_ready_fails_those_who_wait_and_no_others) {
  fixture f;
  f.ready = false;
  f.send("a");
  f.send("b");
  f.loop.post([&f] { std::exchange(f.preparing, nullptr)(failure{errc::broker_unavailable, "no broker"}); });
  f.loop.run_until_idle();
  EXPECT_EQ(f.told, (lines{"a=/0 no broker", "b=/0 no broker"}));
  f.ready = true;
  f.send("c");
  EXPECT_EQ(f.messages.size(), 1u);
}

TEST(coalescer, a_queue_that_is_gone_fails_who_comes_and_leaves_what_is_on_its_way) {
  fixture f(10);
  f.send("a");
  f.ready = false;  // deleted meanwhile, and it can't be declared again
  f.send("b2345678901");
  ASSERT_TRUE(f.preparing);
  f.loop.post([&f] { std::exchange(f.preparing, nullptr)(failure{errc::broker_unavailable, "no broker"}); });
  f.loop.run_until_idle();
  f.answer(0);
  EXPECT_EQ(f.told, (lines{"b2345678901=/0 no broker", "a=m0/1"}));
}

TEST(coalescer, a_refused_message_is_told_to_all_of_it) {
  fixture f;
  for (const char* line : {"a", "b", "c"}) f.send(line);
  f.answer(0);
  f.loop.advance(milliseconds(10));
  f.answer(1, milliseconds(1), {publish_status::refused, {errc::refused, "full"}, {}});
  EXPECT_EQ(f.told, (lines{"a=m0/1", "b=m1/1 full", "c=m1/2 full"}));
}

TEST(coalescer, closing_publishes_what_waits_and_takes_nothing_more) {
  fixture f;
  for (const char* line : {"a", "b"}) f.send(line);
  f.made.close();
  ASSERT_EQ(f.messages.size(), 2u);
  EXPECT_FALSE(f.made.send({"q"}, "", "c\n", [](const auto&, auto, const auto&) { FAIL(); }));
  f.answer(0);
  f.answer(1);
  EXPECT_EQ(f.told, (lines{"a=m0/1", "b=m1/1"}));
}

TEST(coalescer, an_ordered_queue_has_one_message_on_its_way_whatever_waits) {
  fixture f(6);  // two lines fill a message
  const envelope ordered{"q.ordered.3"};
  envelope silent{"q.ordered.3"};
  silent.want_results = false;
  for (const char* line : {"a", "b", "c", "d", "e"}) f.send(line, "one", ordered);
  f.send("f", "two", ordered);
  f.send("g", "two", silent);
  f.send("h", "one", ordered);
  std::vector<std::string> sent;
  for (std::size_t i = 0; i < f.messages.size(); ++i) {
    ASSERT_EQ(f.messages.size(), i + 1) << "one at a time";
    sent.push_back(f.messages[i].lines);
    f.answer(i);
    // What is full, or followed by what may not share its message, waits for nobody.
    if (i < 4) {
      ASSERT_EQ(f.messages.size(), i + 2);
    }
    f.loop.advance(milliseconds(5));
  }
  // Different senders' jobs share no message, and none overtakes another.
  EXPECT_EQ(sent, (lines{"a\n", "b\nc\nd\n", "e\n", "f\n", "g\n", "h\n"}));
}

TEST(coalescer, a_refusal_does_not_change_the_order_of_an_ordered_queue) {
  fixture f;
  const envelope ordered{"q.ordered.3"};
  f.send("a", "", ordered);
  f.send("b", "", ordered);
  f.answer(0, milliseconds(1), {publish_status::refused, {errc::refused, "full"}, {}});
  f.send("c", "", ordered);
  f.loop.advance(milliseconds(5));
  ASSERT_EQ(f.messages.size(), 2u);
  EXPECT_EQ(f.messages[1].lines, "b\nc\n");
}
