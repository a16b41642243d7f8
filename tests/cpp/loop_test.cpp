// The two loops: what every user of the seam relies on, and what each promises beyond it.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "manual_loop.hpp"
#include "thread_loop.hpp"

namespace leveret::core {
namespace {

using namespace std::chrono_literals;
constexpr auto kDeadline = 120s;

// Fails instead of hanging when something never happens.
template <class T>
T get(std::future<T> f) {
  if (f.wait_for(kDeadline) != std::future_status::ready) throw std::runtime_error("it did not happen in time");
  return f.get();
}

// Waits until everything posted so far has run.
void drain(loop& l) {
  std::promise<void> done;
  l.post([&] { done.set_value(); });
  get(done.get_future());
}

TEST(thread_loop, runs_posts_in_the_order_posted) {
  thread_loop l;
  std::vector<int> seen;
  for (int i = 0; i < 10'000; ++i) l.post([&seen, i] { seen.push_back(i); });
  drain(l);
  ASSERT_EQ(seen.size(), 10'000u);
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(thread_loop, runs_every_post_of_many_threads_and_each_threads_in_order) {
  constexpr int kThreads = 4;
  constexpr int kPosts = 20'000;
  thread_loop l;
  std::vector<std::vector<int>> seen(kThreads);
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) l.post([&seen, t, i] { seen[static_cast<std::size_t>(t)].push_back(i); });
    });
  }
  for (std::thread& t : threads) t.join();
  drain(l);
  for (const std::vector<int>& each : seen) {
    ASSERT_EQ(each.size(), static_cast<std::size_t>(kPosts));
    for (int i = 0; i < kPosts; ++i) ASSERT_EQ(each[static_cast<std::size_t>(i)], i);
  }
}

TEST(thread_loop, wakes_for_a_post_after_it_slept) {
  // Each round the loop goes to sleep, or is about to: a lost notification shows as a round that never ends.
  thread_loop l;
  for (int i = 0; i < 5'000; ++i) drain(l);
}

TEST(thread_loop, knows_its_own_thread) {
  thread_loop l;
  thread_loop other;
  EXPECT_FALSE(l.on_loop());
  std::promise<std::pair<bool, bool>> inside;
  l.post([&] { inside.set_value({l.on_loop(), other.on_loop()}); });
  EXPECT_EQ(get(inside.get_future()), std::make_pair(true, false));
}

TEST(thread_loop, runs_timers_by_time_then_by_the_order_made) {
  thread_loop l;
  std::vector<int> seen;
  std::promise<void> last;
  const auto start = l.now();
  l.post([&] {  // made on the loop, so that none can run before all are there
    l.at(start + 30ms, [&] { seen.push_back(4), last.set_value(); });
    l.at(start + 20ms, [&] { seen.push_back(2); });
    l.at(start + 20ms, [&] { seen.push_back(3); });
    l.at(start + 10ms, [&] { seen.push_back(1); });
  });
  get(last.get_future());
  drain(l);
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3, 4}));
  EXPECT_GE(l.now() - start, 30ms);
}

TEST(thread_loop, a_timer_never_runs_early) {
  thread_loop l;
  const auto when = l.now() + 25ms;
  std::promise<loop::clock::time_point> ran;
  l.at(when, [&] { ran.set_value(l.now()); });
  EXPECT_GE(get(ran.get_future()), when);
}

TEST(thread_loop, an_earlier_timer_shortens_the_sleep) {
  thread_loop l;
  drain(l);
  l.after(1h, [] {});
  std::promise<void> early;
  l.after(5ms, [&] { early.set_value(); });
  get(early.get_future());
}

