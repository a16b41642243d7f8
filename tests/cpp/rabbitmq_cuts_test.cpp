// Sessions with a RabbitMQ node that are cut at a byte: each of the first 2 KB that a side sends (greeting, login,
// channels, queues, publishes, acknowledgements), and random places in 64 KB. Nothing is lost, a message comes twice
// only where a cut left open what became of it, and a publisher is never told anything that is not so.
//
// LEVERET_TEST_CUTS=N cuts after each of the first N bytes instead (65536: the whole of 64 KB; about 15 minutes).
// LEVERET_TEST_SEED=N repeats a run's random places.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp/support/rabbitmq_side.hpp"

namespace leveret::core {
namespace {

using namespace std::chrono_literals;
using testing_support::becomes;
using testing_support::consumer;
using testing_support::many;
using testing_support::peer;
using testing_support::proxy;
using testing_support::quick;
using testing_support::rabbitmq_node;
using testing_support::unique;

// Cuts wait for each other's round trips, not for the cores.
constexpr std::size_t kLanes = 6;
constexpr std::uint32_t kWindow = 4;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kStep = 8;  // the same code, a broker that gives the same answers, and far slower
#else
constexpr std::size_t kStep = 1;
#endif

std::size_t number_of(const char* variable, std::size_t otherwise) {
  const char* const text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

limits impatient() {
  limits lim = quick();
  lim.reconnect_min = 1ms;
  lim.reconnect_max = 5ms;
  return lim;
}

std::map<std::string, std::size_t> times_of(const std::vector<delivery>& deliveries) {
  std::map<std::string, std::size_t> times;
  for (const delivery& d : deliveries) ++times[d.msg.id];
  return times;
}

// A queue, a proxy, and a side behind it whose connections are cut.
class lane {
 public:
  explicit lane(const std::string& name) : queue_(unique(name)) { behind_.declare(queue_); }

  peer& behind() { return behind_; }
  [[nodiscard]] const std::string& queue() const { return queue_; }

  // The next two connections, one to publish and one to consume, end after `bytes` each.
  void cut_at(std::size_t bytes) {
    way_.command("cut-next 2 " + std::to_string(bytes));
    way_.command("reset");
  }
  // As often as it takes until the publishing side of a session was cut: `messages` are more than `bytes`.
  std::vector<publish_outcome> publish(std::vector<message> messages, std::chrono::milliseconds within = 60s) {
    return behind_.publish(std::move(messages), within);
  }
  proxy& way() { return way_; }

 private:
  const std::string queue_;
  proxy way_{rabbitmq_node::shared().port()};
  peer behind_{rabbitmq_node::shared().url_at(way_.port()), impatient()};
};

// Publishes past a cut at each place while a consumer behind the same cuts settles, and judges what came.
void publish_and_consume(const std::string& name, const std::vector<std::size_t>& places, std::size_t message_bytes) {
  lane at(name);
  consumer c(at.behind(), at.queue(), {kWindow, 32u << 20}, true);
  std::set<std::string> sent;
  std::size_t most = 0;
  for (const std::size_t place : places) {
    std::vector<message> messages = many(at.queue(), place / message_bytes + 3, message_bytes);
    for (const message& m : messages) sent.insert(m.id);
    most = std::max(most, messages.size());
    at.cut_at(place);
    for (const publish_outcome& o : at.publish(std::move(messages))) {
      ASSERT_EQ(o.status, publish_status::accepted) << "cut after " << place << " bytes: " << o.why.text;
    }
  }
  const auto cuts = static_cast<std::size_t>(at.way().cuts());
  EXPECT_GE(cuts, places.size()) << "each session that published was cut";
  c.wait_ids(sent);
  const std::map<std::string, std::size_t> times = times_of(c.all());
  std::size_t again = 0;
  for (const auto& [id, count] : times) {
    EXPECT_EQ(sent.count(id), 1u) << id;
    again += count - 1;
  }
  // A cut leaves open the confirms of what was sent in its session, and the acknowledgements of a window; each place
  // ends both sides' sessions twice (the reset before, the cut).
  EXPECT_LE(again, 2 * places.size() * (most + kWindow));
  // What was settled is gone: the last acknowledgements need no session that is still to be cut.
  peer direct;
  EXPECT_TRUE(becomes([&] { return direct.stats(at.queue()).first.at(0).ready == 0; }));
}

// Publishes into a cut behind which nobody answers until the deadline: what was told must be so.
void publish_and_be_told(const std::string& name, const std::vector<std::size_t>& places, std::size_t message_bytes) {
  lane at(name);
  std::map<std::string, publish_outcome> told;
  auto deadline = 50ms;
  for (const std::size_t place : places) {
    at.way().command("refuse");
    at.way().command("cut " + std::to_string(place));
    // One by one up to the cut, and one behind it.
    bool last = false;
    for (message& m : many(at.queue(), place / message_bytes + 2, message_bytes)) {
      const std::string id = m.id;
      std::vector<message> one;
      one.push_back(std::move(m));
      const publish_outcome& o = told[id] = at.publish(std::move(one), deadline).at(0);
      if (std::exchange(last, o.status != publish_status::accepted)) break;
    }
    at.way().command("accept");
    // A session that can be cut again, and what a confirm takes in it: a deadline that none can meet is no use.
    std::chrono::steady_clock::time_point begin;
    for (int i = 0; i < 2; ++i) {
      begin = std::chrono::steady_clock::now();
      for (const publish_outcome& o : at.publish(many(at.queue(), 1))) ASSERT_EQ(o.status, publish_status::accepted);
    }
    const auto took = std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    deadline = std::clamp(4 * took, 50ms, 2'000ms);
  }
  peer direct;
  consumer c(direct, at.queue(), {}, true);
  std::size_t accepted = 0;
  std::size_t unknown = 0;
  std::size_t not_sent = 0;
  std::set<std::string> due;
  for (const auto& [id, outcome] : told) {
    if (outcome.status == publish_status::accepted) due.insert(id);
  }
  c.wait_ids(due);
  EXPECT_TRUE(becomes([&] { return direct.stats(at.queue()).first.at(0).ready == 0; }));
  const std::map<std::string, std::size_t> times = times_of(c.all());
  for (const auto& [id, outcome] : told) {
    const std::size_t came = times.count(id);
    switch (outcome.status) {
      case publish_status::accepted:
        ++accepted;
        EXPECT_EQ(came, 1u) << "told to be accepted, and lost";
        break;
      case publish_status::refused:
        ADD_FAILURE() << "nothing here is a reason to refuse: " << outcome.why.text;
        break;
      case publish_status::unknown:
        if (outcome.why.code == errc::unknown_outcome) {
          ++unknown;
        } else {
          ++not_sent;
          EXPECT_EQ(outcome.why.code, errc::broker_unavailable) << outcome.why.text;
          EXPECT_EQ(came, 0u) << "told not to be sent, and there: " << outcome.why.text;
        }
        break;
    }
  }
  // The places meet all three.
  EXPECT_GT(accepted, 0u);
  EXPECT_GT(unknown, 0u);
  EXPECT_GT(not_sent, 0u);
}

// Deals places out to lanes, each a thread with connections of its own.
void in_lanes(const std::vector<std::size_t>& places,
              const std::function<void(const std::string&, const std::vector<std::size_t>&)>& run) {
  (void)rabbitmq_node::shared();  // started once
  std::vector<std::thread> threads;
  for (std::size_t l = 0; l < kLanes; ++l) {
    std::vector<std::size_t> mine;
    for (std::size_t i = l; i < places.size(); i += kLanes) mine.push_back(places[i]);
    threads.emplace_back([&run, l, mine = std::move(mine)] {
      try {
        run("cuts" + std::to_string(l), mine);
      } catch (const std::exception& e) {
        ADD_FAILURE() << e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

std::vector<std::size_t> random_places(std::size_t count, std::size_t below) {
  const std::size_t seed = number_of("LEVERET_TEST_SEED", std::random_device{}());
  std::printf("seed: LEVERET_TEST_SEED=%zu\n", seed);
  std::mt19937_64 random(seed);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < count; ++i) places.push_back(1 + random() % below);
  return places;
}

TEST(rabbitmq_cuts, after_each_of_the_first_bytes_lose_nothing) {
  std::vector<std::size_t> places;
  for (std::size_t place = 1; place <= number_of("LEVERET_TEST_CUTS", 2'048); place += kStep) places.push_back(place);
  // Small messages, so that the first cuts are amid many frames; for later places they would be too many.
  const std::size_t message_bytes = places.back() > 4'096 ? 4'000 : 500;
  in_lanes(places, [message_bytes](const std::string& name, const std::vector<std::size_t>& mine) {
    publish_and_consume(name, mine, message_bytes);
  });
}

TEST(rabbitmq_cuts, at_random_places_lose_nothing) {
  in_lanes(random_places(200 / kStep, 65'536), [](const std::string& name, const std::vector<std::size_t>& mine) {
    publish_and_consume(name, mine, 4'000);
  });
}

TEST(rabbitmq_cuts, tell_a_publisher_nothing_that_is_not_so) {
  in_lanes(random_places(200 / kStep, 16'384), [](const std::string& name, const std::vector<std::size_t>& mine) {
    publish_and_be_told(name, mine, 1'000);
  });
}

}  // namespace
}  // namespace leveret::core
