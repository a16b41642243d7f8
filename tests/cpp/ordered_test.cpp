// Which queue keeps a key's jobs; and the lines of an ordered message, one after another, on a pool of threads.
#include "ordered.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ordered_work.hpp"
#include "pools/threads.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

using namespace leveret::core;

namespace {

TEST(ordered, a_key_is_in_the_shard_that_its_crc_says) {
  // zlib.crc32 of the text, modulo 16.
  EXPECT_EQ(shard_of("123456789"), 0xcbf43926u % 16);
  EXPECT_EQ(shard_of(""), 0u);
  EXPECT_EQ(shard_of("a"), 0xe8b7be43u % 16);
  EXPECT_EQ(shard_of("\xc3\xa9"), 0x0e048d3eu % 16);
  std::vector<int> keys(kOrderedShards);
  for (int i = 0; i < 1600; ++i) ++keys[shard_of("customer-" + std::to_string(i))];
  for (const int each : keys) EXPECT_GT(each, 50);
}

TEST(ordered, a_name_says_that_a_queue_is_ordered) {
  EXPECT_EQ(ordered_queues("mail").size(), 16u);
  EXPECT_EQ(ordered_queue("mail", 15), "mail.ordered.15");
  for (const std::string& each : ordered_queues("mail.to")) {
    EXPECT_TRUE(is_ordered(each)) << each;
    EXPECT_EQ(unordered_queue(each), "mail.to");
    check_queue_name(each);
  }
  for (const char* other : {"mail", "mail.ordered", "mail.ordered.", "mail.ordered.16", "mail.ordered.03",
                            "mail.ordered.-1", "mail.ordered.1.x", ".ordered.1", "ordered.1", "mailordered.1"}) {
    EXPECT_FALSE(is_ordered(other)) << other;
    EXPECT_EQ(unordered_queue(other), other);
  }
  EXPECT_THROW(check_queue_name("mail.ordered"), std::invalid_argument);
}

class no_log final : public log_sink {
 public:
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

struct ordered_fixture : testing::Test {
  ordered_fixture() {
    const auto add = [&](const char* name, leveret_outcome (*call)(void*, leveret_call*)) {
      leveret_task t{};
      t.size = sizeof t;
      t.name = {name, std::char_traits<char>::length(name)};
      t.max_retries = 0;
      t.state = this;
      t.call = call;
      EXPECT_EQ(tasks.add(t, "test", nullptr), "");
    };
    add("note", [](void* state, leveret_call* call) {
      auto& self = *static_cast<ordered_fixture*>(state);
      EXPECT_EQ(self.inside++, 0) << "two at once";
      self.note(*call);
      --self.inside;
      return LEVERET_SUCCEEDED;
    });
    add("fail", [](void* state, leveret_call* call) {
      static_cast<ordered_fixture*>(state)->note(*call);
      call->failure = "no";
      return LEVERET_REJECTED;
    });
    add("later", [](void* state, leveret_call* call) {
      auto& self = *static_cast<ordered_fixture*>(state);
      self.note(*call);
      self.deferred.set_value(call->deferring->defer());
      return LEVERET_SUCCEEDED;
    });
    add("wait", [](void* state, leveret_call* call) {
      auto& self = *static_cast<ordered_fixture*>(state);
      self.note(*call);
      self.begun.set_value();
      self.go_on.get_future().wait();
      return LEVERET_SUCCEEDED;
    });
    running.tasks = &tasks;
    running.log = &log;
  }

  void note(const leveret_call& call) {
    const std::lock_guard<std::mutex> lock(mutex);
    ran.emplace_back(call.job_id);
  }

  template <class F>
  auto on_loop(F f) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto done = task.get_future();
    events.post([&task] { task(); });
    return done.get();
  }
  std::shared_ptr<ordered_work> run(thread_pool& pool, const std::string& lines) {
    delivery d;
    d.msg.id = "m";
    d.msg.queue = "work.ordered.1";
    d.msg.reply = "r";
    d.msg.data = body(lines);
    return on_loop([&] {
      return ordered_work::run(std::move(d), pool, events, returner,
                               [this](const std::shared_ptr<work>&) { ended.set_value(); });
    });
  }
  static std::string job(const std::string& task) { return R"({"task":")" + task + R"(","retry_count":0})" + "\n"; }

