/// What a worker tells about itself every few seconds, for `leveret inspect workers` and `leveret top`.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "codec.hpp"
#include "loop.hpp"
#include "settling.hpp"

namespace leveret::core {

/// How often, and how long it counts: a worker that is gone without a word is known for so long.
inline constexpr std::chrono::milliseconds kReportEvery{5'000};
inline constexpr std::chrono::milliseconds kReportTtl{15'000};
/// Running jobs that a report names, at most.
inline constexpr std::size_t kReportedJobs = 100;

struct running_job {
  std::string id;
  std::string task;
  unix_ms since = 0;  ///< when its message was delivered
};

struct worker_facts {
  std::string name;
  std::vector<std::string> queues;
  std::string tasks;  ///< names, comma-separated
  std::uint32_t threads = 0;
  unix_ms started = 0;
  bool stopping = false;
  tally counts;
  std::vector<running_job> running;
};

/// One JSON object; its schema is in docs/cli.md (`leveret inspect workers --json`).
[[nodiscard]] std::string worker_report(const worker_facts& facts);

/// The job that a line is, for people: its id and task as far as they can be read.
class line_reader {
 public:
  /// At least body::kPadding readable bytes must follow `line`.
  [[nodiscard]] running_job read(const std::string& message_id, std::string_view line, std::uint32_t index);

 private:
  line_codec codec_;
};

}  // namespace leveret::core
