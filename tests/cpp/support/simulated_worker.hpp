/// Whole workers in virtual time: the real tracker, settlements, redelivery, codec and memory transport, on a loop that
/// a test steps, with a pool whose threads are timers and a transport whose settlements fail. Deterministic: all chance
/// is in `dice`.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "attempt.hpp"
#include "manual_loop.hpp"
#include "pools/threads.hpp"
#include "tracker.hpp"
#include "transports/memory/faults.hpp"

namespace leveret::core::simulation {

using std::chrono::milliseconds;

inline constexpr const char* kQueue = "work";
inline constexpr const char* kOrderedQueue = "work.ordered.7";

class dice {
 public:
  explicit dice(std::uint64_t seed) : engine_(seed) {}
  /// 0 … n - 1.
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  /// True in `percent` of 100.
  bool chance(std::uint64_t percent) { return below(100) < percent; }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

struct plan {
  bool faults = true;
  bool ordered = false;
  [[nodiscard]] const char* queue() const { return ordered ? kOrderedQueue : kQueue; }
  milliseconds time{0};  // of every attempt; 0: as the dice say
  std::uint32_t threads = 1;
  window held;
  std::size_t workers = 1;
  std::size_t messages = 1;
  std::uint64_t slow_percent = 0;    // of the attempts: those take seconds
  std::uint64_t settle_percent = 0;  // of the settlements fail, each in one of several ways
  std::uint64_t poison_percent = 0;  // of the jobs take their worker down
};

// What happened, seen from outside.
struct journal {
  std::set<std::string> accepted;                             // job ids
  std::map<std::pair<std::string, std::uint32_t>, int> runs;  // by job id and retry count
  std::vector<std::string> first_runs;                        // job ids, in the order in which they first ran
  std::set<std::string> succeeded;                            // a handler said so
  std::map<std::string, int> results;                         // success results that reached the sender
  std::map<std::string, int> dead_results;
  std::uint64_t may_repeat = 0;  // jobs started and not settled, at each fault
  std::uint64_t faults = 0;
  std::function<void()> kill_current;  // the worker whose handler runs
};

class no_log final : public log_sink {
 public:
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

// ---- a worker as a process: all of it goes at a kill ----

// Threads are timers: a line is taken, its time passes, then its handler runs.
class timed_pool final : public pool {
 public:
  timed_pool(std::uint32_t threads, manual_loop& l, run_settings& settings, dice& d, const plan& p,
             std::function<void()> enter)
      : settings_(settings), loop_(l), dice_(d), plan_(p), enter_(std::move(enter)) {
    for (std::uint32_t i = 0; i < threads; ++i) runners_.push_back(std::make_unique<attempt_runner>(settings, l));
    idle_.resize(threads, true);
  }

  [[nodiscard]] std::uint32_t threads() const override { return static_cast<std::uint32_t>(idle_.size()); }
  std::shared_ptr<work> run(delivery d, work::ended on_ended) override {
    auto w = std::make_shared<thread_work>(std::move(d), threads(), loop_, std::move(on_ended));
    works_.push_back(w);
    for (std::uint32_t i = 0; i < threads(); ++i) {
      if (!idle_[i]) continue;
      idle_[i] = false;
      loop_.post([this, i] { next(i, nullptr); });
    }
    return w;
  }
  [[nodiscard]] std::atomic<bool>& stopping() override { return settings_.stopping; }
  [[nodiscard]] bool abandon() override { return true; }
  void stop() override {}

  /// Lines started of a delivery that is not settled.
  std::map<delivery_token, std::uint64_t> started;
  std::uint64_t ran = 0;  ///< attempts that have ended
  [[nodiscard]] std::uint64_t running() const noexcept { return running_; }

