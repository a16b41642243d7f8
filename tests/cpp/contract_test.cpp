// The golden vectors of contracts/vectors, which tests/python/test_contract.py asserts too. They are read by the codec
// itself, as foreign objects.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>

#include "claim.hpp"
#include "codec.hpp"
#include "codec/scanner.hpp"
#include "once.hpp"
#include "redelivery.hpp"
#include "shards.hpp"
#include "signing.hpp"

namespace leveret::core {
namespace {

const leveret_host& host() {
  static const leveret_host functions = [] {
    leveret_host h{};
    set_value_functions(h);
    return h;
  }();
  return functions;
}

/// A value of a vector, by name.
class node {
 public:
  explicit node(leveret_value value) : value_(value) {}

  [[nodiscard]] bool has(std::string_view name) const { return find(name).has_value(); }
  [[nodiscard]] node operator[](std::string_view name) const {
    const std::optional<leveret_value> found = find(name);
    return node(found.value_or(leveret_value{}));
  }
  [[nodiscard]] std::string text() const {
    leveret_string s{};
    return host().get_string(value_, &s) != 0 ? std::string(s.data, s.size) : std::string();
  }
  [[nodiscard]] std::int64_t integer() const {
    std::int64_t number = 0;
    return host().get_integer(value_, &number) != 0 ? number : 0;
  }
  [[nodiscard]] std::vector<node> elements() const {
    std::vector<node> all;
    leveret_iterator it;
    leveret_value v;
    host().begin(value_, &it);
    while (host().next(&it, nullptr, &v) != 0) all.emplace_back(v);
    return all;
  }
  [[nodiscard]] std::string json() const { return to_json(value_); }

 private:
  [[nodiscard]] std::optional<leveret_value> find(std::string_view name) const {
    leveret_iterator it;
    leveret_value v;
    leveret_string key{};
    host().begin(value_, &it);
    while (host().next(&it, &key, &v) != 0) {
      if (std::string_view(key.data, key.size) == name) return v;
    }
    return std::nullopt;
  }

  leveret_value value_;
};

std::string from_base64(const std::string& text) {
  static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::size_t six = alphabet.find(c);
    if (six == std::string::npos) break;
    bits = bits << 6 | static_cast<std::uint32_t>(six);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<char>(static_cast<unsigned char>(bits >> count & 0xff)));
    }
  }
  return bytes;
}

/// The bytes that a vector gives as `name`, `name_base64` or `name_parts`.
std::string bytes_of(const node& vector, const std::string& name) {
  if (vector.has(name + "_base64")) return from_base64(vector[name + "_base64"].text());
  if (!vector.has(name + "_parts")) return vector[name].text();
  std::string bytes;
  for (const node& part : vector[name + "_parts"].elements()) {
    if (!part.has("times")) {
      bytes += part.text();
      continue;
    }
    const std::string once = part.has("repeat") ? part["repeat"].text() : from_base64(part["repeat_base64"].text());
    for (std::int64_t i = part["times"].integer(); i > 0; --i) bytes += once;
  }
  return bytes;
}

void for_each_vector(const char* file, std::size_t at_least, const std::function<void(const node&)>& check) {
  const std::string path = std::string(LEVERET_SOURCE_DIR) + "/contracts/vectors/" + file;
  std::ifstream in(path);
  std::string line;
  std::size_t count = 0;
  while (std::getline(in, line)) {
    const body bytes{line};
    line_codec codec;
    decoded_job vector;
    refused_line why;
    ASSERT_TRUE(codec.decode(bytes.view(), vector, why)) << path << ":" << count + 1 << ": " << why.text;
    const node root(vector.whole);
    SCOPED_TRACE(root["name"].text());
    check(root);
    ++count;
  }
  EXPECT_GE(count, at_least) << path;
}

TEST(Vectors, LinesAreAcceptedOrRefused) {
  for_each_vector("lines.jsonl", 250, [](const node& vector) {
    const std::string line = bytes_of(vector, "line");
    line_codec codec;
    refused_line why;
    ASSERT_NE(vector.has("accepted"), vector.has("refused"));
    const std::string verdict = codec.check(line, why) ? "none" : to_string(why.code);
    EXPECT_EQ(verdict, vector.has("refused") ? vector["refused"].text() : "none") << why.text;
    if (verdict != "none") {
      EXPECT_NE(why.text, "");
    }
  });
}

