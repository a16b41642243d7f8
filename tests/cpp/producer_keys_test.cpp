// Sending from C++ jobs with keys, and jobs that are to be there once: on the brokers that keep keys themselves.
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <future>
#include <leveret/producer.hpp>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "client.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/invalid.hpp"
#include "ids.hpp"
#include "ordered.hpp"
#include "registry.hpp"
#include "worker.hpp"

namespace {

using leveret::arg;
using leveret::until;
using namespace std::chrono_literals;
namespace core = leveret::core;

struct silent_log final : core::log_sink {
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

/// Each broker, of the test's own.
class producer_keys_test : public ::testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] std::string url() const {
    return GetParam() == std::string("sqlite") ? folder_.url() : "memory://producer-keys";
  }

  /// The messages that wait in a queue, in order.
  std::vector<core::browsed_message> browse(const std::string& queue) {
    return broker_.browse({queue, core::message_state::ready, {}, {}, 10'000}).entries;
  }
  static std::vector<std::string> lines_of(const core::browsed_message& message) {
    std::vector<std::string> all;
    std::string_view rest = message.msg.data.view();
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      all.emplace_back(rest.substr(0, end));
      rest.remove_prefix(end + 1);
    }
    return all;
  }
  std::vector<std::string> lines(const std::string& queue) {
    std::vector<std::string> all;
    for (const core::browsed_message& each : browse(queue)) {
      for (std::string& line : lines_of(each)) all.push_back(std::move(line));
    }
    return all;
  }
  /// How many jobs wait, in each queue that has some.
  std::map<std::string, std::uint64_t> waiting() {
    std::map<std::string, std::uint64_t> all;
    for (const core::queue_stats& each : broker_.stats("")) {
      if (each.ready_jobs.value_or(0) != 0) all[each.queue] = *each.ready_jobs;
    }
    return all;
  }
  /// The job that holds a key of the broker; empty: none does, and now the one that asks.
  std::string holder(const std::string& key) {
    core::envelope e;
    e.queue = "asked";
    e.once = {key, core::held_until::window, 1h};
    return broker_.send(e, {}, "{\"task\":\"ask\",\"retry_count\":0}\n").existing;
  }

  const leveret::test::folder folder_;
  core::client broker_{url()};
  const leveret::producer producer_{url()};
};

INSTANTIATE_TEST_SUITE_P(each, producer_keys_test, ::testing::Values("memory", "sqlite"),
                         [](const auto& broker) { return std::string(broker.param); });

TEST_P(producer_keys_test, a_job_goes_to_the_queue_that_python_finds_for_its_key) {
  const leveret::task_sender book = producer_.task("book");
  const auto queue_of = [&](const auto& key) {
    leveret::task_sender(book).key(key).send("ann", 5);
    const std::map<std::string, std::uint64_t> found = waiting();
    EXPECT_EQ(found.size(), 1U);
    const std::string queue = found.begin()->first;
    EXPECT_EQ(lines(queue), std::vector<std::string>{R"({"task":"book","args":["ann",5],"retry_count":0})"});
    EXPECT_EQ(broker_.purge(queue), 1U);
    return queue;
  };
  // As _core.ordered_queue("native", str(key)) of Python has them.
  EXPECT_EQ(queue_of("customer 7"), "native.ordered.5");
  EXPECT_EQ(queue_of(std::string("\u00e9")), "native.ordered.14");
  EXPECT_EQ(queue_of(std::string_view("日本語 🐇")), "native.ordered.12");
  EXPECT_EQ(queue_of("a\nb"), "native.ordered.11");
  EXPECT_EQ(queue_of(7), "native.ordered.2");
  EXPECT_EQ(queue_of(-3L), "native.ordered.6");
  EXPECT_EQ(queue_of(std::numeric_limits<std::uint64_t>::max()), "native.ordered.10");
  leveret::task_sender(book).key(7).queue("mine").send();
  EXPECT_EQ(waiting(), (std::map<std::string, std::uint64_t>{{"mine.ordered.2", 1}}));
}

TEST_P(producer_keys_test, the_jobs_of_a_key_are_in_the_order_sent) {
  leveret::task_sender step = producer_.task("step").key("k");
  std::vector<std::string> expected;
  const auto expect = [&](int number) {
    expected.push_back(R"({"task":"step","args":[)" + std::to_string(number) + R"(],"retry_count":0})");
  };
  std::vector<int> many;
  for (int i = 0; i < 20; ++i) {
    step.send(i);
    expect(i);
  }
  for (int i = 20; i < 500; ++i) {
    many.push_back(i);
    expect(i);
  }
  EXPECT_EQ(step.send_many(many).size(), 480U);
  step.send(500);
  expect(500);
  ASSERT_EQ(waiting().size(), 1U);
  EXPECT_EQ(lines(waiting().begin()->first), expected);
}

TEST_P(producer_keys_test, each_row_may_have_a_key_of_its_own_and_ids_tell_where_it_is) {
  std::vector<std::tuple<int, int>> rows;
  std::map<std::string, std::vector<std::string>> expected;  // lines of each queue
  for (int i = 0; i < 1000; ++i) rows.emplace_back(i % 7, i);
  const auto line = [](const std::tuple<int, int>& row) {
    return R"({"task":"book","args":[)" + std::to_string(std::get<0>(row)) + "," + std::to_string(std::get<1>(row)) +
           R"(],"retry_count":0})";
  };
  for (const auto& row : rows) {
    expected[core::ordered_queue("native", core::shard_of(std::to_string(std::get<0>(row))))].push_back(line(row));
  }
  const leveret::sent_jobs sent =
      producer_.task("book").send_many(rows, [](const auto& row) { return std::get<0>(row); });
  ASSERT_EQ(sent.size(), rows.size());
  EXPECT_THROW((void)sent.id(1000), std::out_of_range);
  std::map<std::string, std::string> line_of;  // by id
  std::size_t messages = 0;
  for (const auto& [queue, all] : expected) {
    EXPECT_EQ(lines(queue), all) << queue;
    for (const core::browsed_message& each : browse(queue)) {
      ++messages;
      std::uint32_t number = 0;
      for (std::string& one : lines_of(each)) line_of[core::make_job_id(each.msg.id, ++number)] = std::move(one);
    }
  }
  EXPECT_EQ(messages, sent.messages().size());
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(line_of[sent.id(i)], line(rows[i]));
}

TEST_P(producer_keys_test, a_bad_row_ends_a_keyed_send_many_after_those_before_it) {
  const std::vector<std::string> rows{"a", "b", "", "d"};
  const auto key_of = [](const std::string& row) { return row; };
  try {
    (void)producer_.task("book").send_many(rows, key_of);
    FAIL() << "sent";
  } catch (const leveret::send_many_error& wrong) {
    EXPECT_EQ(wrong.code(), leveret::errc::invalid_argument);
    EXPECT_EQ(wrong.accepted().size(), 2U);
    EXPECT_NE(wrong.accepted().id(0), wrong.accepted().id(1));
    EXPECT_STREQ(wrong.what(),
                 "after 2 jobs: the key of a job of \"book\" is empty: jobs with nothing in common would wait for each "
                 "other");
  }
  EXPECT_EQ(waiting(), (std::map<std::string, std::uint64_t>{{"native.ordered.3", 1}, {"native.ordered.9", 1}}));
}

TEST_P(producer_keys_test, a_second_send_stores_nothing_and_gives_the_first_job) {
  leveret::task_sender ship = producer_.task("ship").idempotency_key("order-17");
  const std::string first = ship.send(17);
  EXPECT_EQ(ship.send(17), first);
  EXPECT_EQ(ship.send("other arguments"), first);
  EXPECT_EQ(ship.queue("elsewhere").send(17), first);
  const std::string other = ship.idempotency_key(18).send(17);
  EXPECT_NE(other, first);
  EXPECT_EQ(producer_.task("ship").idempotency_key("18").send(), other) << "a number is its digits";
  EXPECT_NE(producer_.task("pack").idempotency_key("order-17").send(17), first) << "each task has keys of its own";
  EXPECT_EQ(waiting(), (std::map<std::string, std::uint64_t>{{"native", 2}, {"elsewhere", 1}}));
  EXPECT_EQ(holder("4:ship:order-17"), first) << "the text that Python makes";
  const std::string umlauts = producer_.task("gr\u00f6\u00dfe").idempotency_key("\u00fc 17").send();
  EXPECT_EQ(holder("7:gr\u00f6\u00dfe:\u00fc 17"), umlauts);
}

TEST_P(producer_keys_test, jobs_of_the_same_arguments_are_the_same) {
  leveret::task_sender rebuild = producer_.task("rebuild").unique_until(until::end);
  const std::string first = rebuild.send("users");
  EXPECT_EQ(rebuild.send(std::string("users")), first);
  EXPECT_EQ(holder("7:rebuild=070aa604ab5e7de3b2994a6356cada2176637509b1d56f9cba2825eedbb924f5"), first);
  const std::string none = rebuild.max_retries(3).send();
  EXPECT_NE(none, first);
  EXPECT_EQ(rebuild.max_retries(5).send(), none) << "what is no argument does not count";
  EXPECT_EQ(holder("7:rebuild=5eed25f9aa1c68139fe47d7ea93769c16d4ddd46c01693921e0b40d9aaa39beb"), none);
  const std::string named = rebuild.send(arg("b") = 1.0, arg("a") = true);
  EXPECT_EQ(rebuild.send(arg("a") = true, arg("b") = 1.0), named);
  EXPECT_NE(rebuild.send(arg("a") = true, arg("b") = 1), named) << "1 is no 1.0";
  EXPECT_EQ(waiting().at("native"), 4U);
}

TEST_P(producer_keys_test, a_key_is_free_when_its_window_is_over) {
  leveret::task_sender ship = producer_.task("ship").idempotency_key("k").idempotency_window(50ms);
  const std::string first = ship.send(17);
  std::this_thread::sleep_for(100ms);
  const std::string second = ship.idempotency_window(1h).send(17);
  EXPECT_NE(second, first);
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(ship.send(17), second);
  // Without a word it is a day: more than a test can wait for, and more than nothing.
  const std::string day = producer_.task("ship").idempotency_key("day").send(17);
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(producer_.task("ship").idempotency_key("day").send(17), day);
}

/// A handler that waits where the test can look.
struct stop_there {
  std::promise<void> begun;
  std::promise<void> go_on;
};

TEST_P(producer_keys_test, a_key_until_the_start_or_the_end_is_free_then) {
  const leveret::task_sender work = producer_.task("work");
  const auto send = [&](until end) { return leveret::task_sender(work).unique_until(end).send(static_cast<int>(end)); };
  for (const until end : {until::start, until::end}) {
    const std::string first = send(end);
    EXPECT_EQ(send(end), first);
    stop_there here;
    core::registry tasks;
    leveret_task task{};
    task.size = sizeof task;
    task.name = {"work", 4};
    task.max_retries = -1;
    task.state = &here;
    task.call = [](void* state, leveret_call*) {
      auto* at = static_cast<stop_there*>(state);
      at->begun.set_value();
      at->go_on.get_future().wait();
      return LEVERET_SUCCEEDED;
    };
    ASSERT_EQ(tasks.add(task, "test"), "");
    silent_log log;
    core::worker_options options;
    options.url = url();
    options.threads = 1;
    core::worker worker(options, tasks, log);
    worker.start();
    here.begun.get_future().wait();
    std::string second;
    if (end == until::end) {
      EXPECT_EQ(send(end), first) << "it runs";
      here.go_on.set_value();
    } else {
      second = leveret::task_sender(work).queue("aside").unique_until(end).send(static_cast<int>(end));
      EXPECT_NE(second, first) << "its handler has begun";
      here.go_on.set_value();
    }
    EXPECT_EQ(worker.stop(60s).counts.succeeded, 1U);
    if (end == until::end) {
      EXPECT_NE(send(end), first) << "it has ended";
    }
  }
}

TEST_P(producer_keys_test, many_jobs_that_are_to_be_there_once_have_a_message_each) {
  leveret::task_sender rebuild = producer_.task("rebuild").unique_until(until::end);
  const std::string first = rebuild.send(3);
  std::vector<int> rows;
  for (int i = 0; i < 1000; ++i) rows.push_back(i % 500);
  const leveret::sent_jobs sent = rebuild.send_many(rows);
  ASSERT_EQ(sent.size(), 1000U);
  EXPECT_EQ(sent.id(3), first);
  for (std::size_t i = 0; i < 500; ++i) EXPECT_EQ(sent.id(i), sent.id(i + 500));
  EXPECT_EQ(waiting(), (std::map<std::string, std::uint64_t>{{"native", 500}}));
  EXPECT_EQ(broker_.stats("native").at(0).ready, 500U) << "messages";
  // In order too: their keys say where they go.
  rebuild.queue("mine").key(7).send_many(std::vector<int>{3, 1000, 1001});
  EXPECT_EQ(waiting().at("mine.ordered.2"), 2U) << "one was there already";
}

TEST_P(producer_keys_test, a_bad_row_ends_a_send_many_of_unique_jobs_after_those_before_it) {
  const leveret::task_sender rebuild = producer_.task("rebuild").unique_until(until::end);
  try {
    (void)rebuild.send_many(std::vector<double>{1, 2, std::numeric_limits<double>::quiet_NaN(), 4});
    FAIL() << "sent";
  } catch (const leveret::send_many_error& wrong) {
    EXPECT_STREQ(wrong.what(), "after 2 jobs: args[0]: NaN is not JSON");
    EXPECT_EQ(wrong.accepted().size(), 2U);
    EXPECT_EQ(wrong.accepted().id(1), rebuild.send(2.0));
  }
  EXPECT_EQ(waiting().at("native"), 2U);
}

TEST_P(producer_keys_test, mistakes_are_refused_by_name_and_the_producer_goes_on) {
  EXPECT_EQ(invalid([&] { producer_.task("book").key("").send(1); }),
            "the key of a job of \"book\" is empty: jobs with nothing in common would wait for each other");
  EXPECT_EQ(invalid([&] { producer_.task("book").key("\xff").send(1); }),
            "the key of a job of \"book\" is not UTF-8; give the text of it, or a hash in hexadecimal digits");
  EXPECT_EQ(invalid([&] { producer_.task("ship").idempotency_key("").send(1); }),
            "the idempotency key of a job of \"ship\" is empty: jobs with nothing in common would wait for each other");
  EXPECT_EQ(invalid([&] { producer_.task("ship").idempotency_key(std::string(256, 'k')).send(1); }),
            "cannot send \"ship\": its idempotency key has 256 bytes, at most 255 are allowed; send a hash of it");
  EXPECT_EQ(
      invalid([&] { (void)producer_.task("ship").idempotency_key("k").send_many(std::vector<int>{1}); }),
      "cannot send many jobs of \"ship\" with one idempotency key: only the first would be stored; send each with "
      "its own");
  EXPECT_EQ(invalid([&] { producer_.task("ship").idempotency_window(0s); }),
            "idempotency_window must be more than 0 seconds");
  EXPECT_EQ(invalid([&] { producer_.task("ship").idempotency_window(-1h); }),
            "idempotency_window must be more than 0 seconds");
  const std::string longest(128, 'q');
  EXPECT_NE(invalid([&] { producer_.task("book").queue(longest).key("k").send(1); }).find("at most 128 are allowed"),
            std::string::npos)
      << "an ordered queue's name is longer";
  EXPECT_EQ(waiting().size(), 0U);
  producer_.task("ship").idempotency_key(std::string(255, 'k')).send(1);
  producer_.task("book").key("k").send(1);
  EXPECT_EQ(waiting().size(), 2U);
}

/// The C ABI, as a caller in C has it.
class options_test : public producer_keys_test {
 protected:
  options_test() {
    EXPECT_EQ(library_.open({url_.data(), url_.size()}, &open_), 0) << error();
    options_.size = sizeof options_;
    options_.task = text("work");
    options_.max_retries = -1;
  }
  ~options_test() override { library_.close(open_); }

