/// A process pool with real children: outcomes, deaths, culprits, quarantine, limits, recycling, the parent's end.
#include "pools/processes.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/results.hpp"
#include "ordered_work.hpp"
#include "thread_loop.hpp"

using namespace leveret::core;
using namespace std::chrono_literals;

namespace {

class kept_log final : public log_sink {
 public:
  void log(leveret_log_level, std::string_view event, std::string_view job, std::string_view text) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_ += std::string(event) + " " + std::string(job) + " " + std::string(text) + "\n";
  }
  [[nodiscard]] std::string lines() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::string lines_;
};

class kept_progress final : public job_control {
 public:
  [[nodiscard]] bool is_cancelled(std::string_view) const override { return false; }
  void progress(std::string_view job_id, std::string_view reply, std::string_view body) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    said_ += std::string(job_id) + " " + std::string(reply) + " " + std::string(body) + "\n";
  }
  [[nodiscard]] std::string said() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return said_;
  }

 private:
  mutable std::mutex mutex_;
  std::string said_;
};

process_settings settings_for(std::uint32_t processes, std::uint32_t threads) {
  process_settings s;
  s.command = {std::string(LEVERET_BINARY_DIR) + "/pool_child"};
  s.processes = processes;
  s.threads = threads;
  s.worker = "tester";
  return s;
}

std::string job(const std::string& task, const std::string& args = "", const std::string& more = "") {
  return R"({"task":")" + task + R"(","args":[)" + args + R"(],"retry_count":0)" + more + "}\n";
}

/// A pool at work, and what its deliveries ended as.
class session {
 public:
  explicit session(process_settings s) : pool(std::move(s)) {
    for (const described_task& t : pool.start().tasks) {
      leveret_task abi{};
      abi.size = sizeof abi;
      abi.name = {t.name.data(), t.name.size()};
      abi.max_retries = t.max_retries;
      abi.call = [](void*, leveret_call*) { return LEVERET_FAILED; };
      EXPECT_EQ(tasks.add(abi, t.source), "");
    }
    pool.attach(events, tasks, log, control);
  }
  ~session() {
    pool.stop();
    events.stop();
  }

  struct outcome {
    std::uint64_t succeeded = 0;
    std::string results;
    std::map<std::string, std::string> results_of;  // by message
    std::vector<failed_line> failures;
    std::vector<std::uint32_t> unstarted;
  };

  std::shared_ptr<work> run(const std::string& lines, const std::string& reply = "r", bool ordered = false) {
    std::shared_ptr<work> made;
    on_loop([&] {
      delivery d;
      d.token = ++token_;
      d.msg.id = "m" + std::to_string(token_);
      d.msg.queue = "q";
      d.msg.reply = reply;
      d.msg.data = body(lines);
      const auto then = [this](const std::shared_ptr<work>& w) {
        outcome o;
        o.failures = w->take_failures();
        for (const result_chunk& c : w->take_results()) {
          o.results += c.data;
          o.results_of[c.id] += c.data;
        }
        o.succeeded = w->succeeded_lines();
        o.unstarted = w->unstarted();
        const std::lock_guard<std::mutex> lock(mutex_);
        ended_[w.get()] = std::move(o);
        changed_.notify_all();
      };
      if (ordered) {
        made = ordered_work::run(std::move(d), pool, events, returner, then);
      } else {
        made = pool.run(std::move(d), then);
      }
      made_.push_back(made);  // so that no address comes twice
    });
    return made;
  }
  outcome wait(const std::shared_ptr<work>& w) {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, 120s, [&] { return ended_.count(w.get()) != 0; })) << log.lines();
    return ended_[w.get()];
  }
  void until_running(const std::shared_ptr<work>& w, std::size_t lines) {
    const auto deadline = std::chrono::steady_clock::now() + 120s;
    std::size_t now = 0;
    while (now != lines && std::chrono::steady_clock::now() < deadline) {
      on_loop([&] { now = w->running_lines(100).size(); });
    }
    ASSERT_EQ(now, lines);
  }
  template <class F>
  void on_loop(F&& f) {
    std::promise<void> done;
    events.post([&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }

  kept_log log;
  kept_progress control;
  registry tasks;
  thread_loop events;
  line_returner returner;
  process_pool pool;

 private:
  delivery_token token_ = 0;
  std::vector<std::shared_ptr<work>> made_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<const work*, outcome> ended_;
};

std::string repeated(const std::string& line, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += line;
  return all;
}

/// What the job "gate" waits for.
class gate {
 public:
  void open() { std::ofstream(folder_.file("open")) << "now"; }
  [[nodiscard]] std::string job() const { return ::job("gate", "\"" + folder_.file("open") + "\""); }

 private:
  leveret::test::folder folder_;
};

/// Whether it has ended: an orphan stays a zombie until the system's first process gets to it.
bool is_gone(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  std::getline(file, stat);
  const std::size_t name = stat.rfind(") ");
  return name == std::string::npos || stat[name + 2] == 'Z' || stat[name + 2] == 'X';
}

void wait_gone(pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!is_gone(pid) && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(is_gone(pid)) << pid;
}

}  // namespace

