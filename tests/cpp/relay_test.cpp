/// Threads that are woken one after another, on a loop whose time the test moves.
#include "relay.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "manual_loop.hpp"

using namespace leveret::core;
using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

/// Threads that wait, each for an answer of its own; made, they are all about to sleep.
class crowd {
 public:
  crowd(relay& r, std::size_t threads) : runners(threads) {
    for (relay::runner& each : runners) {
      waits_.push_back(std::async(std::launch::async, [this, &r, &each] {
        ++there_;
        r.wait(each);
      }));
    }
    while (there_ < threads) std::this_thread::yield();
  }

  /// Whether all have been woken.
  bool gone() {
    return std::all_of(waits_.begin(), waits_.end(), [](std::future<void>& each) {
      return each.wait_for(std::chrono::seconds(30)) == std::future_status::ready;
    });
  }

  std::deque<relay::runner> runners;

 private:
  std::atomic<std::size_t> there_{0};
  std::vector<std::future<void>> waits_;
};

}  // namespace

TEST(relay, who_comes_when_the_answer_is_there_does_not_sleep) {
  manual_loop loop;
  relay r(loop);
  relay::runner first;
  relay::runner second;
  r.answered(first);   // to be woken
  r.answered(second);  // behind it
  r.wait(second);
  r.wait(first);
}

TEST(relay, each_wakes_the_next_without_the_loop) {
  manual_loop loop;  // which never runs
  relay r(loop);
  for (int times = 0; times < 20; ++times) {
    crowd threads(r, 4);
    relay::runner first;
    r.answered(first);  // woken, so that all others are behind it
    for (relay::runner& each : threads.runners) r.answered(each);
    r.wait(first);
    ASSERT_TRUE(threads.gone());
  }
}

TEST(relay, who_is_woken_and_does_not_run_holds_up_nobody_for_long) {
  manual_loop loop;
  relay r(loop);
  for (int times = 0; times < 20; ++times) {
    crowd threads(r, 4);
    relay::runner stuck;
    r.answered(stuck);  // woken, and no thread of it runs
    for (relay::runner& each : threads.runners) r.answered(each);
    loop.advance(milliseconds(1));
    ASSERT_TRUE(threads.gone());
    r.wait(stuck);
  }
}

TEST(relay, it_watches_for_as_long_as_somebody_is_to_be_woken) {
  manual_loop loop;
  relay r(loop);
  crowd threads(r, 4);
  relay::runner first;
  relay::runner second;
  r.answered(first);
  r.answered(second);
  loop.advance(microseconds(600));
  r.wait(first);  // which wakes the second, and no thread of that runs
  for (relay::runner& each : threads.runners) r.answered(each);
  loop.advance(microseconds(600));  // the first look: the second was woken just now
  loop.advance(milliseconds(1));
  EXPECT_TRUE(threads.gone());
  r.wait(second);
}

TEST(relay, threads_that_wait_again_and_again_all_get_their_answers) {
  constexpr int kThreads = 8;
  constexpr int kTimes = 2000;
  manual_loop loop;
  relay r(loop);
  std::mutex mutex;
  std::vector<relay::runner*> asked;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kTimes; ++n) {
        relay::runner mine;
        {
          const std::lock_guard<std::mutex> lock(mutex);
          asked.push_back(&mine);
        }
        r.wait(mine);
      }
    });
  }
  for (int answers = 0; answers < kThreads * kTimes;) {
    std::vector<relay::runner*> now;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      now.swap(asked);
    }
    for (relay::runner* each : now) r.answered(*each);
    answers += static_cast<int>(now.size());
    loop.advance(milliseconds(1));
  }
  for (std::thread& each : threads) each.join();
}