// JSON texts of no shape in particular. One that is no object is refused only for that, so JSON's own faults come
// first.
TEST(Vectors, JsonTextsAreAcceptedOrRefused) {
  for_each_vector("json.jsonl", 600, [](const node& vector) {
    const std::string text = bytes_of(vector, "text");
    line_codec codec;
    refused_line why;
    ASSERT_NE(vector.has("accepted"), vector.has("refused"));
    const bool good = codec.check(text, why) || why.code == refusal::not_object;
    EXPECT_EQ(good ? "accepted" : to_string(why.code), vector.has("refused") ? vector["refused"].text() : "accepted")
        << why.text;
  });
}

// An argument is as good or bad as it is alone, wherever that does not hang on the line's length and depth.
TEST(Vectors, JsonTextsAreTheSameAsArguments) {
  for_each_vector("json.jsonl", 600, [](const node& vector) {
    const std::string text = bytes_of(vector, "text");
    const std::string refused = vector["refused"].text();
    if (refused == "empty_line" || refused == "byte_order_mark") return;
    // These say more in an array than alone: they close it, or are several elements of it.
    if (vector["name"].text().rfind("text: ", 0) == 0) return;
    if (text.size() > kMaxLineBytes / 2 || json::nesting(text, kMaxDepth + 1) > kMaxDepth - 2) return;
    line_codec codec;
    refused_line why;
    const body line{R"({"task":"t","retry_count":0,"args":[)" + text + "]}"};
    decoded_job job;
    const bool good = codec.decode(line.view(), job, why);
    EXPECT_EQ(good ? "" : to_string(why.code), refused) << why.text;
    if (good) {
      EXPECT_EQ(node(job.args).elements().size(), 1u);
    }
  });
}

// The reader that explains faults must find none where there is none, and the one that simdjson found where there is
// one.
TEST(Vectors, TheExplainingReaderAgreesWithTheParser) {
  const auto check = [](const node& vector, const char* input) {
    std::string line = bytes_of(vector, input);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const std::string refused = vector["refused"].text();
    if (line.empty() || line.find('\n') != std::string::npos || !json::is_utf8(line) ||
        json::nesting(line, kMaxDepth + 1) > kMaxDepth || refused == "byte_order_mark") {
      return;
    }
    const refusal code = json::check_grammar(line).code;
    if (refused == "not_json" || refused == "number_range") {
      EXPECT_EQ(to_string(code), refused);
    } else {
      EXPECT_EQ(to_string(code), std::string("none"));
    }
  };
  for_each_vector("lines.jsonl", 250, [&](const node& vector) { check(vector, "line"); });
  for_each_vector("json.jsonl", 600, [&](const node& vector) { check(vector, "text"); });
}

TEST(Vectors, AcceptedLinesAreDecodedAsTheVectorSays) {
  for_each_vector("lines.jsonl", 250, [](const node& vector) {
    if (!vector.has("accepted")) return;
    const node expected = vector["accepted"];
    const body line{bytes_of(vector, "line")};
    line_codec codec;
    decoded_job job;
    refused_line why;
    ASSERT_TRUE(codec.decode(line.view(), job, why)) << why.text;
    EXPECT_EQ(job.foreign, expected.has("foreign"));
    EXPECT_EQ(job.task, bytes_of(expected, "task"));
    EXPECT_EQ(job.id, bytes_of(expected, "id"));
    ASSERT_TRUE(expected.has("retry_count"));
    EXPECT_EQ(job.retry_count, expected["retry_count"].integer());
    EXPECT_EQ(job.max_retries.has_value(), expected.has("max_retries"));
    EXPECT_EQ(job.max_retries.value_or(0), expected["max_retries"].integer());
    EXPECT_EQ(job.deadline_ms.has_value(), expected.has("deadline_ms"));
    EXPECT_EQ(job.deadline_ms.value_or(0), expected["deadline_ms"].integer());
    EXPECT_EQ(job.expires_at.has_value(), expected.has("expires_at"));
    EXPECT_EQ(job.expires_at.value_or(0), expected["expires_at"].integer());
    EXPECT_EQ(to_json(job.args), expected.has("args") ? expected["args"].json() : "[]");
    EXPECT_EQ(to_json(job.kwargs), expected.has("kwargs") ? expected["kwargs"].json() : "{}");
  });
}

