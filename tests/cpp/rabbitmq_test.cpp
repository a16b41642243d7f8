// The RabbitMQ transport on a private broker: what the conformance suite, which is the same for all transports, cannot
// know. Lost, half-open and cut connections come from a proxy; queues that others made and messages that others sent
// come from a bare connection.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp/support/program.hpp"
#include "cpp/support/rabbitmq_side.hpp"
#include "ids.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"
#include "transports/rabbitmq/connection.hpp"
#include "transports/rabbitmq/operations.hpp"
#include "transports/rabbitmq/topology.hpp"

namespace leveret::core {
namespace {

using namespace std::chrono_literals;
using testing_support::becomes;
using testing_support::consumer;
using testing_support::kPatience;
using testing_support::make;
using testing_support::many;
using testing_support::peer;
using testing_support::proxy;
using testing_support::quick;
using testing_support::rabbitmq_node;
using testing_support::unique;
using testing_support::wait;

// Another program on the broker: one channel, calls that wait.
class stranger {
 public:
  stranger() {
    connection_ = std::make_shared<rabbitmq::connection>(
        reactor_, rabbitmq::parse_url(rabbitmq_node::shared().url()).front(), limits{}, "stranger");
    reactor_.start("stranger");
    std::promise<void> p;
    reactor_.post([&] {
      rabbitmq::connection::events e;
      e.on_open = [&] {
        channel_ = connection_->open_channel();
        p.set_value();
      };
      connection_->open(std::move(e));
    });
    wait(p.get_future(), "connect");
  }
  ~stranger() {
    std::promise<void> p;
    reactor_.post([&] {
      connection_->cut("done");
      p.set_value();
    });
    p.get_future().wait();
    reactor_.stop();
  }

  bool call(amqp_method_number_t id, void* method) {
    std::promise<bool> p;
    reactor_.post([&] { channel_->call(id, method, [&](const rabbitmq::call_result& r) { p.set_value(r.done()); }); });
    return wait(p.get_future(), "call");
  }
  void declare_classic(const std::string& queue) {
    amqp_queue_declare_t method{};
    method.queue = rabbitmq::as_bytes(queue);
    method.durable = 1;
    ASSERT_TRUE(call(AMQP_QUEUE_DECLARE_METHOD, &method));
  }
  void declare_quorum(const std::string& queue, std::int64_t limit) {
    rabbitmq::table arguments;
    arguments.text("x-queue-type", "quorum").integer("x-delivery-limit", limit);
    amqp_queue_declare_t method{};
    method.queue = rabbitmq::as_bytes(queue);
    method.durable = 1;
    method.arguments = arguments.raw();
    ASSERT_TRUE(call(AMQP_QUEUE_DECLARE_METHOD, &method));
  }
  void remove(const std::string& queue) {
    amqp_queue_delete_t method{};
    method.queue = rabbitmq::as_bytes(queue);
    ASSERT_TRUE(call(AMQP_QUEUE_DELETE_METHOD, &method));
  }
  void publish(const std::string& queue, const std::string& text, const rabbitmq::properties& props = {}) {
    std::promise<void> p;
    reactor_.post([&] {
      EXPECT_TRUE(channel_->publish("", queue, props, body(text)));
      p.set_value();
    });
    p.get_future().wait();
  }
  // Takes the next message and rejects it, as programs do that rely on the broker's dead-lettering.
  void reject_one(const std::string& queue) {
    std::promise<bool> p;
    reactor_.post([&] {
      amqp_basic_get_t method{};
      method.queue = rabbitmq::as_bytes(queue);
      channel_->call(AMQP_BASIC_GET_METHOD, &method, [&](const rabbitmq::call_result& r) {
        if (r.message != nullptr) {
          amqp_basic_reject_t reject{};
          reject.delivery_tag = r.message->tag;
          channel_->send(AMQP_BASIC_REJECT_METHOD, &reject);
        }
        p.set_value(r.message != nullptr);
      });
    });
    ASSERT_TRUE(wait(p.get_future(), "get"));
  }

