// The parts of the RabbitMQ transport that need no broker.
#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "ids.hpp"
#include "transports/rabbitmq/ack_window.hpp"
#include "transports/rabbitmq/link.hpp"
#include "transports/rabbitmq/moderation.hpp"
#include "transports/rabbitmq/topology.hpp"
#include "transports/rabbitmq/url.hpp"
#include "transports/rabbitmq/wire.hpp"

namespace leveret::core::rabbitmq {
namespace {

// ---- urls ----

TEST(rabbitmq_url, has_defaults) {
  const endpoint e = parse_url("amqp://").front();
  EXPECT_EQ(e.host, "localhost");
  EXPECT_EQ(e.port, 5672);
  EXPECT_EQ(e.user, "guest");
  EXPECT_EQ(e.password, "guest");
  EXPECT_EQ(e.vhost, "/");
  EXPECT_FALSE(e.tls);
  EXPECT_TRUE(e.verify);
  EXPECT_EQ(parse_url("amqps://h").front().port, 5671);
  EXPECT_EQ(parse_url("amqp://h").front().vhost, "/");
  EXPECT_EQ(parse_url("amqp://h/").front().vhost, "/");
}

TEST(rabbitmq_url, decodes_every_part) {
  const endpoint e =
      parse_url("amqps://us%40er:p%2Fw%3a%25@broker.example:5000/v%2fhost?heartbeat=7&verify=none").front();
  EXPECT_TRUE(e.tls);
  EXPECT_FALSE(e.verify);
  EXPECT_EQ(e.user, "us@er");
  EXPECT_EQ(e.password, "p/w:%");
  EXPECT_EQ(e.host, "broker.example");
  EXPECT_EQ(e.port, 5000);
  EXPECT_EQ(e.vhost, "v/host");
  EXPECT_EQ(e.heartbeat, std::chrono::seconds(7));
}

TEST(rabbitmq_url, takes_ipv6_and_unescaped_passwords) {
  const endpoint v6 = parse_url("amqp://u:p@[::1]:5673/x").front();
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 5673);
  EXPECT_EQ(v6.where(), "amqp://[::1]:5673/x");
  const endpoint slip = parse_url("amqp://u:p@ss/w?rd@host/x").front();
  EXPECT_EQ(slip.password, "p@ss/w?rd");
  EXPECT_EQ(slip.host, "host");
  EXPECT_EQ(slip.vhost, "x");
  EXPECT_TRUE(parse_url("amqp://u@host").front().password.empty());
}

TEST(rabbitmq_url, refuses_the_rest_and_never_shows_a_password) {
  for (const char* url : {"http://host",
                          "amqp://u:canary@h:port/",
                          "amqp://u:canary@h:70000/",
                          "amqp://u:canary@h:0/",
                          "amqp://u:canary@h:/",
                          "amqp://u:can%zzary@h/",
                          "amqp://u:canary@h/a/b",
                          "amqp://u:canary@h/?heart=1",
                          "amqp://u:canary@h/?heartbeat=0",
                          "amqp://u:canary@h/?heartbeat=canary",
                          "amqp://u:canary@h/?verify=none",
                          "amqps://u:canary@h/?verify=maybe",
                          "amqp://u:canary@a:b:c/",
                          "amqp://u:canary@[::1/",
                          "amqp://u:canary@[h]/",
                          "amqp://:canary@h/",
                          "amqp://u:can%00ary@h/",
                          "amqp://u:canary@h/#x",
                          "amqp://u:can%4@h",
                          "amqp://u:canary@a,,b/",
                          "amqp://u:canary@a,/",
                          "amqp://u:canary@a,:5673/",
                          "amqp://u:canary@a:1,b:x/",
                          "amqp://u:canary@a/,amqp://u:canary@b/",
                          "amqp://u:canary@a;amqp://u:canary@b"}) {
    try {
      (void)parse_url(url);
      ADD_FAILURE() << "accepted: " << url;
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(std::string(e.what()).find("canary"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("amqp://user:password@host:port/vhost"), std::string::npos) << e.what();
    }
  }
}

TEST(rabbitmq_url, is_shown_without_user_and_password) {
  EXPECT_EQ(parse_url("amqp://user:canary@h/").front().where(), "amqp://h:5672/");
  EXPECT_EQ(parse_url("amqp://user:canary@h/a%2Fb").front().where(), "amqp://h:5672/a%2Fb");
  EXPECT_EQ(parse_url("amqps://h/x?verify=none").front().where(), "amqps://h:5671/x (certificate NOT verified)");
}

TEST(rabbitmq_url, names_several_servers_of_one_cluster) {
  const std::vector<endpoint> all = parse_url("amqps://u:canary@a,b:5000,[::1]/shop?heartbeat=3");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].where(), "amqps://a:5671/shop");
  EXPECT_EQ(all[1].where(), "amqps://b:5000/shop");
  EXPECT_EQ(all[2].where(), "amqps://[::1]:5671/shop");
  for (const endpoint& e : all) {
    EXPECT_EQ(e.user, "u");
    EXPECT_EQ(e.password, "canary");
    EXPECT_EQ(e.heartbeat, std::chrono::seconds(3));
  }
  EXPECT_EQ(where(all), "amqps://a:5671,b:5000,[::1]:5671/shop");
}

