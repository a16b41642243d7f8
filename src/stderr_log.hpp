/// Log lines on standard error: time, level, event, job, text. For programs; the core itself only knows `log_sink`.
#pragma once

#include <string>

#include "call_frame.hpp"

namespace leveret::core {

class stderr_log final : public log_sink {
 public:
  /// `level`: debug, info, warning or error. `format`: text, or json for one JSON object a line (ts, level, event, job,
  /// text). Throws std::invalid_argument for another word.
  explicit stderr_log(const std::string& level, const std::string& format = "text");
  void log(leveret_log_level level, std::string_view event, std::string_view job, std::string_view text) override;

 private:
  leveret_log_level least_ = LEVERET_INFO;
  bool json_ = false;
};

/// The number of a level's name. Throws std::invalid_argument for another word.
[[nodiscard]] leveret_log_level log_level_of(const std::string& name);

}  // namespace leveret::core
