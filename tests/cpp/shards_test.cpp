/// Queues that are spread over shards: the names, the choice, what senders publish, and how workers find them.
#include "shards.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "client.hpp"
#include "registry.hpp"
#include "worker.hpp"

using namespace leveret::core;

namespace {

message saying(const std::string& shards) {
  message m;
  m.headers.push_back({kHeaderShards, shards});
  return m;
}

TEST(shards, the_first_is_the_queue_itself) {
  EXPECT_EQ(shard_queue("work", 0), "work");
  EXPECT_EQ(shard_queue("work", 1), "work.shard.1");
  EXPECT_EQ(shard_queue("work", 255), "work.shard.255");
}

TEST(shards, are_known_by_their_names) {
  EXPECT_TRUE(is_shard("work.shard.1"));
  EXPECT_TRUE(is_shard("work.shard.255"));
  for (const char* name : {"work", "work.shard.0", "work.shard.01", "work.shard.256", "work.shard.", "work.shard.x",
                           ".shard.1", "shard.1", "work.shard.1.dead", "work.shard.-1"}) {
    EXPECT_FALSE(is_shard(name)) << name;
  }
}

TEST(shards, a_message_says_how_many_there_are) {
  EXPECT_EQ(shards_said(saying("4")), 4u);
  EXPECT_EQ(shards_said(saying("256")), 256u);
  EXPECT_EQ(shards_said({}), 1u);
}

TEST(shards, nonsense_in_the_header_says_nothing) {
  for (const char* text : {"", "0", "257", "-3", "4 ", " 4", "4x", "0x4", "99999999999999999999", "four"}) {
    EXPECT_EQ(shards_said(saying(text)), 1u) << text;
  }
}

TEST(shards, numbers_and_names_are_checked) {
  EXPECT_NO_THROW(check_shards("work", 1));
  EXPECT_NO_THROW(check_shards("work", 256));
  EXPECT_THROW(check_shards("work", 0), std::invalid_argument);
  EXPECT_THROW(check_shards("work", 257), std::invalid_argument);
  EXPECT_THROW(check_shards("wo rk", 2), std::invalid_argument);
  EXPECT_NO_THROW(check_shards(std::string(120, 'q'), 10));
  EXPECT_THROW(check_shards(std::string(120, 'q'), 11), std::invalid_argument);
}

TEST(shards, messages_go_to_each_in_turn_and_first_to_the_queue_itself) {
  shard_chooser chooser;
  std::vector<std::uint32_t> chosen;
  for (int i = 0; i < 8; ++i) {
    chosen.push_back(chooser.take("work", 4));
    chooser.answered("work", chosen.back());
  }
  EXPECT_EQ(chosen, (std::vector<std::uint32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(chooser.take("other", 4), 0u);
}

TEST(shards, one_that_answers_nothing_gets_no_more_than_its_share_of_what_is_unanswered) {
  shard_chooser chooser;
  std::map<std::uint32_t, int> sent;
  std::vector<std::uint32_t> unanswered;
  for (int i = 0; i < 1'000; ++i) {
    const std::uint32_t shard = chooser.take("work", 4);
    ++sent[shard];
    if (shard != 2) unanswered.push_back(shard);
    if (unanswered.size() == 9) {  // a window of twelve, three of them for the one that is silent
      for (const std::uint32_t each : unanswered) chooser.answered("work", each);
      unanswered.clear();
    }
  }
  EXPECT_LE(sent[2], 4);
  for (const std::uint32_t shard : {0u, 1u, 3u}) EXPECT_NEAR(sent[shard], 332, 20) << shard;
}

TEST(shards, more_of_them_later_are_used_too) {
  shard_chooser chooser;
  std::set<std::uint32_t> chosen;
  EXPECT_EQ(chooser.take("work", 2), 0u);
  for (int i = 0; i < 4; ++i) chosen.insert(chooser.take("work", 5));
  EXPECT_EQ(chosen, (std::set<std::uint32_t>{1, 2, 3, 4}));
  EXPECT_LT(chooser.take("work", 2), 2u);
}

/// A client on the memory transport, whose messages are seen as they are published.
struct sending : testing::Test {
  sending() {
    static std::atomic<int> number{0};
    url = "memory://shards-test-" + std::to_string(++number);
    client_options options;
    options.batch_bytes = 20;
    options.on_publish = [this](const message& m) { published.push_back(m); };
    made = std::make_unique<client>(url, std::move(options));
    to.queue = "work";
    to.shards = 3;
  }

  [[nodiscard]] std::map<std::string, int> by_queue() const {
    std::map<std::string, int> messages;
    for (const message& m : published) ++messages[m.queue];
    return messages;
  }

  std::string url;
  std::vector<message> published;
  std::unique_ptr<client> made;
  envelope to;
};

class quiet_log final : public log_sink {
 public:
  void log(leveret_log_level, std::string_view, std::string_view, std::string_view) override {}
};

/// A worker of "work" that counts the jobs it has run.
struct running : sending {
  running() {
    leveret_task t{};
    t.size = sizeof t;
    t.name = {"t", 1};
    t.queue = {"work", 4};
    t.max_retries = -1;
    t.state = this;
    t.call = [](void* state, leveret_call*) {
      auto* const self = static_cast<running*>(state);
      const std::lock_guard<std::mutex> lock(self->mutex);
      ++self->ran;
      self->changed.notify_all();
      return LEVERET_SUCCEEDED;
    };
    EXPECT_EQ(tasks.add(t, "test"), "");
  }

  void send_many(int jobs) {
    const auto batch = made->start_batch(to);
    for (int i = 0; i < jobs; ++i) batch->add("{\"task\":\"t\",\"retry_count\":0}\n");
    batch->finish();
  }
  [[nodiscard]] bool wait_ran(int jobs) {
    std::unique_lock<std::mutex> lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), [&] { return ran == jobs; });
  }
  [[nodiscard]] std::unique_ptr<worker> start(bool burst) {
    worker_options options;
    options.url = url;
    options.threads = 2;
    options.burst = burst;
    auto w = std::make_unique<worker>(std::move(options), tasks, log);
    w->start();
    return w;
  }

  registry tasks;
  quiet_log log;
  std::mutex mutex;
  std::condition_variable changed;
  int ran = 0;
};

TEST_F(running, a_worker_consumes_the_shards_that_are_there_when_it_starts) {
  send_many(30);
  // None left in the queue itself that could say so.
  EXPECT_EQ(made->purge("work"), 10u);
  const auto w = start(true);
  EXPECT_TRUE(w->wait_finished(std::chrono::steady_clock::now() + std::chrono::seconds(60)));
  EXPECT_EQ(ran, 20);
}

TEST_F(running, a_worker_hears_of_shards_that_are_made_later) {
  const auto w = start(false);
  send_many(30);
  EXPECT_TRUE(wait_ran(30));
  to.shards = 5;
  send_many(30);
  EXPECT_TRUE(wait_ran(60));
  EXPECT_EQ(by_queue().size(), 5u);
}

TEST_F(running, the_first_message_of_a_sender_is_enough_to_be_heard) {
  const auto w = start(false);
  send_many(1);
  EXPECT_TRUE(wait_ran(1));
  // It says so in the queue itself; what others then put into the other shards is consumed.
  to.queue = "work.shard.2";
  to.shards = 1;
  send_many(1);
  EXPECT_TRUE(wait_ran(2));
}

TEST_F(running, a_burst_ends_when_all_shards_are_empty) {
  send_many(300);
  const auto w = start(true);
  EXPECT_TRUE(w->wait_finished(std::chrono::steady_clock::now() + std::chrono::seconds(60)));
  EXPECT_EQ(ran, 300);
  for (std::uint32_t shard = 0; shard < 3; ++shard) {
    EXPECT_EQ(made->stats(shard_queue("work", shard)).front().ready, 0u) << shard;
  }
}

TEST_F(sending, a_batch_is_spread_and_the_queue_itself_says_over_how_many) {
  const auto batch = made->start_batch(to);
  for (int i = 0; i < 30; ++i) batch->add("{\"task\":\"t\"}------\n");
  batch->finish();
  EXPECT_EQ(by_queue(), (std::map<std::string, int>{{"work", 10}, {"work.shard.1", 10}, {"work.shard.2", 10}}));
  EXPECT_EQ(published.front().queue, "work");
  for (const message& m : published) EXPECT_EQ(shards_said(m), m.queue == "work" ? 3u : 1u) << m.queue;
}

TEST_F(sending, jobs_sent_one_by_one_are_spread) {
  for (int i = 0; i < 6; ++i) EXPECT_EQ(made->send(to, {}, "{\"task\":\"t\"}\n").line, 1u);
  EXPECT_EQ(by_queue(), (std::map<std::string, int>{{"work", 2}, {"work.shard.1", 2}, {"work.shard.2", 2}}));
}

TEST_F(sending, all_shards_are_there_before_the_first_message) {
  (void)made->send(to, {}, "{\"task\":\"t\"}\n");
  for (std::uint32_t shard = 0; shard < 3; ++shard) {
    EXPECT_EQ(made->stats(shard_queue("work", shard)).size(), 1u) << shard;
  }
  EXPECT_THROW((void)made->stats(shard_queue("work", 3)), leveret::error);
}

TEST_F(sending, without_shards_nothing_is_said) {
  to.shards = 1;
  (void)made->send(to, {}, "{\"task\":\"t\"}\n");
  EXPECT_EQ(by_queue(), (std::map<std::string, int>{{"work", 1}}));
  EXPECT_TRUE(published.front().headers.empty());
}

}  // namespace
