/// How a caller of the C ABI (leveret/library.h) wants jobs sent: the options, checked.
#pragma once

#include <leveret/library.h>

#include <optional>
#include <string>
#include <string_view>

#include "client.hpp"
#include "codec.hpp"

namespace leveret::core {

/// For one job, or for all of a batch.
class send_settings {
 public:
  /// Options of older headers are shorter: what they do not have counts as not said. Throws std::invalid_argument;
  /// unsupported for options of newer headers that say what is not known here.
  explicit send_settings(const leveret_send_options& options);

  [[nodiscard]] const std::string& task() const noexcept { return task_; }
  [[nodiscard]] bool ordered() const noexcept { return ordered_; }
  /// Whether jobs are to be there once: each needs a message of its own.
  [[nodiscard]] bool claims() const noexcept { return idempotency_key_ || to_.once.until != held_until::window; }
  /// Where jobs go, before their keys are asked for.
  [[nodiscard]] const envelope& to() const noexcept { return to_; }

  /// Throws std::invalid_argument if jobs are not ordered: a key would do nothing.
  void check_takes_key() const;
  /// Throws std::invalid_argument if one idempotency key is to serve many jobs.
  void check_many() const;

  /// Appends the job's line and a newline to `out`, checked as a worker will check it: a job that would be dead is not
  /// sent. Throws std::invalid_argument.
  void append_line(std::string& out, std::string_view args, std::string_view kwargs, line_codec& codec) const;
  /// The shard of an ordered job; `key` is its own, no data: the options' one. Throws std::invalid_argument.
  [[nodiscard]] std::uint32_t shard(leveret_string key) const;
  /// Where one job goes, and what it claims. `line` is what `append_line` made. Throws as `shard`, and for too long an
  /// idempotency key.
  [[nodiscard]] envelope place(leveret_string key, std::string_view line, line_codec& codec) const;

 private:
  std::string task_;
  std::optional<std::int32_t> max_retries_;
  envelope to_;
  bool ordered_ = false;
  std::optional<std::string> key_;
  std::optional<std::string> idempotency_key_;
};

}  // namespace leveret::core
