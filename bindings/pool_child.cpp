/// The process of a worker that runs handlers (pools/child.hpp), for the program `python -m leveret._child`.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "handlers.hpp"
#include "plugin.hpp"
#include "pools/child.hpp"
#include "stderr_log.hpp"

namespace leveret::bindings {
namespace {

/// How long a wait goes on before Python's signal handlers get a turn.
constexpr std::uint32_t kSignalSliceMs = 100;

class pool_child {
 public:
  pool_child(int memory, int news, std::uint32_t child, const std::vector<std::string>& plugins, nb::handle handlers,
             const std::string& log_level, const std::string& log_format)
      : log_(log_level, log_format) {
    for (const std::string& path : plugins) core::load_plugin(path, tasks_);
    add_handlers(handlers, tasks_);
    child_ = std::make_unique<core::pool_child>(memory, news, child, tasks_, log_, [] { _exit(0); });
  }
  pool_child(const pool_child&) = delete;
  pool_child& operator=(const pool_child&) = delete;
  ~pool_child() {
    const nb::gil_scoped_release released;
    child_.reset();
  }

  void tell(const std::string& name, const std::string& value) { child_->tell(name, value); }
  void serve() {
    child_->start();
    for (bool ended = false; !ended;) {
      {
        const nb::gil_scoped_release released;
        ended = child_->wait_ended(kSignalSliceMs);
      }
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
  }

 private:
  core::registry tasks_;
  core::stderr_log log_;
  std::unique_ptr<core::pool_child> child_;
};

}  // namespace

void init_pool_child(nb::module_& m) {
  m.def(
      "end_with_parent", [] { prctl(PR_SET_PDEATHSIG, SIGKILL); }, nb::sig("def end_with_parent() -> None"),
      "Has this process killed when its parent ends.");
  nb::class_<pool_child>(m, "PoolChild", "The part of a worker that runs in a process of its own.")
      .def(nb::init<int, int, std::uint32_t, const std::vector<std::string>&, nb::handle, const std::string&,
                    const std::string&>(),
           nb::arg("memory"), nb::arg("news"), nb::arg("child"), nb::arg("plugins"), nb::arg("handlers"),
           nb::arg("log_level"), nb::arg("log_format"),
           nb::sig("def __init__(self, memory: int, news: int, child: int, plugins: collections.abc.Sequence[str], "
                   "handlers: collections.abc.Iterable[typing.Any], log_level: str, log_format: str) -> None"))
      .def("tell", &pool_child::tell, nb::arg("name"), nb::arg("value"), "Says something of itself; before `serve`.")
      .def("serve", &pool_child::serve, "Runs handlers until the worker ends or replaces this process.");
}

}  // namespace leveret::bindings