// ---- acknowledgements ----

TEST(ack_window, acknowledges_the_finished_prefix_at_once_and_stragglers_singly) {
  ack_window w;
  for (int i = 0; i < 8; ++i) w.delivered();
  for (const std::uint64_t tag : {1, 2, 3, 5, 8}) w.finish(tag);
  std::vector<ack_window::ack> acks = w.flush();
  ASSERT_EQ(acks.size(), 3u);
  EXPECT_EQ(acks[0].tag, 3u);
  EXPECT_TRUE(acks[0].multiple);
  EXPECT_EQ(acks[1].tag, 5u);
  EXPECT_FALSE(acks[1].multiple);
  EXPECT_EQ(acks[2].tag, 8u);
  w.finish(4);
  acks = w.flush();
  // Not 5: that tag is settled already, and a multiple ack of it would close the channel.
  ASSERT_EQ(acks.size(), 1u);
  EXPECT_EQ(acks[0].tag, 4u);
  EXPECT_FALSE(acks[0].multiple);
  EXPECT_EQ(w.out(), 2u);
}

// Against a broker that is as strict as RabbitMQ.
TEST(ack_window, never_names_a_settled_tag_and_misses_none) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 random(seed);
    ack_window w;
    std::set<std::uint64_t> outstanding;  // at the broker
    std::set<std::uint64_t> running;
    std::set<std::uint64_t> finished;
    std::uint64_t last = 0;
    const auto flush = [&] {
      for (const ack_window::ack& a : w.flush()) {
        ASSERT_EQ(outstanding.count(a.tag), 1u) << "seed " << seed;
        const auto end = outstanding.upper_bound(a.tag);
        auto begin = a.multiple ? outstanding.begin() : outstanding.find(a.tag);
        for (auto it = begin; it != end; ++it) {
          ASSERT_EQ(finished.count(*it), 1u) << "acknowledged before it was finished, seed " << seed;
          finished.erase(*it);
        }
        outstanding.erase(begin, end);
      }
      ASSERT_TRUE(finished.empty()) << "seed " << seed;
    };
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t choice = random() % 10;
      if (choice < 4) {
        w.delivered();
        outstanding.insert(++last);
        running.insert(last);
      } else if (choice < 9 && !running.empty()) {
        auto which = running.begin();
        std::advance(which, static_cast<std::ptrdiff_t>(random() % running.size()));
        if (choice == 8) {
          w.gone(*which);
          outstanding.erase(*which);
        } else {
          w.finish(*which);
          finished.insert(*which);
        }
        running.erase(which);
      } else {
        flush();
      }
      ASSERT_EQ(w.out(), running.size());
      ASSERT_EQ(w.finished(), finished.size());
    }
    flush();
  }
}

// ---- delays ----

// What the broker's topic exchanges do with a key: where a message ends, and after which delay.
std::pair<std::string, std::int64_t> travel(const std::string& key, std::uint32_t level) {
  const auto bit = [&](std::uint32_t k) { return key[2 * (kDelayLevels - 1 - k)] == '1'; };
  std::int64_t waited = 0;
  for (std::uint32_t k = level + 1; k-- > 0;) {
    if (bit(k)) waited += kDelayUnit << k;
  }
  return {key.substr(2 * kDelayLevels), waited};
}

