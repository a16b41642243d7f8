// Sending from C++, across the C ABI of the library, to a broker in this process.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <leveret/producer.hpp>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "client.hpp"
#include "codec.hpp"
#include "cpp/support/invalid.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

namespace {

using leveret::arg;
using namespace std::chrono_literals;
namespace core = leveret::core;

struct box {
  int x = 0;
};

}  // namespace

template <>
struct leveret::fields<box> {
  static constexpr auto list = std::make_tuple(leveret::field("x", &box::x));
};

namespace {

/// A broker of the test's own, kept by an open client, and what has arrived there.
class producer_test : public ::testing::Test {
 protected:
  static std::string url() {
    return std::string("memory://") + ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  /// Takes everything ready out of the queue: the lines, in order.
  std::vector<std::string> lines(const std::string& queue) {
    std::vector<std::string> all;
    for (const core::message& each : messages(queue)) {
      std::string_view rest = each.data.view();
      while (!rest.empty()) {
        const std::size_t end = rest.find('\n');
        all.emplace_back(rest.substr(0, end));
        rest.remove_prefix(end + 1);
      }
    }
    return all;
  }

  std::vector<core::message> messages(const std::string& queue) {
    const std::size_t expected = keeps_open_.stats(queue).at(0).ready;
    std::vector<core::message> taken;
    std::promise<void> full;
    if (expected == 0) return taken;
    const core::window wide{static_cast<std::uint32_t>(expected), 1ull << 30};
    core::thread_loop loop;
    const std::unique_ptr<core::transport> transport = core::open_transport(url(), loop, {});
    core::subscriber events;
    events.on_delivery = [&](core::delivery d) {
      taken.push_back(std::move(d.msg));
      if (taken.size() == expected) full.set_value();
    };
    events.on_lost = [](const std::vector<core::delivery_token>&) {};
    events.on_ended = [](const core::failure&) {};
    transport->subscribe(queue, wide, std::move(events));
    EXPECT_EQ(full.get_future().wait_for(60s), std::future_status::ready);
    transport->close(core::loop::clock::now() + 5s);
    return taken;
  }

  core::client keeps_open_{url()};
  const leveret::producer producer_{url()};
};

TEST_F(producer_test, arguments_become_a_line_of_the_contract) {
  const std::string id = producer_.send("resize", "a.png", 3U, -1, 2.5, true, nullptr, std::string("s"),
                                        std::vector<int>{1, 2}, std::map<std::string, int>{{"k", 1}}, box{4},
                                        leveret::json(std::string("[ 1 ]")), arg("width") = 80, arg("mode") = "fast");
  EXPECT_EQ(id.substr(id.size() - 2), "/1");
  producer_.send("noop");
  const std::vector<std::string> sent = lines("native");
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_EQ(sent[0], R"({"task":"resize","args":["a.png",3,-1,2.5,true,null,"s",[1,2],{"k":1},{"x":4},[1]],)"
                     R"("kwargs":{"width":80,"mode":"fast"},"retry_count":0})");
  EXPECT_EQ(sent[1], R"({"task":"noop","retry_count":0})");
}

TEST_F(producer_test, options_travel_with_the_job) {
  leveret::task_sender work = producer_.task("work").max_retries(7).queue("mine");
  work.send(1);
  EXPECT_EQ(lines("mine").at(0), R"({"task":"work","args":[1],"retry_count":0,"max_retries":7})");
  EXPECT_THROW(work.max_retries(-1), std::invalid_argument);
}

TEST_F(producer_test, a_delayed_job_is_not_ready) {
  producer_.task("work").delay(1h).send(1);
  const auto stats = keeps_open_.stats("native");
  EXPECT_EQ(stats.at(0).ready, 0U);
  EXPECT_EQ(stats.at(0).delayed, 1U);
}

TEST_F(producer_test, results_are_wanted_only_when_said) {
  producer_.task("work").send(1);
  producer_.task("work").keep_results().send(2);
  const std::vector<core::message> sent = messages("native");
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_TRUE(sent[0].reply.empty());
  EXPECT_FALSE(sent[1].reply.empty());
}

TEST_F(producer_test, many_jobs_travel_in_few_messages_in_order) {
  std::vector<std::tuple<int, std::string>> rows;
  rows.reserve(5000);
  for (int i = 0; i < 5000; ++i) rows.emplace_back(i, "x");
  const leveret::sent_jobs sent = producer_.send_many("work", rows);
  EXPECT_EQ(sent.size(), 5000U);
  EXPECT_LT(sent.messages().size(), 20U);
  EXPECT_EQ(sent.id(0), sent.messages().front().id + "/1");
  EXPECT_EQ(sent.id(4999), sent.messages().back().id + "/" + std::to_string(sent.messages().back().jobs));
  EXPECT_THROW((void)sent.id(5000), std::out_of_range);
  const std::vector<std::string> all = lines("native");
  ASSERT_EQ(all.size(), 5000U);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(all[static_cast<std::size_t>(i)],
              R"({"task":"work","args":[)" + std::to_string(i) + R"(,"x"],"retry_count":0})");
  }
}

TEST_F(producer_test, threads_send_at_once_and_each_job_has_an_id_of_its_own) {
  constexpr int kThreads = 8;
  constexpr int kEach = 500;
  std::mutex mutex;
  std::set<std::string> ids;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        std::string id = producer_.send("work", t, i);
        const std::lock_guard<std::mutex> lock(mutex);
        EXPECT_TRUE(ids.insert(std::move(id)).second);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ids.size(), std::size_t{kThreads * kEach});
  // Each id names the line that it was told for.
  std::size_t total = 0;
  for (const core::message& each : messages("native")) {
    for (std::uint32_t line = 1; line <= each.jobs; ++line, ++total) {
      EXPECT_EQ(ids.count(each.id + "/" + std::to_string(line)), 1U);
    }
  }
  EXPECT_EQ(total, ids.size());
}

