/// Attempts on threads of this process: contexts, and attempts that go on without their thread.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pools/threads.hpp"
#include "thread_loop.hpp"

using namespace leveret::core;

namespace {

class no_log final : public log_sink {
 public:
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

class counting_context final : public handler_context {
 public:
  void enter() override {
    EXPECT_EQ(inside++, 0);
    ++entered;
  }
  void leave() override { EXPECT_EQ(--inside, 0); }
  void end_thread() override {
    EXPECT_EQ(inside, 0);
    ++ended;
  }
  std::atomic<int> inside{0};
  std::atomic<int> entered{0};
  std::atomic<int> ended{0};
};

struct held_attempts {
  std::mutex mutex;
  std::vector<std::unique_ptr<pending_attempt>> all;
  std::promise<void> enough;
  std::size_t wanted = 0;
};

struct pool_fixture : testing::Test {
  pool_fixture() {
    const auto add = [&](const char* name, leveret_outcome (*call)(void*, leveret_call*), void* state,
                         handler_context* needs) {
      leveret_task t{};
      t.size = sizeof t;
      t.name = {name, std::char_traits<char>::length(name)};
      t.max_retries = 0;
      t.state = state;
      t.call = call;
      EXPECT_EQ(tasks.add(t, "test", needs), "");
    };
    add(
        "inside",
        [](void* state, leveret_call*) {
          EXPECT_EQ(static_cast<counting_context*>(state)->inside, 1);
          return LEVERET_SUCCEEDED;
        },
        &context, &context);
    add(
        "outside",
        [](void* state, leveret_call*) {
          EXPECT_EQ(static_cast<counting_context*>(state)->inside, 0);
          return LEVERET_SUCCEEDED;
        },
        &context, nullptr);
    add(
        "later",
        [](void* state, leveret_call* call) {
          auto* held = static_cast<held_attempts*>(state);
          const std::lock_guard<std::mutex> lock(held->mutex);
          held->all.push_back(call->deferring->defer());
          if (held->all.size() == held->wanted) held->enough.set_value();
          return LEVERET_SUCCEEDED;
        },
        &held, nullptr);
    running.tasks = &tasks;
    running.log = &log;
  }

  std::shared_ptr<work> run(thread_pool& pool, const std::vector<std::string>& names) {
    std::string data;
    for (const std::string& name : names) data += R"({"task":")" + name + R"(","retry_count":0})" + "\n";
    delivery d;
    d.msg.id = "m";
    d.msg.reply = "r";
    d.msg.data = body(data);
    ended = std::promise<void>();
    return pool.run(std::move(d), [this](const std::shared_ptr<work>&) { ended.set_value(); });
  }

  no_log log;
  counting_context context;
  held_attempts held;
  registry tasks;
  run_settings running;
  thread_loop events;
  std::promise<void> ended;
};

}  // namespace

TEST_F(pool_fixture, a_context_is_entered_once_for_a_run_of_jobs_and_left_for_others) {
  thread_pool pool(1, running, events);
  run(pool, {"inside", "inside", "inside"});
  ended.get_future().wait();
  EXPECT_EQ(context.entered, 1);
  run(pool, {"outside", "inside", "inside", "outside"});
  ended.get_future().wait();
  pool.stop();
  EXPECT_LE(context.entered, 2);
  EXPECT_GE(context.entered, 2);
  EXPECT_EQ(context.inside, 0);
  EXPECT_EQ(context.ended, 1);
}

TEST_F(pool_fixture, single_jobs_that_come_in_a_burst_occupy_every_thread) {
  constexpr std::uint32_t kThreads = 4;
  struct meeting {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint32_t here = 0;
  } all;
  leveret_task t{};
  t.size = sizeof t;
  t.name = {"meet", 4};
  t.state = &all;
  t.call = [](void* state, leveret_call*) {
    auto& m = *static_cast<meeting*>(state);
    std::unique_lock<std::mutex> lock(m.mutex);
    ++m.here;
    m.changed.notify_all();
    return m.changed.wait_for(lock, std::chrono::seconds(20), [&] { return m.here >= kThreads; }) ? LEVERET_SUCCEEDED
                                                                                                  : LEVERET_REJECTED;
  };
  ASSERT_EQ(tasks.add(t, "test"), "");
  thread_pool pool(kThreads, running, events);
  for (int round = 0; round < 200; ++round) {
    all.here = 0;
    std::promise<void> done;
    std::atomic<std::uint32_t> left{kThreads};
    std::atomic<std::uint64_t> succeeded{0};
    for (std::uint32_t i = 0; i < kThreads; ++i) {
      delivery d;
      d.msg.id = "m";
      d.msg.data = body(R"({"task":"meet","retry_count":0})");
      (void)pool.run(std::move(d), [&](const std::shared_ptr<work>& w) {
        succeeded += w->succeeded_lines();
        if (--left == 0) done.set_value();
      });
    }
    done.get_future().wait();
    ASSERT_EQ(succeeded, kThreads) << "round " << round;
  }
  pool.stop();
}

TEST_F(pool_fixture, a_deferred_attempt_leaves_its_thread_and_ends_the_work_when_it_is_finished) {
  held.wanted = 3;
  thread_pool pool(1, running, events);
  const std::shared_ptr<work> w = run(pool, {"later", "later", "outside", "later"});
  held.enough.get_future().wait();  // three at once on one thread
  auto end = ended.get_future();
  held.all[2]->finish(LEVERET_SUCCEEDED, "[1]", {}, 0);
  held.all[0]->finish(LEVERET_REJECTED, {}, "no", 0);
  EXPECT_EQ(end.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  held.all[1]->finish(LEVERET_SUCCEEDED, "{", {}, 0);  // not JSON
  end.wait();
  EXPECT_EQ(w->succeeded_lines(), 2U);
  const std::vector<result_chunk> results = w->take_results();
  ASSERT_EQ(results.size(), 1U);
  EXPECT_NE(results[0].data.find(R"({"line":4,"result":[1]})"), std::string::npos) << results[0].data;
  const std::vector<failed_line> failures = w->take_failures();
  ASSERT_EQ(failures.size(), 2U);
  EXPECT_EQ(failures[0].reason, "rejected");
  EXPECT_EQ(failures[0].id, "m/1");
  EXPECT_EQ(failures[1].reason, "bad_result");
  EXPECT_EQ(failures[1].id, "m/2");
  pool.stop();
}

TEST_F(pool_fixture, what_a_deferred_attempt_does_after_it_was_abandoned_is_dropped) {
  held.wanted = 2;
  thread_pool pool(1, running, events);
  const std::shared_ptr<work> w = run(pool, {"later", "later"});
  held.enough.get_future().wait();
  held.all[1]->finish(LEVERET_SUCCEEDED, "2", {}, 0);
  std::promise<void> taken;
  events.post([&] {
    w->abandon_running();
    taken.set_value();
  });
  taken.get_future().wait();
  ended.get_future().wait();
  held.all[0]->finish(LEVERET_SUCCEEDED, "1", {}, 0);
  EXPECT_EQ(w->unstarted(), std::vector<std::uint32_t>{0});
  EXPECT_EQ(w->succeeded_lines(), 1U);
  EXPECT_EQ(w->take_results().at(0).data, "{\"line\":2,\"result\":2}\n");
  pool.stop();
}