 private:
  void next(std::uint32_t thread, std::shared_ptr<thread_work> current) {
    for (;;) {
      if (current == nullptr) {
        if (works_.empty()) {
          idle_[thread] = true;
          return;
        }
        current = works_.front();
      }
      std::uint32_t line = 0;
      if (current->take(thread, line)) {
        ++started[current->what().token];
        ++running_;
        const bool slow = dice_.chance(plan_.slow_percent);
        // Coarse, so that things happen at the same time.
        const milliseconds any(10 * (1 + dice_.below(slow ? 400 : 10)));
        const milliseconds time = plan_.time.count() > 0 ? plan_.time : any;
        loop_.after(time, [this, thread, current, line] {
          --running_;
          ++ran;
          enter_();
          run_line(*runners_[thread], current, thread, line);
          next(thread, current);
        });
        return;
      }
      if (!works_.empty() && works_.front() == current) works_.pop_front();
      current->leave(thread);
      current = nullptr;
    }
  }

  run_settings& settings_;
  manual_loop& loop_;
  dice& dice_;
  const plan& plan_;
  const std::function<void()> enter_;  // before each handler
  std::vector<std::unique_ptr<attempt_runner>> runners_;
  std::vector<bool> idle_;
  std::deque<std::shared_ptr<thread_work>> works_;
  std::uint64_t running_ = 0;
};

struct worker_process;

// The memory transport of one worker, with settlements that fail and the bookkeeping of what a fault may repeat.
class faulty_transport final : public transport {
 public:
  faulty_transport(worker_process& process, std::unique_ptr<transport> inner)
      : process_(process), inner_(std::move(inner)) {}

  [[nodiscard]] capabilities what_it_can() const override { return inner_->what_it_can(); }
  [[nodiscard]] health how_it_is() const override { return inner_->how_it_is(); }
  [[nodiscard]] std::string where() const override { return inner_->where(); }
  void declare(const std::string& q, reply<declared> then) override { inner_->declare(q, std::move(then)); }
  void stats(const std::string& q, reply<std::vector<queue_stats>> then) override { inner_->stats(q, std::move(then)); }
  void browse_dead(const std::string& q, const std::string& c, std::size_t n, reply<browse_page> then) override {
    inner_->browse_dead(q, c, n, std::move(then));
  }
  void purge(const std::string& q, reply<std::uint64_t> then) override { inner_->purge(q, std::move(then)); }
  void check_access(const std::string& q, done then) override { inner_->check_access(q, std::move(then)); }
  void publish(std::vector<message> m, loop::clock::time_point by,
               std::function<void(std::vector<publish_outcome>)> then) override {
    inner_->publish(std::move(m), by, std::move(then));
  }
  subscription_id subscribe(const std::string& queue, window w, subscriber events) override;
  void resize(subscription_id id, window w) override { inner_->resize(id, w); }
  void unsubscribe(subscription_id id, done then) override { inner_->unsubscribe(id, std::move(then)); }
  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override;
  void release(std::vector<delivery_token> tokens, done then) override {
    inner_->release(std::move(tokens), std::move(then));
  }
  void watch(const std::string& r, std::function<void(result_chunk)> f, done then) override {
    inner_->watch(r, std::move(f), std::move(then));
  }
  void unwatch(const std::string& r, done then) override { inner_->unwatch(r, std::move(then)); }
  void make_reply(reply<std::string> then) override { inner_->make_reply(std::move(then)); }
  void fetch(std::vector<std::string> ids, reply<std::vector<result_chunk>> then) override {
    inner_->fetch(std::move(ids), std::move(then));
  }
  void keep_results(std::vector<result_chunk> results, done then) override {
    inner_->keep_results(std::move(results), std::move(then));
  }
  void browse(browse_query query, reply<message_page> then) override {
    inner_->browse(std::move(query), std::move(then));
  }
  void revise_dead(const std::string& q, dead_decision decide, reply<std::uint64_t> then) override {
    inner_->revise_dead(q, std::move(decide), std::move(then));
  }
  void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) override {
    inner_->cancel(std::move(jobs), std::move(then));
  }
  void watch_cancelled(std::function<void(cancelled_job)> f, done then) override {
    inner_->watch_cancelled(std::move(f), std::move(then));
  }
  void make_known(report r, done then) override { inner_->make_known(std::move(r), std::move(then)); }
  void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) override {
    inner_->known(kind, id, std::move(then));
  }
  void close(loop::clock::time_point deadline) override { inner_->close(deadline); }

  [[nodiscard]] transport& inner() { return *inner_; }

