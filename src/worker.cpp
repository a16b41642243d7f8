#include "worker.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "cancelled_jobs.hpp"
#include "ordered.hpp"
#include "pools/threads.hpp"
#include "thread_loop.hpp"
#include "tracker.hpp"

namespace leveret::core {

std::vector<std::string> queues_of(const registry& tasks) {
  std::set<std::string> names;
  for (const auto& task : tasks.tasks()) names.insert(task->queue.empty() ? std::string(kNativeQueue) : task->queue);
  return {names.begin(), names.end()};
}

std::vector<std::string> subscribed_queues(const worker_options& options) {
  std::set<std::string> names(options.queues.begin(), options.queues.end());
  for (const std::string& queue : options.ordered) {
    for (std::string& one : ordered_queues(queue)) names.insert(std::move(one));
  }
  return {names.begin(), names.end()};
}

void check_worker_options(const worker_options& options, const registry& tasks) {
  if (tasks.tasks().empty()) {
    throw std::invalid_argument("cannot start a worker: no task is registered; name a plugin that registers some");
  }
  if (!options.default_task.empty() && tasks.find(options.default_task) == nullptr) {
    throw std::invalid_argument("cannot start a worker: the default task \"" + options.default_task +
                                "\" is not among its tasks: " + tasks.names());
  }
  for (const std::string& queue : options.queues) check_queue_name(queue);
  if (options.max_memory > 0 && options.max_memory < kLeastMemory) {
    throw std::invalid_argument("cannot start a worker: " + std::to_string(options.max_memory) +
                                " bytes of memory; at least 16 MiB");
  }
  for (const std::string& queue : options.ordered) check_queue_name(ordered_queue(queue, kOrderedShards - 1));
  if (options.threads > 4'096) {
    throw std::invalid_argument("cannot start a worker: " + std::to_string(options.threads) + " threads; at most 4096");
  }
}

std::string default_worker_name() {
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '?';
  return std::string(host) + ":" + std::to_string(getpid());
}

namespace {

/// Progress is told on at most so often, for each job.
constexpr std::chrono::milliseconds kProgressEvery{100};
constexpr std::chrono::hours kProgressTtl{24};

/// Keeps the latest progress of each job until the loop tells it on.
class progress_box {
 public:
  struct note {
    std::string reply;
    std::string body;
  };
  /// True: the box was empty, and somebody must take its content soon. Any thread.
  bool put(std::string_view job_id, std::string_view reply, std::string_view body) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool first = notes_.empty();
    notes_[std::string(job_id)] = {std::string(reply), std::string(body)};
    return first;
  }
  [[nodiscard]] std::map<std::string, note> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(notes_, {});
  }

 private:
  std::mutex mutex_;  // a leaf
  std::map<std::string, note> notes_;
};

}  // namespace

struct worker::state {
  class jobs_of_worker final : public job_control {
   public:
    explicit jobs_of_worker(state& of) : of_(of) {}
    [[nodiscard]] bool is_cancelled(std::string_view job_id) const override { return cancelled.contains(job_id); }
    void progress(std::string_view job_id, std::string_view reply, std::string_view body) override {
      if (!box.put(job_id, reply, body)) return;
      of_.events.post([this] { of_.events.after(kProgressEvery, [this] { of_.tell_progress(); }); });
    }

    cancelled_jobs cancelled;
    progress_box box;

   private:
    state& of_;
  };

  worker_options options;
  const registry& tasks;
  log_sink& log;
  jobs_of_worker jobs{*this};  // before what asks it
  run_settings running;
  std::string report_name;
  unix_ms started = 0;
  bool reports_ended = false;  // the loop's, as the next
  bool report_failed = false;

  // Destroyed in reverse: the pool's threads end before the transport that they post to, the loop last.
  thread_loop events;
  std::unique_ptr<transport> broker;
  std::unique_ptr<process_pool> children;  // before `start`
  std::unique_ptr<pool> handlers;
  std::unique_ptr<tracker> decisions;

  mutable std::mutex mutex;  // guards what follows; never held while calling anything
  std::condition_variable changed;
  bool finished = false;
  bool drained = false;
  bool hurried = false;
  bool stopped = false;
  worker_summary last;

  state(worker_options o, const registry& t, log_sink& l) : options(std::move(o)), tasks(t), log(l) {}

  void tell_not_terminated(const std::string& id) {
    const std::vector<running_job> now = decisions->running(kReportedJobs);
    if (std::none_of(now.begin(), now.end(), [&](const running_job& job) { return job.id == id; })) return;
    log.log(LEVERET_WARNING, "job_not_terminated", id,
            "a thread can't be ended from outside: its handler was asked; use --pool processes");
  }

