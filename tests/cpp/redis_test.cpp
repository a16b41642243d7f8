// Results in a private Redis server: what results_store_test, which is the same for all stores, cannot know. Lost and
// cut connections come from a proxy.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/program.hpp"
#include "cpp/support/store.hpp"
#include "results_store.hpp"
#include "stores/redis/explain.hpp"
#include "stores/redis/url.hpp"

namespace leveret::core {
namespace {

using namespace std::chrono_literals;
using redis::endpoint;
using redis::parse_url;
using test::chunk;
using test::shown;
using test::store_session;
using testing_support::program;
using testing_support::proxy;
using testing_support::redis_server;

limits quick() {
  limits lim;
  lim.reconnect_max = 100ms;
  lim.heartbeat = 100ms;
  lim.connect_timeout = 60s;
  return lim;
}

std::string url_at(int port) { return "redis://127.0.0.1:" + std::to_string(port); }

std::string why_not_open(const std::string& url, const limits& lim = quick()) {
  try {
    const store_session opened(url, lim);
    return "opened";
  } catch (const broker_unavailable& e) {
    return e.what();
  }
}

std::string refusal_of(const std::string& url) {
  try {
    return "accepted: " + parse_url(url).where();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
}

/// A store whose patience is short: a busy machine may need several tries to open it within.
std::unique_ptr<store_session> open_impatient(const std::string& url, std::chrono::milliseconds patience) {
  limits lim = quick();
  lim.connect_timeout = patience;
  const auto give_up = std::chrono::steady_clock::now() + 60s;
  for (;;) {
    try {
      return std::make_unique<store_session>(url, lim);
    } catch (const broker_unavailable&) {
      if (std::chrono::steady_clock::now() > give_up) throw;
    }
  }
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// One server for tests that leave it as it is; each has messages of its own.
redis_server& shared() {
  static redis_server server;
  return server;
}

void wait_for(store_session& s, health_state state) {
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (s.store().how_it_is().state != state) {
    if (std::chrono::steady_clock::now() > patience) throw std::runtime_error("the store's health does not change");
    std::this_thread::yield();
  }
}

// ---- urls ----

TEST(redis_url, is_read_with_every_part) {
  const endpoint all = parse_url("redis://us%3Aer:p%40ss%2Fw%25rd@results.example.org:6380/15");
  EXPECT_FALSE(all.tls);
  EXPECT_EQ(all.user, "us:er");
  EXPECT_EQ(all.password, "p@ss/w%rd");
  EXPECT_EQ(all.host, "results.example.org");
  EXPECT_EQ(all.port, 6380);
  EXPECT_EQ(all.database, 15u);
  EXPECT_EQ(all.where(), "redis://results.example.org:6380/15");

  const endpoint least = parse_url("redis://");
  EXPECT_EQ(least.where(), "redis://localhost:6379/0");
  EXPECT_EQ(least.user + least.password, "");

  const endpoint v6 = parse_url("rediss://:secret@[::1]:7000?verify=none");
  EXPECT_TRUE(v6.tls);
  EXPECT_FALSE(v6.verify);
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.user, "");
  EXPECT_EQ(v6.password, "secret");
  EXPECT_EQ(v6.where(), "rediss://[::1]:7000/0 (certificate NOT verified)");

  EXPECT_EQ(parse_url("redis://h/").where(), "redis://h:6379/0");
  EXPECT_EQ(parse_url("redis://:a@b/c?d#e@h").password, "a@b/c?d#e");
}

TEST(redis_url, that_is_none_is_refused_without_its_password) {
  const std::vector<std::pair<const char*, const char*>> wrong{
      {"rediz://:canary@h", "does not begin with redis://"},
      {"redis://canary@h", "no ':' in it"},
      {"redis://u:@h", "password is empty"},
      {"redis://:can%ary@h", "two hexadecimal digits"},
      {"redis://:canary%00@h", "zero byte"},
      {"redis://:canary@h:port", "port is not a number"},
      {"redis://:canary@h:65536", "port is larger than 65535"},
      {"redis://:canary@h:0", "port is 0"},
      {"redis://:canary@h:", "port is empty"},
      {"redis://:canary@::1", "IPv6 address in brackets"},
      {"redis://:canary@[::1", "'[' has no ']'"},
      {"redis://:canary@[h]", "no IPv6 address"},
      {"redis://:canary@[::1]x", "only a port"},
      {"redis://:canary@h/jobs", "db is not a number"},
      {"redis://:canary@h/1/2", "db is not a number"},
      {"redis://:canary@h/99999999999", "db is larger than"},
      {"redis://:canary@h#1", "'#'"},
      {"redis://:canary@h?db=1", "parameters that are not known"},
      {"redis://:canary@h?verify=none", "verify= is for rediss://"},
  };
  for (const auto& [url, part] : wrong) {
    const std::string why = refusal_of(url);
    EXPECT_TRUE(holds(why, "cannot use the Redis url: ")) << why;
    EXPECT_TRUE(holds(why, part)) << url << ": " << why;
    EXPECT_TRUE(holds(why, "the form is redis://user:password@host:port/db")) << why;
    EXPECT_FALSE(holds(why, "canary")) << why;
  }
}

// ---- connecting ----

TEST(redis_open, says_what_is_wrong_without_the_password) {
  redis_server server({"requirepass open:sesame"});
  const std::string at = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_EQ(why_not_open("redis://:open%3Asesame@" + at), "opened");
  EXPECT_EQ(why_not_open("redis://default:open:sesame@" + at), "opened");
  const std::string none = why_not_open("redis://" + at);
  EXPECT_TRUE(holds(none, "cannot connect to the results store redis://" + at + "/0: the server wants a password"))
      << none;
  for (const char* credentials : {":canary@", "default:canary@", "nobody:canary@"}) {
    const std::string wrong = why_not_open("redis://" + std::string(credentials) + at);
    EXPECT_TRUE(holds(wrong, "refused the user or password of the url (WRONGPASS")) << wrong;
    EXPECT_FALSE(holds(wrong, "canary")) << wrong;
  }
  const std::string database = why_not_open("redis://:open%3Asesame@" + at + "/99");
  EXPECT_TRUE(holds(database, "has no database 99")) << database;

  const std::string unset = why_not_open("redis://:canary@127.0.0.1:" + std::to_string(shared().port()));
  EXPECT_TRUE(holds(unset, "the server has no password set, the url has one; leave it out")) << unset;
  EXPECT_FALSE(holds(unset, "canary")) << unset;
  const std::string refused = why_not_open("redis://127.0.0.1:1");
  EXPECT_TRUE(holds(refused, "redis://127.0.0.1:1/0: Connection refused")) << refused;
  const std::string host_name = why_not_open("redis://no-such-host.invalid");
  EXPECT_TRUE(holds(host_name, "cannot be resolved")) << host_name;
}

TEST(redis_open, a_server_that_repeats_the_password_does_not_get_it_into_the_error) {
  endpoint where;
  where.password = "canary";
  const std::string why =
      redis::login_refused("ERR unknown command 'AUTH', with args beginning with: 'canary' ", where);
  EXPECT_TRUE(holds(why, "with args beginning with: '***'")) << why;
  EXPECT_FALSE(holds(why, "canary")) << why;
}

TEST(redis_open, tells_another_protocol_from_redis) {
  program other({"python3", "-c",
                 "import socket\n"
                 "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
                 "c, _ = s.accept(); c.recv(9999); c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n'); import sys; "
                 "sys.stdin.read()"});
  const std::string why = why_not_open(url_at(std::stoi(other.read_line())));
  EXPECT_TRUE(holds(why, "is it a Redis port?")) << why;
}

TEST(redis_open, gives_up_when_nothing_answers) {
  redis_server server;
  server.command("pause");
  limits lim = quick();
  lim.connect_timeout = 300ms;
  const std::string why = why_not_open(server.url(), lim);
  // By the connection's patience for an answer, or on a busy machine by that for all of it.
  EXPECT_TRUE(holds(why, "no answer within 150 ms") || holds(why, "no answer within 300 ms")) << why;
  server.command("resume");
}

TEST(redis_tls, checks_the_certificate_and_carries_everything) {
  const test::folder files;
  const std::string key = files.file("key.pem");
  const std::string certificate = files.file("certificate.pem");
  ASSERT_EQ(std::system(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
                         "/CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout " +
                         key + " -out " + certificate + " 2>/dev/null")
                            .c_str()),
            0)
      << "openssl (Debian package openssl) is missing";
  const std::string port = std::to_string(testing_support::free_port());
  redis_server server({"tls-port " + port, "tls-cert-file " + certificate, "tls-key-file " + key,
                       "tls-ca-cert-file " + certificate, "tls-auth-clients no"});
  const std::string at = "rediss://127.0.0.1:" + port;
  const std::string unknown = why_not_open(at);
  EXPECT_TRUE(holds(unknown, "certificate is not accepted")) << unknown;
  EXPECT_EQ(why_not_open(at + "?verify=none"), "opened");
  limits impatient = quick();
  impatient.connect_timeout = 300ms;
  // A server without TLS waits for the end of what it takes for a command.
  const std::string plain = why_not_open("rediss://127.0.0.1:" + std::to_string(server.port()), impatient);
  EXPECT_TRUE(holds(plain, "no answer within 300 ms (is it a TLS port?)")) << plain;
  const std::string encrypted = why_not_open(url_at(std::stoi(port)));
  EXPECT_TRUE(holds(encrypted, "not one for TLS, rediss://?")) << encrypted;

  ASSERT_EQ(::setenv("SSL_CERT_FILE", certificate.c_str(), 1), 0);
  {
    store_session store(at, quick());
    std::vector<result_chunk> all;
    for (int i = 0; i < 200; ++i) all.push_back(chunk("tls" + std::to_string(i), 1, 1, std::string(50'000, 'x')));
    store.keep(all);
    std::vector<std::string> ids;
    for (const result_chunk& c : all) ids.push_back(c.id);
    const auto found = store.fetch(ids);
    ASSERT_EQ(found.size(), all.size());
    for (const result_chunk& c : found) EXPECT_EQ(c.data, all[0].data);
  }
  ::unsetenv("SSL_CERT_FILE");
}

// ---- what is stored ----

TEST(redis_keys, expire_and_hold_each_chunk_once) {
  limits lim = quick();
  lim.result_ttl = std::chrono::seconds(3600);
  store_session store(shared().url(), lim);
  store.keep({chunk("ttl", 1, 2, "first"), chunk("ttl", 3, 3, "second"), chunk("ttl", 1, 2, "first")});
  for (int again = 0; again < 3; ++again) store.keep({chunk("ttl", 1, 2, "first"), chunk("ttl", 3, 3, "second")});
  EXPECT_EQ(shared().command("cli HLEN leveret:result:ttl"), "2");
  EXPECT_EQ(shown(store.fetch({"ttl"})), "1-2 first | 3-3 second");
  const int left = std::stoi(shared().command("cli TTL leveret:result:ttl"));
  EXPECT_TRUE(left > 3500 && left <= 3600) << left;
  EXPECT_EQ(limits().result_ttl, std::chrono::hours(24));
}

TEST(redis_keys, many_chunks_cost_few_round_trips) {
  redis_server server;
  store_session store(server.url());
  std::vector<result_chunk> all;
  std::vector<std::string> ids;
  for (int i = 0; i < 5000; ++i) {
    all.push_back(chunk("m" + std::to_string(i), 1, 1, "{\"line\":1,\"result\":7}\n"));
    ids.push_back(all.back().id);
  }
  store.keep(all);
  EXPECT_EQ(store.fetch(ids).size(), all.size());
  const std::string stats = server.command("cli INFO stats");
  const std::string name = "total_reads_processed:";
  ASSERT_TRUE(holds(stats, name)) << stats;
  EXPECT_LT(std::stoi(stats.substr(stats.find(name) + name.size())), 1000);
}

// ---- what the server refuses ----

std::string why_not_kept(store_session& store, const std::string& id) {
  const maybe_failure why = store.try_keep({chunk(id, 1, 1, "x")}).at(0);
  return why ? why->text : "kept";
}

TEST(redis_refusals, name_operation_object_cause_and_remedy) {
  redis_server server;
  store_session store(server.url(), quick());
  const std::string in_server = " in " + server.url() + "/0: ";

  server.command("cli SET leveret:result:taken by-another-program");
  const std::vector<maybe_failure> some =
      store.try_keep({chunk("before", 1, 1, "x"), chunk("taken", 1, 1, "x"), chunk("behind", 1, 1, "x")});
  EXPECT_FALSE(some.at(0) || some.at(2)) << "one key holds up others";
  ASSERT_TRUE(some.at(1).has_value());
  EXPECT_TRUE(holds(some[1]->text, "cannot store results of message taken" + in_server)) << some[1]->text;
  EXPECT_TRUE(holds(some[1]->text, "another program's")) << some[1]->text;
  EXPECT_TRUE(holds(some[1]->text, "redis://host:port/1")) << some[1]->text;
  EXPECT_TRUE(holds(some[1]->text, "WRONGTYPE")) << some[1]->text;
  const maybe_failure looked = store.try_fetch({"before", "taken"}).second;
  ASSERT_TRUE(looked.has_value());
  EXPECT_TRUE(holds(looked->text, "cannot look up results of message taken" + in_server)) << looked->text;
  server.command("cli HSET leveret:result:foreign name value");
  const maybe_failure foreign = store.try_fetch({"foreign"}).second;
  ASSERT_TRUE(foreign.has_value());
  EXPECT_TRUE(holds(foreign->text, "another program's")) << foreign->text;

  server.command("cli CONFIG SET maxmemory 100kb");  // less than an empty server has, in every version
  const std::string full = why_not_kept(store, "full");
  EXPECT_TRUE(holds(full, "cannot store results of message full" + in_server)) << full;
  EXPECT_TRUE(holds(full, "raise maxmemory")) << full;
  EXPECT_TRUE(holds(full, "volatile-ttl")) << full;
  server.command("cli CONFIG SET maxmemory 0");
  EXPECT_EQ(why_not_kept(store, "full"), "kept");

  server.command("cli REPLICAOF 127.0.0.1 1");
  const std::string replica = why_not_kept(store, "replica");
  EXPECT_TRUE(holds(replica, "a replica, which takes no writes; name the primary in the url")) << replica;
  server.command("cli REPLICAOF NO ONE");
  EXPECT_EQ(why_not_kept(store, "replica"), "kept");
}

TEST(redis_refusals, of_what_a_user_may_not_do_name_what_to_allow) {
  redis_server server;
  server.command("cli ACL SETUSER worker on >canary ~leveret:result:* +select");
  store_session store("redis://worker:canary@127.0.0.1:" + std::to_string(server.port()) + "/3", quick());
  const std::string refused = why_not_kept(store, "m");
  const std::string remedy = "ACL SETUSER name ";
  ASSERT_TRUE(holds(refused, "NOPERM") && holds(refused, remedy)) << refused;
  EXPECT_FALSE(holds(refused, "canary")) << refused;
  // What the text says is enough.
  const std::size_t from = refused.find(remedy) + remedy.size();
  server.command("cli ACL SETUSER worker " + refused.substr(from, refused.find(" (", from) - from));
  EXPECT_EQ(why_not_kept(store, "m"), "kept");
  EXPECT_EQ(shown(store.fetch({"m"})), "1-1 x");
}

// ---- servers that go and come back ----

TEST(redis_outage, a_killed_server_loses_nothing_and_what_waits_is_stored_when_it_is_back) {
  redis_server server;
  store_session store(server.url(), quick());
  store.keep({chunk("before", 1, 1, "x")});
  server.command("kill");
  wait_for(store, health_state::connecting);
  EXPECT_TRUE(holds(store.store().how_it_is().detail, server.url() + "/0: ")) << store.store().how_it_is().detail;
  auto waits = store.start_keep({chunk("meanwhile", 1, 1, "y")});
  server.command("start");
  EXPECT_FALSE(store_session::got(std::move(waits)).at(0));
  EXPECT_EQ(shown(store.fetch({"before", "meanwhile"})), "1-1 x | 1-1 y");
  EXPECT_EQ(store.store().how_it_is().state, health_state::connected);
}

TEST(redis_outage, a_call_fails_at_its_deadline_and_says_why_and_the_next_one_works) {
  redis_server server;
  const auto open = open_impatient(server.url(), 400ms);
  store_session& store = *open;
  server.command("kill");
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (!holds(store.store().how_it_is().detail, "Connection refused") &&  // it has tried again
         std::chrono::steady_clock::now() < patience) {
    std::this_thread::yield();
  }
  const std::string gone = why_not_kept(store, "m");
  EXPECT_TRUE(holds(gone, "cannot store results of message m in " + server.url() + "/0: Connection refused")) << gone;
  EXPECT_TRUE(store.try_fetch({"m"}).second.has_value());
  server.command("start");
  wait_for(store, health_state::connected);
  // A busy machine may miss so short a deadline.
  std::string then = why_not_kept(store, "m");
  while (holds(then, "no answer within") && std::chrono::steady_clock::now() < patience) {
    then = why_not_kept(store, "m");
  }
  EXPECT_EQ(then, "kept");
}

TEST(redis_outage, a_stopped_server_blocks_neither_loop_nor_close) {
  redis_server server;
  const auto opened = open_impatient(server.url(), 600ms);
  store_session& store = *opened;
  server.command("pause");
  auto waits = store.start_keep({chunk("m", 1, 1, std::string(8u << 20, 'x'))});  // more than the socket takes
  std::promise<void> turned;
  store.loop().post([&] { turned.set_value(); });
  ASSERT_EQ(turned.get_future().wait_for(60s), std::future_status::ready);
  const maybe_failure why = store_session::got(std::move(waits)).at(0);
  ASSERT_TRUE(why.has_value());
  // By the connection's patience, or on a busy machine by the call's.
  EXPECT_TRUE(holds(why->text, "no answer within 300 ms") || holds(why->text, "no answer within 600 ms")) << why->text;

  // One that may still take its time, a minute, is ended by `close`.
  server.command("resume");
  store_session patient(server.url(), quick());
  server.command("pause");
  auto open = patient.start_keep({chunk("n", 1, 1, "x")});
  const auto began = std::chrono::steady_clock::now();
  patient.close(100ms);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 30s);
  const maybe_failure closed = store_session::got(std::move(open)).at(0);
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(closed->code, errc::closed);
  server.command("resume");
}

TEST(redis_outage, an_idle_connection_that_died_in_silence_is_noticed) {
  proxy p(shared().port());
  const auto open = open_impatient(url_at(p.port()), 400ms);
  store_session& store = *open;
  p.command("blackhole both");
  wait_for(store, health_state::connecting);
  p.command("reset");
  p.command("pass");
  wait_for(store, health_state::connected);
}

TEST(redis_outage, connections_cut_in_the_middle_lose_and_double_nothing) {
  proxy p(shared().port());
  store_session store(url_at(p.port()), quick());
  for (int round = 0; round < 5; ++round) {
    std::vector<result_chunk> all;
    std::vector<std::string> ids;
    for (int i = 0; i < 300; ++i) {
      const std::string id = "cut" + std::to_string(round) + "-" + std::to_string(i);
      ids.push_back(id);
      all.push_back(chunk(id, 1, 5, "part one of " + id));
      all.push_back(chunk(id, 6, 9, std::string(2'000, 'x')));
    }
    p.command("cut " + std::to_string(100'000 + round * 130'000));
    auto waits = store.start_keep(all);
    p.command("pass");
    for (const maybe_failure& why : store_session::got(std::move(waits))) ASSERT_FALSE(why) << why->text;
    const auto found = store.fetch(ids);
    ASSERT_EQ(found.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(found[i].data, all[i].data);
  }
}

TEST(redis_outage, close_lets_what_was_accepted_be_stored) {
  redis_server server;
  std::vector<std::string> ids;
  {
    store_session store(server.url(), quick());
    std::vector<result_chunk> all;
    for (int i = 0; i < 1000; ++i) {
      ids.push_back("m" + std::to_string(i));
      all.push_back(chunk(ids.back(), 1, 1, std::string(5'000, 'x')));
    }
    auto waits = store.start_keep(all);
    store.close();
    for (const maybe_failure& why : store_session::got(std::move(waits))) ASSERT_FALSE(why) << why->text;
  }
  EXPECT_EQ(store_session(server.url()).fetch(ids).size(), ids.size());
}

}  // namespace
}  // namespace leveret::core
