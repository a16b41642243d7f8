// Several processes on one SQLite file: death, stops, fences, turns, the doorbell.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/puppet.hpp"
#include "cpp/support/session.hpp"

namespace leveret::core {
namespace {

using test::body_of;
using test::folder;
using test::make_message;
using test::make_messages;
using test::puppet;
using test::session;
using test::subscription;
using clock = std::chrono::steady_clock;

constexpr const char* kLongLease = "30000";

std::chrono::milliseconds since(clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - start);
}

window messages(std::uint32_t count) {
  window w;
  w.messages = count;
  return w;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(sqlite_processes, a_publish_of_one_process_wakes_a_consumer_of_another) {
  const folder f;
  const std::string url = f.url() + "?durability=normal";  // so that no slow disk is timed
  session s(url);
  s.declare("q");
  subscription c(s, "q");
  puppet p;
  p.ask("open", url, kLongLease);
  EXPECT_EQ(p.ask("publish", "q", "3", "0"), "accepted accepted accepted");
  for (const char* body : {"0\n", "1\n", "2\n"}) {
    const delivery d = c.next();
    EXPECT_EQ(body_of(d), body);
    EXPECT_EQ(s.settle(d).status, settle_status::settled);
  }
  // The doorbell, not the polls: those are 200 ms apart or more, so five messages, each published when the one before
  // had come, take 800 ms by them. A busy machine needs several tries.
  constexpr std::chrono::milliseconds kByPolls{800};
  const clock::time_point give_up = clock::now() + test::kPatience;
  std::chrono::milliseconds took = kByPolls;
  while (took >= kByPolls && clock::now() < give_up) {
    std::vector<delivery> got;
    const clock::time_point start = clock::now();
    for (int i = 0; i < 5; ++i) {
      p.ask("publish", "q", "1", "0");
      got.push_back(c.next());
    }
    took = since(start);
    for (const delivery& d : got) EXPECT_EQ(s.settle(d).status, settle_status::settled);
  }
  EXPECT_LT(took, kByPolls);
}

TEST(sqlite_processes, leases_of_a_killed_process_return_at_once_to_their_place_and_are_charged) {
  const folder f;
  session s(f.url());
  s.declare("q");
  s.must_publish(make_messages("q", 5));
  puppet p;
  p.ask("open", f.url(), kLongLease);
  p.ask("subscribe", "q", "3");
  p.ask("take", "3");
  subscription c(s, "q", messages(1));
  const delivery other = c.next();
  EXPECT_EQ(body_of(other), "3\n");
  p.signal(SIGKILL);
  p.wait_ended();
  const clock::time_point start = clock::now();
  c.resize(messages(10));
  std::vector<delivery> rest = c.next(4);
  EXPECT_LT(since(start), std::chrono::seconds(20)) << "the lease is 30 s";
  EXPECT_EQ(s.queue("q").consumers, 1u);
  std::vector<std::string> bodies;
  for (const delivery& d : rest) {
    bodies.push_back(body_of(d));
    EXPECT_EQ(d.returns, body_of(d) == "4\n" ? 0 : 1);
    EXPECT_EQ(d.redelivered, d.returns > 0);
  }
  std::sort(bodies.begin(), bodies.end());
  EXPECT_EQ(bodies, (std::vector<std::string>{"0\n", "1\n", "2\n", "4\n"}));
}

TEST(sqlite_processes, a_consumer_that_comes_after_the_death_finds_them_in_order) {
  const folder f;
  session s(f.url());
  s.declare("q");
  s.must_publish(make_messages("q", 4));
  {
    puppet p;
    p.ask("open", f.url(), kLongLease);
    p.ask("subscribe", "q", "2");
    p.ask("take", "2");
  }
  EXPECT_EQ(s.queue("q").consumers, 0u) << "nobody lives, whatever the table says";
  subscription c(s, "q", messages(1));
  for (int i = 0; i < 4; ++i) {
    const delivery d = c.next();
    EXPECT_EQ(body_of(d), std::to_string(i) + "\n");
    EXPECT_EQ(s.settle(d).status, settle_status::settled);
  }
}

TEST(sqlite_processes, a_stopped_process_loses_its_deliveries_and_its_late_settle_is_fenced) {
  const folder f;
  session s(f.url());  // whose own lease is long: the other process looks at it too
  s.declare("q");
  s.must_publish(make_messages("q", 2));
  puppet p;
  p.ask("open", f.url(), "1200");
  p.ask("subscribe", "q", "2");
  p.ask("take", "2");
  p.signal(SIGSTOP);
  p.wait_stopped();
  subscription c(s, "q", messages(2));
  std::vector<delivery> got = c.next(2);
  for (const delivery& d : got) EXPECT_EQ(d.returns, 1);
  p.signal(SIGCONT);
  p.ask("lost", "2");
  EXPECT_EQ(p.ask("settle", "late-reply"), "fenced fenced");
  EXPECT_TRUE(s.fetch({got[0].msg.id}).empty()) << "nothing of a fenced settle is stored";
  for (const delivery& d : got) EXPECT_EQ(s.settle(d).status, settle_status::settled);
  while (s.queue("q").consumers != 2u) {  // it is a consumer again
  }
}

TEST(sqlite_processes, a_running_process_keeps_its_deliveries_past_its_lease) {
  const folder f;
  session s(f.url());
  s.declare("q");
  s.must_publish(make_messages("q", 1));
  puppet p;
  p.ask("open", f.url(), "5000");  // more than a busy machine keeps it from running
  p.ask("subscribe", "q", "1");
  p.ask("take", "1");
  subscription c(s, "q", messages(1));
  message late = make_message("q", "end\n");
  late.due = s.loop().wall() + 8000;
  s.publish(std::move(late));
  EXPECT_EQ(body_of(c.next()), "end\n");
  EXPECT_EQ(c.delivered(), 1u);
  EXPECT_EQ(p.ask("settle", "-"), "settled");
}

TEST(sqlite_processes, a_process_stopped_inside_a_commit_is_named_and_waited_for) {
  const folder f;
  session s(f.url());
  s.declare("q");
  puppet p("before_commit:STOP");
  p.ask("open", f.url(), kLongLease);
  p.tell("publish", "q", "1", "0");
  p.wait_stopped();
  const std::string pid = std::to_string(p.pid());
  // Time enough to begin, on a busy machine too: else that is what it says.
  const publish_outcome o = s.publish(make_message("q", "mine\n"), std::chrono::seconds(5));
  EXPECT_EQ(o.status, publish_status::refused);
  EXPECT_EQ(o.why.code, errc::broker_unavailable);
  EXPECT_TRUE(has(o.why.text, "locked") && has(o.why.text, "process " + pid) && has(o.why.text, "stopped"))
      << o.why.text;
  // What needs no lock goes on meanwhile.
  EXPECT_EQ(s.queue("q").ready, 0u);
  auto publishing = std::async(std::launch::async, [&s] { return s.publish(make_message("q", "later\n")); });
  while (s.transport().how_it_is().state != health_state::blocked) {
    ASSERT_EQ(s.queue("q").ready, 0u);
  }
  EXPECT_TRUE(has(s.transport().how_it_is().detail, pid)) << s.transport().how_it_is().detail;
  p.signal(SIGCONT);
  EXPECT_EQ(p.answer(), "accepted");
  EXPECT_EQ(publishing.get().status, publish_status::accepted);
  EXPECT_EQ(s.queue("q").ready, 2u);
  EXPECT_EQ(s.transport().how_it_is().state, health_state::connected);
}

TEST(sqlite_processes, a_kill_before_the_commit_stores_nothing_and_after_it_everything) {
  const folder f;
  session s(f.url());
  s.declare("q");
  for (const bool committed : {false, true}) {
    puppet p(committed ? "after_commit:KILL" : "before_commit:KILL");
    p.ask("open", f.url(), kLongLease);
    p.tell("publish", "q", "5", "1000");
    EXPECT_EQ(p.wait_ended(), SIGKILL);
    EXPECT_EQ(s.queue("q").ready, committed ? 5u : 0u);
  }
  // The turn that it held is skipped, and nothing else is in the way.
  EXPECT_EQ(s.publish(make_message("q", "x\n")).status, publish_status::accepted);
}

TEST(sqlite_processes, closing_one_transport_leaves_the_signs_of_life_of_its_neighbours) {
  const folder f;
  session s(f.url());
  s.declare("q");
  s.must_publish(make_messages("q", 1));
  subscription c(s, "q", messages(1));
  const delivery held = c.next();
  for (int i = 0; i < 2; ++i) {
    session neighbour(f.url());
    subscription other(neighbour, "q");
    while (neighbour.queue("q").consumers != 2u) {
    }
  }
  puppet p;
  p.ask("open", f.url(), kLongLease);
  p.ask("subscribe", "q", "5");
  message end = make_message("q", "end\n");
  end.due = s.loop().wall() + 800;  // three polls
  const std::string id = end.id;
  s.publish(std::move(end));
  EXPECT_EQ(p.ask("take", "1"), id);
  EXPECT_EQ(s.settle(held).status, settle_status::settled);
}

// ThreadSanitizer cannot follow a fork amid threads whose child starts threads of its own ("dup thread with used id").
// The plain build runs these two.
#ifndef __SANITIZE_THREAD__
TEST(sqlite_processes, a_forked_child_opens_the_file_again_and_outlives_its_parent) {
  const folder f;
  puppet p;
  p.ask("open", f.url(), kLongLease);
  p.ask("declare", "q");
  EXPECT_EQ(p.ask("publish", "q", "1", "0"), "accepted");
  p.ask("fork");
  EXPECT_EQ(p.wait_ended(), 0);
  p.ask("open", f.url(), kLongLease);
  EXPECT_EQ(p.ask("publish", "q", "1", "0"), "accepted");
  // The next to come must see that the child is there; else it starts the wal-index afresh.
  session s(f.url());
  EXPECT_EQ(s.queue("q").ready, 2u);
  for (int i = 0; i < 20; ++i) {
    s.must_publish(make_messages("q", 1));
    EXPECT_EQ(p.ask("publish", "q", "1", "0"), "accepted");
  }
  EXPECT_EQ(s.queue("q").ready, 42u);
}

// AddressSanitizer's allocator may be locked by another thread at the fork: it then stays so in the child.
#ifndef __SANITIZE_ADDRESS__
TEST(sqlite_processes, a_child_forked_amid_its_parents_commits_finds_no_lock_held) {
  const folder f;
  session s(f.url());
  s.declare("q");
  std::atomic<bool> stop{false};
  // Every other one on this thread of its own: see writer::lend_thread.
  std::thread committing([&] {
    while (!stop) {
      s.must_publish(make_messages("q", 1));
      s.transport().lend_thread(
          [&] { s.transport().publish(make_messages("q", 1), s.loop().now() + test::kPatience, [](const auto&) {}); });
    }
  });
  int bad = 0;
  for (int i = 0; i < 20; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      // Signals a failure by its exit code alone: the test's own state is the parent's.
      int code = 1;
      try {
        auto* mine = new session(f.url());
        const publish_outcome o = mine->publish(make_message("q", "child\n"));
        mine->close();
        code = o.status == publish_status::accepted ? 0 : 2;
      } catch (const std::exception&) {
      }
      ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    bad += status == 0 ? 0 : 1;
  }
  stop = true;
  committing.join();
  EXPECT_EQ(bad, 0);
}
#endif

#endif

TEST(sqlite_processes, eight_writers_take_turns_while_another_process_reads) {
  constexpr int kWriters = 8;
  const folder f;
  session s(f.url());
  s.declare("q");
  std::vector<std::unique_ptr<puppet>> all;
  for (int i = 0; i < kWriters; ++i) {
    all.push_back(std::make_unique<puppet>());
    all.back()->ask("open", f.url(), kLongLease);
  }
  // Without turns one of them hardly ever gets in, run after run. A busy machine is unfair now and then, and on a slow
  // disk a short run is a handful of commits: so each is longer than the one before.
  std::uint64_t stored = 0;
  bool fair = false;
  for (int run = 0; run < 5 && !fair; ++run) {
    std::atomic<bool> over{false};
    std::uint64_t reads = 0;
    std::thread reader([&] {
      for (std::uint64_t seen = stored; !over; ++reads) {
        const std::uint64_t now = s.queue("q").ready;
        EXPECT_GE(now, seen);
        seen = now;
      }
    });
    for (auto& p : all) p->tell("commit_for", "q", std::to_string(1500 << run));
    int total = 0;
    int least = 1 << 30;
    for (auto& p : all) {
      const int count = std::stoi(p->answer());
      total += count;
      least = std::min(least, count);
    }
    over = true;
    reader.join();
    EXPECT_GT(reads, 0u);
    stored += static_cast<std::uint64_t>(total);
    fair = least * kWriters * 2 >= total;
  }
  EXPECT_TRUE(fair) << "never at least half of an even share for each";
  EXPECT_EQ(s.queue("q").ready, stored);
}

TEST(sqlite_processes, consumers_of_several_processes_share_a_queue_without_loss_or_repetition) {
  const folder f;
  session s(f.url());
  s.declare("q");
  std::vector<std::unique_ptr<puppet>> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(std::make_unique<puppet>());
    all.back()->ask("open", f.url(), kLongLease);
    all.back()->ask("subscribe", "q", "100");
  }
  s.must_publish(make_messages("q", 300));
  std::vector<std::string> ids;
  for (auto& p : all) {
    std::istringstream list(p->ask("take", "100"));
    for (std::string id; list >> id;) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids.size(), 300u);
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
}

}  // namespace
}  // namespace leveret::core

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
