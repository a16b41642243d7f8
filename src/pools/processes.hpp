/// A pool of child processes: a handler that crashes, hangs or leaks costs its own job, and nothing else.
///
/// The I/O process (this one) runs no handlers. It writes each message's body into memory that it shares with the
/// children (shared_state.hpp), whose threads take lines from it; what the lines led to comes back the same way. A
/// message costs a wake-up on each side, a job costs none.
///
/// When a child ends, the lines that it ran are sorted out on the loop:
/// - those that had ended keep their outcomes;
/// - one that the child was killed for because somebody wished so ends as cancelled;
/// - the *culprit* is charged: the line of the thread that the fault happened in, or the only line that ran, or the one
///   that was killed for its time limit. It counts as a failed attempt;
/// - if nobody knows the culprit (SIGKILL, exit), each line that ran is a suspect, and runs again in quarantine: a
/// child of
///   its own, one suspect at a time. Whoever takes that one down is the culprit;
/// - all others run again, uncharged.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../attempt.hpp"
#include "../loop.hpp"
#include "../pool.hpp"
#include "arena.hpp"
#include "children.hpp"
#include "outcome_stream.hpp"
#include "process_work.hpp"
#include "shared_state.hpp"

namespace leveret::core {

/// A fact that a child tells: it has tasks whose attempts go on without a thread.
inline constexpr const char* kFactDefers = "defers";
/// A fact that a child may tell: the broker's url.
inline constexpr const char* kFactUrl = "url";
/// A fact that a child may tell: the queues of its ordered tasks, with commas between them.
inline constexpr const char* kFactOrdered = "ordered";

struct process_settings {
  std::vector<std::string> command;  ///< what a child is started by (children.hpp)
  std::uint32_t processes = 1;
  std::uint32_t threads = 1;  ///< of each
  std::uint32_t parked = 0;   ///< attempts of each that may go on without a thread
  std::string worker;         ///< in records
  std::string default_task;
  retry_policy retries;
  std::int32_t max_crashes = 3;
  std::uint64_t max_jobs_per_child = 0;   ///< a child that ran so many is replaced; 0: never
  std::uint64_t max_bytes_per_child = 0;  ///< a child that has more resident is replaced; 0: never
  std::chrono::milliseconds start_patience{60'000};
  std::chrono::milliseconds drain_patience{1'000};  ///< what a killed child's other lines get to end in
  std::chrono::milliseconds tick{100};
};

/// A child ended with exit code 2 before it was ready: what it was told to run is wrong, and it has said how.
class child_refused final : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class process_pool final : public pool {
 public:
  /// Throws std::runtime_error.
  explicit process_pool(process_settings settings);
  ~process_pool() override;

  /// Starts the children and waits until all are ready. Gives what the first one says of itself. Throws
  /// std::runtime_error if one ends before, with how; what it printed says why. The first is alone until it is ready,
  /// so that a mistake is said once.
  [[nodiscard]] child_description start();
  /// From here on the pool works, on `l`. All must outlive it. `tasks` are those that `start` gave.
  void attach(loop& l, const registry& tasks, log_sink& log, job_control& control);

  [[nodiscard]] std::uint32_t threads() const override {
    return settings_.processes * (settings_.threads + (defers_ ? settings_.parked : 0));
  }
  std::shared_ptr<work> run(delivery d, work::ended on_ended) override;
  std::shared_ptr<work> run_next(delivery d, work::ended on_ended) override;
  [[nodiscard]] std::atomic<bool>& stopping() override { return state_.header().stopping; }
  void cancel(std::string_view job_id) override;
  [[nodiscard]] bool kill_job(std::string_view job_id) override;
  /// Kills the children: nothing runs when it returns.
  [[nodiscard]] bool abandon() override;
  void stop() override;

  /// The children's process ids, without the quarantine's. For tests and people. Any thread.
  [[nodiscard]] std::vector<pid_t> pids() const;

 private:
  friend class process_work;
  using clock = loop::clock;

  // Lines that wait for a place in shared memory.
  struct waiting_lines {
    std::shared_ptr<process_work> owner;
    std::vector<std::uint32_t> which;  // empty: all
  };
  struct placed_block {
    std::shared_ptr<process_work> owner;  // null: abandoned
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    block_view view;
  };
  struct leaving_block {
    block_key key = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  struct child_record {
    bool running = false;
    std::uint32_t failures = 0;  // starts in a row that did not get ready
    // Being killed for some of its lines: since when; those over their time limit, those that somebody wished to end.
    std::optional<clock::time_point> killed_since;
    bool killed = false;
    std::vector<packed_line> over_limit;
    std::vector<packed_line> terminated;

    [[nodiscard]] bool is_killed_for(packed_line line) const noexcept;
  };
  // A job that is to be killed. It may just be starting, so it is looked for until it must have been seen.
  struct termination {
    std::string job;
    clock::time_point until;
  };

  // ---- the loop's ----
  void look();
  void drain();
  void tick();
  std::shared_ptr<work> run_in(std::uint32_t lane, delivery d, work::ended on_ended);
  void place(std::uint32_t lane);
  bool place_one(std::uint32_t lane, const waiting_lines& lines);
  void end_block(block_key key);
  void free_block(const leaving_block& block);
  [[nodiscard]] bool looked_at(block_key key) const noexcept;
  void ring(std::uint32_t lane, int sleepers) noexcept;
  void check_complete(block_key key, block_view view);

  void on_child_end(const child_end& end);
  [[nodiscard]] bool is_claiming_elsewhere(std::uint32_t child) const noexcept;
  [[nodiscard]] std::vector<packed_line> running_of(std::uint32_t child) const;
  void sort_out(const child_end& end, const std::map<block_key, std::uint32_t>& taken);
  void charge(const placed_block& block, std::uint32_t line, const child_end& end, bool over_limit);
  void end_terminated(const placed_block& block, std::uint32_t line, const child_end& end);
  void respawn(std::uint32_t child);
  void start_child(std::uint32_t child);
  void find_terminated();
  /// Lines that a child has taken and not started.
  [[nodiscard]] std::vector<packed_line> rests_of(std::uint32_t child) const;
  /// Takes the rest of a writer's run away, if it is of this block; gives it, or 0.
  packed_rest take_rest(std::uint32_t writer, block_key key) noexcept;
  void pass_on_rests();
  void check_limits();
  void check_recycling();
  /// Memory of a process that is its own alone.
  [[nodiscard]] static std::uint64_t resident_bytes(pid_t pid);
  [[nodiscard]] std::uint32_t quarantine() const noexcept { return settings_.processes; }

  const process_settings settings_;
  shared_state state_;
  arena arena_;
  std::vector<outcome_reader> readers_;

  loop* loop_ = nullptr;
  const registry* tasks_ = nullptr;
  log_sink* log_ = nullptr;
  job_control* control_ = nullptr;
  run_settings charging_;  // for the line_returner
  line_returner returner_;
  std::map<block_key, placed_block> placed_;
  std::deque<waiting_lines> waiting_[kLanes];
  std::vector<leaving_block> leaving_;
  std::vector<packed_rest> rests_seen_;  // of each writer, at the last tick
  std::vector<child_record> records_;
  std::vector<termination> terminations_;
  clock::time_point quarantine_used_{};
  loop::timer_id timer_ = 0;
  std::atomic<bool> closing_{false};
  bool defers_ = false;

  // ---- shared with the thread that watches the children ----
  std::mutex mutex_;  // a leaf
  std::condition_variable changed_;
  bool attached_ = false;
  std::vector<child_end> early_ends_;
  std::uint32_t alive_ = 0;

  std::unique_ptr<children> children_;  // last: its events use all of the above
};

}  // namespace leveret::core