TEST(thread_loop, a_timer_cancelled_on_the_loop_does_not_run) {
  thread_loop l;
  std::atomic<int> runs{0};
  std::promise<void> done;
  l.post([&] {
    // Both are due in the same round: the first forgets the second while that is waiting to be run.
    const auto when = l.now() - 1ms;
    auto second = std::make_shared<loop::timer_id>();
    l.at(when, [&l, &runs, second] { ++runs, l.cancel(*second); });
    *second = l.at(when, [&runs] { runs += 100; });
    l.at(when, [&done] { done.set_value(); });
  });
  get(done.get_future());
  drain(l);
  EXPECT_EQ(runs, 1);
}

TEST(thread_loop, cancelling_twice_or_unknown_ids_is_ignored) {
  thread_loop l;
  const auto id = l.after(1h, [] { FAIL() << "cancelled"; });
  l.cancel(id);
  l.cancel(id);
  l.cancel(123456);
  drain(l);
}

TEST(thread_loop, a_timer_that_rearms_itself_at_once_does_not_starve_posts) {
  thread_loop l;
  std::atomic<bool> enough{false};
  std::promise<void> spinning;
  int runs = 0;
  std::function<void()> again = [&] {
    if (++runs == 3) spinning.set_value();
    if (!enough) l.at(l.now() - 1h, again);
  };
  l.at(l.now(), again);
  get(spinning.get_future());
  drain(l);
  enough = true;
  l.stop();  // it may be copying `again` at this moment
}

TEST(thread_loop, stop_runs_what_was_posted_and_what_that_posts) {
  thread_loop l;
  std::promise<void> release;
  std::vector<int> seen;
  l.post([blocked = release.get_future().share(), &l, &seen] {
    blocked.wait();
    l.post([&l, &seen] {
      seen.push_back(1);
      l.post([&seen] { seen.push_back(2); });
    });
  });
  std::thread stopper([&] { l.stop(); });
  release.set_value();
  stopper.join();
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));
}

TEST(thread_loop, after_stop_posts_and_timers_are_dropped_and_destroyed) {
  thread_loop l;
  auto held = std::make_shared<int>(0);
  l.after(1h, [held] {});
  l.stop();
  l.stop();
  l.post([held] { FAIL() << "ran after stop"; });
  l.at(l.now(), [held] { FAIL() << "ran after stop"; });
  EXPECT_EQ(held.use_count(), 1);
}

TEST(thread_loop, can_be_stopped_from_its_own_task_and_then_destroyed) {
  auto l = std::make_unique<thread_loop>();
  std::promise<void> marked;
  l->post([&] {
    l->stop();
    marked.set_value();
  });
  get(marked.get_future());
  l.reset();
}

TEST(thread_loop, destroys_a_task_after_running_it_and_without_the_lock) {
  thread_loop l;
  std::promise<void> posted_by_destructor;
  auto owner = std::shared_ptr<int>(new int(0), [&](const int* p) {
    delete p;
    l.post([&] { posted_by_destructor.set_value(); });  // deadlocks if the lock is held
  });
  l.post([owner = std::move(owner)] {});
  get(posted_by_destructor.get_future());
}

TEST(thread_loop, what_a_task_owns_ends_before_the_next_task_runs) {
  thread_loop l;
  std::promise<bool> ended;
  l.post([&] {  // from the loop, so that both are in one batch
    auto owned = std::make_shared<int>(0);
    const std::weak_ptr<int> watch = owned;
    l.post([owned = std::move(owned)] {});
    l.post([&ended, watch] { ended.set_value(watch.expired()); });
  });
  EXPECT_TRUE(get(ended.get_future()));
}

TEST(thread_loop, leaves_signals_to_the_programs_threads) {
  thread_loop l;
  std::promise<bool> blocked;
  l.post([&] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked.set_value(sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGINT) == 1);
  });
  EXPECT_TRUE(get(blocked.get_future()));
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  EXPECT_EQ(sigismember(&mine, SIGTERM), 0);
}

