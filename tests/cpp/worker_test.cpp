/// Client and worker together, on the memory transport: threads, results, retries, stopping.
#include "worker.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "client.hpp"

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

/// A gate that handlers wait at.
struct gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_open = false;
  std::atomic<int> waiting{0};

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return is_open; });
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex);
    is_open = true;
    changed.notify_all();
  }
};

leveret_task named(const char* name, leveret_outcome (*call)(void*, leveret_call*), void* state = nullptr) {
  leveret_task t{};
  t.size = sizeof t;
  t.name = {name, std::char_traits<char>::length(name)};
  t.max_retries = -1;
  t.state = state;
  t.call = call;
  return t;
}

struct worker_on_memory : testing::Test {
  worker_on_memory() {
    const std::vector<leveret_task> all = {
        named("echo",
              [](void*, leveret_call* call) {
                call->result.raw_trusted(to_json(call->job->args));
                return LEVERET_SUCCEEDED;
              }),
        named("flaky",
              [](void*, leveret_call* call) {
                if (call->job->retry_count > 0) return LEVERET_SUCCEEDED;
                call->failure = "first time";
                call->delay_ms = 1;
                return LEVERET_RETRY_AFTER;
              }),
        named("reject",
              [](void*, leveret_call* call) {
                call->failure = "never";
                return LEVERET_REJECTED;
              }),
        named(
            "wait",
            [](void* state, leveret_call*) {
              auto* g = static_cast<gate*>(state);
              ++g->waiting;
              g->wait();
              return LEVERET_SUCCEEDED;
            },
            &gate_),
    };
    for (const leveret_task& t : all) {
      const std::string why = tasks_.add(t, "test");
      if (!why.empty()) throw std::runtime_error(why);
    }
    static std::atomic<int> number{0};
    url_ = "memory://worker-test-" + std::to_string(++number);
  }

  worker_options options(bool burst = true) const {
    worker_options o;
    o.url = url_;
    o.threads = 3;
    o.burst = burst;
    return o;
  }

  worker_summary drain() {
    worker w(options(), tasks_, log_);
    w.start();
    EXPECT_TRUE(w.wait_finished(std::chrono::steady_clock::now() + 120s));
    return w.stop(60s);
  }

  static std::string line(const std::string& task, const std::string& args = "") {
    std::string out;
    new_job job;
    job.task = task;
    job.args = args;
    append_job(out, job);
    return out;
  }

  // Threads left behind past the grace use these until the program ends: never destroyed, yet reachable.
  struct shared {
    registry tasks;
    kept_log log;
    gate g;
  };
  static shared& kept() {
    static auto* const all = new std::vector<std::unique_ptr<shared>>;
    return *all->emplace_back(std::make_unique<shared>());
  }

  shared& kept_ = kept();
  registry& tasks_ = kept_.tasks;
  kept_log& log_ = kept_.log;
  gate& gate_ = kept_.g;
  std::string url_;
};

envelope to_native(bool results = true) {
  envelope e;
  e.queue = "native";
  e.want_results = results;
  return e;
}

void wait_until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 120s;
  while (!condition() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  ASSERT_TRUE(condition());
}

}  // namespace

TEST_F(worker_on_memory, every_job_of_many_batches_ends_once_and_its_result_comes_back) {
  constexpr std::uint32_t kJobs = 20'000;
  client c(url_);
  auto batch = c.start_batch(to_native());
  for (std::uint32_t i = 0; i < kJobs; ++i) batch->add(line("echo", "[" + std::to_string(i) + "]"));
  batch->finish();
  std::vector<std::string> ids;
  std::uint32_t sent = 0;
  for (const published& p : batch->accepted()) {
    ids.push_back(p.id);
    sent += p.jobs;
  }
  EXPECT_EQ(sent, kJobs);
  EXPECT_GT(ids.size(), 5u);

  const worker_summary summary = drain();
  EXPECT_EQ(summary.counts.succeeded, kJobs);
  EXPECT_EQ(summary.counts.dead, 0u);

  std::set<std::pair<std::string, std::string>> lines;
  while (lines.size() < kJobs) {
    const auto chunks = c.take_results(ids, std::chrono::steady_clock::now() + 60s);
    ASSERT_FALSE(chunks.empty()) << lines.size();
    for (const result_chunk& chunk : chunks) {
      std::size_t from = 0;
      while (from < chunk.data.size()) {
        const std::size_t end = chunk.data.find('\n', from);
        EXPECT_TRUE(lines.emplace(chunk.id, chunk.data.substr(from, end - from)).second) << "a result twice";
        from = end + 1;
      }
    }
  }
  EXPECT_EQ(lines.count({ids[0], "{\"line\":1,\"result\":[0]}"}), 1u);
}