 private:
  worker_process& process_;
  std::unique_ptr<transport> inner_;
};

struct worker_process {
  worker_process(const std::string& url, loop::clock::time_point now, const registry& tasks, dice& its_dice,
                 const plan& p, journal& its_journal)
      : d(its_dice), j(its_journal), broker(*this, [&] {
          l.pass_to(now);
          return open_memory(url, l, {});
        }()) {
    running.tasks = &tasks;
    running.worker = "simulated";
    running.log = &log;
    threads =
        std::make_unique<timed_pool>(p.threads, l, running, d, p, [this] { j.kill_current = [this] { kill(); }; });
    tracker_settings settings;
    ordered = p.ordered;
    settings.queues = {p.queue()};
    settings.most = p.held;
    decisions =
        std::make_unique<tracker>(broker, l, *threads, settings, seeded_random(d.bits()), log, running.stopping);
    l.post([this] { decisions->start([](const maybe_failure& why) { EXPECT_FALSE(why) << why->text; }); });
  }

  void kill() {
    if (gone) return;
    gone = true;
    ++j.faults;
    for (const auto& [token, lines] : threads->started) j.may_repeat += lines;
    kill_memory_transport(broker.inner());
  }
  void lose_deliveries() {
    if (gone) return;
    ++j.faults;
    lose_memory_deliveries(broker.inner());
  }
  /// As SIGTERM: what runs may end within the grace.
  void stop(milliseconds grace) {
    if (gone || leaving) return;
    leaving = true;
    l.post([this, grace] {
      decisions->stop([this] { drained = true; });
      l.after(grace, [this] {
        if (drained) return;
        // Their outcomes are dropped, their effects are not; an ordered message goes back as a whole.
        if (ordered) {
          for (const auto& [token, lines] : threads->started) j.may_repeat += lines;
        } else {
          j.may_repeat += threads->running();
        }
        decisions->abandon();
      });
    });
  }

  manual_loop l;
  dice& d;
  journal& j;
  no_log log;
  run_settings running;
  faulty_transport broker;
  std::unique_ptr<timed_pool> threads;
  std::unique_ptr<tracker> decisions;
  std::uint64_t settle_percent = 0;
  bool ordered = false;
  bool gone = false;  // killed or closed: its loop is not run any more
  bool leaving = false;
  bool drained = false;
};

inline subscription_id faulty_transport::subscribe(const std::string& queue, window w, subscriber events) {
  events.on_lost = [this, inner = std::move(events.on_lost)](const std::vector<delivery_token>& tokens) {
    for (const delivery_token token : tokens) {
      process_.j.may_repeat += process_.threads->started[token];
      process_.threads->started.erase(token);
    }
    inner(tokens);
  };
  return inner_->subscribe(queue, w, std::move(events));
}

inline void faulty_transport::settle(std::vector<settlement> settlements,
                                     std::function<void(std::vector<settle_outcome>)> then) {
  const std::size_t count = settlements.size();
  std::vector<delivery_token> ending;
  ending.reserve(count);
  for (const settlement& s : settlements) ending.push_back(s.final ? s.token : 0);
  enum { fine, not_done, done_unheard, killed_before, killed_after } fault = fine;
  if (process_.d.chance(process_.settle_percent)) {
    fault = static_cast<decltype(fault)>(1 + process_.d.below(4));
  }
  if (fault == not_done) {
    process_.l.post([then = std::move(then), count] {
      then(std::vector<settle_outcome>(count, {settle_status::failed, "simulated: nothing was stored"}));
    });
    return;
  }
  if (fault == killed_before) {
    process_.kill();
    return;
  }
  inner_->settle(std::move(settlements), [this, ending, fault, then](std::vector<settle_outcome> outcomes) {
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      if (ending[i] != 0 && outcomes[i].status == settle_status::settled) process_.threads->started.erase(ending[i]);
      if (fault == done_unheard) outcomes[i] = {settle_status::failed, "simulated: stored, but the answer was lost"};
    }
    then(std::move(outcomes));
  });
  if (fault == killed_after) process_.kill();
}

}  // namespace leveret::core::simulation