TEST(processes, run_every_line_once_and_carry_results_and_failures) {
  session s(settings_for(2, 2));
  std::vector<std::shared_ptr<work>> works;
  for (int i = 0; i < 200; ++i) {
    std::string lines;
    for (int n = 0; n < 500; ++n) lines += n % 100 == 7 ? job("fail") : job("echo", std::to_string(n));
    works.push_back(s.run(lines));
  }
  for (const auto& w : works) {
    const session::outcome o = s.wait(w);
    EXPECT_EQ(o.succeeded, 495U);
    ASSERT_EQ(o.failures.size(), 5U);
    EXPECT_EQ(o.failures[0].fate, line_fate::retry);
    EXPECT_NE(o.failures[0].text.find("as asked"), std::string::npos);
    EXPECT_EQ(count_outcomes(o.results), 495U);
    for (int n = 0; n < 500; ++n) {
      if (n % 100 == 7) continue;
      const std::string one = "{\"line\":" + std::to_string(n + 1) + ",\"result\":[" + std::to_string(n) + "]}\n";
      ASSERT_NE(o.results.find(one), std::string::npos) << n;
    }
  }
}

TEST(processes, a_line_that_came_back_has_its_result_with_its_first_message) {
  session s(settings_for(1, 1));
  const session::outcome o = s.wait(
      s.run(job("noop") + job("noop", "", R"(,"id":"other/7")") + job("noop") + job("noop", "", R"(,"id":"m1/9")")));
  EXPECT_EQ(o.results_of,
            (std::map<std::string, std::string>{
                {"m1", "{\"line\":1,\"result\":null}\n{\"line\":3,\"result\":null}\n{\"line\":9,\"result\":null}\n"},
                {"other", "{\"line\":7,\"result\":null}\n"}}));
}

