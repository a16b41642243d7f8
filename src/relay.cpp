#include "relay.hpp"

#include <algorithm>
#include <chrono>

namespace leveret::core {
namespace {

constexpr std::chrono::milliseconds kLongestWaking{1};

}  // namespace

void relay::answered(runner& r) {
  const std::lock_guard<std::mutex> lock(mutex_);
  r.state_ = runner::state::answered;
  next_.push_back(&r);
  if (!waking_) {
    wake_next();
  } else if (!watching_) {
    watch();
  }
}

void relay::wait(runner& r) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (r.state_ == runner::state::answered) {  // it runs, and need not be woken
    next_.erase(std::find(next_.begin(), next_.end(), &r));
    return;
  }
  r.wake_.wait(lock, [&r] { return r.state_ == runner::state::woken; });
  waking_ = false;
  if (!next_.empty()) wake_next();
}

void relay::wake_next() {
  runner& r = *next_.front();
  next_.pop_front();
  waking_ = true;
  woken_ = loop_.now();
  r.state_ = runner::state::woken;
  r.wake_.notify_one();  // under the lock: without it the runner could be gone by now
}

void relay::watch() {
  watching_ = true;
  loop_.after(kLongestWaking, [this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    watching_ = false;
    if (next_.empty()) return;
    if (loop_.now() - woken_ < kLongestWaking) {
      watch();
      return;
    }
    while (!next_.empty()) wake_next();
  });
}

}  // namespace leveret::core
