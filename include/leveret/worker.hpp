/// Writing workers in C++. One source is a plugin and a program:
///
///     #include <leveret/worker.hpp>
///     using leveret::arg;
///
///     std::int64_t add(std::int64_t x, std::int64_t y) { return x + y; }
///
///     LEVERET_TASKS(tasks) { tasks.add("add", add, arg("x"), arg("y") = 1).max_retries(5); }
///
///     int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
///
/// `leveret build add.cpp` makes add.so for `leveret worker add.so`; `leveret build --exe add.cpp` makes the program
/// ./add.
#pragma once

#include <cstdio>
#include <leveret/library.hpp>
#include <leveret/task_set.hpp>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

/// Runs the body of LEVERET_TASKS. Lets nothing through: its caller is C. 0: refused, and the host knows why.
inline int register_tasks(const leveret_host* host, leveret_registry* registry, void (*define)(task_set&)) noexcept {
  const auto refuse = [&](std::string_view why) {
    host->refuse(registry, why.data(), why.size());
    return 0;
  };
  if (host->size < sizeof(leveret_host)) {
    return refuse("it was compiled with headers " LEVERET_VERSION ", which are newer than this worker");
  }
  try {
    host_library = host->library();
    task_set tasks(host);
    define(tasks);
    tasks.register_with(registry);
    return 1;
  } catch (const std::exception& wrong) {
    return refuse(wrong.what());
  } catch (...) {
    return refuse("its LEVERET_TASKS threw an unknown exception");
  }
}

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret

extern "C" {
/// What LEVERET_TASKS defines: the one symbol that a worker looks for.
extern LEVERET_EXPORT const leveret_plugin_info leveret_plugin;
}

/// Defines the tasks of this plugin or program; `tasks` is a `leveret::task_set&` in the body that follows. Once per
/// plugin, at namespace scope; more source files can have functions that take a `leveret::task_set&`.
// NOLINTBEGIN(bugprone-macro-parentheses): `tasks` is a parameter's name
#define LEVERET_TASKS(tasks)                                                                               \
  static void leveret_define_tasks(::leveret::task_set& tasks);                                            \
  static int leveret_register_tasks(const leveret_host* host, leveret_registry* registry) {                \
    return ::leveret::detail::register_tasks(host, registry, &leveret_define_tasks);                       \
  }                                                                                                        \
  const leveret_plugin_info leveret_plugin = {"leveret", LEVERET_ABI_VERSION, sizeof(leveret_plugin_info), \
                                              LEVERET_VERSION, &leveret_register_tasks};                   \
  static void leveret_define_tasks([[maybe_unused]] ::leveret::task_set& tasks)
// NOLINTEND(bugprone-macro-parentheses)

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// Runs this program's tasks as a worker, with the command line of `leveret worker` (`--help` lists it). Takes over
/// SIGTERM and SIGINT meanwhile. Returns the exit code: 0; 1 for a failure or exceeded grace; 2 for usage or set-up.
[[nodiscard]] inline int run_worker(int argc, char** argv) {
  try {
    return detail::need_library().run_worker(&leveret_plugin, argc, argv);
  } catch (const error& wrong) {
    std::fprintf(stderr, "%s: cannot run as a worker: %s\n", argc > 0 ? argv[0] : "worker", wrong.what());
    return 2;
  }
}

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
