// send_many of jobs with keys: which messages are on their way, and what is said of them, on a broker that the test is.
#include "ordered_publisher.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace leveret::core;

namespace {

struct fixture {
  explicit fixture(std::size_t batch_bytes = 8, std::uint64_t window = 1'000)
      : batch(
            batch_bytes, window, [this](std::uint32_t shard) { prepared.push_back(shard); },
            [this](std::uint32_t shard, std::string_view lines, std::uint32_t,
                   std::function<void(const publish_outcome&)> then) {
              const std::lock_guard<std::mutex> lock(mutex);
              messages.push_back({shard, std::string(lines), std::move(then)});
              changed.notify_all();
              return "m" + std::to_string(messages.size() - 1);
            }) {}

  /// Answers the message as a loop would. Gives its lines.
  std::string answer(std::size_t i, publish_status status = publish_status::accepted) {
    std::function<void(const publish_outcome&)> then;
    std::string lines;
    {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&] { return messages.size() > i; });
      then = std::exchange(messages[i].answer, nullptr);
      lines = messages[i].lines;
    }
    then({status, {leveret::errc::refused, "no"}, {}});
    return lines;
  }
  std::vector<std::string> sent() {
    const std::lock_guard<std::mutex> lock(mutex);
    std::vector<std::string> all;
    for (const message& m : messages) all.push_back(std::to_string(m.shard) + " " + m.lines);
    return all;
  }
  std::vector<std::string> places() {
    const ordered_batch::result r = batch.accepted();
    std::vector<std::string> out;
    for (const auto& job : r.jobs) out.push_back(r.messages.at(job.message).id + "/" + std::to_string(job.line));
    return out;
  }

  struct message {
    std::uint32_t shard;
    std::string lines;
    std::function<void(const publish_outcome&)> answer;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<message> messages;
  std::vector<std::uint32_t> prepared;
  ordered_batch batch;
};

using texts = std::vector<std::string>;

}  // namespace

TEST(ordered_publisher, of_each_shard_one_message_is_on_its_way) {
  fixture f;  // two lines fill a message
  for (int i = 0; i < 8; ++i) f.batch.add(i % 2 == 0 ? 3 : 9, "a" + std::to_string(i) + "\n");
  EXPECT_EQ(f.sent(), (texts{"3 a0\na2\n", "9 a1\na3\n"}));
  EXPECT_EQ(f.prepared, (std::vector<std::uint32_t>{3, 9}));
  f.answer(1);
  EXPECT_EQ(f.sent().size(), 2u) << "the last message of a shard waits for more";
  std::thread finishing([&] { f.batch.finish(); });
  f.answer(2);  // finishing sends what has waited
  EXPECT_EQ(f.sent().size(), 3u) << "shard 3 waits for its first";
  f.answer(0);
  f.answer(3);
  finishing.join();
  EXPECT_EQ(f.sent(), (texts{"3 a0\na2\n", "9 a1\na3\n", "9 a5\na7\n", "3 a4\na6\n"}));
  EXPECT_EQ(f.places(), (texts{"m0/1", "m1/1", "m0/2", "m1/2", "m3/1", "m2/1", "m3/2", "m2/2"}));
}

TEST(ordered_publisher, what_is_said_to_be_accepted_is_all_before_the_first_that_was_not) {
  fixture f(3);  // one line fills a message
  for (const std::uint32_t shard : {1u, 2u, 1u, 2u, 1u}) f.batch.add(shard, "x\n");
  EXPECT_EQ(f.sent().size(), 2u);
  f.answer(1);  // job 1
  f.answer(0);  // job 0; job 2 goes, since another one is behind it
  EXPECT_EQ(f.sent().size(), 3u);
  std::thread finishing([&] { EXPECT_THROW(f.batch.finish(), leveret::publish_refused); });
  f.answer(3);                           // job 3
  f.answer(2, publish_status::refused);  // job 2
  finishing.join();
  EXPECT_EQ(f.sent().size(), 4u) << "job 4 is not sent";
  EXPECT_EQ(f.places(), (texts{"m0/1", "m1/1"}));
  EXPECT_EQ(f.batch.accepted().accepted_behind, 1u);
  EXPECT_THROW(f.batch.add(5, "y\n"), leveret::publish_refused);
}

TEST(ordered_publisher, memory_is_bounded_and_every_line_goes_in_the_end) {
  fixture f(64, 200);
  std::thread adding([&] {
    for (int i = 0; i < 500; ++i) f.batch.add(static_cast<std::uint32_t>(i) % kOrderedShards, "12345\n");
    f.batch.finish();
  });
  std::size_t bytes = 0;
  for (std::size_t i = 0; bytes < 500 * 6; ++i) bytes += f.answer(i).size();
  adding.join();
  EXPECT_EQ(f.places().size(), 500u);
  EXPECT_GE(f.sent().size(), 500u * 6 / 200) << "the window was never larger";
}