TEST_F(producer_test, rows_that_are_no_tuples_are_single_arguments) {
  EXPECT_EQ(producer_.send_many("work", std::vector<std::vector<int>>{{1, 2}, {}}).size(), 2U);
  EXPECT_EQ(producer_.send_many("work", std::map<std::string, int>{{"a", 1}}).size(), 1U);
  EXPECT_EQ(producer_.send_many("work", std::vector<int>{}).size(), 0U);
  const std::vector<std::string> all = lines("native");
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0], R"({"task":"work","args":[[1,2]],"retry_count":0})");
  EXPECT_EQ(all[1], R"({"task":"work","args":[[]],"retry_count":0})");
  EXPECT_EQ(all[2], R"({"task":"work","args":["a",1],"retry_count":0})");
}

TEST_F(producer_test, a_bad_row_keeps_those_before_it_and_sends_none_after) {
  const std::vector<double> rows{1, 2, std::numeric_limits<double>::quiet_NaN(), 4};
  try {
    (void)producer_.send_many("work", rows);
    FAIL() << "sent";
  } catch (const leveret::send_many_error& wrong) {
    EXPECT_EQ(wrong.code(), leveret::errc::invalid_argument);
    EXPECT_EQ(wrong.accepted().size(), 2U);
    EXPECT_STREQ(wrong.what(), "after 2 jobs: args[0]: NaN is not JSON");
  }
  EXPECT_EQ(lines("native").size(), 2U);
}

TEST_F(producer_test, mistakes_are_invalid_arguments_and_nothing_is_sent) {
  EXPECT_EQ(invalid([&] { producer_.send("work", 1, std::vector<double>{0, 1.0 / 0.0}); }),
            "args[1][1]: infinity is not JSON");
  EXPECT_EQ(invalid([&] { producer_.send("work", arg("x") = std::string("\xff")); }), "kwargs.x: string is not UTF-8");
  EXPECT_EQ(invalid([&] { producer_.send("work", arg("x") = 1, arg("x") = 2); }), "kwargs.x: given twice");
  EXPECT_EQ(invalid([&] { producer_.send("work", arg("x") = 1, 2); }), "a positional argument follows a named one");
  EXPECT_EQ(invalid([&] { producer_.send("work", leveret::json(std::string("[1,"))); }),
            "args[0]: not one value of JSON");
  EXPECT_NE(invalid([&] { producer_.send("", 1); }), "");
  EXPECT_NE(invalid([&] { producer_.send(std::string(256, 'x'), 1); }), "");
  EXPECT_NE(invalid([&] { producer_.send("work", std::string(1U << 20, 'x')); }).find("cannot send \"work\""),
            std::string::npos);
  EXPECT_NE(invalid([&] { producer_.task("work").queue("no spaces").send(1); }).find("no spaces"), std::string::npos);
  EXPECT_NE(invalid([&] { (void)producer_.task("work").queue("no spaces").send_many(std::vector<int>{1}); }), "");
  producer_.send("work", 1);
  EXPECT_EQ(lines("native").size(), 1U);
}

TEST_F(producer_test, threads_share_a_producer) {
  constexpr int kThreads = 4;
  constexpr int kEach = 200;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kEach; ++i) producer_.send("work", t, i);
    });
  }
  for (std::thread& each : threads) each.join();
  std::vector<int> next(kThreads, 0);
  for (const std::string& line : lines("native")) {
    for (int t = 0; t < kThreads; ++t) {
      std::string expected = R"({"task":"work","args":[)" + std::to_string(t) + ",";
      const auto mine = static_cast<std::size_t>(t);
      if (line.compare(0, expected.size(), expected) != 0) continue;
      EXPECT_EQ(line, expected + std::to_string(next[mine]) + R"(],"retry_count":0})");
      ++next[mine];
    }
  }
  EXPECT_EQ(next, std::vector<int>(kThreads, kEach));
}

TEST(producer, a_sender_keeps_its_connection) {
  core::client keeps_open("memory://sender-keeps");
  const leveret::task_sender work = leveret::producer("memory://sender-keeps").task("work");
  work.send(1);
  EXPECT_EQ(keeps_open.stats("native").at(0).ready, 1U);
}

TEST(producer, a_wrong_url_is_an_invalid_argument) {
  EXPECT_NE(invalid([] { leveret::producer("carrier-pigeon://x"); }).find("carrier-pigeon"), std::string::npos);
}

TEST(producer, an_unreachable_broker_is_a_typed_error) {
  EXPECT_THROW(leveret::producer("amqp://127.0.0.1:1/"), leveret::broker_unavailable);
}

TEST(producer, without_a_url_the_environment_decides) {
  core::client keeps_open("memory://from-environment");
  // NOLINTBEGIN(concurrency-mt-unsafe): the broker's threads do not read the environment
  ASSERT_EQ(::setenv("LEVERET_URL", "memory://from-environment", 1), 0);
  leveret::producer().send("work");
  ASSERT_EQ(::unsetenv("LEVERET_URL"), 0);
  // NOLINTEND(concurrency-mt-unsafe)
  EXPECT_EQ(keeps_open.stats("native").at(0).ready, 1U);
}

TEST(library, speaks_its_own_version_only) {
  ASSERT_NE(leveret_get_library(LEVERET_ABI_VERSION), nullptr);
  EXPECT_EQ(leveret_get_library(LEVERET_ABI_VERSION)->size, sizeof(leveret_library));
  EXPECT_EQ(leveret_get_library(LEVERET_ABI_VERSION + 1), nullptr);
}

}  // namespace
