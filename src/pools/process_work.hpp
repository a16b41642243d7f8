/// One delivery while child processes run its lines. All of it is the loop's.
#pragma once

#include <memory>
#include <vector>

#include "../work.hpp"

namespace leveret::core {

class process_pool;

class process_work final : public work, public std::enable_shared_from_this<process_work> {
 public:
  process_work(delivery d, process_pool& pool, ended on_ended);

  [[nodiscard]] bool started() const noexcept override;
  [[nodiscard]] bool has_unstarted() const noexcept override;
  void stop_starting() override;
  void abandon_running() override;
  [[nodiscard]] std::vector<result_chunk> take_results() override;
  [[nodiscard]] std::vector<failed_line> take_failures() override;
  [[nodiscard]] std::vector<std::uint32_t> running_lines(std::size_t most) const override;
  [[nodiscard]] std::uint64_t succeeded_lines() const noexcept override {
    return lines() - failed_ - unstarted_.size();
  }

 private:
  friend class process_pool;

  void fail(failed_line failure, std::string_view result_id, std::uint32_t result_line, std::string_view dead_reason,
            std::uint32_t attempts);
  /// One of its blocks has ended; the last one ends the work.
  void close_block();
  void finish();

  process_pool& pool_;
  ended on_ended_;
  std::uint32_t open_ = 0;  // blocks placed, or waiting for a place
  std::uint64_t failed_ = 0;
  bool finished_ = false;
  result_collector results_;
  std::vector<failed_line> failures_;
};

}  // namespace leveret::core
