/// A message of one job that holds a key until it starts: the key is let go when a thread of the pool has come to the
/// job, and before its handler begins. Were it let go with the delivery, jobs that wait in the worker would hold none;
/// were it let go behind the handler's begin, a send could find a job that has already read what the sender changed.
///
/// So the pool gets, in the job's place, a line that no codec takes: it ends as soon as a thread has come to it. Then
/// the job itself is run, before all that was not started yet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "loop.hpp"
#include "pool.hpp"

namespace leveret::core {

class claimed_work final : public work, public std::enable_shared_from_this<claimed_work> {
 public:
  /// Lets the key go, and says whether the delivery is still this worker's.
  using let_go = std::function<void(std::function<void(bool)> then)>;

  /// Pool and loop must outlive the work.
  [[nodiscard]] static std::shared_ptr<claimed_work> run(delivery d, pool& p, loop& l, let_go key, ended on_ended);
  /// Called by `run`.
  claimed_work(delivery d, pool& p, loop& l, let_go key, ended on_ended);

  [[nodiscard]] bool started() const noexcept override;
  [[nodiscard]] bool has_unstarted() const noexcept override;
  void stop_starting() override;
  void abandon_running() override;

  [[nodiscard]] std::vector<result_chunk> take_results() override;
  [[nodiscard]] std::vector<failed_line> take_failures() override;
  [[nodiscard]] std::vector<std::uint32_t> running_lines(std::size_t most) const override;
  [[nodiscard]] std::uint64_t succeeded_lines() const noexcept override;

 private:
  void wait_for_thread();
  void has_thread(const std::shared_ptr<work>& place);
  void run_job(bool ours);
  void give_back();
  void finish();

  pool& pool_;
  loop& loop_;
  const let_go let_go_;
  const ended on_ended_;
  std::shared_ptr<work> place_;  // what waits for a thread
  std::shared_ptr<work> job_;    // kept after its end
  bool stop_ = false;
  bool ended_ = false;
};

}  // namespace leveret::core