TEST(moderation, is_for_several_small_messages_that_the_broker_may_send_more_of) {
  EXPECT_TRUE(is_flood(4, 4096, 500, 1000));
  EXPECT_FALSE(is_flood(3, 100, 0, 1000)) << "they come one by one";
  EXPECT_FALSE(is_flood(100, 4097, 0, 1000)) << "they are large";
  EXPECT_FALSE(is_flood(100, 100, 501, 1000)) << "the broker waits for acknowledgements soon";
  EXPECT_FALSE(is_flood(4, 100, 4, 1));
}

TEST(delay_levels, add_up_to_the_delay) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 1000; ++i) {
    const auto units =
        static_cast<std::uint32_t>(random() % ((1u << kDelayLevels) - 1) + 1) >> (random() % kDelayLevels);
    if (units == 0) continue;
    const std::uint32_t level = highest_level(units);
    EXPECT_EQ(travel(delay_key(units, "a.b"), level), std::make_pair(std::string("a.b"), kDelayUnit * units));
    // No bit above the level it enters at.
    EXPECT_EQ(units >> level, 1u);
  }
}

TEST(delay_levels, have_patterns_of_the_keys_shape) {
  EXPECT_EQ(level_pattern(kDelayLevels - 1, true), "1.#");
  EXPECT_EQ(level_pattern(kDelayLevels - 2, false), "*.0.#");
  EXPECT_EQ(destination_pattern("q").size(), 2 * kDelayLevels + 1);
  EXPECT_LE(delay_key(1, std::string(kMostQueueName, 'q')).size(), 255u);
  EXPECT_EQ(dead_queue_of("work"), "work.dead");
  EXPECT_EQ(dead_queue_of("work.suspects"), "work.dead");
}

