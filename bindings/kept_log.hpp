/// Log lines of a worker in a Python program: kept until a thread of Python's fetches them, so that none of the core's
/// threads ever waits for the interpreter's lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "call_frame.hpp"

namespace leveret::bindings {

class kept_log final : public core::log_sink {
 public:
  struct entry {
    leveret_log_level level;
    std::string event;
    std::string job;
    std::string text;
  };
  static constexpr std::size_t kMost = 10'000;

  explicit kept_log(leveret_log_level least) : least_(least) {}

  void log(leveret_log_level level, std::string_view event, std::string_view job, std::string_view text) override {
    if (level < least_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (entries_.size() == kMost) {
      ++dropped_;
      return;
    }
    entries_.push_back({level, std::string(event), std::string(job), std::string(text)});
    changed_.notify_all();
  }
  /// What was logged since the last call; waits for the first up to `wait`, or for `wake`.
  std::vector<entry> take(std::chrono::milliseconds wait) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, wait, [this] { return !entries_.empty() || woken_; });
    woken_ = false;
    std::vector<entry> all(std::make_move_iterator(entries_.begin()), std::make_move_iterator(entries_.end()));
    entries_.clear();
    if (dropped_ > 0) {
      all.push_back(
          {LEVERET_WARNING, "log_lost", {}, std::to_string(dropped_) + " lines came faster than they were read"});
      dropped_ = 0;
    }
    return all;
  }
  void wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }

 private:
  const leveret_log_level least_;
  std::mutex mutex_;  // a leaf
  std::condition_variable changed_;
  std::deque<entry> entries_;
  std::size_t dropped_ = 0;
  bool woken_ = false;
};

}  // namespace leveret::bindings
