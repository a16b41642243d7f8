// Many jobs that are to be there once: what is told when one of them can't be sent.
#include "once_publisher.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <leveret/error.hpp>
#include <string>
#include <thread>

namespace leveret::core {
namespace {

using namespace std::chrono_literals;

class once_publisher_test : public ::testing::Test {
 protected:
  static envelope with(const std::string& key) {
    envelope e;
    e.queue = "q";
    e.once = {key, held_until::window, 1h};
    return e;
  }
  /// From the first answer on, nothing is answered before `gate_` opens.
  client_options held_back() {
    client_options options;
    options.lim.max_message_bytes = 100;
    options.on_publish = [this, opened = gate_.get_future().share()](const message&) {
      if (!holds_.exchange(true)) first_.set_value();
      opened.wait();
    };
    return options;
  }

  const std::string line_ = "{\"task\":\"t\",\"retry_count\":0}\n";
  const std::string too_long_ = std::string(200, 'x') + "\n";
  std::promise<void> gate_;
  std::atomic<bool> holds_{false};
  std::promise<void> first_;  // is answered
  client client_{"memory://once-publisher", held_back()};
};

TEST_F(once_publisher_test, tells_those_before_one_that_failed_and_counts_those_behind) {
  once_batch batch(client_);
  batch.add(with("a"), line_);
  first_.get_future().wait();  // else what is refused could be known before the next is added, which then is not
  batch.add(with("b"), line_);
  batch.add(with("c"), too_long_);
  for (const char* key : {"d", "e", "f"}) batch.add(with(key), line_);
  gate_.set_value();
  EXPECT_THROW(batch.finish(), publish_refused);
  EXPECT_THROW(batch.add(with("g"), line_), publish_refused);
  EXPECT_EQ(batch.accepted().messages.size(), 2u);
  EXPECT_EQ(batch.accepted().accepted_behind, 3u);
  EXPECT_EQ(client_.stats("q").at(0).ready, 5u);
}

TEST_F(once_publisher_test, ends_with_its_connection) {
  gate_.set_value();
  once_batch batch(client_);
  batch.add(with("a"), line_);
  batch.finish();
  client_.close();
  EXPECT_THROW(batch.add(with("b"), line_), closed);
  EXPECT_THROW(batch.finish(), closed);
  EXPECT_EQ(batch.accepted().messages.size(), 1u);
  EXPECT_EQ(batch.accepted().accepted_behind, 0u);
}

TEST_F(once_publisher_test, has_a_bounded_number_on_its_way) {
  once_batch batch(client_);
  std::atomic<int> added{0};
  std::thread adding([&] {
    for (; added < 1000; ++added) batch.add(with(std::to_string(added)), line_);
  });
  std::this_thread::sleep_for(100ms);
  EXPECT_LE(added, 256);
  gate_.set_value();
  adding.join();
  batch.finish();
  EXPECT_EQ(batch.accepted().messages.size(), 1000u);
}

}  // namespace
}  // namespace leveret::core