  [[nodiscard]] worker_facts facts() {
    worker_facts f;
    f.name = report_name;
    f.queues = options.queues;
    for (const std::string& queue : options.ordered) f.queues.push_back(queue + kOrderedInfix + "*");
    f.tasks = tasks.names();
    f.threads = handlers->threads();
    f.started = started;
    f.stopping = handlers->stopping().load();
    f.counts = decisions->counts();
    f.running = decisions->running(kReportedJobs);
    return f;
  }

  /// On the loop, again and again until the worker stops.
  void report_itself() {
    if (reports_ended) return;
    report r{kReportWorker, report_name, worker_report(facts()), {}, 0, kReportTtl};
    broker->make_known(std::move(r), [this](const maybe_failure& why) {
      if (why && !report_failed) log.log(LEVERET_WARNING, "report_failed", {}, why->text);
      report_failed = why.has_value();
    });
    events.after(options.report_every, [this] { report_itself(); });
  }

  /// On the loop.
  void tell_progress() {
    for (auto& [id, note] : jobs.box.take()) {
      broker->make_known({kReportProgress, id, std::move(note.body), std::move(note.reply), 0, kProgressTtl},
                         [this, id = id](const maybe_failure& why) {
                           if (why) log.log(LEVERET_DEBUG, "progress_lost", id, why->text);
                         });
    }
  }

  /// Says that it is gone.
  void report_end() {
    reports_ended = true;
    report r{kReportWorker, report_name, worker_report(facts()), {}, 0, std::chrono::milliseconds(0)};
    broker->make_known(std::move(r), [](const maybe_failure&) {});
  }

  [[nodiscard]] worker_summary read_summary() {
    // The loop owns the counts: ask it.
    if (!decisions) return {};
    if (events.on_loop()) return summarize();
    std::promise<worker_summary> answer;
    events.post([this, &answer] { answer.set_value(summarize()); });
    return answer.get_future().get();
  }

  [[nodiscard]] worker_summary summarize() const {
    worker_summary s;
    s.counts = decisions->counts();
    const auto took = decisions->last_settled() - decisions->first_delivery();
    s.seconds = std::max(0.0, std::chrono::duration<double>(took).count());
    return s;
  }
};

worker::worker(worker_options options, const registry& tasks, log_sink& log, std::unique_ptr<process_pool> children) {
  check_worker_options(options, tasks);
  if (options.queues.empty()) options.queues = queues_of(tasks);
  std::sort(options.queues.begin(), options.queues.end());
  options.queues.erase(std::unique(options.queues.begin(), options.queues.end()), options.queues.end());
  for (const std::string& queue : options.ordered_by_tasks) {
    if (std::binary_search(options.queues.begin(), options.queues.end(), queue)) options.ordered.push_back(queue);
  }
  std::sort(options.ordered.begin(), options.ordered.end());
  options.ordered.erase(std::unique(options.ordered.begin(), options.ordered.end()), options.ordered.end());
  if (options.threads == 0) options.threads = std::max(1u, std::thread::hardware_concurrency());
  if (options.name.empty()) options.name = default_worker_name();
  state_ = std::make_shared<state>(std::move(options), tasks, log);
  run_settings& run = state_->running;
  run.tasks = &tasks;
  run.default_task = state_->options.default_task;
  run.retries = state_->options.retries;
  run.worker = state_->options.name;
  run.log = &log;
  run.control = &state_->jobs;
  // Several workers of one process are told apart.
  static std::atomic<std::uint64_t> workers{0};
  const std::uint64_t number = ++workers;
  state_->report_name = state_->options.name + (number > 1 ? "#" + std::to_string(number) : "");
  state_->children = std::move(children);
}

worker::~worker() { stop(std::chrono::milliseconds(0)); }