TEST(Vectors, BodiesAreSplitAndBadLinesAreBadAlone) {
  for_each_vector("bodies.jsonl", 15, [](const node& vector) {
    const body data{bytes_of(vector, "body")};
    const std::vector<std::uint32_t> offsets = split_lines(data.view());
    std::vector<std::string> verdicts;
    line_codec codec;
    decoded_job job;
    refused_line why;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const std::string_view line = data.view().substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
      verdicts.emplace_back(codec.decode(line, job, why) ? "accepted" : to_string(why.code));
    }
    std::vector<std::string> expected;
    for (const node& line : vector["lines"].elements()) expected.push_back(line.text());
    EXPECT_EQ(verdicts, expected);
  });
}

TEST(Vectors, MessagesAreSignedAsTheVectorSays) {
  for_each_vector("signatures.jsonl", 10, [](const node& vector) {
    message m;
    m.id = vector["id"].text();
    m.queue = vector["queue"].text();
    m.reply = vector["reply"].text();
    m.data = body{vector["body"].text()};
    for (const char* name : {kHeaderSuspect, kHeaderCrashes, kHeaderUnknownSince, kHeaderClaim, kHeaderShards}) {
      if (vector["headers"].has(name)) m.headers.push_back({name, vector["headers"][name].text()});
    }
    const signing_keys keys{vector["key"].text() + ":" + vector["secret"].text()};
    keys.sign(m);
    EXPECT_EQ(m.headers.back().name, std::string(kHeaderSignature));
    EXPECT_EQ(m.headers.back().value, vector["signature"].text());
  });
}

TEST(Vectors, JobsClaimWhatTheVectorSays) {
  for_each_vector("claims.jsonl", 14, [](const node& vector) {
    const body line{vector["line"].text()};
    line_codec codec;
    decoded_job job;
    refused_line why;
    ASSERT_TRUE(codec.decode(line.view(), job, why)) << why.text;
    const std::string key = vector["idempotency_key"].text();
    EXPECT_EQ(key.empty() ? claim_key(job.task, job.args, job.kwargs) : claim_key(job.task, key),
              vector["claim"].text());
  });
}

TEST(Vectors, WhatLeveretWritesIsWrittenSo) {
  for_each_vector("records.jsonl", 12, [](const node& vector) {
    const node given = vector["given"];
    const std::string writes = vector["writes"].text();
    std::optional<failed_attempt> attempt;
    if (given.has("attempt")) {
      const node a = given["attempt"];
      attempt = failed_attempt{a["time_ms"].integer(), a["worker"].text(), a["error"].text()};
    }
    const failed_attempt* last = attempt ? &*attempt : nullptr;
    const std::string line = bytes_of(given, "line");
    std::string text;
    if (writes == "job") {
      const std::string task = given["task"].text();
      const std::string args = given["args"].text();
      const std::string kwargs = given["kwargs"].text();
      new_job job{task, args, kwargs, {}, {}};
      if (given.has("max_retries")) job.max_retries = static_cast<std::int32_t>(given["max_retries"].integer());
      if (given.has("deadline_ms")) job.deadline_ms = given["deadline_ms"].integer();
      append_job(text, job);
    } else if (writes == "result") {
      append_result(text, static_cast<std::uint32_t>(given["line"].integer()), given["json"].text());
    } else if (writes == "results") {
      const std::vector<node> each = given["json"].elements();
      std::string all;
      for (const node& json : each) all += json.text() + ",";
      append_results(text, static_cast<std::uint32_t>(given["line"].integer()), all, each.size());
    } else if (writes == "dead_result") {
      append_dead_result(text, static_cast<std::uint32_t>(given["line"].integer()), given["reason"].text(),
                         given["error"].text(), static_cast<std::uint32_t>(given["attempts"].integer()));
    } else if (writes == "expired_result") {
      append_expired_result(text, static_cast<std::uint32_t>(given["line"].integer()));
    } else if (writes == "cancelled_result") {
      append_cancelled_result(text, static_cast<std::uint32_t>(given["line"].integer()));
    } else if (writes == "rewrite") {
      text = rewrite_line(line, given["id"].text(), static_cast<std::uint32_t>(given["retry_count"].integer()), last);
    } else {
      ASSERT_EQ(writes, "dead_record");
      text = dead_record(given["id"].text(), given["task"].text(), given["queue"].text(), given["reason"].text(),
                         given["error"].text(), last, line);
    }
    EXPECT_EQ(text, vector["text"].text());
  });
}

}  // namespace
}  // namespace leveret::core
