#include "pools/thread_work.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <random>
#include <thread>

#include "cpp/support/results.hpp"
#include "thread_loop.hpp"

using namespace leveret::core;

namespace {

struct running_work {
  explicit running_work(std::uint32_t lines, std::uint32_t threads, const std::string& reply = "r") {
    std::string data;
    for (std::uint32_t i = 0; i < lines; ++i) data += "{\"task\":\"t\",\"retry_count\":0}\n";
    delivery d;
    d.token = 1;
    d.msg.id = "m";
    d.msg.reply = reply;
    d.msg.data = body(data);
    w = std::make_shared<thread_work>(std::move(d), threads, loop_thread, [this](const std::shared_ptr<work>&) {
      if (++ends == 1) ended.set_value();
    });
  }
  void wait() {
    ASSERT_EQ(ended.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready) << "it did not end";
  }
  thread_loop loop_thread;
  std::atomic<int> ends{0};
  std::promise<void> ended;
  std::shared_ptr<thread_work> w;
};

std::size_t count_results(const std::vector<result_chunk>& chunks) {
  std::size_t n = 0;
  for (const result_chunk& c : chunks) n += count_outcomes(c.data);
  return n;
}

}  // namespace

TEST(thread_work, every_line_is_taken_once_and_the_end_comes_once) {
  constexpr std::uint32_t kLines = 20'000;
  running_work r(kLines, 4);
  std::vector<std::atomic<int>> taken(kLines);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::uint32_t line = 0;
      while (r.w->take(t, line)) {
        ++taken[line];
        EXPECT_TRUE(r.w->succeeded(t, "m", line + 1, "1"));
      }
      r.w->leave(t);
    });
  }
  for (std::thread& t : threads) t.join();
  r.wait();
  for (const auto& n : taken) EXPECT_EQ(n.load(), 1);
  EXPECT_EQ(r.w->succeeded_lines(), kLines);
  EXPECT_EQ(count_results(r.w->take_results()), kLines);
  EXPECT_TRUE(r.w->unstarted().empty());
  r.loop_thread.stop();
  EXPECT_EQ(r.ends.load(), 1);
}

TEST(thread_work, what_is_taken_over_from_a_thread_that_records_results_runs_once) {
  for (int round = 0; round < 20 && !HasFailure(); ++round) {
    constexpr std::uint32_t kLines = 5'000;
    running_work r(kLines, 4);
    std::vector<std::atomic<int>> taken(kLines);
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::uint32_t line = 0;
        while (r.w->take(t, line)) {
          ++taken[line];
          // Half the threads become slow now and then, and look for what others hold.
          const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(t % 2 == 0 ? 20 : 0);
          while (line / 64 % 2 == 0 && std::chrono::steady_clock::now() < until) continue;
          if (!r.w->succeeded(t, "m", line + 1, "1")) ADD_FAILURE() << line << " was not its thread's";
        }
        r.w->leave(t);
      });
    }
    for (std::thread& t : threads) t.join();
    r.wait();
    for (std::uint32_t line = 0; line < kLines; ++line) ASSERT_EQ(taken[line].load(), 1) << line;
    EXPECT_EQ(count_results(r.w->take_results()), kLines);
    r.loop_thread.stop();
  }
}

TEST(thread_work, lines_never_started_are_given_back_when_starting_stops) {
  for (int round = 0; round < 400 && !HasFailure(); ++round) {
    const bool results = round % 4 != 0;  // how a line's end is recorded
    constexpr std::uint32_t kLines = 2'000;
    running_work r(kLines, 3, results ? "r" : "");
    std::atomic<std::uint32_t> run{0};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        std::uint32_t line = 0;
        while (r.w->take(t, line)) {
          ++run;
          EXPECT_TRUE(results ? r.w->succeeded(t, "m", line + 1, "1") : r.w->succeeded(t));
        }
        r.w->leave(t);
      });
    }
    while (run.load() < static_cast<std::uint32_t>(4 * round)) std::this_thread::yield();
    r.w->stop_starting();
    for (std::thread& t : threads) t.join();
    r.wait();
    EXPECT_EQ(run.load() + r.w->unstarted().size(), kLines);
    EXPECT_EQ(r.w->succeeded_lines(), run.load());
    r.loop_thread.stop();
    EXPECT_EQ(r.ends.load(), 1);
  }
}

