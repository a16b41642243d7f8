/// Runs one line: decode, find the task, call the handler, say what came of it. Knows neither pools nor deliveries: a
/// pool gives lines and takes outcomes through `outcome_sink`.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "call_frame.hpp"
#include "codec.hpp"
#include "job_control.hpp"
#include "loop.hpp"
#include "message.hpp"
#include "registry.hpp"
#include "retry.hpp"

namespace leveret::core {

/// What all attempts of a worker share. Read-only while the pool runs, except `stopping`.
struct run_settings {
  const registry* tasks = nullptr;
  std::string default_task;  ///< gets foreign objects; empty: they are dead
  retry_policy retries;
  job_control* control = nullptr;  ///< null: nothing is ever cancelled, and nobody hears of progress
  std::string worker;              ///< the worker's name in records
  std::chrono::milliseconds unknown_task_patience{600'000};
  log_sink* log = nullptr;
  std::atomic<bool> stopping{false};
  /// What handlers see of it; in a child process it is the I/O process's.
  const std::atomic<bool>* stop_flag = &stopping;
};

inline constexpr std::size_t kMaxResultBytes = 1u << 20;

enum class line_fate : std::uint8_t {
  retry,        ///< published again after a backoff
  retry_after,  ///< published again after `delay`
  put_back,     ///< no worker here knows the task: published again uncharged
  expired,      ///< ended unrun: its time was over
  cancelled,    ///< ended unrun, as somebody wished
  dead
};

/// A line that did not succeed.
struct failed_line {
  line_fate fate = line_fate::dead;
  std::uint32_t next_retry_count = 0;
  std::chrono::milliseconds delay{0};
  std::string id;      ///< job id
  std::string text;    ///< the next publication's line, or the dead record
  std::string reason;  ///< for the log; dead only
  std::string error;
};

/// How a job is known: by its id, and to its sender by its first message and the line there.
struct job_identity {
  std::string_view id;
  std::string_view result_id;
  std::uint32_t result_line = 0;
};

/// What the lines of one message share. The views live until the last of them has ended.
struct message_view {
  std::string_view id;
  std::string_view queue;
  unix_ms unknown_since = 0;  ///< when a worker first did not know a task of it; 0: never
  bool wants_results = true;
  std::string_view reply;  ///< where its sender hears of it; empty: nowhere
};
[[nodiscard]] message_view view_of(const message& m);

/// Where the outcome of the line goes that a thread runs. Exactly one of its functions is called, once.
class outcome_sink {
 public:
  outcome_sink() = default;
  outcome_sink(const outcome_sink&) = delete;
  outcome_sink& operator=(const outcome_sink&) = delete;
  virtual ~outcome_sink() = default;

  /// `json` is the result, empty for none; who wants no results drops it.
  virtual void succeeded(const job_identity& who, std::string_view json) = 0;
  /// `dead_reason` and `attempts` count for dead lines.
  virtual void failed(const job_identity& who, failed_line failure, std::string_view dead_reason,
                      std::uint32_t attempts) = 0;
  /// The handler that is called next must end within this time. Who can end it by force notes that.
  virtual void limit(std::chrono::milliseconds) {}
  /// The line goes on without its thread: the outcome will go to the sink returned, from any thread.
  virtual std::unique_ptr<outcome_sink> park() = 0;
};

/// Runs lines on one thread. Not thread-safe: one a thread, made and destroyed on it.
class attempt_runner final : deferring {
 public:
  /// `l` gives the time. `settings` and `l` must outlive the runner and every attempt that it deferred.
  attempt_runner(const run_settings& settings, const loop& l);
  ~attempt_runner() override;
  attempt_runner(const attempt_runner&) = delete;
  attempt_runner& operator=(const attempt_runner&) = delete;

  /// The lines that are run next are of `m`, whose views outlive them.
  void begin(const message_view& m);
  /// Runs line `index` (from 0) of the message begun; its outcome goes to `sink`, before this returns unless the
  /// handler deferred it. At least body::kPadding readable bytes must follow `line`.
  void run(std::string_view line, std::uint32_t index, outcome_sink& sink);
  /// Leaves the context of the tasks run last: the thread is about to wait.
  void rest();
  /// Whether the thread is inside a context of handlers (an interpreter, whose lock it takes again for each).
  [[nodiscard]] bool is_inside() const noexcept { return inside_ != nullptr; }

 private:
  [[nodiscard]] std::string_view id_of(std::uint32_t number);
  [[nodiscard]] struct running_attempt current() const;
  [[nodiscard]] std::string_view task_name() const;
  void run_task(outcome_sink& sink);
  void* handler_of(const registered_task& task);
  void enter(handler_context* context);
  std::unique_ptr<pending_attempt> defer() override;

  const run_settings& settings_;
  const loop& loop_;
  line_codec codec_;
  decoded_job job_;
  refused_line refused_;
  leveret_call frame_;
  message_view message_;  // begun last
  job_identity who_;      // of the line that is run, or was run last; as the next three
  std::string_view line_;
  const registered_task* task_ = nullptr;  // null: unknown
  std::uint64_t task_number_ = 0;          // the decoded job's
  std::string id_;                         // of the line, by its place; room for any number behind its message's
  std::size_t id_size_ = 0;                // of what counts of it; 0: none of this message
  std::uint32_t id_number_ = 0;            // that it ends with
  std::string own_id_;                     // of a line that has one
  std::vector<void*> own_;                 // per-thread handlers by task index
  handler_context* inside_ = nullptr;
  std::vector<handler_context*> entered_;  // all that this thread was ever in
  outcome_sink* sink_ = nullptr;           // while a handler runs
};

/// Rewrites a line that was not run for a message of its own: explicit id, retry count unchanged. A line that the codec
/// refuses comes back as a dead record instead, since its id would be lost.
class line_returner {
 public:
  struct returned {
    bool dead = false;
    std::string id;
    std::string task;
    std::string text;  ///< the line, or the dead record
    std::string error;
    const char* reason = "";  ///< dead only
  };
  [[nodiscard]] returned give_back(const message& m, std::string_view line, std::uint32_t index);
  /// The dead record of a job that took its worker down too often.
  [[nodiscard]] returned crashed(const message& m, std::string_view line, std::uint32_t index, std::int32_t crashes);

  /// The dead record of a job of a message that is refused as a whole.
  [[nodiscard]] returned refused(const message& m, std::string_view line, std::uint32_t index,
                                 const refused_delivery& why);

  /// Which job the line is. The views live until the next call.
  [[nodiscard]] job_identity identify(const message& m, std::string_view line, std::uint32_t index);

  struct charged {
    failed_line failure;
    job_identity who;  ///< its views live until the next call
    std::string_view dead_reason;
    std::uint32_t attempts = 0;
  };
  /// An attempt whose process ended: it counts as one that failed. `reason` is kReasonCrashed or kReasonTimeLimit, for
  /// a job that is dead then: it may not be retried, or has crashed `max_crashes` times. `error` is for the records.
  [[nodiscard]] charged charge(const message& m, std::string_view line, std::uint32_t index, const char* reason,
                               std::string_view error, const run_settings& settings, std::int32_t max_crashes,
                               unix_ms now);

 private:
  line_codec codec_;
  decoded_job job_;
  std::string id_;
  bool readable_ = false;  // the line that `identify` saw last
};

/// The queue a message was sent to first: a suspects queue's base.
[[nodiscard]] std::string base_queue(const std::string& queue);

}  // namespace leveret::core