  no_log log;
  registry tasks;
  run_settings running;
  thread_loop events;
  line_returner returner;
  std::mutex mutex;
  std::vector<std::string> ran;
  std::atomic<int> inside{0};
  std::promise<std::unique_ptr<pending_attempt>> deferred;
  std::promise<void> begun;
  std::promise<void> go_on;
  std::promise<void> ended;
};

TEST_F(ordered_fixture, lines_run_one_after_another_whatever_becomes_of_them) {
  thread_pool pool(4, running, events);
  std::string lines;
  std::vector<std::string> ids;
  for (int i = 1; i <= 200; ++i) {
    lines += i % 50 == 0 ? "no job\n" : job(i % 7 == 0 ? "fail" : "note");
    if (i % 50 != 0) ids.push_back("m/" + std::to_string(i));
  }
  const auto w = run(pool, lines);
  ended.get_future().wait();
  pool.stop();
  EXPECT_EQ(ran, ids);
  EXPECT_TRUE(w->unstarted().empty());
  std::uint64_t results = 0;
  for (const result_chunk& chunk : w->take_results()) {
    EXPECT_EQ(chunk.id, "m");
    results += static_cast<std::uint64_t>(std::count(chunk.data.begin(), chunk.data.end(), '\n'));
  }
  EXPECT_EQ(results, 200u);
  const std::vector<failed_line> failures = w->take_failures();
  EXPECT_EQ(failures.size() + w->succeeded_lines(), 200u);
  EXPECT_EQ(std::count_if(failures.begin(), failures.end(), [](const auto& f) { return f.reason == "malformed"; }), 4);
}

TEST_F(ordered_fixture, a_line_waits_for_an_attempt_that_goes_on_without_its_thread) {
  thread_pool pool(2, running, events);
  const auto w = run(pool, job("note") + job("later") + job("note"));
  const auto held = deferred.get_future().get();
  on_loop([&] { EXPECT_EQ(w->running_lines(9), std::vector<std::uint32_t>{1}); });
  EXPECT_EQ(ran.size(), 2u);
  held->finish(LEVERET_SUCCEEDED, "1", {}, 0);
  ended.get_future().wait();
  pool.stop();
  EXPECT_EQ(ran, (std::vector<std::string>{"m/1", "m/2", "m/3"}));
}

TEST_F(ordered_fixture, a_message_that_was_begun_is_ended_when_the_worker_stops) {
  thread_pool pool(2, running, events);
  const auto w = run(pool, job("wait") + job("note") + job("note"));
  begun.get_future().wait();
  on_loop([&] { w->wind_down(); });
  go_on.set_value();
  ended.get_future().wait();
  pool.stop();
  EXPECT_TRUE(w->unstarted().empty());
  EXPECT_EQ(w->succeeded_lines(), 3u);
}

TEST_F(ordered_fixture, a_message_that_was_not_begun_is_given_back_when_the_worker_stops) {
  thread_pool pool(1, running, events);
  delivery busy;
  busy.msg.id = "b";
  busy.msg.data = body(job("wait"));
  std::promise<void> busy_ended;
  pool.run(std::move(busy), [&](const std::shared_ptr<work>&) { busy_ended.set_value(); });
  begun.get_future().wait();
  const auto w = run(pool, job("note") + job("note"));
  on_loop([&] { w->wind_down(); });
  ended.get_future().wait();
  EXPECT_EQ(w->unstarted(), (std::vector<std::uint32_t>{0, 1}));
  go_on.set_value();
  busy_ended.get_future().wait();
  pool.stop();
  EXPECT_EQ(ran, std::vector<std::string>{"b/1"});
}

TEST_F(ordered_fixture, nothing_is_started_any_more_once_the_message_is_lost) {
  thread_pool pool(2, running, events);
  const auto w = run(pool, job("wait") + job("note") + job("note"));
  begun.get_future().wait();
  on_loop([&] { w->stop_starting(); });
  go_on.set_value();
  ended.get_future().wait();
  pool.stop();
  EXPECT_EQ(w->unstarted(), (std::vector<std::uint32_t>{1, 2}));
  EXPECT_EQ(ran, std::vector<std::string>{"m/1"});
}

}  // namespace
