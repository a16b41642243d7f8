/// What running jobs ask of their worker, and tell it.
#pragma once

#include <string>
#include <string_view>

namespace leveret::core {

/// Thread-safe; outlives every attempt. `none` knows nothing and hears nothing.
class job_control {
 public:
  job_control() = default;
  job_control(const job_control&) = delete;
  job_control& operator=(const job_control&) = delete;
  virtual ~job_control() = default;

  /// Whether somebody wishes that the job ends: asked before it starts, which it then doesn't, and by its handler.
  /// Cheap as long as nothing was ever cancelled.
  [[nodiscard]] virtual bool is_cancelled(std::string_view job_id) const = 0;
  /// How far a job is. `body` is a JSON object; `reply` its message's reply address.
  virtual void progress(std::string_view job_id, std::string_view reply, std::string_view body) = 0;
};

}  // namespace leveret::core
