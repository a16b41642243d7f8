// Whole workers under random faults, deterministic by seed: the real tracker, settlements, redelivery, codec and memory
// transport, on loops in virtual time, with a pool whose threads are timers. A world steps one task of one loop at a
// time, in random order, and kills, stops, robs and restarts workers between any two of them.
//
// LEVERET_SIMULATION_SEED=n runs that seed alone, LEVERET_SIMULATION_SEEDS=m so many, from n or 1 on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cpp/support/results.hpp"
#include "cpp/support/simulated_worker.hpp"
#include "ids.hpp"

namespace leveret::core {
namespace {

using simulation::dice;
using simulation::journal;
using simulation::kQueue;
using simulation::plan;
using simulation::worker_process;
using std::chrono::milliseconds;

constexpr milliseconds kFaultTime{60'000};     // after that nothing goes wrong any more
constexpr milliseconds kDrainTime{1'200'000};  // retries and restarts take far less

// ---- handlers: how a job goes is its task's name, so that every run of it goes alike ----

leveret_outcome note_run(journal& j, const leveret_call& call) {
  const int times = ++j.runs[{std::string(call.job_id), call.job->retry_count}];
  if (times == 1 && call.job->retry_count == 0) j.first_runs.emplace_back(call.job_id);
  return LEVERET_SUCCEEDED;
}

template <std::uint32_t kFailures>
leveret_outcome succeed_after(void* state, leveret_call* call) {
  auto& j = *static_cast<journal*>(state);
  (void)note_run(j, *call);
  if (call->job->retry_count < kFailures) {
    call->failure = "not yet";
    return LEVERET_FAILED;
  }
  j.succeeded.insert(std::string(call->job_id));
  call->result.uinteger(call->job->retry_count);
  return LEVERET_SUCCEEDED;
}

leveret_outcome retry_later(void* state, leveret_call* call) {
  auto& j = *static_cast<journal*>(state);
  (void)note_run(j, *call);
  if (call->job->retry_count == 0) {
    call->failure = "later";
    call->delay_ms = 700;
    return LEVERET_RETRY_AFTER;
  }
  j.succeeded.insert(std::string(call->job_id));
  return LEVERET_SUCCEEDED;
}

leveret_outcome reject(void* state, leveret_call* call) {
  (void)note_run(*static_cast<journal*>(state), *call);
  call->failure = "never";
  return LEVERET_REJECTED;
}

// Takes its worker down, as a handler that crashes does.
leveret_outcome poison(void* state, leveret_call* call) {
  auto& j = *static_cast<journal*>(state);
  (void)note_run(j, *call);
  j.kill_current();
  return LEVERET_FAILED;  // to a worker that is gone
}

struct kind_of_job {
  const char* task;
  bool ends_dead;
  leveret_outcome (*call)(void*, leveret_call*);
};
constexpr kind_of_job kKinds[] = {{"ok", false, succeed_after<0>},        {"ok_too", false, succeed_after<0>},
                                  {"second", false, succeed_after<1>},    {"third", false, succeed_after<2>},
                                  {"later", false, retry_later},          {"reject", true, reject},
                                  {"exhausted", true, succeed_after<999>}};
constexpr kind_of_job kPoison{"poison", true, poison};

// ---- the world ----

class world {
 public:
  explicit world(std::uint64_t seed) : dice_(seed) {
    plan_.faults = seed % 4 != 0;
    plan_.ordered = seed % 5 == 0;
    plan_.threads = 1 + static_cast<std::uint32_t>(dice_.below(4));
    plan_.held = {1 + static_cast<std::uint32_t>(dice_.below(8)), 1u << 20};
    plan_.workers = 1 + dice_.below(3);
    plan_.messages = 1 + dice_.below(40);
    plan_.slow_percent = dice_.chance(30) ? 5 : 0;
    // In order nothing may overtake a job that takes its worker down again and again.
    plan_.poison_percent = plan_.faults && dice_.chance(30) && !plan_.ordered ? 3 : 0;
    plan_.settle_percent = plan_.faults && dice_.chance(50) ? 5 : 0;
    url_ = "memory://simulation-" + std::to_string(seed);
    std::vector<kind_of_job> kinds(std::begin(kKinds), std::end(kKinds));
    kinds.push_back(kPoison);
    for (const kind_of_job& kind : kinds) {
      leveret_task t{};
      t.size = sizeof t;
      t.name = {kind.task, std::char_traits<char>::length(kind.task)};
      t.max_retries = -1;
      t.state = &journal_;
      t.call = kind.call;
      const std::string why = tasks_.add(t, "simulation");
      if (!why.empty()) throw std::logic_error(why);
    }
    sender_ = open_memory(url_, sender_loop_, {});
  }

  /// Adds to what all seeds did, so that one sees whether they did anything.
  struct totals {
    std::uint64_t jobs = 0;
    std::uint64_t faults = 0;
    std::uint64_t may_repeat = 0;
    std::uint64_t repeated = 0;
    std::uint64_t crashed = 0;
    std::uint64_t in_order = 0;
  };

  void run(totals& sum) {
    prepare();
    const auto start = sender_loop_.now();
    while (sender_loop_.now() - start < kFaultTime && step()) {
    }
    // From here on nothing goes wrong; somebody is there to do the rest.
    calm_ = true;
    for (const auto& p : processes_) p->settle_percent = 0;
    start_worker();
    bool empty = false;
    while (!empty && sender_loop_.now() - start < kDrainTime) {
      const auto until = sender_loop_.now() + milliseconds(5'000);
      bool more = true;
      while (more && sender_loop_.now() < until) more = step();
      empty = is_drained();
      if (!more) break;  // whatever is still there would stay for ever
    }
    EXPECT_TRUE(empty) << "not drained: " << queues_as_text();
    check(sum);
  }

 private:
  void prepare() {
    sender_->declare(plan_.queue(),
                     [](transport::declared, const maybe_failure& why) { EXPECT_FALSE(why) << why->text; });
    sender_->make_reply([this](std::string reply, const maybe_failure& why) {
      EXPECT_FALSE(why) << why->text;
      reply_ = std::move(reply);
    });
    while (sender_loop_.run_one()) {
    }
    sender_->watch(reply_, [this](const result_chunk& chunk) { read(chunk); }, [](const maybe_failure&) {});
    for (std::size_t i = 0; i < plan_.workers; ++i) start_worker();
    for (std::size_t i = 0; i < plan_.messages; ++i) {
      sender_loop_.after(milliseconds(10 * dice_.below(3'000)), [this] { send(); });
    }
    const std::uint64_t events = plan_.faults ? 1 + dice_.below(12) : dice_.below(3);
    for (std::uint64_t i = 0; i < events; ++i) {
      // On the sender's loop, which is as good as any: it is no part of a worker.
      sender_loop_.after(milliseconds(10 * dice_.below(5'000)), [this] { disturb(); });
    }
  }

  void start_worker() {
    processes_.push_back(std::make_unique<worker_process>(url_, sender_loop_.now(), tasks_, dice_, plan_, journal_));
    processes_.back()->settle_percent = calm_ ? 0 : plan_.settle_percent;
  }

  void send() {
    message m;
    m.id = make_message_id(sender_loop_.wall(), [this] { return dice_.bits(); });
    m.queue = plan_.queue();
    m.reply = reply_;
    m.jobs = 1 + static_cast<std::uint32_t>(dice_.chance(30) ? 0 : dice_.below(12));
    if (dice_.chance(10)) m.due = sender_loop_.wall() + static_cast<unix_ms>(dice_.below(5'000));
    std::string lines;
    for (std::uint32_t i = 1; i <= m.jobs; ++i) {
      const bool poisoned = dice_.chance(plan_.poison_percent);
      const kind_of_job& kind = poisoned ? kPoison : kKinds[dice_.below(std::size(kKinds))];
      new_job job;
      job.task = kind.task;
      append_job(lines, job);
      const std::string id = make_job_id(m.id, i);
      if (kind.ends_dead) must_die_.insert(id);
      if (poisoned) poisoned_.insert(id);
      journal_.accepted.insert(id);
      if (m.due == 0) sent_.push_back(id);
    }
    m.data = body(lines);
    // An answer that is not heard: the same message is sent again.
    const int times = dice_.chance(10) ? 2 : 1;
    for (int i = 0; i < times; ++i) {
      sender_->publish({m}, sender_loop_.now() + milliseconds(30'000),
                       [](const std::vector<publish_outcome>& outcomes) {
                         EXPECT_EQ(outcomes.front().status, publish_status::accepted) << outcomes.front().why.text;
                       });
    }
  }

  void disturb() {
    std::vector<worker_process*> there;
    for (const auto& p : processes_) {
      if (!p->gone && !p->leaving) there.push_back(p.get());
    }
    worker_process* victim = there.empty() ? nullptr : there[dice_.below(there.size())];
    const std::uint64_t what = plan_.faults ? dice_.below(4) : 2 + dice_.below(2);
    if (victim != nullptr && what == 0) victim->kill();
    if (victim != nullptr && what == 1) victim->lose_deliveries();
    // Without faults the grace is long enough for everything.
    if (victim != nullptr && what == 2) victim->stop(milliseconds(plan_.faults ? dice_.below(3'000) : 600'000));
    if (what == 3 || there.size() <= 1 || dice_.chance(50)) start_worker();
  }

  // One task of one loop; when there is none, time passes to the next timer. False: nothing is left to happen.
  bool step() {
    std::vector<manual_loop*> ready;
    std::vector<manual_loop*> all{&sender_loop_};
    for (const auto& p : processes_) {
      if (p->drained && !p->gone) {
        p->gone = true;
        p->broker.close(p->l.now());
      }
      if (!p->gone) all.push_back(&p->l);
    }
    // A supervisor: somebody is always there again soon.
    const bool nobody =
        std::all_of(processes_.begin(), processes_.end(), [](const auto& p) { return p->gone || p->leaving; });
    if (nobody && !restarting_) {
      restarting_ = true;
      sender_loop_.after(milliseconds(500), [this] {
        restarting_ = false;
        start_worker();
      });
    }
    std::optional<loop::clock::time_point> next;
    for (manual_loop* l : all) {
      if (!l->idle()) ready.push_back(l);
      const auto timer = l->next_timer();
      if (timer && (!next || *timer < *next)) next = timer;
    }
    if (!ready.empty()) {
      ready[dice_.below(ready.size())]->run_one();
      return true;
    }
    if (!next) return false;
    for (manual_loop* l : all) l->pass_to(*next);
    return true;
  }

  void read(const result_chunk& chunk) {
    for_each_outcome(chunk.data, [&](std::uint32_t number, const std::string& outcome) {
      const std::string id = make_job_id(chunk.id, number);
      ++(outcome.find(R"("state":"dead")") == std::string::npos ? journal_.results : journal_.dead_results)[id];
    });
  }

  // Answers of the sender's transport, without letting the workers go on.
  template <class Ask>
  void ask(Ask call) {
    call();
    while (sender_loop_.run_one()) {
    }
  }

  std::vector<queue_stats> queues() {
    std::vector<queue_stats> all;
    ask([&] {
      sender_->stats("", [&](std::vector<queue_stats> stats, const maybe_failure&) { all = std::move(stats); });
    });
    return all;
  }

  bool is_drained() {
    const std::vector<queue_stats> all = queues();
    return std::all_of(all.begin(), all.end(), [](const queue_stats& q) {
      return q.ready + q.delayed.value_or(0) + q.running.value_or(0) == 0;
    });
  }

  std::string queues_as_text() {
    std::string text;
    for (const queue_stats& q : queues()) {
      text += q.queue + ": ready " + std::to_string(q.ready) + ", delayed " + std::to_string(q.delayed.value_or(0)) +
              ", running " + std::to_string(q.running.value_or(0)) + "; ";
    }
    return text;
  }

  void check(totals& sum) {
    std::map<std::string, std::vector<std::string>> dead;  // records by job id
    ask([&] {
      sender_->browse_dead(plan_.queue(), "", 1'000'000, [&](const browse_page& page, const maybe_failure& why) {
        EXPECT_FALSE(why) << why->text;
        for (const browse_entry& entry : page.entries) dead[entry.id].push_back(entry.record);
      });
    });
    for (const std::string& id : journal_.accepted) {
      const bool done = journal_.results.count(id) != 0;
      const auto found = dead.find(id);
      const bool is_dead = found != dead.end();
      // I1: an effect or a dead record, and its sender knows.
      EXPECT_TRUE(done || is_dead) << id << " is lost";
      if (done) {
        EXPECT_EQ(journal_.succeeded.count(id), 1u) << id << " has a result, but never succeeded";
      }
      if (!is_dead) continue;
      // I2: one end. A job whose results were stored while its message went on may have been dead by crashes later: the
      // sender keeps the first.
      const bool crashed = found->second.front().find(R"("reason":"crashed")") != std::string::npos;
      sum.crashed += crashed ? 1 : 0;
      EXPECT_EQ(found->second.size(), 1u) << id << " is dead twice: " << found->second.back();
      EXPECT_TRUE(!done || crashed) << id << " is done and dead: " << found->second.front();
      EXPECT_TRUE(must_die_.count(id) != 0 || crashed) << id << " should have succeeded: " << found->second.front();
      EXPECT_TRUE(crashed || poisoned_.count(id) == 0) << id << " took workers down: " << found->second.front();
      EXPECT_TRUE(!crashed || plan_.faults) << id << " is dead by a crash that never was";
      EXPECT_GE(journal_.dead_results[id], 1) << id << ": its sender was not told that it is dead";
    }
    for (const auto& entry : dead) EXPECT_EQ(journal_.accepted.count(entry.first), 1u) << entry.first << " is nobody's";
    // I5: what is repeated had been started and was not settled at a fault.
    std::uint64_t repeated = 0;
    for (const auto& [run, times] : journal_.runs) {
      EXPECT_EQ(journal_.accepted.count(run.first), 1u) << run.first << " was run, but never sent";
      repeated += static_cast<std::uint64_t>(times - 1);
    }
    EXPECT_LE(repeated, journal_.may_repeat);
    // I4: jobs of an ordered queue first run in the order sent; those with a due time, when they are due.
    if (plan_.ordered) {
      const std::set<std::string> undelayed(sent_.begin(), sent_.end());
      std::vector<std::string> ran;
      for (const std::string& id : journal_.first_runs) {
        if (undelayed.count(id) != 0) ran.push_back(id);
      }
      EXPECT_EQ(ran, sent_);
      sum.in_order += ran.size();
    }
    sum.jobs += journal_.accepted.size();
    sum.faults += journal_.faults;
    sum.may_repeat += journal_.may_repeat;
    sum.repeated += repeated;
    if (!plan_.faults) {
      EXPECT_EQ(repeated, 0u);
    }
  }

  dice dice_;
  plan plan_;
  journal journal_;
  std::string url_;
  registry tasks_;
  manual_loop sender_loop_;
  std::unique_ptr<transport> sender_;
  std::string reply_;
  std::vector<std::string> sent_;  // without a due time, in order
  std::set<std::string> must_die_;
  std::set<std::string> poisoned_;
  bool restarting_ = false;
  bool calm_ = false;
  std::vector<std::unique_ptr<worker_process>> processes_;  // dead ones too: their tasks may name them
};

// Found by seed 6461: the declaration was answered after the stop, and the worker subscribed.
TEST(simulation, a_worker_stopped_before_it_has_subscribed_ends) {
  const std::string url = "memory://simulation-early-stop";
  manual_loop sender_loop;
  const auto sender = open_memory(url, sender_loop, {});
  sender->declare(kQueue, [](transport::declared, const maybe_failure&) {});
  message m;
  m.id = "m";
  m.queue = kQueue;
  m.data = body("{}\n");
  sender->publish({m}, sender_loop.now(), [](const std::vector<publish_outcome>&) {});
  dice d(1);
  plan p;
  journal j;
  const registry tasks;
  worker_process worker(url, sender_loop.now(), tasks, d, p, j);
  ASSERT_TRUE(worker.l.run_one());  // it starts: the declaration is on its way
  worker.stop(milliseconds(1'000));
  worker.l.run_until_idle();
  EXPECT_TRUE(worker.drained);
  std::uint64_t ready = 0;
  sender->stats(kQueue,
                [&](const std::vector<queue_stats>& stats, const maybe_failure&) { ready = stats.at(0).ready; });
  sender_loop.run_until_idle();
  EXPECT_EQ(ready, 1u);
}

// 640 jobs of a minute in one message: whoever takes it shares it out, to those who come later too.
TEST(simulation, slow_jobs_keep_all_workers_equally_busy) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    const std::string url = "memory://simulation-fair-" + std::to_string(seed);
    constexpr std::uint32_t kJobs = 640;
    dice d(seed);
    plan p;
    p.threads = 4;
    p.time = milliseconds(60'000);
    p.held = {64, 1u << 20};
    journal j;
    registry tasks;
    leveret_task t{};
    t.size = sizeof t;
    t.name = {"ok", 2};
    t.max_retries = -1;
    t.state = &j;
    t.call = succeed_after<0>;
    ASSERT_EQ(tasks.add(t, "simulation"), "");
    manual_loop sender_loop;
    const auto sender = open_memory(url, sender_loop, {});
    sender->declare(kQueue, [](transport::declared, const maybe_failure&) {});
    message m;
    m.id = "m";
    m.queue = kQueue;
    m.jobs = kJobs;
    std::string lines;
    new_job job;
    job.task = "ok";
    for (std::uint32_t i = 0; i < kJobs; ++i) append_job(lines, job);
    m.data = body(lines);
    sender->publish({m}, sender_loop.now(), [](const std::vector<publish_outcome>&) {});
    const auto start = sender_loop.now();
    std::vector<std::unique_ptr<worker_process>> workers;
    for (int i = 0; i < 2; ++i) workers.push_back(std::make_unique<worker_process>(url, start, tasks, d, p, j));
    std::vector<manual_loop*> loops = {&sender_loop, &workers[0]->l, &workers[1]->l};
    // Until all have run: one task of one loop at a time, in any order, and time passes when there is none.
    while (workers[0]->threads->ran + workers[1]->threads->ran < kJobs) {
      std::vector<manual_loop*> ready;
      std::optional<loop::clock::time_point> next;
      for (manual_loop* l : loops) {
        if (!l->idle()) ready.push_back(l);
        const auto timer = l->next_timer();
        if (timer && (!next || *timer < *next)) next = timer;
      }
      if (!ready.empty()) {
        ready[d.below(ready.size())]->run_one();
        continue;
      }
      ASSERT_TRUE(next);
      for (manual_loop* l : loops) l->pass_to(*next);
    }
    // Eight threads: 80 minutes, if nobody ever waits. What is left at the end may be uneven by a job a thread.
    EXPECT_LE(sender_loop.now() - start, std::chrono::minutes(84));
    EXPECT_GE(std::min(workers[0]->threads->ran, workers[1]->threads->ran), kJobs / 2 - 16);
    for (auto& w : workers) w->stop(milliseconds(1'000));
    for (auto& w : workers) w->l.run_until_idle();
  }
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::stoull(text);
}

TEST(simulation, every_job_ends_once_and_only_what_a_fault_interrupted_is_repeated) {
  const bool one = std::getenv("LEVERET_SIMULATION_SEED") != nullptr;
  const std::uint64_t first = number_from("LEVERET_SIMULATION_SEED", 1);
  const std::uint64_t count = number_from("LEVERET_SIMULATION_SEEDS", one ? 1 : 1'000);
  world::totals sum;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("LEVERET_SIMULATION_SEED=" + std::to_string(seed));
    world w(seed);
    w.run(sum);
    if (testing::Test::HasFailure()) return;  // the first seed that fails says enough
  }
  RecordProperty("jobs", std::to_string(sum.jobs));
  RecordProperty("faults", std::to_string(sum.faults));
  RecordProperty("may_repeat", std::to_string(sum.may_repeat));
  RecordProperty("repeated", std::to_string(sum.repeated));
  RecordProperty("crashed", std::to_string(sum.crashed));
  RecordProperty("in_order", std::to_string(sum.in_order));
  if (count < 100) return;
  // A simulation in which nothing happens proves nothing.
  EXPECT_GT(sum.jobs, 50 * count);
  EXPECT_GT(sum.faults, count);
  EXPECT_GT(sum.repeated, count);
  EXPECT_GT(sum.crashed, count / 10);
  EXPECT_GT(sum.in_order, 5 * count);
}

}  // namespace
}  // namespace leveret::core
