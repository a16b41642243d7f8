/// The worker as a program: banner, signals, burst, grace, summary, logs. Shared by `leveret worker` and by standalone
/// C++ workers (`leveret::run_worker`), so both behave and print alike. Not part of the core: the core never prints.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "registry.hpp"
#include "transport.hpp"
#include "worker.hpp"

namespace leveret::core {

struct worker_command_options {
  std::string url;
  std::vector<std::string> queues;   ///< empty: those of the registered tasks
  std::vector<std::string> ordered;  ///< queues whose ordered queues are consumed too
  std::uint32_t threads = 0;         ///< 0: one a core
  bool burst = false;
  std::string default_task;
  std::chrono::milliseconds grace{25'000};
  std::int32_t max_retries = 3;  ///< default where neither line nor task says
  std::int32_t max_crashes = 3;
  bool json = false;   ///< the summary as one JSON object on standard output
  bool quiet = false;  ///< no banner
  std::string log_level = "info";
  std::string log_format = "text";  ///< or json
  limits lim;
  /// What starts a child process (pools/children.hpp). Empty: handlers run on threads of this process.
  std::vector<std::string> child_command;
  std::uint32_t processes = 1;
  std::uint32_t concurrency = 0;  ///< attempts of a child that may go on without a thread
  std::uint64_t max_jobs_per_child = 0;
  std::uint64_t max_bytes_per_child = 0;
  std::uint64_t max_memory = 0;  ///< bytes for messages held; 0: as `lim` says
};

/// Runs a worker in this process until burst ends, a signal, or failure. Takes over SIGTERM and SIGINT meanwhile, and
/// puts them back. Returns the exit code: 0; 1 grace exceeded, second signal or failure; 2 usage or set-up. Errors are
/// printed to standard error in one line.
/// `tasks` are looked at without `child_command` only: children have their own, and may know the url.
[[nodiscard]] int run_worker_command(const worker_command_options& options, const registry& tasks);

/// How the worker of `run_worker_command` is; nothing if none runs. Any thread; blocks for `patience` at most.
[[nodiscard]] std::optional<worker::liveness> running_worker(std::chrono::milliseconds patience);

/// Parses a standalone worker's command line (CLI11), then runs. `--help` and `--describe` print and return 0.
[[nodiscard]] int run_worker_main(int argc, char** argv, const registry& tasks);
/// As above, with the tasks that the program itself defines. Tasks that are refused are printed; the exit code is
/// then 2.
[[nodiscard]] int run_worker_main(const leveret_plugin_info* tasks, int argc, char** argv);

}  // namespace leveret::core
