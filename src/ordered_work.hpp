/// A message of an ordered queue while its lines run one after another: each is given to the pool, as a message of its
/// own under the job's explicit id, when the one before it has ended. So any pool keeps the order, and a crash, a limit
/// or an attempt without a thread is the pool's business as ever. The loop's own, as every work.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "loop.hpp"
#include "pool.hpp"

namespace leveret::core {

class ordered_work final : public work, public std::enable_shared_from_this<ordered_work> {
 public:
  /// Starts the first line. Pool, loop and returner must outlive the work.
  [[nodiscard]] static std::shared_ptr<ordered_work> run(delivery d, pool& p, loop& l, line_returner& returner,
                                                         ended on_ended);
  /// Called by `run`.
  ordered_work(delivery d, pool& p, loop& l, line_returner& returner, ended on_ended);

  [[nodiscard]] bool started() const noexcept override;
  [[nodiscard]] bool has_unstarted() const noexcept override;
  void stop_starting() override;
  void wind_down() override;
  void abandon_running() override;

  [[nodiscard]] std::vector<result_chunk> take_results() override;
  [[nodiscard]] std::vector<failed_line> take_failures() override { return std::move(failures_); }
  [[nodiscard]] std::vector<std::uint32_t> running_lines(std::size_t most) const override;
  [[nodiscard]] std::uint64_t succeeded_lines() const noexcept override;

 private:
  void start_next();
  [[nodiscard]] bool refuse(const line_returner::returned& line);
  void line_ended(const std::shared_ptr<work>& line);
  void give_back_from(std::uint32_t first);
  void finish();

  pool& pool_;
  loop& loop_;
  line_returner& returner_;
  const ended on_ended_;
  std::uint32_t next_ = 0;         // the line that runs, or lines()
  std::shared_ptr<work> current_;  // that line; null after the end
  bool stop_ = false;
  bool ended_ = false;
  std::uint64_t succeeded_ = 0;  // of lines before it
  std::vector<result_chunk> results_;
  std::vector<failed_line> failures_;
};

}  // namespace leveret::core