  static leveret_string text(std::string_view literal) { return {literal.data(), literal.size()}; }
  [[nodiscard]] std::string error() const {
    const leveret_string said = library_.last_error();
    return {said.data, said.size};
  }
  /// The id, or the error.
  std::string send(const leveret_send_options& options) {
    leveret_string id{};
    if (library_.send(open_, &options, {}, {}, &id) != 0) return error();
    return {id.data, id.size};
  }

  const leveret_library& library_ = *leveret_get_library(LEVERET_ABI_VERSION);
  const std::string url_ = url();
  leveret_producer* open_ = nullptr;
  leveret_send_options options_{};
};

INSTANTIATE_TEST_SUITE_P(each, options_test, ::testing::Values("memory"));

TEST_P(options_test, what_an_older_caller_does_not_have_counts_as_not_said) {
  // What stands behind an older caller's options is anything.
  options_.ordered = 1;
  options_.key = text("k");
  options_.idempotency_key = text("k");
  options_.unique_until = 77;
  options_.size = offsetof(leveret_send_options, ordered);
  const std::string first = send(options_);
  EXPECT_NE(send(options_), first);
  EXPECT_EQ(waiting(), (std::map<std::string, std::uint64_t>{{"native", 2}}));
  options_.unique_until = LEVERET_UNTIL_END;
  options_.size = offsetof(leveret_send_options, idempotency_key);
  const std::string second = send(options_);
  EXPECT_EQ(send(options_), second) << "by its arguments";
  EXPECT_EQ(waiting().size(), 2U);
  options_.size = offsetof(leveret_send_options, ordered) - 1;
  EXPECT_EQ(send(options_), "cannot send: the options have a size of " + std::to_string(options_.size) +
                                "; set it to sizeof(leveret_send_options)");
}

TEST_P(options_test, what_a_newer_caller_says_is_refused_unless_it_is_nothing) {
  struct {
    leveret_send_options known;
    std::int64_t more;
  } newer{options_, 0};
  newer.known.size = sizeof newer;
  EXPECT_EQ(send(newer.known).back(), '1');
  newer.more = 1;
  EXPECT_EQ(send(newer.known), "cannot send: the options say what libleveret " LEVERET_VERSION
                               " does not know yet; install the version that the headers are of");
}

TEST_P(options_test, senseless_ones_are_refused) {
  leveret_send_options wrong = options_;
  wrong.ordered = 1;
  EXPECT_EQ(send(wrong), "cannot send \"work\": it is ordered, and this job has no key; give it one");
  wrong = options_;
  wrong.key = text("k");
  EXPECT_EQ(send(wrong), "cannot send \"work\": a key keeps jobs in order; say `ordered` too");
  wrong = options_;
  wrong.unique_until = 3;
  EXPECT_EQ(send(wrong), "unique_until must be \"start\" or \"end\", not 3");
  wrong = options_;
  wrong.idempotency_window_ms = -1;
  EXPECT_EQ(send(wrong), "idempotency_window must be at least 0 seconds and at most a hundred years, not -1 ms");
  leveret_batch* batch = nullptr;
  ASSERT_EQ(library_.begin_batch(open_, &options_, &batch), 0);
  EXPECT_NE(library_.add_keyed(batch, text("k"), {}, {}), 0);
  EXPECT_EQ(error(), "cannot send \"work\": a key keeps jobs in order; say `ordered` too");
  library_.end_batch(batch);
  EXPECT_TRUE(waiting().empty());
}

}  // namespace