TEST_F(worker_on_memory, a_burst_runs_its_own_retries_and_a_rejected_job_is_on_record) {
  client c(url_);
  (void)c.publish(to_native(false), line("flaky") + line("reject") + line("echo") + "{not json\n", 4);
  const worker_summary summary = drain();
  EXPECT_EQ(summary.counts.succeeded, 2u);
  EXPECT_EQ(summary.counts.retried, 1u);
  EXPECT_EQ(summary.counts.dead, 2u);
  const browse_page dead = c.dead("native", "", 10);
  ASSERT_EQ(dead.entries.size(), 2u);
  EXPECT_NE(log_.lines().find("job_dead"), std::string::npos);
}

TEST_F(worker_on_memory, a_stop_lets_what_runs_end_and_gives_the_rest_back) {
  client c(url_);
  std::string lines;
  for (int i = 0; i < 10; ++i) lines += line("wait");
  (void)c.publish(to_native(false), lines, 10);
  (void)c.publish(to_native(false), lines, 10);
  worker w(options(false), tasks_, log_);
  w.start();
  wait_until([this] { return gate_.waiting.load() == 3; });
  std::future<worker_summary> stopping = std::async(std::launch::async, [&w] { return w.stop(60s); });
  gate_.open();
  const worker_summary first = stopping.get();
  EXPECT_FALSE(first.grace_exceeded);
  EXPECT_GE(first.counts.succeeded, 3u);
  const worker_summary second = drain();
  EXPECT_EQ(first.counts.succeeded + second.counts.succeeded, 20u);
  EXPECT_EQ(first.counts.dead + second.counts.dead, 0u);
}

TEST_F(worker_on_memory, past_the_grace_running_jobs_are_given_back_uncharged) {
  client c(url_);
  (void)c.publish(to_native(false), line("wait") + line("echo"), 2);
  worker_summary first;
  {
    worker w(options(false), tasks_, log_);
    w.start();
    wait_until([this] { return gate_.waiting.load() == 1; });
    first = w.stop(50ms);
    EXPECT_TRUE(first.grace_exceeded);
  }
  const std::vector<queue_stats> stats = c.stats("native");
  ASSERT_EQ(stats.size(), 1u);
  EXPECT_EQ(stats[0].ready, 1u) << "the running line went back in a message of its own";
  EXPECT_EQ(stats[0].running.value_or(0), 0u);
  gate_.open();  // the thread left behind ends; its outcome is dropped
  const worker_summary rest = drain();
  EXPECT_GE(rest.counts.succeeded, 1u);
  EXPECT_EQ(first.counts.succeeded + rest.counts.succeeded, 2u) << "whether the line beside it had its turn or not";
}

TEST_F(worker_on_memory, a_cancelled_job_of_a_batch_is_not_run_and_its_sender_is_told) {
  client c(url_);
  const published p = c.publish(to_native(), line("echo") + line("echo") + line("echo"), 3);
  EXPECT_EQ(c.cancel({p.id + "/2"}), std::vector<bool>{true});
  const worker_summary summary = drain();
  EXPECT_EQ(summary.counts.succeeded, 2u);
  EXPECT_EQ(summary.counts.cancelled, 1u);
  const auto chunks = c.take_results({p.id}, std::chrono::steady_clock::now() + 60s);
  ASSERT_FALSE(chunks.empty());
  EXPECT_EQ(chunks[0].data, "{\"line\":2,\"state\":\"cancelled\"}\n");
  EXPECT_THROW((void)c.cancel({"nonsense"}), std::invalid_argument);
}

