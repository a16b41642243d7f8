#include "inline_worker.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

#include "attempt.hpp"
#include "cancelled_jobs.hpp"
#include "manual_loop.hpp"
#include "pool.hpp"
#include "pools/threads.hpp"
#include "tracker.hpp"
#include "wall_clock.hpp"
#include "worker.hpp"

namespace leveret::core {
namespace {

/// Whatever time it is for the sender: the test's clock may be years away from it.
constexpr std::chrono::hours kProgressTtl{24 * 365 * 100};

/// A manual loop that its thread can wait at for a post of another thread.
class waiting_loop final : public loop {
 public:
  explicit waiting_loop(unix_ms wall) : inner_(wall) {}
  // What a thread has posted may be done, and all have led here, before that thread has left `post`.
  ~waiting_loop() override { const std::lock_guard<std::mutex> lock(mutex_); }

  void post(task t) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    inner_.post(std::move(t));
    ++posts_;
    posted_.notify_all();
  }
  timer_id at(clock::time_point when, task t) override { return inner_.at(when, std::move(t)); }
  void cancel(timer_id id) override { inner_.cancel(id); }
  [[nodiscard]] clock::time_point now() const override { return inner_.now(); }
  [[nodiscard]] unix_ms wall() const override { return inner_.wall(); }
  [[nodiscard]] bool on_loop() const override { return inner_.on_loop(); }

  [[nodiscard]] manual_loop& inner() noexcept { return inner_; }
  [[nodiscard]] std::uint64_t posts() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return posts_;
  }
  /// Until there was a post after `seen`.
  void wait_for_post(std::uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    posted_.wait(lock, [&] { return posts_ != seen; });
  }

 private:
  manual_loop inner_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::uint64_t posts_ = 0;
};

/// Runs lines on the thread that calls `run_waiting`.
class inline_pool final : public pool {
 public:
  inline_pool(run_settings& settings, loop& l) : settings_(settings), loop_(l), runner_(settings, l) {}

  [[nodiscard]] std::uint32_t threads() const override { return 1; }
  std::shared_ptr<work> run(delivery d, work::ended on_ended) override {
    ++unended_;
    auto w = std::make_shared<thread_work>(std::move(d), 1, loop_,
                                           [this, then = std::move(on_ended)](const std::shared_ptr<work>& ended) {
                                             --unended_;
                                             then(ended);
                                           });
    waiting_.push_back(w);
    return w;
  }
  [[nodiscard]] std::atomic<bool>& stopping() override { return settings_.stopping; }
  [[nodiscard]] bool abandon() override { return false; }
  void stop() override {}

  /// Whether there was anything to run.
  bool run_waiting() {
    if (waiting_.empty()) return false;
    while (!waiting_.empty()) {
      const std::shared_ptr<thread_work> next = std::move(waiting_.front());
      waiting_.pop_front();
      run_lines(runner_, next, 0);
    }
    runner_.rest();
    return true;
  }
  /// Works whose end the loop has not seen: some line of them goes on without a thread.
  [[nodiscard]] bool has_unended() const noexcept { return unended_ > 0; }

 private:
  run_settings& settings_;
  loop& loop_;
  attempt_runner runner_;
  std::deque<std::shared_ptr<thread_work>> waiting_;
  std::size_t unended_ = 0;
};

/// The process's wall clock, stopped while this lives.
class stopped_clock {
 public:
  explicit stopped_clock(unix_ms now) {
    unix_ms running = 0;
    if (!stopped_wall_clock().compare_exchange_strong(running, now)) {
      throw std::invalid_argument("cannot start a worker for tests: another one of this process has stopped the clock");
    }
  }
  stopped_clock(const stopped_clock&) = delete;
  stopped_clock& operator=(const stopped_clock&) = delete;
  ~stopped_clock() { stopped_wall_clock().store(0); }
  void set(unix_ms now) noexcept { stopped_wall_clock().store(now); }
};

}  // namespace

struct inline_worker::state {
  state(const inline_worker_options& options, const registry& tasks, log_sink& log)
      : clock(wall_clock_now()), events(wall_clock_now()) {
    running.tasks = &tasks;
    running.default_task = options.default_task;
    running.worker = default_worker_name();
    running.log = &log;
  }

