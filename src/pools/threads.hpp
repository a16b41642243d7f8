/// A pool of threads in this process. Handlers run on them; nothing else does.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "../attempt.hpp"
#include "../pool.hpp"
#include "thread_work.hpp"

namespace leveret::core {

/// Runs the line that `w.take` gave `thread`.
void run_line(attempt_runner& runner, const std::shared_ptr<thread_work>& w, std::uint32_t thread, std::uint32_t line);
/// Runs lines of `w` on this thread until there is none left to start.
void run_lines(attempt_runner& runner, const std::shared_ptr<thread_work>& w, std::uint32_t thread);

class thread_pool final : public pool {
 public:
  /// Starts `threads` threads. `settings` and `l` must outlive the pool.
  thread_pool(std::uint32_t threads, run_settings& settings, loop& l);
  ~thread_pool() override;

  [[nodiscard]] std::uint32_t threads() const override { return count_; }
  std::shared_ptr<work> run(delivery d, work::ended on_ended) override;
  std::shared_ptr<work> run_next(delivery d, work::ended on_ended) override;
  [[nodiscard]] std::atomic<bool>& stopping() override { return settings_.stopping; }
  [[nodiscard]] bool abandon() override { return false; }  // a thread can't be ended from outside
  void stop() override;

 private:
  std::shared_ptr<work> add(std::shared_ptr<thread_work> w, bool first);
  [[nodiscard]] bool must_wake();
  void serve(std::uint32_t thread);
  std::shared_ptr<thread_work> next(const std::shared_ptr<thread_work>& exhausted, attempt_runner& runner);

  const std::uint32_t count_;
  run_settings& settings_;
  loop& loop_;
  std::mutex mutex_;  // guards what follows; taken once a message and thread, never while a handler runs
  std::condition_variable changed_;
  std::deque<std::shared_ptr<thread_work>> works_;  // the front one is being started; all threads share it
  std::uint32_t idle_ = 0;                          // threads that wait
  bool waking_ = false;                             // one of them was notified, and has not looked yet
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace leveret::core
