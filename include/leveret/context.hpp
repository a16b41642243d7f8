/// What a handler can know about the job that it runs.
#pragma once

#include <leveret/abi.h>

#include <chrono>
#include <cstdint>
#include <leveret/version.hpp>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

enum class log_level : int {
  debug = LEVERET_DEBUG,
  info = LEVERET_INFO,
  warning = LEVERET_WARNING,
  error = LEVERET_ERROR
};

/// The attempt being run. A handler gets it by taking `leveret::context&` as its first parameter. Valid until the
/// handler returns, on the handler's thread; so are the views it gives.
class context {
 public:
  context(const leveret_host* host, leveret_call* call) noexcept : host_(host), call_(call) {}
  context(const context&) = delete;
  context& operator=(const context&) = delete;

  [[nodiscard]] std::string_view job_id() const { return view(host_->job_id(call_)); }
  [[nodiscard]] std::string_view task() const { return view(host_->task_name(call_)); }
  [[nodiscard]] std::string_view queue() const { return view(host_->queue(call_)); }
  /// How often this job was retried before: 0 in its first attempt.
  [[nodiscard]] std::uint32_t retry_count() const { return host_->retry_count(call_); }
  /// When the attempt should have ended, if the job says so. Nothing enforces it.
  [[nodiscard]] std::optional<std::chrono::system_clock::time_point> deadline() const {
    const std::int64_t ms = host_->deadline_ms(call_);
    if (ms == 0) return std::nullopt;
    return std::chrono::system_clock::time_point(std::chrono::milliseconds(ms));
  }
  /// Whether the worker was asked to stop. A long handler looks at it and ends early, by retry_after for example.
  [[nodiscard]] bool stopping() const { return host_->stopping(call_) != 0; }
  /// Whether somebody cancelled the job. A long handler looks at it and ends early; the job ends as its handler does.
  [[nodiscard]] bool cancelled() const { return host_->cancelled(call_) != 0; }

  /// Says how far the job is; its sender reads it (`job.progress()` in Python). Cheap: the latest of each 100 ms is
  /// told on, and may be lost when the worker crashes.
  ///
  /// `fraction`: from 0 to 1, or none where nobody knows. `text`: for people, UTF-8, up to 1,000 bytes. Throws
  /// std::invalid_argument for others.
  void set_progress(std::optional<double> fraction, std::string_view text = {}) const {
    if ((fraction && !(*fraction >= 0)) || text.size() > kLongestProgressText ||
        host_->set_progress(call_, fraction ? *fraction : -1.0, text.data(), text.size()) == 0) {
      throw std::invalid_argument(
          "cannot tell the job's progress: the fraction must be from 0 to 1, the text UTF-8 of at most 1,000 bytes");
    }
  }

  /// Writes a line to the worker's log, with the job's id. `text` is UTF-8.
  void log(log_level level, std::string_view text) const {
    host_->log(call_, static_cast<leveret_log_level>(level), text.data(), text.size());
  }
  void log(std::string_view text) const { log(log_level::info, text); }

 private:
  static constexpr std::size_t kLongestProgressText = 1000;

  static std::string_view view(leveret_string text) noexcept { return {text.data, text.size}; }

  const leveret_host* host_;
  leveret_call* call_;
};

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