TEST(thread_loop, a_thread_may_run_a_task_as_a_loop_that_sleeps_and_nothing_runs_meanwhile) {
  constexpr int kThreads = 2;
  constexpr int kTasks = 20'000;
  thread_loop l;
  // Plain variables: only one task at a time may touch them, whoever runs it and whenever timers are due.
  std::vector<int> last(kThreads, -1);
  int ran = 0;
  int timers = 0;
  bool inside = false;
  std::atomic<int> lent{0};
  const auto once = [&](auto body) {
    ASSERT_FALSE(std::exchange(inside, true));
    ASSERT_TRUE(l.on_loop());
    body();
    inside = false;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto me = std::this_thread::get_id();
      for (int i = 0; i < kTasks; ++i) {
        l.post_or_run([&, t, i, me] {
          once([&] {
            if (std::this_thread::get_id() == me) lent.fetch_add(1);
            ASSERT_EQ(last[static_cast<std::size_t>(t)], i - 1);
            last[static_cast<std::size_t>(t)] = i;
            ++ran;
            if (i % 32 == 1) std::this_thread::sleep_for(50us);  // so that another thread comes meanwhile
            if (i % 16 == 8) l.after(i % 3 == 0 ? 0us : 50us, [&] { once([&] { ++timers; }); });
            if (i % 64 == 8) l.post([&] { once([&] { ++timers; }); });
          });
        });
        if (i % 32 == 0) std::this_thread::sleep_for(700us);  // so that it falls asleep now and then
      }
    });
  }
  for (std::thread& t : threads) t.join();
  const int wanted = kThreads * (kTasks / 16 + (kTasks + 55) / 64);
  for (bool all = false; !all;) {
    std::promise<bool> seen;
    l.post([&] { seen.set_value(timers == wanted); });
    all = get(seen.get_future());
  }
  EXPECT_EQ(ran, kThreads * kTasks);
  while (lent.load() == 0) {
    std::this_thread::sleep_for(1ms);
    const auto me = std::this_thread::get_id();
    l.post_or_run([&, me] { lent.fetch_add(std::this_thread::get_id() == me ? 1 : 0); });
  }
  EXPECT_FALSE(l.on_loop());
}

TEST(thread_loop, what_a_lent_task_leaves_to_do_does_not_wait_for_the_loop_to_wake_by_itself) {
  for (const bool other_timer : {false, true}) {
    for (int i = 0; i < 100; ++i) {
      thread_loop l;
      if (other_timer) l.after(std::chrono::hours(1), [] { FAIL() << "an hour has not passed"; });
      std::promise<void> timer;
      std::promise<void> post;
      bool lent = false;
      while (!lent) {
        drain(l);
        std::this_thread::sleep_for(50us);  // so that it falls asleep
        l.post_or_run([&, me = std::this_thread::get_id()] {
          if (std::this_thread::get_id() != me) return;
          lent = true;
          l.after(100us, [&] { timer.set_value(); });
          if (i % 2 == 0) l.post([&] { post.set_value(); });
        });
      }
      get(timer.get_future());
      if (i % 2 == 0) get(post.get_future());
    }
  }
}

TEST(thread_loop, may_be_destroyed_for_what_a_task_did_before_its_post_has_returned) {
  for (int i = 0; i < 3000; ++i) {
    auto l = std::make_unique<thread_loop>();
    thread_loop& posting = *l;
    if (i % 2 == 0) drain(posting);  // about to fall asleep, or not yet started
    std::promise<void> ran;
    std::thread other([&, done = ran.get_future()]() mutable {
      get(std::move(done));
      l.reset();
    });
    if (i % 3 == 0) {
      posting.post_or_run([&] { ran.set_value(); });
    } else {
      posting.post([&] { ran.set_value(); });
    }
    other.join();
  }
}