TEST(processes, results_larger_than_the_ring_come_whole) {
  session s(settings_for(1, 2));
  const session::outcome o = s.wait(s.run(repeated(job("big", "900000"), 6)));
  EXPECT_EQ(o.succeeded, 6U);
  EXPECT_GT(o.results.size(), 6U * 900'000U);
  EXPECT_EQ(count_outcomes(o.results), 6U);
}

TEST(processes, a_crash_charges_the_job_of_its_thread_alone) {
  session s(settings_for(1, 3));
  const std::vector<pid_t> before = s.pool.pids();
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += i == 40 ? job("segv") : job("echo", std::to_string(i));
  lines += job("sleep", "50");
  const session::outcome o = s.wait(s.run(lines));
  EXPECT_EQ(o.succeeded, 100U);
  ASSERT_EQ(o.failures.size(), 1U);
  EXPECT_EQ(o.failures[0].fate, line_fate::retry);
  EXPECT_EQ(o.failures[0].id, "m1/41");
  EXPECT_EQ(o.failures[0].next_retry_count, 1U);
  EXPECT_NE(o.failures[0].error.find("process " + std::to_string(before[0]) + " was killed by SIGSEGV"),
            std::string::npos)
      << o.failures[0].error;
  EXPECT_NE(o.failures[0].error.find("MiB resident"), std::string::npos);
  EXPECT_EQ(count_crashes(o.failures[0].text), 1);
  // The child is back.
  EXPECT_EQ(s.wait(s.run(job("noop"))).succeeded, 1U);
  EXPECT_NE(s.pool.pids()[0], before[0]);
}

TEST(processes, a_crash_amid_an_ordered_message_charges_its_job_alone_and_the_others_follow) {
  session s(settings_for(2, 2));
  std::string lines;
  for (int i = 1; i <= 30; ++i) lines += i % 10 == 0 ? job("segv") : job("echo", std::to_string(i));
  const session::outcome o = s.wait(s.run(lines, "r", true));
  EXPECT_EQ(o.succeeded, 27U);
  ASSERT_EQ(o.failures.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(o.failures[i].id, "m1/" + std::to_string(10 * (i + 1)));
    EXPECT_EQ(o.failures[i].next_retry_count, 1U);
    EXPECT_NE(o.failures[i].error.find("SIGSEGV"), std::string::npos) << o.failures[i].error;
  }
  std::size_t at = 0;
  for (int i = 1; i <= 30; ++i) {
    if (i % 10 == 0) continue;
    const std::string one = "{\"line\":" + std::to_string(i) + ",\"result\":[" + std::to_string(i) + "]}\n";
    at = o.results.find(one, at);
    ASSERT_NE(at, std::string::npos) << i << " is not behind the one before it";
  }
}

TEST(processes, what_continues_an_ordered_message_does_not_wait_for_a_batch_that_came_later) {
  session s(settings_for(1, 1));
  const auto ordered = s.run(job("sleep", "50") + repeated(job("noop"), 20), "r", true);
  // Far longer than the other one takes, however slow the machine is; so nobody waits for its end.
  constexpr std::size_t kLines = 10'000;
  const auto batch = s.run(repeated(job("sleep", "20"), kLines));
  EXPECT_EQ(s.wait(ordered).succeeded, 21U);
  s.on_loop([&] { batch->stop_starting(); });
  const session::outcome o = s.wait(batch);
  EXPECT_GT(o.unstarted.size(), 0U);
  EXPECT_EQ(o.succeeded + o.unstarted.size(), kLines);
}

TEST(processes, a_stack_overflow_is_a_crash_like_others) {
  session s(settings_for(1, 2));
  const session::outcome o = s.wait(s.run(job("sleep", "300") + job("overflow")));
  ASSERT_EQ(o.failures.size(), 1U);
  EXPECT_EQ(o.failures[0].id, "m1/2");
  EXPECT_NE(o.failures[0].error.find("SIGSEGV"), std::string::npos) << o.failures[0].error;
}

TEST(processes, an_unknown_culprit_is_found_in_quarantine) {
  session s(settings_for(1, 4));
  // Four run at once when one of them kills the process: nobody knows which.
  const session::outcome o = s.wait(s.run(repeated(job("beside"), 3) + job("kill", "3") + job("sleep", "1")));
  EXPECT_EQ(o.succeeded, 4U);
  ASSERT_EQ(o.failures.size(), 1U) << s.log.lines();
  EXPECT_EQ(o.failures[0].id, "m1/4");
  EXPECT_NE(o.failures[0].error.find("SIGKILL"), std::string::npos);
  EXPECT_NE(s.log.lines().find("4 jobs ran in it: each runs again alone"), std::string::npos) << s.log.lines();
}

TEST(processes, a_job_that_crashed_as_often_as_it_may_is_dead) {
  session s(settings_for(1, 1));
  const std::string crash = R"({"time":"2026-01-01T00:00:00.000Z","worker":"w","error":"crashed: process 1 was"})";
  const session::outcome o =
      s.wait(s.run(job("exit", "", R"(,"max_retries":50,"errors":[)" + crash + "," + crash + "]")));
  ASSERT_EQ(o.failures.size(), 1U);
  EXPECT_EQ(o.failures[0].fate, line_fate::dead);
  EXPECT_EQ(o.failures[0].reason, "crashed");
  EXPECT_NE(o.failures[0].error.find("ended with exit code 3"), std::string::npos) << o.failures[0].error;
  EXPECT_NE(o.results.find(R"("state":"dead")"), std::string::npos);
  // And one without retries is dead at the first.
  const session::outcome once = s.wait(s.run(job("exit", "", R"(,"max_retries":0)")));
  EXPECT_EQ(once.failures.at(0).fate, line_fate::dead);
}

TEST(processes, a_hard_limit_ends_the_job_and_spares_its_neighbours) {
  session s(settings_for(1, 3));
  const session::outcome o = s.wait(s.run(job("hang") + job("sleep", "600") + job("sleep", "1") + job("noop")));
  EXPECT_EQ(o.succeeded, 3U);
  ASSERT_EQ(o.failures.size(), 1U);
  EXPECT_EQ(o.failures[0].id, "m1/1");
  EXPECT_NE(o.failures[0].error.find("hard time limit"), std::string::npos) << o.failures[0].error;
}

TEST(processes, a_job_that_is_terminated_ends_as_cancelled_and_spares_its_neighbours) {
  session s(settings_for(1, 3));
  gate neighbour;
  // The second is a retry of another message's job: its id stands in its line.
  const std::string retried = job("sleep", "600000", R"(,"id":"m0/7")");
  const auto w = s.run(job("sleep", "600000") + retried + neighbour.job() + job("noop"));
  s.until_running(w, 3);
  s.on_loop([&] {  // at once: the process is killed for the first ones after a second, if the others come later
    for (const char* id : {"m1/9", "m1/1", "m0/7"}) EXPECT_TRUE(s.pool.kill_job(id));
  });
  neighbour.open();
  const session::outcome o = s.wait(w);
  EXPECT_EQ(o.succeeded, 2U);
  ASSERT_EQ(o.failures.size(), 2U) << s.log.lines();
  EXPECT_EQ(o.failures[0].id, "m1/1");
  EXPECT_EQ(o.failures[1].id, "m0/7");
  for (const failed_line& f : o.failures) EXPECT_EQ(f.fate, line_fate::cancelled);
  EXPECT_NE(o.results.find(R"({"line":1,"state":"cancelled"})"), std::string::npos) << o.results;
  EXPECT_NE(o.results.find(R"({"line":7,"state":"cancelled"})"), std::string::npos) << o.results;
  EXPECT_NE(s.log.lines().find("job_terminated m0/7"), std::string::npos) << s.log.lines();
  // Whoever comes later is not meant.
  EXPECT_EQ(s.wait(s.run(job("noop"))).succeeded, 1U);
}

TEST(processes, attempts_go_on_without_a_thread_and_crash_alone) {
  process_settings settings = settings_for(1, 1);
  settings.parked = 100;
  session s(std::move(settings));
  const session::outcome o = s.wait(s.run(repeated(job("later", "100"), 100)));
  EXPECT_EQ(o.succeeded, 100U);
  EXPECT_EQ(count_outcomes(o.results), 100U);
  const session::outcome crash = s.wait(s.run(repeated(job("later", "200"), 3) + job("segv")));
  EXPECT_EQ(crash.succeeded, 3U);
  ASSERT_EQ(crash.failures.size(), 1U);
  EXPECT_EQ(crash.failures[0].id, "m2/4");
}

TEST(processes, a_handler_that_forks_ends_its_copy) {
  session s(settings_for(1, 1));
  const session::outcome o = s.wait(s.run(job("fork") + job("noop")));
  EXPECT_EQ(o.succeeded, 2U);
  EXPECT_EQ(count_outcomes(o.results), 2U);
  EXPECT_EQ(o.results, "{\"line\":1,\"results\":[1,null]}\n");
}

TEST(processes, children_killed_at_random_lose_and_double_nothing) {
  session s(settings_for(2, 2));
  std::vector<std::shared_ptr<work>> works;
  unsigned seed = static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::string lines;
  for (int n = 0; n < 2'000; ++n) lines += job("echo", std::to_string(n));
  std::size_t kills = 0;
  for (int i = 0; i < 400; ++i) {
    works.push_back(s.run(lines));
    if (i % 20 == 19) {
      const std::vector<pid_t> pids = s.pool.pids();
      const pid_t pid = pids[static_cast<std::size_t>(rand_r(&seed)) % pids.size()];
      if (pid > 0 && ::kill(pid, SIGKILL) == 0) ++kills;
      s.wait(works[works.size() - 1 - static_cast<std::size_t>(rand_r(&seed)) % 10]);
    }
  }
  std::size_t charged = 0;
  for (const auto& w : works) {
    const session::outcome o = s.wait(w);
    EXPECT_EQ(o.succeeded + o.failures.size(), 2'000U);
    EXPECT_EQ(count_outcomes(o.results), o.succeeded);
    charged += o.failures.size();
  }
  // A job is charged if it was the only one that ran; then it is retried.
  EXPECT_LE(charged, kills);
  EXPECT_GT(kills, 0U);
}

TEST(processes, lines_not_started_are_given_back_and_the_running_ones_may_end) {
  session s(settings_for(1, 1));
  gate running;
  const auto first = s.run(running.job() + repeated(job("noop"), 9));
  const auto second = s.run(repeated(job("noop"), 5));
  s.until_running(first, 1);
  s.on_loop([&] {
    first->stop_starting();
    second->stop_starting();
  });
  running.open();
  const session::outcome o = s.wait(first);
  EXPECT_EQ(o.succeeded, 1U);
  EXPECT_EQ(o.unstarted.size(), 9U);
  EXPECT_EQ(s.wait(second).unstarted.size(), 5U);
}

// Of these a thread takes several at once: those behind a slow one are to go to others.
TEST(processes, a_slow_job_among_quick_ones_keeps_none_of_them_from_the_other_threads) {
  session s(settings_for(1, 2));
  for (int before = 500; before < 516 && !HasFailure(); ++before) {
    gate slow;
    const auto w = s.run(repeated(job("noop"), before) + slow.job() + repeated(job("noop"), 1'000));
    const std::size_t others = static_cast<std::size_t>(before) + 1'000;
    std::size_t ended = 0;
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (ended < others && std::chrono::steady_clock::now() < deadline) {
      s.on_loop([&] {
        for (const result_chunk& c : w->take_results()) ended += count_outcomes(c.data);
      });
    }
    EXPECT_EQ(ended, others);
    slow.open();
    EXPECT_EQ(s.wait(w).succeeded, others + 1);
  }
}

TEST(processes, a_message_of_slow_jobs_wakes_as_many_threads_as_it_needs) {
  process_settings settings = settings_for(2, 2);
  settings.tick = 1h;  // it would wake them all
  session s(settings);
  for (int round = 0; round < 20 && !HasFailure(); ++round) {
    gate slow;
    const auto w = s.run(repeated(slow.job(), 5));
    s.until_running(w, 4);
    slow.open();
    EXPECT_EQ(s.wait(w).succeeded, 5U);
  }
}

TEST(processes, what_a_thread_took_and_did_not_start_is_given_back_too) {
  session s(settings_for(1, 1));
  for (int before = 100; before < 116; ++before) {
    gate slow;
    const auto w = s.run(repeated(job("noop"), before) + slow.job() + repeated(job("noop"), 1'000));
    const auto runs = [&] {
      std::vector<std::uint32_t> now;
      s.on_loop([&] { now = w->running_lines(1); });
      return now == std::vector<std::uint32_t>{static_cast<std::uint32_t>(before)};
    };
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (!runs() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    s.on_loop([&] {
      EXPECT_TRUE(w->has_unstarted());
      w->stop_starting();
      EXPECT_FALSE(w->has_unstarted());
    });
    slow.open();
    const session::outcome o = s.wait(w);
    EXPECT_EQ(o.succeeded, static_cast<std::size_t>(before) + 1);
    EXPECT_EQ(o.unstarted.size(), 1'000U);
  }
}

TEST(processes, what_a_dead_child_took_and_did_not_start_runs_again_uncharged) {
  session s(settings_for(1, 1));
  for (int before = 100; before < 116; ++before) {
    const session::outcome o =
        s.wait(s.run(repeated(job("noop"), before) + job("exit") + repeated(job("noop"), 1'000)));
    EXPECT_EQ(o.succeeded, static_cast<std::size_t>(before) + 1'000);
    EXPECT_EQ(count_outcomes(o.results), o.succeeded);
    EXPECT_EQ(o.failures.size(), 1U);
  }
}

TEST(processes, abandoned_lines_are_given_back_and_their_processes_killed) {
  session s(settings_for(1, 1));
  const auto w = s.run(job("sleep", "60000") + job("noop"));
  bool started = false;
  while (!started) s.on_loop([&] { started = w->started(); });
  const pid_t pid = s.pool.pids()[0];
  s.on_loop([&] { w->abandon_running(); });
  EXPECT_EQ(s.wait(w).unstarted, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_TRUE(s.pool.abandon());
  EXPECT_NE(::kill(pid, 0), 0);
}

TEST(processes, cancelled_jobs_do_not_start_and_progress_comes_through) {
  session s(settings_for(2, 1));
  s.on_loop([&] { s.pool.cancel("m1/2"); });
  const session::outcome o = s.wait(s.run(job("progress") + job("echo", "1") + job("echo", "2")));
  EXPECT_EQ(o.succeeded, 2U);
  ASSERT_EQ(o.failures.size(), 1U);
  EXPECT_EQ(o.failures[0].fate, line_fate::cancelled);
  EXPECT_EQ(o.failures[0].id, "m1/2");
  EXPECT_EQ(s.control.said(), "m1/1 r {\"done\":0.5}\n");
  s.on_loop([&] { s.pool.cancel("m2/1"); });  // children that have read the list see what is new
  EXPECT_EQ(s.wait(s.run(job("echo") + job("noop"))).failures.at(0).id, "m2/1");
}

TEST(processes, the_sender_of_an_expired_job_is_told) {
  session s(settings_for(1, 1));
  const session::outcome o =
      s.wait(s.run(job("echo", "1") + "{\"task\":\"echo\",\"retry_count\":0,\"expires_at\":1}\n"));
  EXPECT_EQ(o.succeeded, 1U);
  EXPECT_EQ(o.failures.at(0).fate, line_fate::expired);
  EXPECT_NE(o.results.find(R"({"line":2,"state":"expired"})"), std::string::npos) << o.results;
}

TEST(processes, a_child_is_replaced_after_so_many_jobs) {
  process_settings settings = settings_for(1, 2);
  settings.max_jobs_per_child = 100;
  settings.tick = 5ms;
  session s(std::move(settings));
  const pid_t first = s.pool.pids()[0];
  EXPECT_EQ(s.wait(s.run(repeated(job("noop"), 150))).succeeded, 150U);
  wait_gone(first);
  EXPECT_EQ(s.wait(s.run(repeated(job("echo", "1"), 50))).succeeded, 50U);
  EXPECT_NE(s.log.lines().find("child_recycled"), std::string::npos);
}

TEST(processes, a_child_that_ends_before_it_is_ready_fails_the_start) {
  process_settings settings = settings_for(1, 1);
  settings.command.push_back("--broken");
  process_pool pool(std::move(settings));
  try {
    (void)pool.start();
    FAIL() << "started";
  } catch (const std::runtime_error& why) {
    EXPECT_NE(std::string(why.what()).find("ended with exit code 7 before it was ready"), std::string::npos)
        << why.what();
  }
}

TEST(processes, children_end_with_their_parent) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    process_pool pool(settings_for(2, 1));
    (void)pool.start();
    for (const pid_t pid : pool.pids()) (void)!write(ends[1], &pid, sizeof pid);
    for (;;) ::pause();
  }
  pid_t children[2] = {};
  for (pid_t& pid : children) ASSERT_EQ(::read(ends[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  EXPECT_EQ(::kill(children[0], 0), 0);
  ::kill(parent, SIGKILL);
  ASSERT_EQ(::waitpid(parent, nullptr, 0), parent);
  for (const pid_t pid : children) wait_gone(pid);
  ::close(ends[0]);
  ::close(ends[1]);
}
