/// One attempt as the C ABI sees it: what `leveret_call*` points to. Made on a pool thread's stack, reused line after
/// line.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "codec.hpp"
#include "job_control.hpp"

namespace leveret::core {

/// Where handlers' log lines go. Thread-safe.
class log_sink {
 public:
  virtual ~log_sink() = default;
  /// `event` is a short snake_case name; `job` a job id or empty.
  virtual void log(leveret_log_level level, std::string_view event, std::string_view job, std::string_view text) = 0;
};

/// An attempt whose handler goes on after `call` returned, a coroutine for example. Handlers of this
/// library alone can do that; it is no part of the C ABI.
class pending_attempt {
 public:
  pending_attempt() = default;
  pending_attempt(const pending_attempt&) = delete;
  pending_attempt& operator=(const pending_attempt&) = delete;
  virtual ~pending_attempt() = default;

  /// Ends the attempt, once, from any thread. `result` is one JSON value or empty;
  /// `failure` and `delay_ms` are as the C ABI's `fail` takes them.
  virtual void finish(leveret_outcome outcome, std::string_view result, std::string_view failure,
                      std::int64_t delay_ms) = 0;
};

/// What lets the handler that runs now become a pending attempt.
class deferring {
 public:
  virtual ~deferring() = default;
  /// Inside `call`, at most once. What `call` returns then is ignored, and what it was given is gone afterwards.
  virtual std::unique_ptr<pending_attempt> defer() = 0;
};

}  // namespace leveret::core

/// Global, as the C ABI declares it.
struct leveret_call {
  const leveret::core::decoded_job* job = nullptr;
  std::string_view job_id;
  std::string_view queue;
  leveret::core::unix_ms deadline = 0;  ///< 0: none
  bool wants_result = true;             ///< false: a result would be dropped, so that it need not be written
  const std::atomic<bool>* stopping = nullptr;
  leveret::core::job_control* control = nullptr;  ///< may be null
  std::string_view reply;                         ///< of its message: where its sender hears of it
  leveret::core::log_sink* log = nullptr;
  leveret::core::deferring* deferring = nullptr;
  leveret::core::json_writer result;
  std::string failure;  ///< set by `fail`
  std::int64_t delay_ms = 0;
  std::deque<std::string> raws;  ///< texts handed out by `raw`, stable addresses

  void reset() {
    result.clear();
    failure.clear();
    delay_ms = 0;
    if (!raws.empty()) raws.clear();  // an empty deque's walk is not free
  }
};
