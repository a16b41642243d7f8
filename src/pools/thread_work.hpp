/// One delivery while threads of this process run its lines.
///
/// Threads take lines from an atomic cursor: one by one, so that they start in order, or in short runs while they are
/// so quick that the cursor, which travels from core to core, would cost as much as they do. An idle thread never waits
/// behind a slow line: it takes over the rest of a run. Starting can be stopped at any point, by moving the cursor.
/// Each thread writes what its lines led to into a slot of its own. The loop collects results while lines still run,
/// and all the rest when the last has ended: the thread (or loop) that brings `unfinished_` to zero posts `on_ended`.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <vector>

#include "../loop.hpp"
#include "../work.hpp"
#include "line_pace.hpp"
#include "short_lock.hpp"

namespace leveret::core {

class thread_work final : public work, public std::enable_shared_from_this<thread_work> {
 public:
  /// `threads`: how many take lines, at most; a work of one line has one slot for all, who must not race for it.
  /// `on_ended` is posted to `l`.
  thread_work(delivery d, std::uint32_t threads, loop& l, ended on_ended);

  // ---- pool threads ----

  /// The next line to start (from 0), or false: nothing more to start here. `thread` is below `threads`. `one_by_one`:
  /// as for line_pace.
  bool take(std::uint32_t thread, std::uint32_t& line, bool one_by_one = false) noexcept;
  /// The thread will take no more lines of this work. Once per thread that called `take`; it may end the work.
  void leave(std::uint32_t thread);

  /// The line that `take` gave ended. False: it was abandoned meanwhile, and its outcome is dropped.
  bool succeeded(std::uint32_t thread) noexcept;
  bool succeeded(std::uint32_t thread, std::string_view result_id, std::uint32_t result_line, std::string_view json);
  bool failed(std::uint32_t thread, failed_line failure, std::string_view result_id, std::uint32_t result_line,
              std::string_view dead_reason, std::uint32_t attempts);

  // ---- lines that go on without a thread (pending attempts) ----

  /// The line that `take` gave `thread` runs on without it; the thread may take another. Gives its index.
  std::uint32_t park(std::uint32_t thread);
  /// A parked line ended: as the functions above. Any thread; may end the work.
  bool parked_succeeded(std::uint32_t line, const std::string_view* result_id, std::uint32_t result_line,
                        std::string_view json);
  bool parked_failed(std::uint32_t line, failed_line failure, std::string_view result_id, std::uint32_t result_line,
                     std::string_view dead_reason, std::uint32_t attempts);

  // ---- the loop ----

  [[nodiscard]] bool started() const noexcept override { return cursor_.load(std::memory_order_relaxed) > 0; }
  [[nodiscard]] bool has_unstarted() const noexcept override;
  void stop_starting() override;
  void abandon_running() override;
  [[nodiscard]] std::vector<result_chunk> take_results() override;
  [[nodiscard]] std::vector<failed_line> take_failures() override;
  [[nodiscard]] std::vector<std::uint32_t> running_lines(std::size_t most) const override;
  [[nodiscard]] std::uint64_t succeeded_lines() const noexcept override;

 private:
  // What threads write often must not share a cache line. Kept apart by room and not by alignment: an aligned
  // allocation for each message costs more than running a short job.
  using cache_line = char[64];

  // What a slot holds: the line that runs, and behind it the rest of its run, up to an end.
  static constexpr std::uint64_t kIdle = UINT64_MAX;
  static constexpr std::uint64_t kClaiming =
      UINT64_MAX - 1;  // between saying so and knowing the lines: a few instructions
  [[nodiscard]] static constexpr std::uint64_t hold(std::uint32_t first, std::uint32_t end) noexcept {
    return std::uint64_t{end} << 32 | first;
  }
  [[nodiscard]] static constexpr std::uint32_t first_of(std::uint64_t held) noexcept {
    return static_cast<std::uint32_t>(held);
  }
  [[nodiscard]] static constexpr std::uint32_t end_of(std::uint64_t held) noexcept {
    return static_cast<std::uint32_t>(held >> 32);
  }

  [[nodiscard]] static constexpr bool has_rest(std::uint64_t held) noexcept {
    return held < kClaiming && first_of(held) + 1 < end_of(held);
  }

  static constexpr std::uint32_t kNone = UINT32_MAX;   // in place of a line
  static constexpr std::uint32_t kStopped = 1u << 31;  // the cursor, when no line is started any more

  // One a thread. `held` says which line is being run; whoever moves it on owns that line's outcome: the thread when it
  // ends, or the loop when it abandons it. A line comes into a slot once, so what is held is never held again. The
  // lock guards the vectors; a thread that has something to record holds it from there to the record, so that the loop
  // never sees a line ended and not recorded. Others than the thread move `held` on under the lock only, so that the
  // thread need not compare and swap as well while it holds it.
  struct slot {
    std::atomic<std::uint64_t> held{kIdle};
    line_pace pace;                           // the thread's own
    std::atomic<std::uint64_t> succeeded{0};  // written by the thread only
    std::uint32_t ended = 0;                  // the thread's own: lines whose outcome it owned, not yet subtracted
    short_lock lock;
    result_collector results{{}, {}};
    std::vector<failed_line> failures;
    cache_line apart;  // from the next thread's
  };
  // All lines without a thread. The mutex guards everything; whoever erases a line from `lines` owns its outcome.
  struct parking {
    mutable std::mutex mutex;
    std::set<std::uint32_t> lines;
    std::uint64_t succeeded = 0;
    result_collector results{{}, {}};
    std::vector<failed_line> failures;
  };

  [[nodiscard]] static constexpr std::uint64_t without_first(std::uint64_t held) noexcept {
    return has_rest(held) ? hold(first_of(held) + 1, end_of(held)) : kIdle;
  }
  [[nodiscard]] slot& slot_of(std::uint32_t thread) noexcept { return slots_[threads_ == 1 ? 0 : thread]; }
  bool claim(slot& s, std::uint32_t& line, bool one_by_one) noexcept;
  /// The rest of another thread's run: what stands behind its line would wait for that.
  bool take_over(slot& s, std::uint32_t& line) noexcept;
  /// The line that ended, or kNone: it was abandoned.
  static std::uint32_t end_line(slot& s) noexcept;
  static std::uint32_t end_line_locked(slot& s) noexcept;
  static void count_succeeded(slot& s) noexcept;
  /// What it holds; waits while that is being claimed.
  static std::uint64_t claimed(const slot& s) noexcept;
  void record(result_collector& results, std::vector<failed_line>& failures, failed_line failure,
              std::string_view result_id, std::uint32_t result_line, std::string_view dead_reason,
              std::uint32_t attempts) const;
  void subtract(std::uint32_t lines);
  void finish();

  loop& loop_;
  ended on_ended_;
  const std::uint32_t threads_;
  std::unique_ptr<slot[]> slots_;
  parking parked_;
  cache_line before_cursor_;
  std::atomic<std::uint32_t> cursor_{0};
  cache_line behind_cursor_;
  std::atomic<std::uint32_t> unfinished_;
  std::atomic<bool> finished_{false};
};

}  // namespace leveret::core