void worker::start() {
  state& s = *state_;
  s.broker = open_transport(s.options.url, s.events, s.options.lim);
  if (s.children) {
    s.children->attach(s.events, s.tasks, s.log, s.jobs);
    s.handlers = std::move(s.children);
  } else {
    s.handlers = std::make_unique<thread_pool>(s.options.threads, s.running, s.events);
  }
  tracker_settings settings;
  settings.queues = subscribed_queues(s.options);
  settings.most = {s.options.lim.prefetch_messages, s.options.lim.prefetch_bytes};
  if (s.options.max_memory > 0) {
    settings.most.bytes = std::max<std::uint64_t>(s.options.max_memory / kMemoryPerByte / settings.queues.size(),
                                                  1);  // one message goes
  }
  settings.settling.retries = s.options.retries;
  settings.max_crashes = s.options.max_crashes;
  settings.burst = s.options.burst;
  s.decisions = std::make_unique<tracker>(*s.broker, s.events, *s.handlers, std::move(settings),
                                          s.options.lim.seed != 0 ? seeded_random(s.options.lim.seed) : system_random(),
                                          s.log, s.handlers->stopping());

  std::promise<maybe_failure> ready;
  s.events.post([&s, &ready] {
    s.decisions->when_empty([&s] {
      {
        const std::lock_guard<std::mutex> lock(s.mutex);
        s.finished = true;
        s.changed.notify_all();
      }
      if (s.options.on_finished) s.options.on_finished();
    });
    // What was cancelled before must be known before the first delivery.
    s.broker->watch_cancelled(
        [&s](cancelled_job job) {
          s.handlers->cancel(job.id);
          if (job.terminate && !s.handlers->kill_job(job.id)) s.tell_not_terminated(job.id);
          s.jobs.cancelled.add(std::move(job.id));
        },
        [&s, &ready](const maybe_failure& why) {
          if (why) s.log.log(LEVERET_WARNING, "cancelled_jobs_unknown", {}, why->text);
          s.decisions->start([&ready](maybe_failure failed) { ready.set_value(std::move(failed)); });
        });
  });
  if (maybe_failure why = ready.get_future().get()) {
    stop(std::chrono::milliseconds(0));
    throw_error(why->code, why->text);
  }
  s.events.post([&s] {
    s.started = s.events.wall();
    if (s.options.report_every.count() > 0) s.report_itself();
  });
}

bool worker::finished() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->finished;
}

bool worker::wait_finished(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  return state_->changed.wait_until(lock, deadline, [this] { return state_->finished; });
}

void worker::hurry() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->hurried = true;
  state_->changed.notify_all();
}

worker_summary worker::stop(std::chrono::milliseconds grace) {
  state& s = *state_;
  {
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.stopped) return s.last;
    s.stopped = true;
  }
  if (!s.decisions) return {};

  s.events.post([&s] {
    s.decisions->stop([&s] {
      const std::lock_guard<std::mutex> lock(s.mutex);
      s.drained = true;
      s.changed.notify_all();
    });
  });
  bool exceeded = false;
  {
    std::unique_lock<std::mutex> lock(s.mutex);
    s.changed.wait_for(lock, grace, [&s] { return s.drained || s.hurried; });
    exceeded = !s.drained;
  }
  if (exceeded) {
    // What still runs goes back uncharged; settling that may take a moment, but not for ever.
    s.events.post([&s] { s.decisions->abandon(); });
    std::unique_lock<std::mutex> lock(s.mutex);
    s.changed.wait_for(lock, std::chrono::seconds(2), [&s] { return s.drained; });
  }
  worker_summary summary = s.read_summary();
  if (s.started != 0 && s.options.report_every.count() > 0) {
    std::promise<void> told;
    s.events.post([&s, &told] {
      s.tell_progress();
      s.report_end();
      told.set_value();
    });
    told.get_future().wait();
  }
  summary.grace_exceeded = exceeded;
  s.broker->close(std::chrono::steady_clock::now() + std::chrono::seconds(exceeded ? 1 : 5));
  if (exceeded && !s.handlers->abandon()) {
    // Handlers still run on the pool's threads and use all of this; only the end of the program takes it away.
    static std::mutex left_mutex;
    static auto* const left_behind = new std::vector<std::shared_ptr<state>>;  // reachable, and never destroyed
    const std::lock_guard<std::mutex> lock(left_mutex);
    left_behind->push_back(state_);
  } else {
    s.handlers->stop();
    s.events.stop();
  }
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.last = summary;
  return summary;
}

worker::liveness worker::look(std::chrono::milliseconds patience) const {
  state& s = *state_;
  if (!s.decisions) return {false, false, "it has not started"};
  // The answer may come after this has given up.
  auto answer = std::make_shared<std::promise<bool>>();
  std::future<bool> consuming = answer->get_future();
  s.events.post([&s, answer] { answer->set_value(s.decisions->consuming()); });
  if (consuming.wait_for(patience) != std::future_status::ready) {
    return {false, false, "its loop has not turned for " + std::to_string(patience.count()) + " ms"};
  }
  liveness l{true, consuming.get(), {}};
  const health broker = s.broker->how_it_is();
  if (!l.ready) l.detail = "it does not consume from all of its queues";
  if (broker.state != health_state::connected) {
    l.ready = false;
    l.detail = broker.detail.empty() ? "it is not connected to its broker" : broker.detail;
  }
  return l;
}

worker_summary worker::summary() const {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (state_->stopped) return state_->last;
  }
  return state_->read_summary();
}

std::string worker::where() const {
  return state_->broker ? state_->broker->where() : display_url(state_->options.url);
}

const worker_options& worker::options() const { return state_->options; }

health worker::how_it_is() const {
  return state_->broker ? state_->broker->how_it_is() : health{health_state::closed, "not started"};
}

}  // namespace leveret::core
