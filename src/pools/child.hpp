/// A child process of a process pool: runs handlers for the I/O process that started it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../attempt.hpp"
#include "../loop.hpp"
#include "line_pace.hpp"
#include "outcome_stream.hpp"
#include "shared_state.hpp"

namespace leveret::core {

/// Ends with its I/O process, at whatever moment that ends (PR_SET_PDEATHSIG). Ignores SIGINT and SIGTERM, which reach
/// a whole process group: the I/O process decides when to stop.
class pool_child {
 public:
  /// Joins the pool. `memory` and `news` are descriptors that it was started with. `tasks` and `log` must outlive it.
  /// `end_copy` ends the process: called in a copy of this one that a handler left by fork, when that handler returns,
  /// for what it returns must reach nobody. Throws std::runtime_error.
  pool_child(int memory, int news, std::uint32_t index, const registry& tasks, log_sink& log,
             std::function<void()> end_copy);
  ~pool_child();
  pool_child(const pool_child&) = delete;
  pool_child& operator=(const pool_child&) = delete;

  /// Tells the I/O process something about this child: before `start`.
  void tell(std::string_view name, std::string_view value);
  /// Tells the I/O process the tasks and starts the threads.
  void start();
  /// Waits until the pool is closed or this child retired, and nothing runs here any more; at most `milliseconds`.
  /// True: it may end now.
  [[nodiscard]] bool wait_ended(std::uint32_t milliseconds);
  /// How many attempts may go on without a thread.
  [[nodiscard]] std::uint32_t parked() const noexcept { return state_.header().parked; }

 private:
  class line_sink;
  class jobs_of_child;
  class parked_sink;

  void serve(std::uint32_t thread);
  /// Runs lines of the lane's next block, which is behind `next`. False: there is none. `woken`: since it was, the
  /// thread has woken nobody.
  bool run_lane(std::uint32_t number, std::uint64_t& next, std::uint32_t writer, attempt_runner& runner, bool& woken);
  void wake_next(const shared_lane& lane, std::uint64_t number, block_view block, bool& woken) noexcept;
  [[nodiscard]] bool something_goes_first(std::uint32_t lane) const noexcept;
  /// False: some of its lines may not have been started.
  static bool next_of_run(shared_writer& w, block_key key, std::uint32_t& line) noexcept;
  bool claim(shared_writer& w, shared_block& head, block_key key, line_pace& pace, bool one_by_one,
             std::uint32_t& line);
  bool run_block(std::uint32_t writer, attempt_runner& runner, block_view block, block_key key);
  [[nodiscard]] bool retired() const noexcept;
  void check_complete(block_view block) const noexcept;
  void check_copy() const;
  shared_parked* park(packed_line line, std::int64_t limit);
  void unpark(shared_parked& slot);

  shared_state state_;
  const int news_;
  const std::uint32_t index_;
  const std::uint32_t lane_;
  const std::function<void()> end_copy_;
  run_settings settings_;
  std::unique_ptr<loop> clock_;
  std::unique_ptr<jobs_of_child> jobs_;

  std::mutex parked_mutex_;  // guards the parked writer (ring, bitmaps, `at`) and the slots
  outcome_writer parked_out_;
  std::vector<std::uint32_t> parked_free_;

  std::mutex ended_mutex_;  // guards `running_threads_`
  std::condition_variable ended_;
  std::uint32_t running_threads_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace leveret::core
