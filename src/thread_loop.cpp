#include "thread_loop.hpp"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "signals_blocked.hpp"
#include "wall_clock.hpp"

namespace leveret::core {
namespace {

// Which loop the current thread is, if any: one comparison instead of a lock in on_loop().
thread_local const thread_loop* current_loop = nullptr;

}  // namespace

thread_loop::thread_loop(const std::string& name) {
  const signals_blocked blocked;
  thread_ = std::thread([this, name] { run(name); });
}

thread_loop::~thread_loop() {
  stop();
  // A task may have run, and its effect have led here, before who posted it has notified.
  while (notifying_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

void thread_loop::post(task t) {
  std::unique_lock lock(mutex_);
  if (ended_) return;
  posted_.push_back(std::move(t));
  wake(lock);
}

// Whoever runs a task as this loop looks at its end whether something came meanwhile.
void thread_loop::wake(std::unique_lock<std::mutex>& lock) {
  if (!sleeping_ || lent_) return;
  sleeping_ = false;
  notify(lock);
}

// Without the lock: on the same processor the thread that is woken runs at once, and would wait for it.
void thread_loop::notify(std::unique_lock<std::mutex>& lock) {
  notifying_.fetch_add(1, std::memory_order_relaxed);
  lock.unlock();
  wake_.notify_one();
  notifying_.fetch_sub(1, std::memory_order_release);
}

void thread_loop::post_or_run(task t) {
  {
    std::unique_lock lock(mutex_);
    if (ended_) return;
    if (!sleeping_ || lent_ || stopping_ || !posted_.empty()) {
      posted_.push_back(std::move(t));
      wake(lock);
      return;
    }
    lent_ = true;
  }
  const thread_loop* const own = std::exchange(current_loop, this);
  t();
  t = nullptr;
  current_loop = own;
  std::unique_lock lock(mutex_);
  lent_ = false;
  if (!sleeping_) {
    notify(lock);  // it woke meanwhile, and waits for the end of this
  } else if (!posted_.empty() || stopping_ || next_timer() < sleeps_until_) {
    wake(lock);
  }
}

loop::timer_id thread_loop::at(clock::time_point when, task t) {
  std::unique_lock lock(mutex_);
  const timer_id id = ++last_timer_;
  if (ended_) return id;
  const auto place = timers_.emplace(timer_key{when, id}, std::move(t)).first;
  timer_times_.emplace(id, when);
  if (place == timers_.begin()) wake(lock);
  return id;
}

loop::clock::time_point thread_loop::next_timer() const {
  return timers_.empty() ? clock::time_point::max() : timers_.begin()->first.first;
}

void thread_loop::cancel(timer_id id) {
  task forgotten;  // destroyed without the lock: what it owns may call the loop
  const std::lock_guard lock(mutex_);
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  const auto timer = timers_.find(timer_key{found->second, id});
  forgotten = std::move(timer->second);
  timers_.erase(timer);
  timer_times_.erase(found);
}

unix_ms thread_loop::wall() const { return wall_clock_now(); }

bool thread_loop::on_loop() const { return current_loop == this; }

void thread_loop::stop() {
  if (on_loop()) {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    return;
  }
  const std::lock_guard joining(join_mutex_);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    sleeping_ = false;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

thread_loop::due_bound thread_loop::due_now() {
  const std::lock_guard lock(mutex_);
  return {clock::now(), last_timer_};
}

bool thread_loop::take_due(const due_bound& bound, task& out) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || timers_.empty()) return false;
  const auto first = timers_.begin();
  const auto [when, id] = first->first;
  if (when > bound.time || id > bound.newest) return false;
  out = std::move(first->second);
  timers_.erase(first);
  timer_times_.erase(id);
  return true;
}

void thread_loop::run(const std::string& name) {
  current_loop = this;
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  std::vector<task> batch;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      while (lent_ || (posted_.empty() && !stopping_)) {
        if (!lent_ && !timers_.empty() && timers_.begin()->first.first <= clock::now()) break;
        sleeping_ = !lent_;
        sleeps_until_ = next_timer();
        if (lent_ || timers_.empty()) {
          wake_.wait(lock);
        } else {
          // Copied: the wait gives up the lock, and the timer may be cancelled meanwhile.
          const clock::time_point until = sleeps_until_;
          wake_.wait_until(lock, until);
        }
        sleeping_ = false;
      }
      if (posted_.empty() && stopping_) {
        ended_ = true;
        break;
      }
      batch.swap(posted_);
    }
    for (task& t : batch) {
      t();
      t = nullptr;  // what a task owns ends with it, not with the batch
    }
    batch.clear();
    // Each timer is taken on its own, so that the one before can cancel it.
    task due;
    const due_bound bound = due_now();
    while (take_due(bound, due)) {
      due();
      due = nullptr;
    }
  }
  // Destroyed here and without the lock: what a timer owns may call the loop.
  std::map<timer_key, task> forgotten;
  {
    const std::lock_guard lock(mutex_);
    forgotten.swap(timers_);
    timer_times_.clear();
  }
  forgotten.clear();
  current_loop = nullptr;
}

}  // namespace leveret::core
