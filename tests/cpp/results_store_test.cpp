/// Results kept beside a broker: the url's parameter, what every store does, and what is stored before what is settled.
#include "results_store.hpp"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <memory>
#include <stdexcept>

#include "cpp/support/folder.hpp"
#include "cpp/support/program.hpp"
#include "cpp/support/store.hpp"

using namespace leveret::core;
using leveret::test::chunk;
using leveret::test::folder;
using leveret::test::shown;
using leveret::test::store_session;
using leveret::testing_support::redis_server;

namespace {

std::string refusal_of(const std::string& url) {
  try {
    return "accepted: " + display_url(url);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
}

TEST(split_results, takes_the_parameter_out_of_an_amqp_url) {
  const auto split = [](const char* url) {
    const broker_and_results parts = split_results(url);
    return parts.broker + " | " + parts.results;
  };
  EXPECT_EQ(split("amqp://h"), "amqp://h | ");
  EXPECT_EQ(split("amqp://h/v?results=sqlite:///r.db"), "amqp://h/v | sqlite:///r.db");
  EXPECT_EQ(split("amqps://h/v?results=sqlite:////a/r.db&heartbeat=5"), "amqps://h/v?heartbeat=5 | sqlite:////a/r.db");
  EXPECT_EQ(split("amqp://h?heartbeat=5&results=sqlite:///r.db"), "amqp://h?heartbeat=5 | sqlite:///r.db");
  EXPECT_EQ(split("amqp://h?a=1&results=sqlite:///r.db&b=2"), "amqp://h?a=1&b=2 | sqlite:///r.db");
  EXPECT_EQ(split("amqp://h?results=sqlite:///r%3Fx%20y.db"), "amqp://h | sqlite:///r?x y.db");
  EXPECT_EQ(split("amqp://h?results=redis://r:6380/2"), "amqp://h | redis://r:6380/2");
  EXPECT_EQ(split("amqp://h?results=redis://:pass%2540word%40r"), "amqp://h | redis://:pass%40word@r");
  EXPECT_EQ(split("amqp://h?results=rediss://r%3Fverify=none"), "amqp://h | rediss://r?verify=none");
  EXPECT_EQ(split("sqlite:///q.db?durability=full"), "sqlite:///q.db?durability=full | ");
  EXPECT_EQ(split("memory://"), "memory:// | ");
}

TEST(split_results, refuses_what_is_no_store_and_does_not_repeat_it) {
  for (const char* url : {"amqp://h?results=memory://", "amqp://h?results=", "amqp://h?results=r.db",
                          "amqp://h?results=http://u:canary@h", "amqp://h?results=redis:canary"}) {
    EXPECT_THROW((void)split_results(url), std::invalid_argument) << url;
    const std::string why = refusal_of(url);
    EXPECT_NE(why.find("write results=sqlite:///path or results=redis://user:password@host:port/db"), std::string::npos)
        << why;
    EXPECT_EQ(why.find("canary"), std::string::npos) << why;
  }
}

TEST(split_results, refuses_a_store_beside_a_broker_that_is_one_and_does_not_repeat_it) {
  for (const char* url : {"sqlite:///q.db?results=redis://:canary@h", "memory://x?results=redis://:canary@h"}) {
    const std::string why = refusal_of(url);
    EXPECT_NE(why.find("results= is for RabbitMQ"), std::string::npos) << why;
    EXPECT_EQ(why.find("canary"), std::string::npos) << why;
    EXPECT_EQ(why.find("q.db"), std::string::npos) << why;
  }
}

TEST(display_url, shows_the_store_without_its_password) {
  EXPECT_EQ(display_url("amqp://u:canary@h/v?results=sqlite:////a/r.db"), "amqp://u@h/v, results in sqlite:////a/r.db");
  EXPECT_EQ(display_url("amqp://u:canary@h/v?results=redis://u:canary@r:6380/2"),
            "amqp://u@h/v, results in redis://r:6380/2");
  // As the app writes it, and a password with everything in it that somebody forgot to escape.
  EXPECT_EQ(display_url("amqp://h?results=redis://:canary%40r"), "amqp://h, results in redis://r:6379/0");
  EXPECT_EQ(display_url("amqp://h?results=rediss://:c@n/a:r?y@r"), "amqp://h, results in rediss://r:6379/0");
}

TEST(display_url, says_that_redis_is_no_broker) {
  const std::string why = refusal_of("redis://user:canary@host");
  EXPECT_NE(why.find("Redis keeps results beside RabbitMQ and is no broker of jobs"), std::string::npos) << why;
  EXPECT_EQ(why.find("canary"), std::string::npos) << why;
}

// ---- what every store does ----

class every_store : public ::testing::TestWithParam<const char*> {
 protected:
  std::string url() {
    if (GetParam() == std::string("sqlite")) return files_.url();
    static redis_server server;
    // A database of its own for each test; a server has 16.
    static int database = 0;
    return server.url() + "/" + std::to_string(database++ % 16);
  }

 private:
  folder files_;
};

INSTANTIATE_TEST_SUITE_P(stores, every_store, ::testing::Values("sqlite", "redis"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(every_store, gives_chunks_of_a_message_in_the_order_stored_to_any_process) {
  const std::string at = url();
  store_session writing(at);
  store_session reading(at);
  writing.keep({chunk("a", 9, 12, "late\n"), chunk("b", 1, 1, "other\n")});
  writing.keep({chunk("a", 1, 8, "early\n")});
  EXPECT_EQ(shown(reading.fetch({"a"})), "9-12 late\n | 1-8 early\n");
  EXPECT_EQ(shown(reading.fetch({"b", "nobody", "a"})), "1-1 other\n | 9-12 late\n | 1-8 early\n");
  EXPECT_EQ(shown(reading.fetch({"nobody"})), "");
  EXPECT_EQ(shown(reading.fetch({})), "");
  EXPECT_TRUE(writing.try_keep({}).empty());
}

TEST_P(every_store, keeps_the_order_of_many_large_chunks_of_a_message) {
  store_session store(url());
  std::vector<result_chunk> all;
  for (std::uint32_t i = 0; i < 300; ++i) all.push_back(chunk("m", 300 - i, 300 - i, std::string(200, 'x')));
  store.keep(all);
  EXPECT_EQ(shown(store.fetch({"m"})), shown(all));
}

TEST_P(every_store, keeps_bytes_as_they_are) {
  const std::string at = url();
  store_session store(at);
  const std::string odd("{\"line\":1}\r\n\0 $5\r\n\xff 1-2 ", 24);
  store.keep({chunk("odd-\xc3\xa4 id", 1, UINT32_MAX, odd), chunk("empty", 1, 1, ""),
              chunk("large", 1, 1, std::string(1u << 20, 'x'))});
  const auto found = store.fetch({"odd-\xc3\xa4 id", "empty", "large"});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].id, "odd-\xc3\xa4 id");
  EXPECT_EQ(found[0].data, odd);
  EXPECT_EQ(found[0].last_line, UINT32_MAX);
  EXPECT_EQ(found[1].data, "");
  EXPECT_EQ(found[2].data, std::string(1u << 20, 'x'));
}

TEST_P(every_store, what_was_stored_first_counts_when_a_message_is_delivered_twice) {
  store_session store(url());
  // The first delivery was cut short: of its lines 1 to 3 the second one had not ended.
  store.keep({chunk("m", 1, 3, "1 first\n3 first\n")});
  store.keep({chunk("m", 1, 3, "1 second\n2 second\n3 second\n")});
  store.keep({chunk("m", 1, 3, "1 first\n3 first\n")});
  std::map<char, std::string> ends;
  for (const result_chunk& c : store.fetch({"m"})) {
    for (std::size_t at = 0; at < c.data.size(); at = c.data.find('\n', at) + 1) {
      ends.emplace(c.data[at], c.data.substr(at + 2, c.data.find('\n', at) - at - 2));
    }
  }
  EXPECT_EQ(ends, (std::map<char, std::string>{{'1', "first"}, {'2', "second"}, {'3', "first"}}));
}

TEST_P(every_store, gives_many_chunks_of_many_messages) {
  const std::string at = url();
  store_session store(at);
  std::vector<result_chunk> all;
  std::vector<std::string> ids;
  for (std::uint32_t i = 0; i < 3000; ++i) {
    const std::string id = "m" + std::to_string(i / 3);
    if (i % 3 == 0) ids.push_back(id);
    all.push_back(chunk(id, i % 3 + 1, i % 3 + 1, "line of " + std::to_string(i)));
  }
  store.keep(all);
  const auto found = store_session(at).fetch(ids);
  ASSERT_EQ(found.size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(found[i].id, all[i].id);
    ASSERT_EQ(found[i].data, all[i].data);
  }
}

TEST_P(every_store, forgets_results_after_their_time) {
  limits lim;
  lim.result_ttl = std::chrono::seconds(1);
  const std::string at = url();
  store_session store(at, lim);
  store.keep({chunk("short", 1, 1, "x")});
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  bool gone = false;
  while (!gone && std::chrono::steady_clock::now() < patience) {
    store.keep({chunk("another", 1, 1, "x")});
    gone = store.fetch({"short"}).empty();
  }
  EXPECT_TRUE(gone);
}

TEST_P(every_store, answers_after_its_end_that_it_is_closed) {
  store_session store(url());
  store.close();
  EXPECT_EQ(store.store().how_it_is().state, health_state::closed);
  const auto kept = store.try_keep({chunk("a", 1, 1, "x"), chunk("b", 1, 1, "x")});
  ASSERT_EQ(kept.size(), 2u);
  for (const maybe_failure& why : kept) {
    ASSERT_TRUE(why.has_value());
    EXPECT_EQ(why->code, leveret::errc::closed);
    EXPECT_NE(why->text.find("cannot store results"), std::string::npos) << why->text;
    EXPECT_NE(why->text.find("open it again"), std::string::npos) << why->text;
  }
  const maybe_failure why = store.try_fetch({"a"}).second;
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->code, leveret::errc::closed);
}

// ---- before a delivery is settled ----

limits patient() {
  limits lim;
  lim.connect_timeout = std::chrono::seconds(60);  // what a call waits for a store that was stopped
  return lim;
}

// A memory broker with a Redis beside it, and messages of its queue "q" handed out: m0, m1, …
class beside {
 public:
  beside(const std::string& name, const std::string& store, std::size_t messages)
      : t_(with_results(open_memory("memory://" + name, events_, {}), open_results_store(store, events_, patient()),
                        events_, patient())) {
    std::promise<void> declared;
    t_->declare("q", [&](transport::declared, const maybe_failure&) { declared.set_value(); });
    declared.get_future().get();
    std::vector<message> all(messages);
    for (std::size_t i = 0; i < messages; ++i) {
      all[i].id = "m" + std::to_string(i);
      all[i].queue = "q";
      all[i].data = body("{}\n");
      all[i].jobs = 1;
    }
    t_->publish(std::move(all), events_.now() + std::chrono::seconds(60), [](const std::vector<publish_outcome>&) {});
    std::promise<void> taken;
    subscriber hears;
    hears.on_delivery = [&](const delivery& d) {
      settlement end;
      end.token = d.token;
      ends.push_back(end);
      if (ends.size() == messages) taken.set_value();
    };
    t_->subscribe("q", {}, hears);
    taken.get_future().get();
  }
  ~beside() {
    t_->close(events_.now() + std::chrono::seconds(5));
    events_.stop();
  }
  beside(const beside&) = delete;
  beside& operator=(const beside&) = delete;

