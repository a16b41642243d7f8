/// How many lines a thread takes at once from a cursor that all threads move.
///
/// The cursor travels from core to core with each claim, which costs as much as running a short job. So a thread whose
/// lines were quick takes a run of them, doubled as long as they stay quick; one whose lines were not takes one. A
/// line may so start out of order by what a run takes: some microseconds, or longer where the system does not run the
/// thread that took it. docs/adr/0028.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace leveret::core {

/// A thread's, for one message.
class line_pace {
 public:
  static constexpr std::uint32_t kMost = 16;              ///< lines of a run
  static constexpr std::chrono::microseconds kQuick{16};  ///< what a run may take for the next to be longer

  /// How many to take now, of `left` that nobody took yet and that `threads` share: the last ones are taken one by one.
  /// `one_by_one`: as all are where threads wait for a lock that another may hold for milliseconds (Python's): what
  /// they took waits with them.
  [[nodiscard]] std::uint32_t next(std::uint32_t left, std::uint32_t threads, bool one_by_one) noexcept {
    const std::uint32_t share = one_by_one ? 1 : left / (2 * threads);
    if (share <= 1 && run_ == 1) return 1;  // short messages need no clock
    const auto now = std::chrono::steady_clock::now();
    const bool first = claimed_ == std::chrono::steady_clock::time_point{};
    const bool quick = !first && now - claimed_ <= kQuick;
    slow_ = !first && !quick;
    run_ = quick ? std::min(2 * run_, kMost) : 1;
    claimed_ = now;
    return std::clamp(share, 1u, run_);
  }
  /// Whether its last lines were slow: then other threads' runs may stand behind slow ones, too.
  [[nodiscard]] bool slow() const noexcept { return slow_; }

 private:
  std::uint32_t run_ = 1;
  bool slow_ = false;
  std::chrono::steady_clock::time_point claimed_{};
};

}  // namespace leveret::core