 private:
  rabbitmq::reactor reactor_;
  std::shared_ptr<rabbitmq::connection> connection_;
  std::shared_ptr<rabbitmq::channel> channel_;
};

std::string why_not_open(const std::string& url, const limits& lim = quick()) {
  thread_loop loop;
  try {
    (void)open_rabbitmq(url, loop, lim);
  } catch (const broker_unavailable& e) {
    return e.what();
  }
  return "opened";
}

// ---- connecting ----

TEST(rabbitmq_open, says_what_is_wrong_without_the_password) {
  const std::string good = rabbitmq_node::shared().url();
  const std::string host = good.substr(good.find('@'));
  const std::string password = why_not_open("amqp://guest:canary" + host);
  EXPECT_NE(password.find("refused the user or password"), std::string::npos) << password;
  EXPECT_EQ(password.find("canary"), std::string::npos) << password;
  const std::string vhost = why_not_open(good + "no-such-vhost");
  EXPECT_NE(vhost.find("no vhost \"no-such-vhost\""), std::string::npos) << vhost;
  const std::string refused = why_not_open("amqp://127.0.0.1:1/");
  EXPECT_NE(refused.find("amqp://127.0.0.1:1/: Connection refused"), std::string::npos) << refused;
  const std::string host_name = why_not_open("amqp://no-such-host.invalid/");
  EXPECT_NE(host_name.find("cannot be resolved"), std::string::npos) << host_name;
  const std::string tls = why_not_open("amqps://127.0.0.1:" + std::to_string(rabbitmq_node::shared().port()) + "/");
  EXPECT_NE(tls.find("TLS handshake failed"), std::string::npos) << tls;
}

TEST(rabbitmq_open, tries_each_server_of_the_url) {
  proxy way(rabbitmq_node::shared().port());
  const std::string good = "127.0.0.1:" + std::to_string(way.port());
  limits lim = quick();
  for (lim.seed = 1; lim.seed <= 8; ++lim.seed) {  // whichever is first
    EXPECT_EQ(why_not_open("amqp://guest:guest@127.0.0.1:1," + good + ",127.0.0.1:2/", lim), "opened");
  }
  const std::string none = why_not_open("amqp://guest:canary@127.0.0.1:1,127.0.0.1:2/");
  EXPECT_NE(none.find("amqp://127.0.0.1:1/: Connection refused"), std::string::npos) << none;
  EXPECT_NE(none.find("amqp://127.0.0.1:2/: Connection refused"), std::string::npos) << none;
  EXPECT_EQ(none.find("canary"), std::string::npos) << none;
}

TEST(rabbitmq_open, spreads_over_the_servers_of_the_url) {
  proxy one(rabbitmq_node::shared().port());
  proxy other(rabbitmq_node::shared().port());
  const std::string url =
      "amqp://guest:guest@127.0.0.1:" + std::to_string(one.port()) + ",127.0.0.1:" + std::to_string(other.port()) + "/";
  std::vector<std::unique_ptr<peer>> peers;
  limits lim = quick();
  for (lim.seed = 1; lim.seed <= 8; ++lim.seed) peers.push_back(std::make_unique<peer>(url, lim));
  EXPECT_GT(one.count(), 0);
  EXPECT_GT(other.count(), 0);
  EXPECT_EQ(one.count() + other.count(), 8);
}

TEST(rabbitmq_open, gives_up_when_nothing_answers) {
  proxy p(rabbitmq_node::shared().port());
  p.command("blackhole both");
  limits lim = quick();
  lim.connect_timeout = 300ms;
  const std::string why = why_not_open(rabbitmq_node::shared().url_at(p.port()), lim);
  EXPECT_NE(why.find("no answer within 300 ms"), std::string::npos) << why;
}

TEST(rabbitmq_tls, checks_the_certificate_and_carries_everything) {
  using testing_support::program;
  // A certificate that is its own authority, for localhost and 127.0.0.1.
  char folder[] = "/tmp/leveret-tls-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string key = std::string(folder) + "/key.pem";
  const std::string certificate = std::string(folder) + "/certificate.pem";
  const std::string make_certificate =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
      "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout " +
      key + " -out " + certificate + " 2>/dev/null";
  ASSERT_EQ(std::system(make_certificate.c_str()), 0) << "openssl (Debian package openssl) is missing";
  ::chmod(key.c_str(), 0644);  // the broker may be another user
  ::chmod(folder, 0755);
  const std::string port = std::to_string(testing_support::free_port());
  program node({"python3", std::string(LEVERET_SOURCE_DIR) + "/tests/support/rabbitmq_node.py",
                "listeners.ssl.1 = 127.0.0.1:" + port, "ssl_options.certfile = " + certificate,
                "ssl_options.keyfile = " + key, "ssl_options.verify = verify_none"});
  (void)node.read_line();
  const std::string by_ip = "amqps://127.0.0.1:" + port + "/";

  // The node is ready when its plain listener is; the other one may open a little later.
  std::string unknown = why_not_open(by_ip);
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (unknown.find("Connection refused") != std::string::npos && std::chrono::steady_clock::now() < patience) {
    std::this_thread::yield();
    unknown = why_not_open(by_ip);
  }
  EXPECT_NE(unknown.find("certificate is not accepted"), std::string::npos) << unknown;
  const std::string plain = why_not_open("amqp://127.0.0.1:" + port + "/");
  EXPECT_NE(plain.find("cannot connect to RabbitMQ"), std::string::npos) << plain;
  EXPECT_EQ(why_not_open(by_ip + "?verify=none"), "opened");

  ASSERT_EQ(::setenv("SSL_CERT_FILE", certificate.c_str(), 1), 0);
  // By its name too; a bare machine without /etc/hosts has none, and says so.
  const bool has_name = std::system("getent hosts localhost >/dev/null") == 0;
  const std::string named = why_not_open("amqps://localhost:" + port + "/");
  EXPECT_TRUE(has_name ? named == "opened" : named.find("localhost") != std::string::npos) << named;
  {
    peer p(by_ip);
    EXPECT_EQ(p->where(), by_ip);
    const std::string queue = unique("tls");
    p.declare(queue);
    std::vector<message> sent = many(queue, 100, 60'000);
    for (message& m : many(queue, 500)) sent.push_back(std::move(m));
    p.must_publish(sent);
    consumer c(p, queue, {}, true);
    for (const message& m : sent) {
      const delivery d = c.next();
      ASSERT_EQ(d.msg.id, m.id);
      ASSERT_EQ(d.msg.data.view(), m.data.view());
    }
    c.wait_settled(sent.size());
  }
  ::unsetenv("SSL_CERT_FILE");
  ::unlink(key.c_str());
  ::unlink(certificate.c_str());
  ::rmdir(folder);
}

// ---- queues of others ----

TEST(rabbitmq_declare, uses_a_foreign_queue_as_it_is) {
  stranger other;
  peer p;
  const std::string classic = unique("classic");
  const std::string quorum = unique("quorum");
  other.declare_classic(classic);
  other.declare_quorum(quorum, 7);
  EXPECT_FALSE(p.declare(classic).ours);
  EXPECT_FALSE(p.declare(quorum).ours);
  const std::string ours = unique("ours");
  EXPECT_TRUE(p.declare(ours).ours);
  EXPECT_TRUE(p.declare(ours).ours);
  EXPECT_TRUE(p.declare(ours + kSuspectsSuffix).ours);
  // Nothing was made beside a foreign queue.
  EXPECT_FALSE(p.stats(classic).first.at(0).dead);
  EXPECT_TRUE(p.stats(ours).first.at(0).dead);
}

TEST(rabbitmq_consume, tells_returns_only_where_the_broker_counts) {
  stranger other;
  const std::string classic = unique("classic");
  const std::string quorum = unique("quorum");
  other.declare_classic(classic);
  other.declare_quorum(quorum, 7);
  peer p;
  for (const auto& [queue, first, second] : {std::tuple{classic, -1, -1}, std::tuple{quorum, 0, 1}}) {
    other.publish(queue, R"({"id":1,"value":7,"retry_count":0})");
    consumer c(p, queue);
    const delivery d = c.next();
    EXPECT_EQ(d.returns, first) << queue;
    EXPECT_FALSE(d.msg.id.empty()) << "a message without an id gets one";
    EXPECT_EQ(d.msg.jobs, 0u);
    p->release({d.token}, [](const maybe_failure&) {});
    const delivery again = c.next();
    EXPECT_EQ(again.returns, second) << queue;
    EXPECT_TRUE(again.redelivered);
    EXPECT_EQ(p.settle(again.token).status, settle_status::settled);
    std::promise<void> gone;
    p->unsubscribe(c.id(), [&](const maybe_failure&) { gone.set_value(); });
    wait(gone.get_future(), "unsubscribe");
  }
}

TEST(rabbitmq_consume, keeps_foreign_headers_as_text) {
  stranger other;
  peer p;
  const std::string queue = unique("headers");
  p.declare(queue);
  rabbitmq::properties props;
  props.message_id = "their id";
  props.headers = {{"traceparent", "00-1"}};
  other.publish(queue, "x", props);
  consumer c(p, queue);
  const delivery d = c.next();
  EXPECT_EQ(d.msg.id, "their id");
  ASSERT_NE(d.msg.find_header("traceparent"), nullptr);
  EXPECT_EQ(d.msg.headers.size(), 1u);
}

TEST(rabbitmq_consume, makes_a_deleted_queue_of_ours_again_and_ends_for_others) {
  stranger other;
  peer p;
  const std::string ours = unique("ours");
  const std::string theirs = unique("theirs");
  p.declare(ours);
  other.declare_classic(theirs);
  p.must_publish({make(ours, "lost with its queue")});
  consumer c(p, ours);
  const delivery before = c.next();
  consumer foreign(p, theirs);
  other.publish(theirs, "x");
  (void)foreign.next();
  other.remove(ours);
  c.wait_lost(1);
  EXPECT_TRUE(c.is_lost(before.token));
  EXPECT_EQ(p.settle(before.token).status, settle_status::fenced);
  // It is there again as soon as a publish is accepted.
  std::vector<publish_outcome> outcomes;
  do {
    outcomes = p.publish({make(ours, "after")});
  } while (outcomes[0].why.code == errc::not_found);
  EXPECT_EQ(c.next().msg.data.view(), "after");
  other.remove(theirs);
  EXPECT_EQ(foreign.wait_ended().code, errc::not_found);
}

// ---- dead jobs ----

TEST(rabbitmq_dead, are_packed_listed_and_survive_a_missing_dead_queue) {
  stranger other;
  peer p;
  const std::string queue = unique("dead");
  p.declare(queue);
  other.remove(queue + kDeadSuffix);
  p.must_publish({make(queue, "x")});
  consumer c(p, queue);
  settlement s;
  s.token = c.next().token;
  for (int i = 0; i < 3000; ++i) {
    const std::string id = "job/" + std::to_string(i);
    s.dead.push_back(
        {queue, id, R"({"id":")" + id + R"(","task":"t","queue":")" + queue + R"(","reason":"rejected"})"});
  }
  EXPECT_EQ(p.settle(std::move(s)).status, settle_status::settled);
  // 3,000 records of some 80 bytes in messages of up to 64 KiB.
  const browse_page page = p.dead(queue, "", 5000);
  ASSERT_EQ(page.entries.size(), 3000u);
  EXPECT_FALSE(page.more);
  for (std::size_t i = 0; i < 3000; ++i) {
    ASSERT_EQ(page.entries[i].id, "job/" + std::to_string(i));
    ASSERT_EQ(page.entries[i].queue, queue);
  }
  // The broker counts late; the loop ends when it has.
  std::uint64_t messages = 0;
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (messages < 4 && std::chrono::steady_clock::now() < until) {
    messages = p.stats(queue).first.at(0).dead.value_or(0);
  }
  EXPECT_GE(messages, 4u);
  EXPECT_LE(messages, 6u);
}

TEST(rabbitmq_dead, include_what_the_broker_dead_lettered) {
  stranger other;
  peer p;
  const std::string queue = unique("rejected");
  p.declare(queue);
  p.must_publish({make(queue, R"({"task":"add","args":[1,2],"retry_count":0})")});
  other.reject_one(queue);
  // Dead-lettering runs on its own; the loop ends when it has arrived.
  browse_page page;
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (page.entries.empty() && std::chrono::steady_clock::now() < until) page = p.dead(queue);
  ASSERT_EQ(page.entries.size(), 1u);
  const std::string& record = page.entries[0].record;
  EXPECT_NE(record.find(R"("task":"add")"), std::string::npos) << record;
  EXPECT_NE(record.find(R"("reason":"rejected")"), std::string::npos) << record;
  EXPECT_NE(record.find(R"(add)"), std::string::npos) << record;
  EXPECT_EQ(page.entries[0].queue, queue);
}

// ---- due times ----

TEST(rabbitmq_due, goes_to_the_exact_queue_and_survives_being_delayed_again) {
  peer p;
  const std::string base = unique("b");
  const std::string dotted = "a." + base;
  p.declare(base);
  p.declare(dotted);
  message m = make(dotted, "twice");
  m.due = p.loop().wall() + 1'280;  // levels 5 and 3
  const unix_ms due = m.due;
  p.must_publish({m});
  consumer right(p, dotted);
  consumer wrong(p, base);
  const delivery first = right.next();
  EXPECT_GE(p.loop().wall(), due);
  EXPECT_EQ(first.returns, 0);
  EXPECT_TRUE(first.msg.headers.empty()) << "the broker's own headers are not the message's";
  // A second delay with the same path: RabbitMQ 3.x would see a cycle in an old x-death and swallow it.
  settlement s;
  s.token = first.token;
  message again = first.msg;
  again.due = p.loop().wall() + 1'280;
  const unix_ms due_again = again.due;
  s.publish.push_back(again);
  EXPECT_EQ(p.settle(std::move(s)).status, settle_status::settled);
  const delivery second = right.next();
  EXPECT_GE(p.loop().wall(), due_again);
  EXPECT_EQ(second.msg.id, first.msg.id);
  EXPECT_EQ(p.settle(second.token).status, settle_status::settled);
  EXPECT_EQ(wrong.count(), 0u);
}

TEST(rabbitmq_due, is_refused_where_it_cannot_be_kept) {
  peer p;
  const std::string queue = unique("far");
  p.declare(queue);
  message far = make(queue, "x");
  far.due = p.loop().wall() + std::int64_t{200} * 86'400'000;
  message lost = make(unique("nowhere"), "x");
  lost.due = p.loop().wall() + 60'000;
  const std::vector<publish_outcome> o = p.publish({far, lost});
  EXPECT_EQ(o[0].status, publish_status::refused);
  EXPECT_EQ(o[0].why.code, errc::unsupported);
  EXPECT_NE(o[0].why.text.find("198 days"), std::string::npos) << o[0].why.text;
  EXPECT_EQ(o[1].status, publish_status::refused);
  EXPECT_EQ(o[1].why.code, errc::not_found);
}

// ---- windows ----

TEST(rabbitmq_window, follows_the_size_of_messages_and_loses_none) {
  peer p;
  const std::string queue = unique("large");
  p.declare(queue);
  std::vector<message> sent = many(queue, 60, 100'000);
  std::vector<message> small = many(queue, 300);
  sent.insert(sent.end(), small.begin(), small.end());
  p.must_publish(sent);
  consumer c(p, queue, {64, 400'000}, true);
  for (const message& m : sent) ASSERT_EQ(c.next().msg.id, m.id);  // in order, through several streams
  c.wait_settled(sent.size());
  EXPECT_TRUE(becomes([&] { return p.stats(queue).first.at(0).ready == 0u; }));
}

// A first prefetch for messages of the largest size is 64; concurrency may want more, and less than twice as many.
TEST(rabbitmq_window, is_filled_with_small_messages) {
  peer p;
  const std::string queue = unique("small");
  p.declare(queue);
  p.must_publish(many(queue, 150));
  consumer c(p, queue, {100, 32u << 20});
  for (int i = 0; i < 100; ++i) (void)c.next();  // none is settled
}

// The first stream, of 128, is followed by one of 1,000 and closed once all of its deliveries are settled. RabbitMQ
// keeps acknowledgements back when many are sent one by one, and forgets those when their channel is closed at once.
TEST(rabbitmq_window, grows_and_nothing_comes_twice) {
  constexpr std::size_t kFirst = 128;
  constexpr std::size_t kMessages = 300;
  peer p;
  for (int round = 0; round < 8; ++round) {  // one in five of them saw it, when there was another channel for it
    const std::string queue = unique("growing");
    p.declare(queue);
    p.must_publish(many(queue, kMessages));
    consumer c(p, queue, {1'000, kFirst / 2 << 20});
    std::vector<std::vector<settlement>> each(kMessages);
    for (std::vector<settlement>& one : each) one.emplace_back().token = c.next().token;
    rabbitmq_node::shared().command("pause");  // so that it finds all that follows at once
    // First every second one: none of those goes in one frame with another.
    for (const std::size_t begin : {1, 0}) {
      std::promise<void> settled;
      std::atomic<std::size_t> left{kMessages / 2};
      for (std::size_t i = begin; i < kMessages; i += 2) {
        p->settle(std::move(each[i]), [&](const std::vector<settle_outcome>& o) {
          EXPECT_EQ(o.at(0).status, settle_status::settled);
          if (--left == 0) settled.set_value();
        });
      }
      wait(settled.get_future(), "acknowledged");
    }
    rabbitmq_node::shared().command("resume");
    EXPECT_TRUE(becomes([&] { return p.stats(queue).first.at(0).ready == 0u; }));
    EXPECT_EQ(c.count(), kMessages);
    for (const delivery& d : c.all()) ASSERT_FALSE(d.redelivered) << d.msg.data.view();
  }
}

// ---- faults ----

TEST(rabbitmq_faults, a_reset_amid_publishing_loses_nothing) {
  proxy way(rabbitmq_node::shared().port());
  peer direct;
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("reset");
  direct.declare(queue);
  const std::vector<message> sent = many(queue, 5'000, 500);
  std::promise<std::vector<publish_outcome>> answer;
  // After some 300 kB of 2.5 MB: amid a frame, with a window full of unconfirmed messages.
  way.command("cut 300001");
  p->publish(sent, p.loop().now() + 60s, [&](std::vector<publish_outcome> o) { answer.set_value(std::move(o)); });
  for (const publish_outcome& o : wait(answer.get_future(), "publish")) {
    ASSERT_EQ(o.status, publish_status::accepted) << o.why.text;
  }
  std::set<std::string> ids;
  for (const message& m : sent) ids.insert(m.id);
  consumer c(direct, queue, {}, true);
  c.wait_ids(ids);
}

TEST(rabbitmq_faults, another_server_of_the_url_takes_over) {
  proxy one(rabbitmq_node::shared().port());
  proxy other(rabbitmq_node::shared().port());
  peer p("amqp://guest:guest@127.0.0.1:" + std::to_string(one.port()) + ",127.0.0.1:" + std::to_string(other.port()) +
         "/");
  const std::string queue = unique("fail-over");
  p.declare(queue);
  consumer c(p, queue, {}, true);
  std::set<std::string> ids;
  for (int round = 0; round < 6; ++round) {
    proxy& gone = round % 2 == 0 ? one : other;
    gone.command("refuse");
    gone.command("reset");
    const std::vector<message> sent = many(queue, 20);
    for (const message& m : sent) ids.insert(m.id);
    p.must_publish(sent);
    c.wait_ids(ids);
    EXPECT_TRUE(becomes([&] { return gone.count() == 0; }));
    gone.command("accept");
  }
}

TEST(rabbitmq_faults, cuts_at_any_byte_are_survived) {
  proxy way(rabbitmq_node::shared().port());
  peer direct;
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("cut");
  direct.declare(queue);
  std::set<std::string> ids;
  for (const int size : {1, 7, 8, 20, 33, 64, 100, 131, 200, 333, 500, 1'000}) {
    const std::vector<message> sent = many(queue, 10);
    for (const message& m : sent) ids.insert(m.id);
    way.command("cut " + std::to_string(size));
    p.must_publish(sent);
  }
  consumer c(direct, queue, {}, true);
  c.wait_ids(ids);
}

TEST(rabbitmq_faults, a_half_open_connection_is_found_by_its_heartbeat) {
  proxy way(rabbitmq_node::shared().port());
  peer direct;
  const std::string queue = unique("half-open");
  direct.declare(queue);
  direct.must_publish(many(queue, 5));
  limits lim = quick();
  lim.heartbeat = 3s;
  peer p(rabbitmq_node::shared().url_at(way.port()), lim);
  consumer c(p, queue);
  std::vector<delivery_token> held;
  for (int i = 0; i < 5; ++i) held.push_back(c.next().token);
  const auto begin = std::chrono::steady_clock::now();
  way.command("blackhole both");
  c.wait_lost(5);
  // Two heartbeats of 3 s, a quarter of one until it is looked at, and a loaded machine; TCP would take minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
  EXPECT_EQ(p.settle(held[0]).status, settle_status::fenced);
  EXPECT_EQ(p->how_it_is().state, health_state::connecting);
  way.command("pass");
  way.command("reset");
  for (int i = 0; i < 5; ++i) {
    const delivery d = c.next();
    EXPECT_GE(d.returns, 1);
    EXPECT_TRUE(d.redelivered);
  }
}

TEST(rabbitmq_faults, an_idle_connection_stays) {
  proxy way(rabbitmq_node::shared().port());
  limits lim = quick();
  lim.heartbeat = 3s;  // twice that is silence enough, for both sides
  peer p(rabbitmq_node::shared().url_at(way.port()), lim);
  const std::string queue = unique("idle");
  p.declare(queue);
  consumer c(p, queue);
  p.must_publish({make(queue, "1")});
  const delivery d = c.next();
  // More than three heartbeats in which nobody says anything else.
  std::promise<void> later;
  p.loop().after(10s, [&] { later.set_value(); });
  wait(later.get_future(), "time");
  EXPECT_EQ(way.count(), 2);
  EXPECT_EQ(p.settle(d.token).status, settle_status::settled);
}

TEST(rabbitmq_faults, no_connection_is_a_typed_error_at_the_deadline) {
  proxy way(rabbitmq_node::shared().port());
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("gone");
  p.declare(queue);
  way.command("refuse");
  way.command("reset");
  // Until the loss is known, a message may still go out on the dead connection: then nobody knows what became of it.
  std::chrono::steady_clock::time_point begin;
  publish_outcome o;
  EXPECT_TRUE(becomes([&] {
    begin = std::chrono::steady_clock::now();
    o = p.publish({make(queue, "x")}, 700ms).at(0);
    EXPECT_EQ(o.status, publish_status::unknown);
    return o.why.code != errc::unknown_outcome;
  }));
  EXPECT_EQ(o.why.code, errc::broker_unavailable);
  EXPECT_NE(o.why.text.find("there is no connection"), std::string::npos) << o.why.text;
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 700ms);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
  way.command("accept");
  p.must_publish({make(queue, "y")});
}

TEST(rabbitmq_faults, closing_does_not_wait_for_what_consumers_ask_a_broker_that_is_gone) {
  proxy way(rabbitmq_node::shared().port());
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("closing");
  p.declare(queue);
  way.command("refuse");
  way.command("reset");
  EXPECT_TRUE(becomes([&] { return p->how_it_is().state == health_state::connecting; }));
  consumer c(p, queue);
  const auto begin = std::chrono::steady_clock::now();
  p->close(begin + 120s);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, rabbitmq::kOperationTimeout);
}

TEST(rabbitmq_faults, a_message_without_its_confirm_is_unknown) {
  proxy way(rabbitmq_node::shared().port());
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("unknown");
  p.declare(queue);
  way.command("blackhole down");
  publish_outcome o;
  EXPECT_TRUE(becomes([&] {
    o = p.publish({make(queue, "x")}, 500ms).at(0);
    EXPECT_EQ(o.status, publish_status::unknown);
    return o.why.code != errc::broker_unavailable;  // else it was not even sent: the machine is busy
  }));
  EXPECT_EQ(o.why.code, errc::unknown_outcome);
  EXPECT_NE(o.why.text.find("same id"), std::string::npos) << o.why.text;
  way.command("pass");
}

TEST(rabbitmq_faults, a_broker_killed_amid_work_keeps_what_it_accepted) {
  peer p;
  const std::string queue = unique("killed");
  p.declare(queue);
  // RabbitMQ 3.10 writes a new quorum queue's registration some time after declaring it; killed before that, it finds
  // an empty log of the queue and never elects a leader. An orderly stop writes everything.
  rabbitmq_node::shared().command("stop");
  rabbitmq_node::shared().command("start");
  const std::vector<message> before = many(queue, 3'000, 200);
  p.must_publish(before);
  consumer c(p, queue, {8, 32u << 20}, true);
  c.wait_settled(100);
  // Published while it dies: those accepted are there after it, and the publish goes on when it is back.
  const std::vector<message> amid = many(queue, 3'000, 200);
  std::promise<std::vector<publish_outcome>> answer;
  p->publish(amid, p.loop().now() + 300s, [&](std::vector<publish_outcome> o) { answer.set_value(std::move(o)); });
  rabbitmq_node::shared().command("kill");
  rabbitmq_node::shared().command("start");
  for (const publish_outcome& o : wait(answer.get_future(), "publish")) {
    ASSERT_EQ(o.status, publish_status::accepted) << o.why.text;
  }
  std::set<std::string> ids;
  for (const message& m : before) ids.insert(m.id);
  for (const message& m : amid) ids.insert(m.id);
  c.wait_ids(ids);
  EXPECT_TRUE(becomes([&] { return p->how_it_is().state == health_state::connected; }));
}

TEST(rabbitmq_faults, a_blocked_broker_is_noticed_and_consumers_go_on) {
  peer p;
  const std::string queue = unique("blocked");
  p.declare(queue);
  p.must_publish(many(queue, 10));
  consumer c(p, queue);
  std::vector<delivery_token> held;
  for (int i = 0; i < 10; ++i) held.push_back(c.next().token);
  rabbitmq_node::shared().command("ctl set_vm_memory_high_watermark absolute 1MB");
  // Told by the broker only after a publish; it may still accept some before it looks at its memory.
  publish_outcome first;
  EXPECT_TRUE(becomes([&] {
    first = p.publish({make(queue, "x")}, 2s).at(0);
    return first.status != publish_status::accepted;
  }));
  EXPECT_EQ(first.status, publish_status::unknown);
  EXPECT_TRUE(becomes([&] { return p->how_it_is().state == health_state::blocked; }));
  const publish_outcome second = p.publish({make(queue, "y")}, 300ms).at(0);
  EXPECT_EQ(second.status, publish_status::unknown);
  EXPECT_NE(second.why.text.find("accepts no messages now"), std::string::npos) << second.why.text;
  for (const delivery_token token : held) EXPECT_EQ(p.settle(token).status, settle_status::settled);
  EXPECT_EQ(p.stats(queue).second.has_value(), false);
  std::promise<std::vector<publish_outcome>> answer;
  p->publish({make(queue, "z")}, p.loop().now() + kPatience,
             [&](std::vector<publish_outcome> o) { answer.set_value(std::move(o)); });
  rabbitmq_node::shared().command("ctl set_vm_memory_high_watermark absolute 1500MB");
  EXPECT_EQ(wait(answer.get_future(), "publish").at(0).status, publish_status::accepted);
  EXPECT_TRUE(becomes([&] { return p->how_it_is().state == health_state::connected; }));
}

TEST(rabbitmq_faults, a_leader_that_is_slow_to_count_is_waited_for) {
  peer p;
  const std::string queue = unique("slow");
  p.declare(queue);
  p.must_publish(many(queue, 5));
  const std::string leader = "(whereis(list_to_atom(\"%2F_" + queue + "\"))).";
  rabbitmq_node::shared().command("ctl eval sys:suspend" + leader);
  std::promise<std::vector<queue_stats>> answer;
  p->stats(queue, [&](std::vector<queue_stats> stats, const maybe_failure& why) {
    EXPECT_FALSE(why) << why->text;
    answer.set_value(std::move(stats));
  });
  // Takes longer than the 250 ms after which the broker makes an answer up.
  rabbitmq_node::shared().command("ctl eval sys:resume" + leader);
  EXPECT_EQ(wait(answer.get_future(), "stats").at(0).ready, 5u);
}

// As on a machine that is so busy that answers wait for their reader: two that the broker made up come together.
TEST(rabbitmq_faults, what_a_slow_leader_has_is_not_mistaken_when_answers_are_read_late) {
  proxy way(rabbitmq_node::shared().port());
  peer p(rabbitmq_node::shared().url_at(way.port()));
  const std::string queue = unique("late");
  p.declare(queue);
  p.must_publish(many(queue, 5));
  const std::string leader = "(whereis(list_to_atom(\"%2F_" + queue + "\"))).";
  rabbitmq_node::shared().command("ctl eval sys:suspend" + leader);
  std::promise<std::vector<queue_stats>> answer;
  std::future<std::vector<queue_stats>> came = answer.get_future();
  p->stats(queue, [&](std::vector<queue_stats> stats, const maybe_failure& why) {
    EXPECT_FALSE(why) << why->text;
    answer.set_value(std::move(stats));
  });
  for (int i = 0; i < 10 && came.wait_for(std::chrono::milliseconds(400)) != std::future_status::ready; ++i) {
    way.command(i % 2 == 0 ? "blackhole down" : "pass");
  }
  way.command("pass");
  rabbitmq_node::shared().command("ctl eval sys:resume" + leader);
  EXPECT_EQ(wait(std::move(came), "stats").at(0).ready, 5u);
}

TEST(rabbitmq_faults, a_message_too_large_for_the_broker_is_refused_alone) {
  // 3.10 takes 128 MiB and 4.0 16 MiB: the policy makes both the same.
  limits lim = quick();
  lim.max_message_bytes = 1u << 30;
  lim.confirm_window_bytes = 1u << 30;
  peer p(rabbitmq_node::shared().url(), lim);
  const std::string queue = unique("oversize");
  p.declare(queue);
  std::vector<message> sent = many(queue, 5);
  sent.push_back(make(queue, std::string(129u << 20, 'x')));
  for (message& m : many(queue, 5)) sent.push_back(std::move(m));
  const std::vector<publish_outcome> o = p.publish(sent);
  for (std::size_t i = 0; i < o.size(); ++i) {
    EXPECT_EQ(o[i].status, i == 5 ? publish_status::refused : publish_status::accepted) << i << ": " << o[i].why.text;
  }
  EXPECT_NE(o[5].why.text.find("406"), std::string::npos) << o[5].why.text;
}

TEST(rabbitmq_results, reach_a_watcher_across_a_lost_connection) {
  proxy way(rabbitmq_node::shared().port());
  peer client(rabbitmq_node::shared().url_at(way.port()));
  peer worker;
  const std::string queue = unique("results");
  worker.declare(queue);
  const std::string reply = client.make_reply();
  std::mutex mutex;
  std::set<std::uint32_t> lines;
  std::promise<void> all;
  std::promise<void> watching;
  client->watch(
      reply,
      [&](const result_chunk& chunk) {
        const std::lock_guard lock(mutex);
        if (lines.insert(chunk.first_line).second && lines.size() == 2) all.set_value();
      },
      [&](const maybe_failure& why) {
        EXPECT_FALSE(why);
        watching.set_value();
      });
  wait(watching.get_future(), "watch");
  worker.must_publish(many(queue, 2));
  consumer c(worker, queue);
  for (std::uint32_t i = 1; i <= 2; ++i) {
    settlement s;
    s.token = c.next().token;
    s.results.push_back({"id", reply, i, i, "{\"line\":1,\"result\":1}\n"});
    if (i == 2) way.command("reset");
    EXPECT_EQ(worker.settle(std::move(s)).status, settle_status::settled);
  }
  wait(all.get_future(), "results");
}

TEST(rabbitmq_limits, one_call_with_many_messages_is_confirmed_fast_enough_to_be_of_use) {
  // Not a benchmark: a window that is not kept full, or a write for each message, is slower by more than this.
  peer p;
  const std::string queue = unique("fast");
  p.declare(queue);
  // The machine may be busy with something else for one try, not for three.
  auto least = std::chrono::steady_clock::duration::max();
  for (int tries = 0; tries < 3 && least > 20s; ++tries) {
    const std::vector<message> sent = many(queue, 20'000, 100);
    const auto begin = std::chrono::steady_clock::now();
    p.must_publish(sent);
    least = std::min(least, std::chrono::steady_clock::now() - begin);
  }
  EXPECT_LT(least, 20s);
}

}  // namespace
}  // namespace leveret::core
