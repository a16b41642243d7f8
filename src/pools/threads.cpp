#include "threads.hpp"

#include <csignal>
#include <utility>

namespace leveret::core {

namespace {

/// A parked line's way to its work. Keeps the work: its line is still read.
class parked_line final : public outcome_sink {
 public:
  parked_line(std::shared_ptr<thread_work> w, std::uint32_t line) : work_(std::move(w)), line_(line) {}

  void succeeded(const job_identity& who, std::string_view json) override {
    work_->parked_succeeded(line_, work_->wants_results() ? &who.result_id : nullptr, who.result_line, json);
  }
  void failed(const job_identity& who, failed_line failure, std::string_view dead_reason,
              std::uint32_t attempts) override {
    work_->parked_failed(line_, std::move(failure), who.result_id, who.result_line, dead_reason, attempts);
  }
  std::unique_ptr<outcome_sink> park() override { return nullptr; }  // it is parked

 private:
  std::shared_ptr<thread_work> work_;
  std::uint32_t line_;
};

/// The line that a thread runs.
class thread_line final : public outcome_sink {
 public:
  thread_line(const std::shared_ptr<thread_work>& w, std::uint32_t thread)
      : work_(w), wants_results_(w->wants_results()), thread_(thread) {}

  void succeeded(const job_identity& who, std::string_view json) override {
    if (wants_results_) {
      work_->succeeded(thread_, who.result_id, who.result_line, json);
    } else {
      work_->succeeded(thread_);
    }
  }
  void failed(const job_identity& who, failed_line failure, std::string_view dead_reason,
              std::uint32_t attempts) override {
    work_->failed(thread_, std::move(failure), who.result_id, who.result_line, dead_reason, attempts);
  }
  std::unique_ptr<outcome_sink> park() override { return std::make_unique<parked_line>(work_, work_->park(thread_)); }

 private:
  const std::shared_ptr<thread_work>& work_;
  bool wants_results_;
  std::uint32_t thread_;
};

}  // namespace

void run_line(attempt_runner& runner, const std::shared_ptr<thread_work>& w, std::uint32_t thread, std::uint32_t line) {
  thread_line sink(w, thread);
  runner.begin(view_of(w->what().msg));
  runner.run(w->line(line), line, sink);
}

void run_lines(attempt_runner& runner, const std::shared_ptr<thread_work>& w, std::uint32_t thread) {
  runner.begin(view_of(w->what().msg));
  thread_line sink(w, thread);
  std::uint32_t line = 0;
  while (w->take(thread, line, runner.is_inside())) runner.run(w->line(line), line, sink);
  w->leave(thread);
}

thread_pool::thread_pool(std::uint32_t threads, run_settings& settings, loop& l)
    : count_(threads), settings_(settings), loop_(l) {
  // Signals meant for the program must not interrupt handlers: the threads inherit a full mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  threads_.reserve(count_);
  for (std::uint32_t i = 0; i < count_; ++i) threads_.emplace_back([this, i] { serve(i); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

thread_pool::~thread_pool() { stop(); }

std::shared_ptr<work> thread_pool::run(delivery d, work::ended on_ended) {
  return add(std::make_shared<thread_work>(std::move(d), count_, loop_, std::move(on_ended)), false);
}

std::shared_ptr<work> thread_pool::run_next(delivery d, work::ended on_ended) {
  return add(std::make_shared<thread_work>(std::move(d), count_, loop_, std::move(on_ended)), true);
}

std::shared_ptr<work> thread_pool::add(std::shared_ptr<thread_work> w, bool first) {
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first ? works_.push_front(w) : works_.push_back(w);
    wake = must_wake();
  }
  if (wake) changed_.notify_one();
  return w;
}

// Whether to wake another thread. One at a time: it looks again when it has taken its work. So what comes in a burst
// costs one call of the system, and not one each.
bool thread_pool::must_wake() { return !works_.empty() && idle_ > 0 && !std::exchange(waking_, true); }

std::shared_ptr<thread_work> thread_pool::next(const std::shared_ptr<thread_work>& exhausted, attempt_runner& runner) {
  std::unique_lock<std::mutex> lock(mutex_);
  // The first thread to find a work's lines all started takes it off; the others already see the one behind it.
  if (exhausted && !works_.empty() && works_.front() == exhausted) works_.pop_front();
  if (!stopping_ && works_.empty()) {
    lock.unlock();
    runner.rest();  // it may take locks of others
    // Short jobs end sooner than the loop brings the next: where all processors are busy it does that now, and the
    // thread need not sleep and be woken for each few.
    std::this_thread::yield();
    lock.lock();
    ++idle_;
    while (!stopping_ && works_.empty()) {
      changed_.wait(lock);
      waking_ = false;  // also when another thread was faster
    }
    --idle_;
  }
  if (works_.empty()) return nullptr;
  std::shared_ptr<thread_work> taken = works_.front();
  if (taken->lines() == 1) works_.pop_front();  // a thread's alone
  const bool wake = must_wake();
  lock.unlock();
  if (wake) changed_.notify_one();
  return taken;
}

void thread_pool::serve(std::uint32_t thread) {
  attempt_runner runner(settings_, loop_);
  std::shared_ptr<thread_work> current;
  while ((current = next(current, runner)) != nullptr) {
    run_lines(runner, current, thread);
    if (current->lines() == 1) current = nullptr;  // freed where it was made, mostly
  }
}

void thread_pool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& t : threads_) {
    if (t.joinable()) t.join();
  }
}

}  // namespace leveret::core