TEST(full_jitter, grows_to_its_cap_and_starts_at_nothing) {
  const random_source random = seeded_random(3);
  using ms = std::chrono::milliseconds;
  ms most{0};
  ms least{1'000'000};
  for (std::uint32_t failures = 0; failures < 64; ++failures) {
    for (int i = 0; i < 200; ++i) {
      const ms wait = full_jitter(failures, ms(100), ms(10'000), random);
      ASSERT_GE(wait, ms(0));
      ASSERT_LE(wait, std::min<ms>(ms(10'000), ms(100) * (1 << std::min<std::uint32_t>(failures, 10))));
      most = std::max(most, wait);
      least = std::min(least, wait);
    }
  }
  EXPECT_GT(most, ms(9'000));
  EXPECT_LT(least, ms(50));
}

// ---- frames ----

std::string bytes_of(output& out) {
  std::string all;
  while (!out.empty()) {
    iovec parts[3];
    const int count = out.parts(parts, 3);
    std::size_t size = 0;
    for (int i = 0; i < count; ++i) {
      all.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
      size += parts[i].iov_len;
    }
    // As a socket that takes a part only.
    const std::size_t taken = size > 1 ? size / 2 : size;
    all.resize(all.size() - (size - taken));
    out.consumed(taken);
  }
  EXPECT_EQ(out.size(), 0u);
  return all;
}

TEST(frames, split_large_bodies_and_keep_their_bytes) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{4096 - 8}, std::size_t{4096 - 7},
                                 std::size_t{20'000}, std::size_t{300'000}}) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 % 251);
    properties props;
    props.message_id = "id";
    props.content_type = "application/json";
    props.headers = {{"k", "v"}, {"x-death", "stripped"}, {"x-delivery-count", "9"}};
    props.jobs = 3;
    output out;
    ASSERT_TRUE(out.publish(5, "ex", "key", props, body(text), 4096));
    const std::string all = bytes_of(out);
    std::string got;
    std::size_t at = 0;
    std::size_t frames = 0;
    while (at < all.size()) {
      const auto type = static_cast<std::uint8_t>(all[at]);
      EXPECT_EQ(read_u16(&all[at + 1]), 5);
      const std::size_t payload = read_u32(&all[at + 3]);
      ASSERT_LE(payload + kFrameOverhead, 4096u);
      EXPECT_EQ(static_cast<unsigned char>(all[at + 7 + payload]), AMQP_FRAME_END);
      if (frames == 0) {
        EXPECT_EQ(type, AMQP_FRAME_METHOD);
      }
      if (frames == 1) {
        ASSERT_EQ(type, AMQP_FRAME_HEADER);
        EXPECT_EQ(read_u64(&all[at + 7 + 4]), size);
        properties back;
        ASSERT_TRUE(decode_properties({&all[at + 7 + 12], payload - 12}, back));
        EXPECT_EQ(back.message_id, "id");
        EXPECT_EQ(back.jobs, 3);
        ASSERT_EQ(back.headers.size(), 1u);
        EXPECT_EQ(back.headers[0].name, "k");
        EXPECT_EQ(back.delivery_count, -1);
      }
      if (frames > 1) {
        EXPECT_EQ(type, AMQP_FRAME_BODY);
        got.append(all, at + 7, payload);
      }
      at += payload + kFrameOverhead;
      ++frames;
    }
    EXPECT_EQ(got, text);
  }
}

// ---- properties ----

/// A property list with a message id and one header, whose value is `depth` arrays in each other.
std::string nested_headers(int depth) {
  const auto with_size = [](const std::string& bytes) {
    std::string size(4, '\0');
    for (unsigned i = 0; i < 4; ++i) size[i] = static_cast<char>(bytes.size() >> (24 - 8 * i) & 0xff);
    return size + bytes;
  };
  std::string value = "V";
  for (int i = 0; i < depth; ++i) value = "A" + with_size(value);
  return std::string("\xa0\x80\x04text", 7) + with_size("\x01x" + value + "\x11x-leveret-crashesS" + with_size("2")) +
         "\x02id";
}

TEST(properties, headers_nested_deeper_than_anybody_needs_are_left_out) {
  properties shallow;
  ASSERT_TRUE(decode_properties(nested_headers(20), shallow));
  EXPECT_EQ(shallow.message_id, "id");
  ASSERT_EQ(shallow.headers.size(), 1u);
  EXPECT_EQ(number_header(shallow, "x-leveret-crashes"), 2);

  // As deep as a frame allows: rabbitmq-c's decoder, which calls itself, takes more than 2 MB of stack for it.
  const std::string deep = nested_headers(26'000);
  ASSERT_LT(deep.size(), kFrameMax);
  std::vector<properties> read(1);
  pthread_attr_t small;
  ASSERT_EQ(pthread_attr_init(&small), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&small, 512 << 10), 0);
  struct call {
    const std::string* payload;
    properties* into;
    bool good;
  } what{&deep, read.data(), false};
  pthread_t thread{};
  ASSERT_EQ(pthread_create(
                &thread, &small,
                [](void* told) -> void* {
                  auto* of = static_cast<call*>(told);
                  of->good = decode_properties(*of->payload, *of->into);
                  return nullptr;
                },
                &what),
            0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  EXPECT_TRUE(what.good);
  EXPECT_EQ(read[0].message_id, "id");
  EXPECT_TRUE(read[0].headers.empty());
}

TEST(properties, a_header_is_a_number_only_if_it_is_one_whole) {
  properties p;
  p.headers = {{"a", "7"}, {"b", "7x"}, {"c", "99999999999999999999"}, {"d", ""}, {"e", "-7"}};
  EXPECT_EQ(number_header(p, "a"), 7);
  for (const char* name : {"b", "c", "d", "none"}) EXPECT_EQ(number_header(p, name), 0) << name;
  EXPECT_EQ(number_header(p, "e"), -7);
}

TEST(frames, refuse_what_does_not_fit) {
  output out;
  properties props;
  props.message_id = std::string(256, 'i');
  EXPECT_FALSE(out.publish(1, "", "q", props, body("x"), kFrameMax));
  props.message_id = "id";
  props.headers = {{"large", std::string(kFrameMax, 'x')}};
  EXPECT_FALSE(out.publish(1, "", "q", props, body("x"), kFrameMax));
  EXPECT_TRUE(out.empty());
}

}  // namespace
}  // namespace leveret::core::rabbitmq
