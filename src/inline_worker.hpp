/// A worker that runs on its caller's thread, when it is told to, in virtual time: the engine of worker.hpp for tests
/// of users' programs. The same calls lead to the same order of jobs, always.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "call_frame.hpp"
#include "registry.hpp"
#include "settling.hpp"

namespace leveret::core {

struct inline_worker_options {
  std::string url;                            ///< memory://name: no other broker lets time pass at will
  std::vector<std::string> queues;            ///< empty: those of the registered tasks
  std::vector<std::string> ordered_by_tasks;  ///< as a worker's
  std::string default_task;
  std::uint64_t seed = 1;  ///< of the backoff's jitter
};

/// Made, used and destroyed on one thread; one at a time in a process, whose wall clock it stops: what other threads
/// send is due by the virtual time.
class inline_worker {
 public:
  /// Opens the broker and subscribes; the time is the system's. `tasks` and `log` must outlive it. Throws as worker and
  /// its `start`.
  inline_worker(inline_worker_options options, const registry& tasks, log_sink& log);
  ~inline_worker();
  inline_worker(const inline_worker&) = delete;
  inline_worker& operator=(const inline_worker&) = delete;

  /// Runs all jobs that are ready, with those that they send, until nothing is left to do at this time. Waits for
  /// attempts that go on without a thread. What it ran is in `counts`.
  void run_until_idle();
  /// Lets time pass: what becomes due on the way runs at its own time.
  void advance(std::chrono::milliseconds time);

  [[nodiscard]] const tally& counts() const;
  [[nodiscard]] unix_ms wall() const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace leveret::core