// Thread 0 has run lines so quickly that it takes several at once, and now runs one that does not end.
struct held_run {
  explicit held_run(std::uint32_t before, std::uint32_t threads = 2) : r(1'000, threads) {
    for (std::uint32_t i = 0; i < before; ++i) {
      EXPECT_TRUE(r.w->take(0, line));
      EXPECT_TRUE(r.w->succeeded(0, "m", line + 1, "1"));
    }
    EXPECT_TRUE(r.w->take(0, line));
    EXPECT_EQ(line, before);
  }
  void end() {
    EXPECT_TRUE(r.w->succeeded(0, "m", line + 1, "1"));
    std::uint32_t none = 0;
    EXPECT_FALSE(r.w->take(0, none)) << none;
    r.w->leave(0);
    r.wait();
    r.loop_thread.stop();
    EXPECT_EQ(r.ends.load(), 1);
  }
  running_work r;
  std::uint32_t line = 0;
};

TEST(thread_work, an_idle_thread_takes_over_what_stands_behind_a_slow_line) {
  for (std::uint32_t before = 30; before < 62 && !testing::Test::HasFailure(); ++before) {
    held_run slow(before);
    std::uint32_t line = 0;
    std::uint32_t others = 0;
    for (; slow.r.w->take(1, line); ++others) EXPECT_TRUE(slow.r.w->succeeded(1, "m", line + 1, "1"));
    slow.r.w->leave(1);
    EXPECT_EQ(others, 1'000 - before - 1);
    EXPECT_FALSE(slow.r.w->has_unstarted());
    slow.end();
    EXPECT_EQ(count_results(slow.r.w->take_results()), 1'000U);
  }
}

TEST(thread_work, a_thread_whose_lines_are_slow_too_takes_over_the_rest_of_a_run_before_what_comes_later) {
  std::size_t rests = 0;
  for (std::uint32_t before = 30; before < 62 && !testing::Test::HasFailure(); ++before) {
    held_run slow(before);
    std::uint32_t first = 0;
    std::uint32_t second = 0;
    ASSERT_TRUE(slow.r.w->take(1, first));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the line's time
    EXPECT_TRUE(slow.r.w->succeeded(1, "m", first + 1, "1"));
    ASSERT_TRUE(slow.r.w->take(1, second));
    // What lies between the two threads' lines was taken by the first one, and not started.
    EXPECT_EQ(second, first > before + 1 ? before + 1 : first + 1);
    rests += first > before + 1 ? 1 : 0;
    EXPECT_TRUE(slow.r.w->has_unstarted());
    slow.r.w->abandon_running();
    slow.r.w->leave(0);
    slow.r.w->leave(1);
    slow.r.wait();
    EXPECT_EQ(slow.r.w->unstarted().size(), 1'000U - before - 1);
    slow.r.loop_thread.stop();
  }
  EXPECT_GT(rests, 0U);
}

TEST(thread_work, what_a_thread_took_and_did_not_start_is_given_back_too) {
  for (std::uint32_t before = 30; before < 62 && !testing::Test::HasFailure(); ++before) {
    held_run slow(before);
    slow.r.w->stop_starting();
    EXPECT_FALSE(slow.r.w->has_unstarted());
    slow.end();
    EXPECT_EQ(slow.r.w->unstarted().size(), 1'000U - before - 1);
    EXPECT_EQ(slow.r.w->unstarted().front(), before + 1);
  }
}

TEST(thread_work, one_thread_takes_them_in_order_and_several_that_want_no_runs_do_so_too) {
  running_work one(1'000, 1);
  running_work two(1'000, 2);
  for (std::uint32_t i = 0; i < 1'000; ++i) {
    std::uint32_t line = 0;
    ASSERT_TRUE(one.w->take(0, line));
    EXPECT_EQ(line, i);
    ASSERT_TRUE(one.w->succeeded(0, "m", line + 1, "1"));
    ASSERT_TRUE(two.w->take(i % 2, line, true));
    EXPECT_EQ(line, i);
    ASSERT_TRUE(two.w->succeeded(i % 2, "m", line + 1, "1"));
  }
  one.w->leave(0);
  two.w->leave(0);
  two.w->leave(1);
  one.wait();
  two.wait();
  one.loop_thread.stop();
  two.loop_thread.stop();
}

TEST(thread_work, last_lines_are_taken_one_by_one) {
  running_work r(1'000, 2);
  std::uint32_t line = 0;
  std::uint32_t next = 0;
  for (int i = 0; i < 997; ++i) {
    ASSERT_TRUE(r.w->take(0, line));
    ASSERT_TRUE(r.w->succeeded(0, "m", line + 1, "1"));
  }
  ASSERT_TRUE(r.w->take(0, line));
  ASSERT_TRUE(r.w->take(1, next));
  EXPECT_EQ(next, line + 1);
  r.w->abandon_running();
  r.loop_thread.stop();
}

TEST(thread_work, an_abandoned_line_is_given_back_and_what_its_handler_does_later_is_dropped) {
  running_work r(10, 2);
  std::uint32_t slow = 0;
  std::uint32_t quick = 0;
  ASSERT_TRUE(r.w->take(0, slow));
  ASSERT_TRUE(r.w->take(1, quick));
  EXPECT_TRUE(r.w->succeeded(1, "m", quick + 1, "1"));
  r.w->abandon_running();
  r.wait();
  EXPECT_EQ(r.w->unstarted(), (std::vector<std::uint32_t>{0, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_FALSE(r.w->succeeded(0, "m", slow + 1, "2"));
  EXPECT_FALSE(r.w->failed(0, {}, "m", slow + 1, "exception", 1));
  EXPECT_EQ(count_results(r.w->take_results()), 1u);
  EXPECT_TRUE(r.w->take_failures().empty());
  r.w->leave(0);
  r.w->leave(1);
  r.loop_thread.stop();
  EXPECT_EQ(r.ends.load(), 1);
}

TEST(thread_work, abandoning_amid_running_threads_neither_loses_nor_doubles_a_line) {
  for (int round = 0; round < 100; ++round) {
    constexpr std::uint32_t kLines = 3'000;
    running_work r(kLines, 4);
    std::atomic<std::uint32_t> kept{0};
    std::atomic<std::uint32_t> dropped{0};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::uint32_t line = 0;
        while (r.w->take(t, line)) ++(r.w->succeeded(t, "m", line + 1, "1") ? kept : dropped);
        r.w->leave(t);
      });
    }
    while (kept.load() < 25u * static_cast<std::uint32_t>(round)) std::this_thread::yield();
    r.w->abandon_running();
    r.wait();
    const std::size_t results = count_results(r.w->take_results());  // nothing is recorded after the end
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(results, kept.load());
    EXPECT_EQ(results + r.w->unstarted().size(), kLines);
    EXPECT_EQ(count_results(r.w->take_results()), 0u);
    r.loop_thread.stop();
    EXPECT_EQ(r.ends.load(), 1);
  }
}

TEST(thread_work, a_message_without_a_line_counts_as_one_so_that_it_ends_on_the_record) {
  running_work r(0, 1);
  EXPECT_EQ(r.w->lines(), 1u);
  std::uint32_t line = 9;
  ASSERT_TRUE(r.w->take(0, line));
  EXPECT_EQ(r.w->line(line), "");
  EXPECT_TRUE(r.w->succeeded(0));
  r.w->leave(0);
  r.wait();
}
