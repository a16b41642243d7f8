/// Looking at, copying and saving SQLite files.
#include "transports/sqlite/upkeep.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "bindings.hpp"

namespace leveret::bindings {

namespace {

namespace sqlite = core::sqlite;

/// Calls a Python function with the GIL; what it raises ends the work.
sqlite::progress_report progress_to(const nb::object& report) {
  if (report.is_none()) return {};
  return [&report](std::uint64_t done, std::uint64_t total) {
    const nb::gil_scoped_acquire gil;
    report(done, total);
  };
}

nb::dict examined(const std::string& path) {
  sqlite::file_state state;
  {
    const nb::gil_scoped_release released;
    state = sqlite::examine(path);
  }
  nb::dict out;
  out["bytes"] = state.bytes;
  out["damage"] = state.damage;
  out["notes"] = state.notes;
  return out;
}

void back_up(const std::string& from, const std::string& to, const nb::object& report) {
  const sqlite::progress_report progress = progress_to(report);
  const nb::gil_scoped_release released;
  sqlite::back_up(from, to, progress);
}

nb::dict recover(const std::string& from, const std::string& to, const nb::object& report) {
  const sqlite::progress_report progress = progress_to(report);
  sqlite::recovered saved;
  {
    const nb::gil_scoped_release released;
    saved = sqlite::recover(from, to, progress);
  }
  nb::list lost;
  for (const sqlite::lost_message& m : saved.lost) {
    nb::dict one;
    one["queue"] = m.queue;
    one["id"] = m.id;
    lost.append(one);
  }
  nb::dict out;
  out["pages"] = saved.pages;
  out["unreadable_pages"] = saved.unreadable_pages;
  out["waiting"] = saved.waiting;
  out["running"] = saved.running;
  out["unplaced"] = saved.unplaced;
  out["delayed"] = saved.delayed;
  out["jobs"] = saved.jobs;
  out["dead"] = saved.dead;
  out["results"] = saved.results;
  out["cancelled"] = saved.cancelled;
  out["lost_rows"] = saved.lost_rows;
  out["lost"] = lost;
  out["damage"] = saved.damage;
  return out;
}

}  // namespace

void init_upkeep(nb::module_& m) {
  m.def("examine_sqlite", &examined, nb::arg("path"), nb::sig("def examine_sqlite(path: str) -> dict[str, typing.Any]"),
        "What is damaged in a database file: its bytes, damage and notes, a sentence each. Reads all of it.");
  m.def("back_up_sqlite", &back_up, nb::arg("path"), nb::arg("to"), nb::arg("progress").none(),
        nb::sig("def back_up_sqlite(path: str, to: str, "
                "progress: collections.abc.Callable[[int, int], object] | None) -> None"),
        "A copy of a database file as it stands at one moment, while others use it; there nobody runs anything.");
  m.def("recover_sqlite", &recover, nb::arg("path"), nb::arg("to"), nb::arg("progress").none(),
        nb::sig("def recover_sqlite(path: str, to: str, "
                "progress: collections.abc.Callable[[int, int], object] | None) -> dict[str, typing.Any]"),
        "What can be read of a database file, in a new one, and what was saved and lost. The file itself is only read; "
        "nobody may use it.");
}

}  // namespace leveret::bindings