  transport& operator*() { return *t_; }

  std::future<std::vector<settle_outcome>> settle(std::vector<settlement> what) {
    auto settled = std::make_shared<std::promise<std::vector<settle_outcome>>>();
    t_->settle(std::move(what),
               [settled](std::vector<settle_outcome> outcomes) { settled->set_value(std::move(outcomes)); });
    return settled->get_future();
  }
  std::string fetch(std::vector<std::string> ids) {
    std::promise<std::string> fetched;
    t_->fetch(std::move(ids), [&](const std::vector<result_chunk>& found, const maybe_failure& why) {
      fetched.set_value(why ? why->text : shown(found));
    });
    return fetched.get_future().get();
  }
  std::uint64_t running() {
    std::promise<std::uint64_t> counted;
    t_->stats("q", [&](const std::vector<queue_stats>& found, const maybe_failure&) {
      counted.set_value(found.at(0).running.value_or(0));
    });
    return counted.get_future().get();
  }

  std::vector<settlement> ends;  // one for each message

 private:
  thread_loop events_;
  std::unique_ptr<transport> t_;
};

TEST(with_results, settles_those_whose_results_are_stored_and_no_others) {
  redis_server server;
  server.command("cli SET leveret:result:taken by-another-program");
  beside b("settling", server.url(), 3);
  EXPECT_TRUE((*b).what_it_can().fetch);
  EXPECT_EQ((*b).where(), "memory://settling, results in " + server.url() + "/0");
  b.ends[0].results = {chunk("m0", 1, 1, "kept")};
  b.ends[1].results = {chunk("m1", 1, 1, "kept too"), chunk("taken", 1, 1, "refused")};
  const std::vector<settle_outcome> outcomes = store_session::got(b.settle(b.ends));
  ASSERT_EQ(outcomes.size(), 3u);
  EXPECT_EQ(outcomes[0].status, settle_status::settled);
  EXPECT_EQ(outcomes[1].status, settle_status::failed);
  EXPECT_NE(outcomes[1].why.find("message taken"), std::string::npos) << outcomes[1].why;
  EXPECT_EQ(outcomes[2].status, settle_status::settled);
  EXPECT_EQ(b.running(), 1u);

  server.command("cli DEL leveret:result:taken");
  EXPECT_EQ(store_session::got(b.settle({b.ends[1]})).at(0).status, settle_status::settled);
  EXPECT_EQ(b.fetch({"m0", "m1", "taken"}), "1-1 kept | 1-1 kept too | 1-1 refused");
  EXPECT_TRUE(store_session::got(b.settle({})).empty());
}

TEST(with_results, settles_only_what_is_stored_and_lets_nothing_else_wait_for_the_store) {
  redis_server server;
  beside b("waiting", server.url(), 3);
  b.ends[1].results = {chunk("m1", 1, 1, "x")};
  server.command("pause");
  auto settled = b.settle(b.ends);
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (b.running() > 1 && std::chrono::steady_clock::now() < patience) {
  }
  EXPECT_EQ(b.running(), 1u) << "that whose result is not stored yet, and no other";
  server.command("resume");
  for (const settle_outcome& o : store_session::got(std::move(settled))) EXPECT_EQ(o.status, settle_status::settled);
  EXPECT_EQ(b.fetch({"m1"}), "1-1 x");
}

}  // namespace
