/// The worker that failpoints_test kills, on threads or, with `--children` before the same words, on a process that
/// runs this program again. Its jobs leave a line each in the file that LEVERET_TEST_EFFECTS names.
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <leveret/worker.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "plugin.hpp"
#include "pools/child.hpp"
#include "stderr_log.hpp"
#include "worker_command.hpp"

using leveret::arg;
namespace core = leveret::core;

namespace {

/// In one write, and between newlines with a mark at its end: a process that is killed amid it leaves no other line
/// broken, and its own is seen to be.
void note(const leveret::context& context, std::int64_t number) {
  const char* path = std::getenv("LEVERET_TEST_EFFECTS");
  const int fd = path == nullptr ? -1 : ::open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error("no file for effects");
  const std::string line = "\n" + std::string(context.job_id()) + " " + std::to_string(number) + " " +
                           std::to_string(context.retry_count()) + " .\n";
  const ssize_t written = ::write(fd, line.data(), line.size());
  ::close(fd);
  if (written != static_cast<ssize_t>(line.size())) throw std::runtime_error("cannot note an effect");
}

std::int64_t triple(leveret::context& context, std::int64_t number) {
  note(context, number);
  return 3 * number;
}

/// Published again for at once: no delay of a broker has to be waited for.
std::int64_t triple_later(leveret::context& context, std::int64_t number) {
  note(context, number);
  if (context.retry_count() == 0) leveret::retry_after(std::chrono::milliseconds(0), "not the first time");
  return 3 * number;
}

}  // namespace

LEVERET_TASKS(tasks) {
  tasks.add("triple", triple, arg("number"));
  tasks.add("triple_later", triple_later, arg("number"));
}

namespace {

int run_child(int argc, char** argv) {
  // The first child of a test alone has the point: those after it are to finish.
  const char* once = std::getenv("LEVERET_TEST_ONCE");
  const int first = once == nullptr ? -1 : ::open(once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (first < 0) {
    ::unsetenv("LEVERET_FAULT_POINT");
  } else {
    ::close(first);
  }
  int memory = -1;
  int news = -1;
  int child = -1;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view word = argv[i];
    if (word == "--memory") memory = std::atoi(argv[i + 1]);
    if (word == "--news") news = std::atoi(argv[i + 1]);
    if (word == "--child") child = std::atoi(argv[i + 1]);
  }
  core::registry tasks;
  core::register_plugin(&leveret_plugin, tasks, argv[0]);
  core::stderr_log log("warning");
  core::pool_child self(memory, news, static_cast<std::uint32_t>(child), tasks, log, [] { ::_exit(0); });
  self.start();
  while (!self.wait_ended(1'000)) {
  }
  return 0;
}

int run_with_children(int argc, char** argv) {
  core::worker_command_options options;
  for (int i = 2; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--quiet") options.quiet = true;
    if (i + 1 == argc) break;
    if (word == "--url") options.url = argv[i + 1];
    if (word == "--queue") options.queues.emplace_back(argv[i + 1]);
    if (word == "--threads") options.threads = static_cast<std::uint32_t>(std::atoi(argv[i + 1]));
    if (word == "--prefetch") options.lim.prefetch_messages = static_cast<std::uint32_t>(std::atoi(argv[i + 1]));
  }
  options.child_command = {argv[0], "--in-child"};
  return core::run_worker_command(options, core::registry());
}

}  // namespace

int main(int argc, char** argv) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string_view first = argc > 1 ? argv[1] : "";
  try {
    if (first == "--in-child") return run_child(argc, argv);
    if (first == "--children") return run_with_children(argc, argv);
  } catch (const std::exception& wrong) {
    std::fprintf(stderr, "failpoint_worker: %s\n", wrong.what());
    return 1;
  }
  return leveret::run_worker(argc, argv);
}
