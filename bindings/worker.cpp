/// Workers for Python: the command, a worker embedded in this process, and what plugins hold.
#include "worker.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <leveret/error.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"
#include "handlers.hpp"
#include "kept_log.hpp"
#include "plugin.hpp"
#include "registry.hpp"
#include "stderr_log.hpp"
#include "worker_command.hpp"

namespace leveret::bindings {
namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// How long a wait goes on before Python's signal handlers (Ctrl-C) get a turn.
constexpr milliseconds kSignalSlice{100};

void load(const std::vector<std::string>& plugins, core::registry& into) {
  for (const std::string& path : plugins) core::load_plugin(path, into);
}

milliseconds to_milliseconds(double seconds) { return milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

/// A worker on threads of this process: the only kind that can serve memory://.
class embedded_worker {
 public:
  embedded_worker(const std::vector<std::string>& plugins, const std::string& url,
                  const std::vector<std::string>& queues, std::uint32_t threads, bool burst,
                  const std::string& log_level, const nb::object& handlers, bool keep_log,
                  const std::vector<std::string>& ordered_by_tasks)
      : used_(std::make_unique<used_by_threads>(log_level, keep_log)) {
    kept_ = used_->kept;
    load(plugins, used_->tasks);
    if (!handlers.is_none()) add_handlers(handlers, used_->tasks);
    core::worker_options options;
    options.url = url;
    options.queues = queues;
    options.ordered_by_tasks = ordered_by_tasks;
    options.threads = threads;
    options.burst = burst;
    worker_ = std::make_unique<core::worker>(std::move(options), used_->tasks, *used_->log);
  }
  embedded_worker(const embedded_worker&) = delete;
  embedded_worker& operator=(const embedded_worker&) = delete;
  ~embedded_worker() {
    const nb::gil_scoped_release released;
    worker_.reset();
  }

  void start() {
    const nb::gil_scoped_release released;
    get().start();
  }
  bool wait_finished(double seconds) {
    const auto deadline = clock::now() + to_milliseconds(std::min(seconds, 1e9));
    for (;;) {
      bool finished = false;
      {
        const nb::gil_scoped_release released;
        finished = get().wait_finished(std::min(deadline, clock::now() + kSignalSlice));
      }
      if (finished || clock::now() >= deadline) return finished;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
  }
  nb::dict stop(double grace) {
    core::worker_summary summary;
    {
      const nb::gil_scoped_release released;
      summary = get().stop(to_milliseconds(grace));
    }
    if (summary.grace_exceeded) leave_behind();
    nb::dict out;
    out["succeeded"] = summary.counts.succeeded;
    out["retried"] = summary.counts.retried;
    out["dead"] = summary.counts.dead;
    out["expired"] = summary.counts.expired;
    out["cancelled"] = summary.counts.cancelled;
    out["returned"] = summary.counts.returned;
    out["seconds"] = summary.seconds;
    out["grace_exceeded"] = summary.grace_exceeded;
    return out;
  }

  /// After fork, in the child: the worker's threads are not here, so it can neither be used nor ended.
  void abandon() noexcept {
    static_cast<void>(worker_.release());
    kept_ = nullptr;  // the parent's threads may have held its lock
    leave_behind();
  }
  /// (level, event, job, text) of what was logged since; for workers whose log is kept.
  nb::list take_log(double seconds) {
    std::vector<kept_log::entry> entries;
    if (kept_ != nullptr) {
      const nb::gil_scoped_release released;
      entries = kept_->take(to_milliseconds(seconds));
    }
    nb::list out;
    for (const kept_log::entry& e : entries) {
      out.append(nb::make_tuple(static_cast<int>(e.level), text(e.event), text(e.job), text(e.text)));
    }
    return out;
  }
  void wake_log() {
    if (kept_ != nullptr) kept_->wake();
  }

 private:
  [[nodiscard]] core::worker& get() const {
    if (!worker_) throw closed("cannot use this worker: it belongs to the parent process; start one after fork");
    return *worker_;
  }
  /// What threads, or the parent's, may stand on stays.
  void leave_behind() noexcept { static_cast<void>(used_.release()); }

  struct used_by_threads {
    used_by_threads(const std::string& log_level, bool keep_log) {
      if (keep_log) {
        auto keeps = std::make_unique<kept_log>(core::log_level_of(log_level));
        kept = keeps.get();
        log = std::move(keeps);
      } else {
        log = std::make_unique<core::stderr_log>(log_level);
      }
    }
    core::registry tasks;
    std::unique_ptr<core::log_sink> log;
    kept_log* kept = nullptr;  // `log`, if it is one
  };
  std::unique_ptr<used_by_threads> used_;
  kept_log* kept_ = nullptr;  // of `used_`, also once that is left behind
  std::unique_ptr<core::worker> worker_;
};

}  // namespace

void init_worker(nb::module_& m) {
  nb::class_<embedded_worker>(m, "Worker", "A worker on threads of this process.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, const std::vector<std::string>&, std::uint32_t,
                    bool, const std::string&, const nb::object&, bool, const std::vector<std::string>&>(),
           nb::arg("plugins"), nb::arg("url"), nb::arg("queues"), nb::arg("threads"), nb::arg("burst"),
           nb::arg("log_level"), nb::arg("handlers") = nb::none(), nb::arg("keep_log") = false,
           nb::arg("ordered_by_tasks") = std::vector<std::string>(),
           nb::sig("def __init__(self, plugins: collections.abc.Sequence[str], url: str, queues: "
                   "collections.abc.Sequence[str], threads: int, burst: bool, log_level: str, handlers: "
                   "collections.abc.Iterable[object] | None = None, keep_log: bool = False, ordered_by_tasks: "
                   "collections.abc.Sequence[str] = ()) -> None"))
      .def("start", &embedded_worker::start, "Opens the broker; consuming when it returns.")
      .def("wait_finished", &embedded_worker::wait_finished, nb::arg("seconds"),
           "Whether a burst emptied its queues by then.")
      .def("stop", &embedded_worker::stop, nb::arg("grace"),
           nb::sig("def stop(self, grace: float) -> dict[str, typing.Any]"),
           "Lets running jobs end within `grace` seconds, and gives the counts.")
      .def("take_log", &embedded_worker::take_log, nb::arg("seconds"),
           nb::sig("def take_log(self, seconds: float) -> list[tuple[int, str, str, str]]"),
           "(level, event, job, text) of what was logged since; waits for the first. Of a worker with keep_log.")
      .def("wake_log", &embedded_worker::wake_log, "Ends a wait of take_log.")
      .def("abandon", &embedded_worker::abandon, "After fork, in the child: never touch the parent's worker again.");
  m.def(
      "run_worker_command",
      [](const std::vector<std::string>& plugins, const std::vector<std::string>& child_command, const std::string& url,
         const std::vector<std::string>& queues, const std::vector<std::string>& ordered, std::uint32_t processes,
         std::uint32_t threads, std::uint32_t concurrency, bool burst, const std::string& default_task, double grace,
         std::int32_t max_retries, std::int32_t max_crashes, std::uint32_t prefetch, std::uint64_t max_jobs_per_child,
         std::uint64_t max_bytes_per_child, std::uint64_t max_memory, bool json, bool quiet,
         const std::string& log_level, const std::string& log_format) {
        const nb::gil_scoped_release released;
        core::registry tasks;
        load(plugins, tasks);
        core::worker_command_options options;
        options.child_command = child_command;
        options.url = url;
        options.queues = queues;
        options.ordered = ordered;
        options.processes = processes;
        options.threads = threads;
        options.concurrency = concurrency;
        options.burst = burst;
        options.default_task = default_task;
        options.grace = to_milliseconds(grace);
        options.max_retries = max_retries;
        options.max_crashes = max_crashes;
        options.lim.prefetch_messages = prefetch;
        options.max_jobs_per_child = max_jobs_per_child;
        options.max_bytes_per_child = max_bytes_per_child;
        options.max_memory = max_memory;
        options.json = json;
        options.quiet = quiet;
        options.log_level = log_level;
        options.log_format = log_format;
        return core::run_worker_command(options, tasks);
      },
      nb::arg("plugins"), nb::arg("child_command"), nb::arg("url"), nb::arg("queues"), nb::arg("ordered"),
      nb::arg("processes"), nb::arg("threads"), nb::arg("concurrency"), nb::arg("burst"), nb::arg("default_task"),
      nb::arg("grace"), nb::arg("max_retries"), nb::arg("max_crashes"), nb::arg("prefetch"),
      nb::arg("max_jobs_per_child"), nb::arg("max_bytes_per_child"), nb::arg("max_memory"), nb::arg("json"),
      nb::arg("quiet"), nb::arg("log_level"), nb::arg("log_format") = "text",
      "Runs a worker until it ends and gives its exit code. With `child_command` processes started by it run the "
      "handlers, else threads of this one run those of `plugins`. Takes over SIGTERM and SIGINT meanwhile: main thread "
      "only. Raises ValueError for a plugin that can't be loaded.");
  m.def(
      "running_worker",
      [](double patience) -> nb::object {
        std::optional<core::worker::liveness> found;
        {
          const nb::gil_scoped_release released;
          found = core::running_worker(to_milliseconds(patience));
        }
        if (!found) return nb::none();
        return nb::make_tuple(found->live, found->ready, found->detail);
      },
      nb::arg("patience"), nb::sig("def running_worker(patience: float) -> tuple[bool, bool, str] | None"),
      "(live, ready, what is wrong) of the worker of run_worker_command; None if none runs.");
  m.def(
      "load_plugins",
      [](const std::vector<std::string>& plugins) {
        core::registry tasks;
        load(plugins, tasks);
        nb::list out;
        for (const auto& task : tasks.tasks()) {
          nb::dict one;
          one["name"] = task->name;
          one["queue"] = task->queue.empty() ? std::string(core::kNativeQueue) : task->queue;
          one["max_retries"] = task->max_retries;
          one["signature"] = task->signature;
          one["source"] = task->source;
          out.append(one);
        }
        return out;
      },
      nb::arg("plugins"),
      nb::sig("def load_plugins(plugins: collections.abc.Sequence[str]) -> list[dict[str, typing.Any]]"),
      "The tasks of plugins. Runs their code: they stay loaded.");
}

}  // namespace leveret::bindings
