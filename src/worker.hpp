/// A running worker: a transport, a loop on a thread of its own, a pool of threads. Embedded in any program.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "call_frame.hpp"
#include "pools/processes.hpp"
#include "registry.hpp"
#include "settling.hpp"
#include "transport.hpp"
#include "worker_report.hpp"

namespace leveret::core {

struct worker_options {
  std::string url;
  std::vector<std::string> queues;  ///< empty: those of the registered tasks
  /// Queues whose ordered queues (ordered.hpp) are consumed too.
  std::vector<std::string> ordered;
  /// The queues of ordered tasks: as `ordered`, if they are consumed.
  std::vector<std::string> ordered_by_tasks;
  std::uint32_t threads = 0;  ///< 0: one a core
  bool burst = false;
  std::string default_task;
  retry_policy retries;
  std::int32_t max_crashes = 3;
  limits lim;
  std::uint64_t max_memory =
      0;             ///< what it takes for messages, in bytes: kMemoryPerByte; 0: lim.prefetch_bytes a queue
  std::string name;  ///< in records; empty: host:pid
  std::chrono::milliseconds report_every = kReportEvery;  ///< what it tells about itself; 0: never
  std::function<void()>
      on_finished;  ///< a burst has emptied its queues; called once, on the worker's loop; must not block
};

/// A message takes memory several times while it is held: as it came, where processes read it, and in what leaves.
inline constexpr std::uint64_t kMemoryPerByte = 8;
inline constexpr std::uint64_t kLeastMemory = 16u << 20;

struct worker_summary {
  tally counts;
  double seconds = 0;  ///< from the first delivery to the last settlement
  bool grace_exceeded = false;
};

inline constexpr const char* kNativeQueue = "native";  ///< default queue of native tasks

/// The queues a worker consumes where none are named: those of its tasks, sorted.
[[nodiscard]] std::vector<std::string> queues_of(const registry& tasks);
/// All that a worker with these options subscribes to.
[[nodiscard]] std::vector<std::string> subscribed_queues(const worker_options& options);
/// Throws std::invalid_argument: bad queue name, unknown default task, no queue.
void check_worker_options(const worker_options& options, const registry& tasks);
[[nodiscard]] std::string default_worker_name();

class worker {
 public:
  /// `tasks` and `log` must outlive the worker. `children`: started processes that run the handlers; null: threads of
  /// this process do. Throws std::invalid_argument for senseless options.
  worker(worker_options options, const registry& tasks, log_sink& log,
         std::unique_ptr<process_pool> children = nullptr);
  /// As stop with no grace.
  ~worker();
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  /// Opens the transport, declares the queues, subscribes. Blocks until consuming. Throws as open_transport.
  void start();
  /// Whether a burst has emptied its queues. Any thread.
  [[nodiscard]] bool finished() const;
  /// Waits until finished or `deadline`; true: finished.
  bool wait_finished(std::chrono::steady_clock::time_point deadline);
  /// Stops receiving, lets what runs end within `grace`, gives the rest back uncharged, closes. Blocks. Past the grace
  /// the running jobs are given back too; processes are killed, threads left behind: the program must end soon, and the
  /// tasks, their state and the log must live as long as it.
  /// Idempotent.
  worker_summary stop(std::chrono::milliseconds grace);
  /// Cuts a running stop short, as if its grace were over. Any thread.
  void hurry();

  /// Whether the loop turns, within `patience`, and then whether it consumes. Any thread; blocks.
  struct liveness {
    bool live = false;
    bool ready = false;
    std::string detail;  ///< for people: what is wrong, or nothing
  };
  [[nodiscard]] liveness look(std::chrono::milliseconds patience) const;

  [[nodiscard]] worker_summary summary() const;
  [[nodiscard]] std::string where() const;
  [[nodiscard]] const worker_options& options() const;
  [[nodiscard]] health how_it_is() const;

 private:
  struct state;
  std::shared_ptr<state> state_;  // shared with threads left behind past the grace
};

}  // namespace leveret::core
