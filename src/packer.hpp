/// Packs lines into bodies of bounded size, cutting only between lines. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace leveret::core {

inline constexpr std::size_t kBatchBytes = 64u
                                           << 10;  ///< beyond this, larger messages gain nothing (limits of the broker)

struct packed {
  std::string lines;
  std::uint32_t jobs = 0;
};

class packer {
 public:
  explicit packer(std::size_t most_bytes = kBatchBytes, std::uint32_t most_jobs = UINT32_MAX)
      : most_bytes_(most_bytes), most_jobs_(most_jobs) {}

  /// Adds a line without its newline. A line longer than a batch gets a batch of its own.
  void add(std::string_view line) {
    if (done_.empty() || done_.back().jobs >= most_jobs_ ||
        (done_.back().jobs > 0 && done_.back().lines.size() + line.size() + 1 > most_bytes_)) {
      done_.emplace_back();
    }
    packed& last = done_.back();
    last.lines.append(line);
    last.lines.push_back('\n');
    ++last.jobs;
  }

  [[nodiscard]] std::vector<packed> take() { return std::exchange(done_, {}); }

 private:
  std::size_t most_bytes_;
  std::uint32_t most_jobs_;
  std::vector<packed> done_;
};

}  // namespace leveret::core
