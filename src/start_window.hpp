/// How many messages of a queue a worker holds at once. Pure: times are passed in.
///
/// It starts at one message a thread, doubles with each settled message, and stays below what the worker ends in a
/// second, so that a worker with slow jobs leaves messages to others, and one with fast jobs is never without. After an
/// unclean end (a crash seen by its returned messages, a lost connection) it restarts at one, so that a crash loop
/// charges few.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace leveret::core {

class start_window {
 public:
  explicit start_window(std::uint32_t most, std::uint32_t threads = 1)
      : most_(std::max(most, 1u)), threads_(std::clamp(threads, 1u, most_)), grown_(threads_), cap_(most_) {}

  [[nodiscard]] std::uint32_t size() const noexcept { return std::min(grown_, cap_); }

  /// True: the size changed.
  bool unclean() noexcept {
    const std::uint32_t before = size();
    grown_ = 1;
    return size() != before;
  }

  /// A message of `lines` jobs ended `took` after the one before it, or after its arrival if that was later. True: the
  /// size changed.
  bool settled(std::uint32_t lines, std::chrono::duration<double> took) noexcept {
    const std::uint32_t before = size();
    grown_ = std::min(most_, grown_ * 2);
    mean(seconds_, std::max(took.count(), 1e-6));
    mean(lines_, static_cast<double>(std::max(lines, 1u)));
    const double in_a_second = 1.0 / seconds_;
    const double fills_threads = std::ceil(static_cast<double>(threads_) / lines_);
    const double cap = std::clamp(std::max(in_a_second, fills_threads), 1.0, static_cast<double>(most_));
    cap_ = static_cast<std::uint32_t>(cap);
    return size() != before;
  }

 private:
  static void mean(double& value, double sample) noexcept {
    value = value == 0 ? sample : value * 0.75 + sample * 0.25;
  }

  std::uint32_t most_;
  std::uint32_t threads_;
  std::uint32_t grown_;
  std::uint32_t cap_;
  double seconds_ = 0;  // a message, as it ends after the one before
  double lines_ = 0;    // a message
};

}  // namespace leveret::core