  /// Runs everything that can run now.
  void settle_down() {
    for (;;) {
      const std::uint64_t seen = events.posts();
      events.inner().run_until_idle();
      if (runs->run_waiting()) continue;
      if (!events.inner().idle()) continue;
      if (!runs->has_unended()) return;
      events.wait_for_post(seen);
    }
  }

  void pass_to(loop::clock::time_point time) {
    events.inner().pass_to(time);
    clock.set(events.wall());
  }

  /// What handlers ask and tell: at once, since they run on the loop's thread or while it waits.
  class jobs_of_test final : public job_control {
   public:
    explicit jobs_of_test(state& of) : of_(of) {}
    [[nodiscard]] bool is_cancelled(std::string_view job_id) const override { return cancelled.contains(job_id); }
    void progress(std::string_view job_id, std::string_view reply, std::string_view body) override {
      of_.broker->make_known(
          {kReportProgress, std::string(job_id), std::string(body), std::string(reply), 0, kProgressTtl},
          [](const maybe_failure&) {});
    }

    cancelled_jobs cancelled;

   private:
    state& of_;
  };

  stopped_clock clock;
  jobs_of_test jobs{*this};
  run_settings running;
  waiting_loop events;
  std::unique_ptr<transport> broker;
  std::unique_ptr<inline_pool> runs;
  std::unique_ptr<tracker> decisions;
};

inline_worker::inline_worker(inline_worker_options options, const registry& tasks, log_sink& log)
    : state_(std::make_unique<state>(options, tasks, log)) {
  worker_options checked;
  checked.queues = options.queues;
  checked.default_task = options.default_task;
  check_worker_options(checked, tasks);
  state& s = *state_;
  s.broker = open_memory(options.url, s.events, {});
  s.running.control = &s.jobs;
  s.runs = std::make_unique<inline_pool>(s.running, s.events);
  tracker_settings settings;
  checked.queues = options.queues.empty() ? queues_of(tasks) : std::move(options.queues);
  for (const std::string& queue : options.ordered_by_tasks) {
    if (std::count(checked.queues.begin(), checked.queues.end(), queue) > 0) checked.ordered.push_back(queue);
  }
  settings.queues = subscribed_queues(checked);
  s.decisions = std::make_unique<tracker>(*s.broker, s.events, *s.runs, std::move(settings),
                                          seeded_random(options.seed), log, s.running.stopping);
  s.broker->watch_cancelled([&s](cancelled_job job) { s.jobs.cancelled.add(std::move(job.id)); },
                            [](const maybe_failure&) {});
  std::optional<maybe_failure> ready;
  s.events.post([&s, &ready] { s.decisions->start([&ready](maybe_failure why) { ready = std::move(why); }); });
  s.events.inner().run_until_idle();
  if (!ready) throw std::logic_error("cannot start a worker for tests: the memory broker did not answer");
  if (*ready) throw_error((*ready)->code, (*ready)->text);
}

inline_worker::~inline_worker() {
  state& s = *state_;
  if (!s.decisions) return;
  try {
    s.events.post([&s] { s.decisions->stop([] {}); });
    s.events.inner().run_until_idle();
    s.broker->close(s.events.now());
    s.events.inner().run_until_idle();
  } catch (const std::exception& never_idle) {
    // What was left to do ends with the broker.
    (void)never_idle;
  }
}

void inline_worker::run_until_idle() { state_->settle_down(); }

void inline_worker::advance(std::chrono::milliseconds time) {
  state& s = *state_;
  s.settle_down();
  const loop::clock::time_point end = s.events.now() + time;
  for (;;) {
    const std::optional<loop::clock::time_point> next = s.events.inner().next_timer();
    if (!next || *next > end) break;
    s.pass_to(*next);
    s.settle_down();
  }
  s.pass_to(end);
  s.settle_down();
}

const tally& inline_worker::counts() const { return state_->decisions->counts(); }

unix_ms inline_worker::wall() const { return state_->events.wall(); }

}  // namespace leveret::core
