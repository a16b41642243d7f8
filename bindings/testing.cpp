/// The engine of leveret.testing: a worker on the test's own thread, in virtual time.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstdint>
#include <leveret/error.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "handlers.hpp"
#include "inline_worker.hpp"
#include "plugin.hpp"
#include "stderr_log.hpp"

namespace leveret::bindings {
namespace {

class test_worker {
 public:
  test_worker(const std::string& url, const std::vector<std::string>& queues, const std::vector<std::string>& plugins,
              const nb::object& handlers, std::uint64_t seed, const std::string& log_level,
              const std::vector<std::string>& ordered_by_tasks)
      : log_(log_level) {
    for (const std::string& path : plugins) core::load_plugin(path, tasks_);
    add_handlers(handlers, tasks_);
    core::inline_worker_options options;
    options.url = url;
    options.queues = queues;
    options.ordered_by_tasks = ordered_by_tasks;
    options.seed = seed;
    const nb::gil_scoped_release released;
    worker_ = std::make_unique<core::inline_worker>(std::move(options), tasks_, log_);
  }
  test_worker(const test_worker&) = delete;
  test_worker& operator=(const test_worker&) = delete;
  ~test_worker() { close(); }

  void run_until_idle() {
    const nb::gil_scoped_release released;
    get().run_until_idle();
  }
  void advance(std::int64_t ms) {
    const nb::gil_scoped_release released;
    get().advance(std::chrono::milliseconds(ms));
  }
  [[nodiscard]] nb::dict counts() const {
    const core::tally& counts = get().counts();
    nb::dict out;
    out["succeeded"] = counts.succeeded;
    out["retried"] = counts.retried;
    out["dead"] = counts.dead;
    out["expired"] = counts.expired;
    out["cancelled"] = counts.cancelled;
    out["returned"] = counts.returned;
    return out;
  }
  [[nodiscard]] std::int64_t wall() const { return get().wall(); }
  void close() {
    const nb::gil_scoped_release released;
    worker_.reset();
  }

 private:
  [[nodiscard]] core::inline_worker& get() const {
    if (!worker_) throw closed("cannot use this engine: it was closed");
    return *worker_;
  }

  core::registry tasks_;
  core::stderr_log log_;
  std::unique_ptr<core::inline_worker> worker_;
};

}  // namespace

void init_testing(nb::module_& m) {
  nb::class_<test_worker>(m, "TestWorker", "A worker on its caller's thread, in virtual time, on memory://.")
      .def(nb::init<const std::string&, const std::vector<std::string>&, const std::vector<std::string>&,
                    const nb::object&, std::uint64_t, const std::string&, const std::vector<std::string>&>(),
           nb::arg("url"), nb::arg("queues"), nb::arg("plugins"), nb::arg("handlers"), nb::arg("seed"),
           nb::arg("log_level"), nb::arg("ordered_by_tasks"))
      .def("run_until_idle", &test_worker::run_until_idle, "Runs what is ready, and what that sends.")
      .def("advance", &test_worker::advance, nb::arg("ms"), "Lets time pass; what becomes due runs at its own time.")
      .def("counts", &test_worker::counts, nb::sig("def counts(self) -> dict[str, int]"), "What it has run so far.")
      .def("wall", &test_worker::wall, "The virtual time, milliseconds since 1970.")
      .def("close", &test_worker::close, "Ends it, and lets the clock run again. Idempotent; on its own thread.");
}

}  // namespace leveret::bindings
