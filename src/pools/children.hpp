/// Child processes: started, watched, ended. Knows nothing of jobs.
///
/// One thread starts and watches all of them, for as long as the object lives: Linux ends a child together with the
/// thread that started it (PR_SET_PDEATHSIG), not with its process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace leveret::core {

/// How a process ended.
struct child_end {
  std::uint32_t child = 0;
  pid_t pid = 0;
  int status = 0;               ///< as waitpid gives it
  std::int64_t peak_bytes = 0;  ///< the most memory that it had resident
  std::string error;            ///< it could not be started: why
};
/// "was killed by SIGSEGV", "ended with exit code 3".
[[nodiscard]] std::string describe(const child_end& end);
/// For people: whole MiB.
[[nodiscard]] std::string megabytes(std::int64_t bytes);

class children {
 public:
  struct events {
    std::function<void()> news;                   ///< the descriptor `news` was written to
    std::function<void(const child_end&)> ended;  ///< once for each start
  };

  /// `command`: a program and its arguments; `--memory FD --news FD --child N` are added. The program gets both
  /// descriptors, no standard input, and standard error as its standard output, so that what handlers print stays out
  /// of the worker's own output. Events come from the watching thread. Throws std::runtime_error.
  children(std::vector<std::string> command, int memory, events on);
  /// Kills what still runs.
  ~children();
  children(const children&) = delete;
  children& operator=(const children&) = delete;

  /// Any thread; returns at once. A child that runs is not started again.
  void start(std::uint32_t child);
  /// Any thread. Nothing happens if it does not run.
  void kill(std::uint32_t child, int signal);
  /// Its process id; 0: it does not run. Any thread.
  [[nodiscard]] pid_t pid(std::uint32_t child) const;
  /// Kills all and waits for their ends; `ended` is still called. Not from an event. Nothing can be started afterwards.
  void stop();
  /// The eventfd that children write to.
  [[nodiscard]] int news() const noexcept { return news_; }

 private:
  struct process {
    pid_t pid = 0;
    int handle = -1;  // a pidfd
  };

  void watch();
  void spawn(std::uint32_t child);
  void reap(std::uint32_t child);
  void wake() const noexcept;

  const std::vector<std::string> command_;
  const int memory_;
  const events on_;
  int news_ = -1;
  int wake_ = -1;

  mutable std::mutex mutex_;  // guards what follows; a leaf, never held while an event is called
  std::deque<std::uint32_t> to_start_;
  std::vector<process> running_;  // by child
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace leveret::core