TEST_F(worker_on_memory, a_cancelled_job_that_waits_behind_a_running_one_of_its_message_is_skipped) {
  client c(url_);
  const published p = c.publish(to_native(), line("wait") + line("echo"), 2);
  worker_options o = options(false);
  o.threads = 1;
  worker w(o, tasks_, log_);
  w.start();
  wait_until([this] { return gate_.waiting.load() == 1; });
  EXPECT_EQ(c.cancel({p.id + "/2"}), std::vector<bool>{false}) << "its message runs: the worker is asked";
  (void)w.summary();  // asked of the loop, which has heard of it by then
  gate_.open();
  wait_until([&w] { return w.summary().counts.cancelled == 1; });
  EXPECT_EQ(w.stop(60s).counts.succeeded, 1u);
}

TEST_F(worker_on_memory, a_worker_reports_what_it_runs_and_that_it_is_gone) {
  client c(url_);
  const published p = c.publish(to_native(), line("wait"), 1);
  worker_options o = options(false);
  o.report_every = 1ms;
  worker w(o, tasks_, log_);
  w.start();
  const auto report_has = [&c](const std::string& part) {
    const std::vector<report> found = c.known(kReportWorker, "");
    return found.size() == 1 && found[0].body.find(part) != std::string::npos;
  };
  wait_until([&] { return report_has(R"("running":[{"id":")" + p.id + R"(/1","task":"wait","since":)"); });
  EXPECT_TRUE(report_has(R"("queues":["native"])"));
  EXPECT_TRUE(report_has(R"("state":"running")"));
  gate_.open();
  wait_until([&] { return report_has(R"("succeeded":1)") && report_has(R"("running":[])"); });
  w.stop(60s);
  EXPECT_TRUE(c.known(kReportWorker, "").empty());
}

TEST_F(worker_on_memory, dead_jobs_that_are_replayed_run_again_under_their_id) {
  client c(url_);
  const published p = c.publish(to_native(false), line("reject") + line("reject") + "{not json\n", 3);
  EXPECT_EQ(drain().counts.dead, 3u);
  EXPECT_EQ(c.replay("native", {p.id + "/2", "unknown/1"}, false), 1u);
  EXPECT_EQ(c.replay("native", {}, true), 1u) << "the malformed one stays";
  EXPECT_EQ(c.dead("native", "", 10).entries.size(), 1u);
  EXPECT_EQ(drain().counts.dead, 2u);
  std::set<std::string> dead;  // they ended on several threads, in any order
  for (const browse_entry& entry : c.dead("native", "", 10).entries) dead.insert(entry.id);
  EXPECT_EQ(dead, (std::set<std::string>{p.id + "/1", p.id + "/2", p.id + "/3"}));
}

TEST_F(worker_on_memory, senseless_options_are_refused_with_a_sentence) {
  worker_options o = options();
  o.default_task = "nobody";
  EXPECT_THROW(worker(o, tasks_, log_), std::invalid_argument);
  o = options();
  o.queues = {"bad name"};
  EXPECT_THROW(worker(o, tasks_, log_), std::invalid_argument);
  const registry none;
  EXPECT_THROW(worker(options(), none, log_), std::invalid_argument);
}

TEST_F(worker_on_memory, waiting_for_results_that_do_not_come_ends_at_the_deadline_and_at_close) {
  client c(url_);
  const published p = c.publish(to_native(), line("echo"), 1);
  EXPECT_TRUE(c.take_results({p.id}, std::chrono::steady_clock::now() + 20ms).empty());
  std::thread closes([&c] { c.close(); });
  EXPECT_THROW((void)c.take_results({p.id}, std::chrono::steady_clock::now() + 60s), leveret::closed);
  closes.join();
  EXPECT_THROW((void)c.publish(to_native(), line("echo"), 1), leveret::closed);
}
