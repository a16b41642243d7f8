#include "relay.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

namespace leveret::core {
namespace {

constexpr std::chrono::milliseconds kLongestWaking{1};

}  // namespace

relay::runner::runner() { ::sem_init(&wake_, 0, 0); }
relay::runner::~runner() { ::sem_destroy(&wake_); }

void relay::answered(runner& r) {
  runner* first = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    r.state_ = runner::state::answered;
    next_.push_back(&r);
    if (!waking_) {
      first = take_next();
    } else if (!watching_) {
      watch();
    }
  }
  wake(first);
}

void relay::wait(runner& r) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (r.state_ == runner::state::answered) {  // it runs, and need not be woken
      next_.erase(std::find(next_.begin(), next_.end(), &r));
      return;
    }
  }
  while (::sem_wait(&r.wake_) != 0) {  // a signal's handler ran
  }
  runner* behind = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waking_ = false;
    if (!next_.empty()) behind = take_next();
  }
  wake(behind);
}

relay::runner* relay::take_next() {
  runner* const r = next_.front();
  next_.pop_front();
  waking_ = true;
  woken_ = loop_.now();
  r->state_ = runner::state::woken;
  return r;
}

void relay::wake(runner* r) {
  if (r != nullptr) ::sem_post(&r->wake_);
}

void relay::watch() {
  watching_ = true;
  loop_.after(kLongestWaking, [this] {
    std::vector<runner*> late;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      watching_ = false;
      if (next_.empty()) return;
      if (loop_.now() - woken_ < kLongestWaking) {
        watch();
        return;
      }
      while (!next_.empty()) late.push_back(take_next());
    }
    for (runner* each : late) wake(each);
  });
}

}  // namespace leveret::core
