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

TEST(thread_work, every_line_is_taken_once_and_in_order_and_the_end_comes_once) {
  constexpr std::uint32_t kLines = 20'000;
  running_work r(kLines, 4);
  std::vector<std::atomic<int>> taken(kLines);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::uint32_t line = 0;
      std::uint32_t before = 0;
      while (r.w->take(t, line)) {
        EXPECT_TRUE(line >= before);
        before = line;
        ++taken[line];
        EXPECT_TRUE(r.w->succeeded(t, "m", line + 1, "1"));
      }
      r.w->leave(t);
    });
  }
  for (std::thread& t : threads) t.join();
  r.ended.get_future().get();
  for (const auto& n : taken) EXPECT_EQ(n.load(), 1);
  EXPECT_EQ(r.w->succeeded_lines(), kLines);
  EXPECT_EQ(count_results(r.w->take_results()), kLines);
  EXPECT_TRUE(r.w->unstarted().empty());
  r.loop_thread.stop();
  EXPECT_EQ(r.ends.load(), 1);
}

TEST(thread_work, lines_never_started_are_given_back_when_starting_stops) {
  for (int round = 0; round < 50; ++round) {
    constexpr std::uint32_t kLines = 2'000;
    running_work r(kLines, 3, "");
    std::atomic<std::uint32_t> run{0};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        std::uint32_t line = 0;
        while (r.w->take(t, line)) {
          ++run;
          EXPECT_TRUE(r.w->succeeded(t));
        }
        r.w->leave(t);
      });
    }
    while (run.load() < 20u * static_cast<std::uint32_t>(round)) std::this_thread::yield();
    r.w->stop_starting();
    for (std::thread& t : threads) t.join();
    r.ended.get_future().get();
    EXPECT_EQ(run.load() + r.w->unstarted().size(), kLines);
    EXPECT_EQ(r.w->succeeded_lines(), run.load());
    r.loop_thread.stop();
    EXPECT_EQ(r.ends.load(), 1);
  }
}

TEST(thread_work, an_abandoned_line_is_given_back_and_what_its_handler_does_later_is_dropped) {
  running_work r(10, 2);
  std::uint32_t slow = 0;
  std::uint32_t quick = 0;
  ASSERT_TRUE(r.w->take(0, slow));
  ASSERT_TRUE(r.w->take(1, quick));
  EXPECT_TRUE(r.w->succeeded(1, "m", quick + 1, "1"));
  r.w->abandon_running();
  r.ended.get_future().get();
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
    r.ended.get_future().get();
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
  r.ended.get_future().get();
}