TEST(thread_loop, ends_when_a_lent_task_stops_it_and_drops_what_comes_later) {
  for (int i = 0; i < 200; ++i) {
    auto l = std::make_unique<thread_loop>();
    drain(*l);
    std::atomic<bool> ran{false};
    l->post_or_run([&, at = l.get()] {
      at->stop();
      ran = true;
    });
    l.reset();
    EXPECT_TRUE(ran);
  }
  thread_loop l;
  l.stop();
  l.post_or_run([] { FAIL() << "it has ended"; });
}

TEST(thread_loop, wall_clock_is_milliseconds_since_1970) {
  thread_loop l;
  const auto seconds = static_cast<unix_ms>(::time(nullptr));
  EXPECT_NEAR(static_cast<double>(l.wall()), static_cast<double>(seconds * 1000), 5000.0);
}

TEST(manual_loop, runs_nothing_by_itself) {
  manual_loop l;
  int runs = 0;
  l.post([&] { ++runs; });
  l.at(l.now(), [&] { ++runs; });
  EXPECT_EQ(runs, 0);
  EXPECT_FALSE(l.idle());
  EXPECT_EQ(l.run_until_idle(), 2u);
  EXPECT_EQ(runs, 2);
  EXPECT_TRUE(l.idle());
}

TEST(manual_loop, advance_runs_each_timer_at_its_own_time) {
  manual_loop l(5'000);
  const auto start = l.now();
  std::vector<std::pair<loop::clock::duration, unix_ms>> seen;
  const auto note = [&] { seen.emplace_back(l.now() - start, l.wall()); };
  l.after(20ms, note);
  l.after(10ms, [&] {
    note();
    l.after(5ms, note);
    l.post(note);
  });
  l.after(40ms, note);
  l.advance(30ms);
  EXPECT_EQ(seen, (std::vector<std::pair<loop::clock::duration, unix_ms>>{
                      {10ms, 5'010}, {10ms, 5'010}, {15ms, 5'015}, {20ms, 5'020}}));
  EXPECT_EQ(l.now() - start, 30ms);
  EXPECT_EQ(l.wall(), 5'030);
  EXPECT_EQ(l.next_timer(), start + 40ms);
}

TEST(manual_loop, a_timer_for_the_past_runs_now_and_time_does_not_go_back) {
  manual_loop l;
  const auto start = l.now();
  loop::clock::time_point ran{};
  l.at(start - 1h, [&] { ran = l.now(); });
  l.advance(1ms);
  EXPECT_EQ(ran, start);
}

TEST(manual_loop, a_cancelled_timer_does_not_run) {
  manual_loop l;
  const auto id = l.after(1ms, [] { FAIL() << "cancelled"; });
  l.after(1ms, [&] { l.cancel(99); });
  l.cancel(id);
  EXPECT_EQ(l.advance(1s), 1u);
}

TEST(manual_loop, is_on_the_loop_inside_tasks_only_also_after_one_threw) {
  manual_loop l;
  bool inside = false;
  l.post([&] {
    inside = l.on_loop();
    throw std::runtime_error("a failed check");
  });
  EXPECT_FALSE(l.on_loop());
  EXPECT_THROW(l.run_until_idle(), std::runtime_error);
  EXPECT_TRUE(inside);
  EXPECT_FALSE(l.on_loop());
}

TEST(manual_loop, steps_of_the_wall_clock_leave_timers_alone) {
  manual_loop l(10'000);
  int runs = 0;
  l.after(1s, [&] { ++runs; });
  l.step_wall(std::chrono::hours(1));
  EXPECT_EQ(l.wall(), 10'000 + 3'600'000);
  l.advance(999ms);
  EXPECT_EQ(runs, 0);
  l.advance(1ms);
  EXPECT_EQ(runs, 1);
}

TEST(manual_loop, a_task_that_posts_itself_for_ever_is_an_error_not_a_hang) {
  manual_loop l;
  std::function<void()> again = [&] { l.post(again); };
  l.post(again);
  EXPECT_THROW(l.run_until_idle(), std::runtime_error);
}

}  // namespace
}  // namespace leveret::core
