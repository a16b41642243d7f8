/// The engine of tests: jobs run on the caller's thread, when it says so, in virtual time.
#include "inline_worker.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client.hpp"
#include "wall_clock.hpp"

using namespace leveret::core;
using namespace std::chrono_literals;

namespace {

struct silent_log final : log_sink {
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

struct handlers {
  std::vector<std::string> ran;  ///< job ids and retry counts, in order
  std::thread::id thread;
  std::vector<std::thread> later;

  ~handlers() {
    for (std::thread& each : later) each.join();
  }
};

leveret_task task(const char* name, handlers& state, leveret_outcome (*call)(void*, leveret_call*)) {
  leveret_task t{};
  t.size = sizeof t;
  t.name = {name, std::char_traits<char>::length(name)};
  t.max_retries = 2;
  t.state = &state;
  t.call = call;
  return t;
}

struct inline_worker_on_memory : testing::Test {
  inline_worker_on_memory() {
    const auto add = [this](const char* name, leveret_outcome (*call)(void*, leveret_call*)) {
      EXPECT_EQ(tasks.add(task(name, state, call), "test"), "");
    };
    add("note", [](void* self, leveret_call* call) {
      auto& s = *static_cast<handlers*>(self);
      s.ran.push_back(to_json(call->job->args));
      s.thread = std::this_thread::get_id();
      return LEVERET_SUCCEEDED;
    });
    add("fail", [](void* self, leveret_call* call) {
      static_cast<handlers*>(self)->ran.push_back(std::to_string(call->job->retry_count));
      call->failure = "no";
      return LEVERET_FAILED;
    });
    add("later", [](void* self, leveret_call* call) {
      // Ends on another thread, after this one has gone on.
      auto pending = std::make_shared<std::unique_ptr<pending_attempt>>(call->deferring->defer());
      static_cast<handlers*>(self)->later.emplace_back(
          [pending] { (*pending)->finish(LEVERET_SUCCEEDED, "7", {}, 0); });
      return LEVERET_SUCCEEDED;
    });
    worker = std::make_unique<inline_worker>(inline_worker_options{"memory://inline", {}, {}, {}, 1}, tasks, log);
  }

  std::string send(const std::string& task, const std::string& args, std::chrono::milliseconds delay = 0ms,
                   const std::string& more = {}) {
    envelope e;
    e.queue = "native";
    if (delay > 0ms) e.due = wall_clock_now() + delay.count();
    return from.publish(e, R"({"task":")" + task + R"(","args":[)" + args + R"(],"retry_count":0)" + more + "}\n", 1)
        .id;
  }

  handlers state;
  registry tasks;
  silent_log log;
  client from{"memory://inline"};
  std::unique_ptr<inline_worker> worker;
};

TEST_F(inline_worker_on_memory, runs_what_is_due_in_order_on_its_callers_thread) {
  for (int i = 0; i < 5; ++i) send("note", std::to_string(i));
  EXPECT_TRUE(state.ran.empty()) << "nothing runs by itself";
  worker->run_until_idle();
  EXPECT_EQ(state.ran, (std::vector<std::string>{"[0]", "[1]", "[2]", "[3]", "[4]"}));
  EXPECT_EQ(state.thread, std::this_thread::get_id());
  EXPECT_EQ(worker->counts().succeeded, 5U);
}

TEST_F(inline_worker_on_memory, time_passes_when_it_is_told_to_and_each_job_runs_at_its_own) {
  const unix_ms began = worker->wall();
  send("note", "2", 2h);
  send("note", "1", 1h);
  worker->run_until_idle();
  worker->advance(1h - 1ms);
  EXPECT_TRUE(state.ran.empty());
  worker->advance(1ms);
  EXPECT_EQ(state.ran, (std::vector<std::string>{"[1]"}));
  send("note", "3", 30min);
  worker->advance(10h);
  EXPECT_EQ(state.ran, (std::vector<std::string>{"[1]", "[3]", "[2]"}));
  EXPECT_EQ(worker->wall() - began, (11h) / 1ms);
}

TEST_F(inline_worker_on_memory, retries_wait_for_their_time) {
  send("fail", "");
  worker->run_until_idle();
  EXPECT_EQ(state.ran, (std::vector<std::string>{"0"}));
  worker->advance(1h);
  EXPECT_EQ(state.ran, (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(worker->counts().dead, 1U);
}

TEST_F(inline_worker_on_memory, expired_jobs_end_unrun) {
  send("note", "1", 1h, R"(,"expires_at":)" + std::to_string(wall_clock_now() + 1'000));
  worker->advance(2h);
  EXPECT_TRUE(state.ran.empty());
  EXPECT_EQ(worker->counts().expired, 1U);
}

TEST_F(inline_worker_on_memory, attempts_that_go_on_elsewhere_are_waited_for) {
  for (int i = 0; i < 20; ++i) send("later", "");
  worker->run_until_idle();
  EXPECT_EQ(worker->counts().succeeded, 20U);
}

TEST_F(inline_worker_on_memory, may_be_destroyed_as_soon_as_what_went_on_elsewhere_has_ended) {
  for (int i = 0; i < 300; ++i) {
    for (int jobs = 0; jobs < 3; ++jobs) send("later", "");
    worker->run_until_idle();
    worker = nullptr;
    worker = std::make_unique<inline_worker>(inline_worker_options{"memory://inline", {}, {}, {}, 1}, tasks, log);
  }
}

TEST_F(inline_worker_on_memory, there_is_one_at_a_time_and_the_clock_runs_on_after_it) {
  EXPECT_THROW(inline_worker({"memory://inline", {}, {}, {}, 1}, tasks, log), std::invalid_argument);
  worker->advance(24h);
  EXPECT_GT(wall_clock_now(), worker->wall() - 1);
  EXPECT_EQ(stopped_wall_clock().load(), worker->wall());
}

TEST(inline_worker, leaves_the_clock_to_the_system) { EXPECT_EQ(stopped_wall_clock().load(), 0); }

}  // namespace
