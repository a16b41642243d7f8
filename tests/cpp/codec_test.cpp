#include "codec.hpp"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "codec/plain.hpp"

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

/// A verdict as text, to be compared literally.
std::string verdict(std::string_view line) {
  line_codec codec;
  refused_line why;
  return codec.check(line, why) ? "accepted" : to_string(why.code);
}

struct decoded {
  explicit decoded(const std::string& line) : bytes(line) { good = codec.decode(bytes.view(), job, why); }
  line_codec codec;
  body bytes;
  decoded_job job;
  refused_line why;
  bool good = false;
};

std::string job_with(const std::string& fields) { return R"({"task":"t","retry_count":0,)" + fields + "}"; }

TEST(Decode, TheShortLine) {
  const decoded d(R"({"task":"work","args":[7,3],"retry_count":4})");
  ASSERT_TRUE(d.good) << d.why.text;
  EXPECT_FALSE(d.job.foreign);
  EXPECT_EQ(d.job.task, "work");
  EXPECT_EQ(d.job.id, "");
  EXPECT_EQ(d.job.retry_count, 4u);
  EXPECT_FALSE(d.job.max_retries);
  EXPECT_FALSE(d.job.deadline_ms);
  EXPECT_EQ(to_json(d.job.args), "[7,3]");
  EXPECT_EQ(to_json(d.job.kwargs), "{}");
}

// Else a change of what is written would make every line slower, and nobody would know.
TEST(Decode, WhatIsWrittenIsPlain) {
  std::array<std::uint64_t, kMostPlainBytes> words{};
  std::array<std::uint8_t, 2 * kMostPlainBytes> strings{};
  for (const char* args : {"[]", "[7,-3]", R"(["a text",true,null])"}) {
    std::string line;
    append_job(line, {"work", args, "", {}, {}});
    ASSERT_EQ(line.back(), '\n');
    const std::size_t size = line.size() - 1;
    line.append(body::kPadding, ' ');
    plain_reader reader;
    plain_job read;
    EXPECT_TRUE(reader.read(std::string_view(line).substr(0, size), words.data(), strings.data(), read)) << line;
    EXPECT_EQ(reader.task(), "work");
  }
}

// Lines that begin as the one before are not read from their beginning.
TEST(Decode, PlainLinesOfSeveralTasksTakeTurns) {
  line_codec codec;
  decoded_job job;
  refused_line why;
  const auto decode = [&](const std::string& line) {
    const body bytes(line);
    return codec.decode(bytes.view(), job, why) ? std::string(job.task) + to_json(job.args) : to_string(why.code);
  };
  const std::string longest(255, 'x');
  for (const std::string& task : {std::string("work"), std::string("work"), std::string("walk"), std::string("w"),
                                  std::string("work2"), longest, std::string("work"), std::string("wor")}) {
    EXPECT_EQ(decode(R"({"task":")" + task + R"(","args":[1],"retry_count":0})"), task + "[1]");
    EXPECT_EQ(decode(R"({"task":")" + task + R"(","args":[2],"retry_count":0})"), task + "[2]");
    EXPECT_EQ(decode(R"({"task":")" + task + R"(","retry_count":2})"), task + "[]");
    EXPECT_EQ(decode(R"({"task":")" + longest + R"(x","args":[3],"retry_count":0})"), "bad_field");
    EXPECT_EQ(decode(R"({"task":")" + task + R"(","args":[4],"retry_count":0})"), task + "[4]");
    EXPECT_EQ(decode(R"({"task": "spaced","args":[5],"retry_count":0})"), "spaced[5]");
  }
}

// Nearly every line is read without simdjson (codec/plain.hpp), and must come to the same: a space in front of it is
// not plain.
TEST(Decode, PlainLinesAreReadAsAllOthersAre) {
  const std::string quoted(600, 'q');
  std::vector<std::string> lines;
  for (const char* task :
       {"work", "", "eight888", "a task of more than eight bytes", "t\"u", "t\\u0041", "t\x7f", "t\x1f", "t\xc3\xa9"}) {
    lines.push_back(std::string(R"({"task":")") + task + R"(","retry_count":0})");
  }
  lines.push_back(R"({"task":")" + std::string(255, 't') + R"(","retry_count":0})");
  lines.push_back(R"({"task":")" + std::string(256, 't') + R"(","retry_count":0})");
  for (const std::string& args : {std::string("[]"),
                                  std::string("[0]"),
                                  std::string("[-0]"),
                                  std::string("[00]"),
                                  std::string("[01]"),
                                  std::string("[-1,2,-3]"),
                                  std::string("[999999999999999999]"),
                                  std::string("[-999999999999999999]"),
                                  std::string("[1000000000000000000]"),
                                  std::string("[9223372036854775807]"),
                                  std::string("[-9223372036854775808]"),
                                  std::string("[18446744073709551615]"),
                                  std::string("[9999999999999999999]"),
                                  std::string("[-9999999999999999999]"),
                                  std::string("[18446744073709551616]"),
                                  std::string("[1.5]"),
                                  std::string("[1e3]"),
                                  std::string("[-]"),
                                  std::string("[1,]"),
                                  std::string("[,1]"),
                                  std::string("[1 ,2]"),
                                  std::string("[true,false,null]"),
                                  std::string("[tru]"),
                                  std::string("[nul,1]"),
                                  std::string("[truefalse]"),
                                  std::string(R"(["","a","1234567","12345678","123456789"])"),
                                  std::string(R"(["\n"])"),
                                  std::string("[\"\n\"]"),
                                  std::string("[[1],{}]"),
                                  std::string("[1"),
                                  std::string("{}"),
                                  std::string("null"),
                                  "[\"" + quoted + "\"]"}) {
    lines.push_back(R"({"task":"work","args":)" + args + R"(,"retry_count":3})");
  }
  for (const char* count :
       {"0", "1000000", "1000001", "-1", "1.0", "\"1\"", "", "0}", "0,\"id\":\"x\"", "0,\"task\":\"u\""}) {
    lines.push_back(std::string(R"({"task":"work","args":[1],"retry_count":)") + count + "}");
  }
  for (const std::string& line : lines) {
    const decoded plain(line);
    const decoded other(" " + line);
    ASSERT_EQ(plain.good, other.good) << line;
    EXPECT_EQ(plain.why.code, other.why.code) << line;
    if (!plain.good) continue;
    EXPECT_EQ(plain.job.task, other.job.task) << line;
    EXPECT_EQ(plain.job.id, other.job.id) << line;
    EXPECT_EQ(plain.job.retry_count, other.job.retry_count) << line;
    EXPECT_EQ(to_json(plain.job.args), to_json(other.job.args)) << line;
    EXPECT_EQ(to_json(plain.job.kwargs), to_json(other.job.kwargs)) << line;
    EXPECT_EQ(host().size_of(plain.job.args), host().size_of(other.job.args)) << line;
  }
}

TEST(Decode, ALineIsReadBetweenItsNeighbours) {
  // What follows the line in memory would complete it, or prolong its last token.
  for (const char* behind : {"}", "]}", "\"}", "0", "e", "rue}", "\\", ",", "\n{}", "                    }"}) {
    for (const char* line : {R"({"task":"t","retry_count":0)", R"({"task":"t","retry_count":0,"x":[)", R"({"task":"t)",
                             R"({"task":"t","retry_count":0,"x":t)", "tru", "1", "\"a", "{", "["}) {
      const body whole{std::string(line) + behind};
      line_codec codec;
      decoded_job job;
      refused_line inside;
      const bool good = codec.decode(whole.view().substr(0, std::string_view(line).size()), job, inside);
      EXPECT_FALSE(good) << line << " before " << behind;
      EXPECT_STREQ(to_string(inside.code), verdict(line).c_str()) << line << " before " << behind;
    }
  }
}

TEST(Decode, ACodecIsReusedWithoutTraces) {
  line_codec codec;
  decoded_job job;
  refused_line why;
  const body first{
      R"({"id":"a","task":"x","args":[1],"kwargs":{"k":1},"retry_count":9,"max_retries":3,"deadline_ms":7,"expires_at":1})"};
  const body second{R"({"task":"y","retry_count":0})"};
  const body not_plain{R"({ "task":"y","retry_count":0})"};
  for (const body& next : {second, not_plain}) {
    ASSERT_TRUE(codec.decode(first.view(), job, why));
    EXPECT_EQ(job.max_retries, 3);
    EXPECT_EQ(job.deadline_ms, 7);
    EXPECT_EQ(job.expires_at, 1);
    ASSERT_TRUE(codec.decode(next.view(), job, why));
    EXPECT_EQ(job.id, "");
    EXPECT_EQ(job.retry_count, 0u);
    EXPECT_FALSE(job.max_retries);
    EXPECT_FALSE(job.deadline_ms);
    EXPECT_FALSE(job.expires_at);
    EXPECT_EQ(to_json(job.args), "[]");
    EXPECT_EQ(to_json(job.kwargs), "{}");
  }
  const body foreign{R"({"id":18446744073709551615})"};
  ASSERT_TRUE(codec.decode(foreign.view(), job, why));
  EXPECT_TRUE(job.foreign);
  EXPECT_EQ(job.id, "18446744073709551615");
  EXPECT_EQ(job.task, "");
  ASSERT_TRUE(codec.decode(second.view(), job, why));
  EXPECT_FALSE(job.foreign);
  EXPECT_EQ(job.task, "y");
  EXPECT_EQ(job.id, "");
}

TEST(Decode, ARefusalSaysWhatCouldBeRead) {
  const decoded d(R"({"id":"i","task":"t","retry_count":0,"args":[1,2x]})");
  ASSERT_FALSE(d.good);
  EXPECT_EQ(d.why.code, refusal::not_json);
  EXPECT_EQ(d.why.task, "t");
  EXPECT_EQ(d.why.id, "i");
  EXPECT_EQ(d.why.text, "not valid JSON at byte 48: a comma or ] is missing");
}

TEST(Decode, ARefusalRepeatsNoNameThatIsTooLongOrNoText) {
  const decoded long_names("{\"task\":\"" + std::string(256, 't') + "\",\"id\":\"" + std::string(255, 'i') + "\"}");
  ASSERT_FALSE(long_names.good);
  EXPECT_EQ(long_names.why.task, "");
  EXPECT_EQ(long_names.why.id, std::string(255, 'i'));
  const decoded not_text("\xef\xbb\xbf{\"task\":\"a\xff\",\"id\":7}");
  ASSERT_FALSE(not_text.good);
  EXPECT_EQ(not_text.why.task, "");
  EXPECT_EQ(not_text.why.id, "");
}

TEST(Decode, SeveralFaultsAreReportedInTheContractsOrder) {
  const std::string deep(200, '[');
  EXPECT_EQ(verdict("\xef\xbb\xbf\xff" + deep), "byte_order_mark");
  EXPECT_EQ(verdict(std::string(kMaxLineBytes + 1, '\xff')), "too_long");
  EXPECT_EQ(verdict("\xff" + deep), "not_utf8");
  EXPECT_EQ(verdict("nonsense" + deep), "too_deep");
  EXPECT_EQ(verdict(R"({"a":1,"a":1e400,])"), "not_json");
  EXPECT_EQ(verdict(R"({"a":1,"a":1e400})"), "number_range");
  EXPECT_EQ(verdict(R"([{"a":1,"a":1}])"), "duplicate_key");
  EXPECT_EQ(verdict(R"([1])"), "not_object");
  EXPECT_EQ(verdict(R"({"task":7,"key":1})"), "unsupported_field");
  EXPECT_EQ(verdict(R"({"task":7})"), "bad_field");
}

TEST(Decode, ManyKeysCostNoMoreThanTheirSorting) {
  // 80,000 keys that share a long prefix, in a nested object: quadratic comparing would take minutes.
  std::string line = R"({"task":"t","retry_count":0,"kwargs":{)";
  std::size_t count = 0;
  while (line.size() < kMaxLineBytes - 64) line += "\"" + std::to_string(100'000 + count++) + "\":0,";
  const std::string unique = line + "\"last\":0}}";
  const std::string twice = line + "\"100000\":0}}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(verdict(unique), "accepted");
  EXPECT_EQ(verdict(twice), "duplicate_key");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_GT(count, 80'000u);
}

TEST(Decode, KeysAreComparedUnescaped) {
  EXPECT_EQ(verdict(job_with(R"("a":1,"\u0061":2)")), "duplicate_key");
  EXPECT_EQ(verdict(R"({"t\u0061sk":"t","retry_count":0})"), "accepted");
  EXPECT_EQ(verdict(R"({"task":"t","retry\u005fcount":0,"retry_count":0})"), "duplicate_key");
}

TEST(Values, EveryKindIsReadByItsOwnGetter) {
  const decoded d(job_with(R"("args":[null,true,false,-1,9223372036854775808,1.5,"s\u0000",[1],{"k":2}])"));
  ASSERT_TRUE(d.good) << d.why.text;
  leveret_iterator it;
  host().begin(d.job.args, &it);
  leveret_value v;
  std::vector<leveret_kind> kinds;
  std::vector<leveret_value> values;
  while (host().next(&it, nullptr, &v) != 0) {
    kinds.push_back(host().kind(v));
    values.push_back(v);
  }
  EXPECT_EQ(kinds, (std::vector<leveret_kind>{LEVERET_NULL, LEVERET_BOOLEAN, LEVERET_BOOLEAN, LEVERET_INTEGER,
                                              LEVERET_UNSIGNED, LEVERET_DOUBLE, LEVERET_STRING, LEVERET_ARRAY,
                                              LEVERET_OBJECT}));
  EXPECT_EQ(host().size_of(d.job.args), 9u);
  int flag = 7;
  EXPECT_EQ(host().get_boolean(values[0], &flag), 0);
  EXPECT_EQ(flag, 7);
  EXPECT_EQ(host().get_boolean(values[1], &flag), 1);
  EXPECT_EQ(flag, 1);
  EXPECT_EQ(host().get_boolean(values[2], &flag), 1);
  EXPECT_EQ(flag, 0);
  std::int64_t integer = 7;
  EXPECT_EQ(host().get_integer(values[3], &integer), 1);
  EXPECT_EQ(integer, -1);
  EXPECT_EQ(host().get_integer(values[4], &integer), 0);
  EXPECT_EQ(host().get_integer(values[5], &integer), 0);
  EXPECT_EQ(integer, -1);
  std::uint64_t natural = 7;
  EXPECT_EQ(host().get_unsigned(values[3], &natural), 0);
  EXPECT_EQ(natural, 7u);
  EXPECT_EQ(host().get_unsigned(values[4], &natural), 1);
  EXPECT_EQ(natural, 9223372036854775808u);
  double real = 0;
  EXPECT_EQ(host().get_double(values[3], &real), 1);
  EXPECT_EQ(real, -1.0);
  EXPECT_EQ(host().get_double(values[4], &real), 1);
  EXPECT_EQ(real, 9223372036854775808.0);
  EXPECT_EQ(host().get_double(values[5], &real), 1);
  EXPECT_EQ(real, 1.5);
  EXPECT_EQ(host().get_double(values[6], &real), 0);
  leveret_string text{};
  EXPECT_EQ(host().get_string(values[5], &text), 0);
  EXPECT_EQ(host().get_string(values[6], &text), 1);
  EXPECT_EQ(std::string(text.data, text.size), std::string("s\0", 2));
  host().begin(values[8], &it);
  leveret_string key{};
  ASSERT_EQ(host().next(&it, &key, &v), 1);
  EXPECT_EQ(std::string(key.data, key.size), "k");
  EXPECT_EQ(host().get_integer(v, &integer), 1);
  EXPECT_EQ(integer, 2);
  EXPECT_EQ(host().next(&it, &key, &v), 0);
  EXPECT_EQ(host().next(&it, &key, &v), 0);
  host().begin(values[3], &it);
  EXPECT_EQ(host().next(&it, &key, &v), 0);
  EXPECT_EQ(host().size_of(values[3]), 0u);
}

TEST(Values, AValueOfNothingReadsAsNull) {
  const leveret_value nothing{};
  EXPECT_EQ(host().kind(nothing), LEVERET_NULL);
  EXPECT_EQ(host().size_of(nothing), 0u);
  std::int64_t integer = 0;
  EXPECT_EQ(host().get_integer(nothing, &integer), 0);
  leveret_iterator it;
  host().begin(nothing, &it);
  leveret_value v;
  EXPECT_EQ(host().next(&it, nullptr, &v), 0);
  EXPECT_EQ(to_json(nothing), "null");
}

TEST(Values, TextIsWrittenWithoutWhiteSpace) {
  const decoded d(job_with(
      R"( "args" : [ 1 , -0 , 1e2 , 3.0 , -0.0, 1e22, "a\/\u00e9\n" , { "b" : [ ] , "c" : { } } , true , null ] )"));
  ASSERT_TRUE(d.good) << d.why.text;
  EXPECT_EQ(to_json(d.job.args), "[1,0,100.0,3.0,-0.0,1e+22,\"a/\xc3\xa9\\n\",{\"b\":[],\"c\":{}},true,null]");
}

TEST(SplitLines, TheFinalNewlineIsOptional) {
  using offsets = std::vector<std::uint32_t>;
  EXPECT_EQ(split_lines(""), (offsets{0}));
  EXPECT_EQ(split_lines("a"), (offsets{0, 2}));
  EXPECT_EQ(split_lines("a\n"), (offsets{0, 2}));
  EXPECT_EQ(split_lines("a\nbc"), (offsets{0, 2, 5}));
  EXPECT_EQ(split_lines("a\nbc\n"), (offsets{0, 2, 5}));
  EXPECT_EQ(split_lines("\n"), (offsets{0, 1}));
  EXPECT_EQ(split_lines("a\n\n"), (offsets{0, 2, 3}));
}

TEST(SplitLines, EveryLineFeedIsFoundAndNoOtherByte) {
  constexpr std::size_t kBytes = 150;  // two blocks and a rest, as they are looked through
  for (std::size_t place = 0; place < kBytes; ++place) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string text(kBytes, static_cast<char>(byte));
      text[place] = '\n';
      std::vector<std::uint32_t> expected{0};
      for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '\n') expected.push_back(static_cast<std::uint32_t>(at + 1));
      }
      if (text.back() != '\n') expected.push_back(kBytes + 1);
      ASSERT_EQ(split_lines(text), expected) << "byte " << byte << " around a line feed at " << place;
    }
  }
}

std::string written(const std::function<void(json_writer&)>& steps) {
  json_writer w;
  steps(w);
  return w.complete() ? w.text() : "incomplete: " + w.text();
}

TEST(Writer, CommasAndColonsComeByThemselves) {
  EXPECT_EQ(written([](json_writer& w) {
              w.begin_object();
              EXPECT_TRUE(w.key("a\"b"));
              w.begin_array();
              w.null();
              w.boolean(true);
              w.integer(std::numeric_limits<std::int64_t>::min());
              w.uinteger(std::numeric_limits<std::uint64_t>::max());
              EXPECT_TRUE(w.real(0.1));
              EXPECT_TRUE(w.string("\x01\x7f\xc3\xa9\t"));
              w.begin_object();
              w.end_object();
              EXPECT_TRUE(w.raw("[1, \"a b\" ,2]"));
              w.end_array();
              EXPECT_TRUE(w.key("c"));
              w.raw_trusted("{}");
              w.end_object();
            }),
            "{\"a\\\"b\":[null,true,-9223372036854775808,18446744073709551615,0.1,\"\\u0001\x7f\xc3\xa9\\t\",{},[1,\"a "
            "b\",2]],"
            "\"c\":{}}");
}

TEST(Writer, WhatIsNotJsonIsNotWritten) {
  json_writer w;
  w.begin_array();
  EXPECT_FALSE(w.real(std::nan("")));
  EXPECT_FALSE(w.real(std::numeric_limits<double>::infinity()));
  EXPECT_FALSE(w.string("\xff"));
  for (const char* text :
       {"", " ", "1 2", "{\"a\":1,\"a\":2}", "NaN", "1e400", "[1,]", "\"\\ud800\"", "\"\xff\"", "\n"}) {
    EXPECT_FALSE(w.raw(text)) << text;
  }
  w.string_lossy("a\xff\xe2\x82z");
  w.end_array();
  EXPECT_TRUE(w.complete());
  EXPECT_EQ(w.text(), "[\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"]");
}

TEST(Writer, RawTextOfManyLinesBecomesOne) {
  EXPECT_EQ(written([](json_writer& w) { EXPECT_TRUE(w.raw("{\r\n \"a\\\"\\n \" : [ 1 ,\n2 ]\n}")); }),
            R"({"a\"\n ":[1,2]})");
}

TEST(Writer, ASecondTopLevelValueIsIgnored) {
  EXPECT_EQ(written([](json_writer& w) {
              w.integer(1);
              w.integer(2);
              w.begin_object();
              EXPECT_TRUE(w.key("a"));
              w.begin_array();
              w.integer(3);
              w.end_array();
              w.end_object();
              w.null();
            }),
            "1");
}

TEST(Writer, MisuseIsNeverComplete) {
  EXPECT_EQ(written([](json_writer&) {}), "incomplete: ");
  EXPECT_EQ(written([](json_writer& w) { w.begin_array(); }), "incomplete: [");
  const std::function<void(json_writer&)> misuses[] = {
      [](json_writer& w) {
        w.begin_array();
        w.end_object();
        w.end_array();
      },
      [](json_writer& w) {
        w.begin_object();
        w.integer(1);
        w.end_object();
      },
      [](json_writer& w) {
        w.begin_object();
        EXPECT_TRUE(w.key("a"));
        w.end_object();
      },
      [](json_writer& w) {
        w.begin_object();
        EXPECT_TRUE(w.key("a"));
        EXPECT_TRUE(w.key("b"));
        w.null();
        w.end_object();
      },
      [](json_writer& w) {
        w.begin_array();
        EXPECT_TRUE(w.key("a"));
        w.end_array();
      },
      [](json_writer& w) {
        w.null();
        w.end_array();
      },
      [](json_writer& w) {
        for (std::size_t i = 0; i < kMaxDepth; ++i) w.begin_array();
        for (std::size_t i = 0; i < kMaxDepth; ++i) w.end_array();
      },
  };
  for (const auto& misuse : misuses) EXPECT_EQ(written(misuse).substr(0, 10), "incomplete");
}

TEST(Writer, AResultLineStaysWithinTheDepthOfTheContract) {
  json_writer w;
  for (std::size_t i = 0; i < kMaxDepth - 2; ++i) w.begin_array();
  EXPECT_FALSE(w.raw("[[]]"));
  EXPECT_TRUE(w.raw("[]"));
  for (std::size_t i = 0; i < kMaxDepth - 2; ++i) w.end_array();
  ASSERT_TRUE(w.complete());
  std::string chunk;
  append_result(chunk, 1, w.text());
  EXPECT_EQ(verdict(chunk.substr(0, chunk.size() - 1)), "accepted");  // as a foreign object
}

TEST(Writer, DoublesReadBackAsTheSameDouble) {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    json_writer w;
    w.begin_array();
    if (!w.real(value)) continue;
    w.end_array();
    const decoded d(job_with("\"args\":" + w.text()));
    ASSERT_TRUE(d.good) << w.text();
    leveret_iterator it;
    leveret_value v;
    host().begin(d.job.args, &it);
    ASSERT_EQ(host().next(&it, nullptr, &v), 1);
    ASSERT_EQ(host().kind(v), LEVERET_DOUBLE) << w.text();
    double back = 0;
    ASSERT_EQ(host().get_double(v, &back), 1);
    ASSERT_EQ(std::memcmp(&back, &value, sizeof value), 0) << w.text();
  }
}

TEST(Rewrite, OwnedFieldsChangeAndTheRestStaysByteForByte) {
  EXPECT_EQ(rewrite_line(R"( { "task" : "w" , "args":[ 1.0 , "\u00e9"] ,"retry_count":0, "x\u0079": {"a" : 1e2} } )",
                         "m/1", 1, nullptr),
            R"({"id":"m/1","task":"w","args":[ 1.0 , "\u00e9"],"retry_count":1,"x\u0079":{"a" : 1e2}})");
  EXPECT_EQ(rewrite_line("{\"id\":\"old\",\"task\":\"w\",\"retry_count\":3}\r", "m/2", 0, nullptr),
            R"({"id":"m/2","task":"w","retry_count":0})");
  EXPECT_EQ(rewrite_line(R"({"task":"w","retry_count":3,"id":null})", "m/2", 4, nullptr),
            R"({"id":"m/2","task":"w","retry_count":4})");
  EXPECT_EQ(rewrite_line(R"({"task":"w","retry\u005fcount":3})", "m/2", 4, nullptr),
            R"({"id":"m/2","task":"w","retry\u005fcount":4})");
}

// A foreign object is its handler's argument: an `errors` array in it broke a handler that takes a map of integers.
TEST(Rewrite, OfAForeignObjectOnlyTheRetryCountChanges) {
  const failed_attempt attempt{0, "w", "e"};
  EXPECT_EQ(rewrite_line(R"({"id":1,"value":7,"retry_count":0})", "m/1", 1, &attempt),
            R"({"id":1,"value":7,"retry_count":1})");
  EXPECT_EQ(rewrite_line(R"({"value":7})", "m/1", 1, nullptr), R"({"value":7,"retry_count":1})");
  EXPECT_EQ(rewrite_line("{}", "m/1", 1, &attempt), R"({"retry_count":1})");
}

TEST(Rewrite, AFailedAttemptIsAppended) {
  const failed_attempt attempt{1'709'210'096'789, "host-1", "boom \xff"};
  EXPECT_EQ(
      rewrite_line(R"({"task":"w","retry_count":0})", "m/1", 1, &attempt),
      "{\"id\":\"m/"
      "1\",\"task\":\"w\",\"retry_count\":1,\"errors\":[{\"time\":\"2024-02-29T12:34:56.789Z\",\"worker\":\"host-1\","
      "\"error\":\"boom \xef\xbf\xbd\"}]}");
}

TEST(Rewrite, TheNewestSixteenErrorsAreKept) {
  std::string line = R"({"task":"w","retry_count":0})";
  for (int i = 0; i < 40; ++i) {
    const failed_attempt attempt{std::int64_t{1000} * i, "w", "error " + std::to_string(i)};
    line = rewrite_line(line, "m/1", static_cast<std::uint32_t>(i + 1), &attempt);
    ASSERT_EQ(verdict(line), "accepted") << line;
  }
  EXPECT_EQ(line.find("error 23"), std::string::npos);
  EXPECT_NE(line.find("error 24"), std::string::npos);
  EXPECT_NE(line.find("error 39"), std::string::npos);
  EXPECT_NE(line.find("\"retry_count\":40"), std::string::npos);
}

TEST(Rewrite, ALongErrorIsCutBetweenCharacters) {
  std::string error = "x";
  for (int i = 0; i < 600; ++i) error += "\xc3\xa9";
  const failed_attempt attempt{0, "w", error};
  const std::string line = rewrite_line(R"({"task":"w","retry_count":0})", "m/1", 1, &attempt);
  EXPECT_NE(line.find("\"error\":\"" + error.substr(0, 1023) + "\""), std::string::npos);
}

TEST(Rewrite, ErrorsGiveWayBeforeALineGetsTooLong) {
  const std::string head = R"({"task":"w","retry_count":0,"args":[")";
  const std::string line = head + std::string(kMaxLineBytes - head.size() - 2200, 'x') + "\"]}";
  ASSERT_EQ(verdict(line), "accepted");
  std::string now = line;
  for (std::uint32_t i = 1; i < 6; ++i) {
    const failed_attempt attempt{0, "w", std::string(5000, static_cast<char>('a' + i))};
    now = rewrite_line(now, "m/1", i, &attempt);
    ASSERT_EQ(verdict(now), "accepted") << i;
  }
  EXPECT_NE(now.find("fff"), std::string::npos);
  EXPECT_EQ(now.find("bbb"), std::string::npos);
}

TEST(DeadRecord, HoldsTheAttemptsAndTheLine) {
  const failed_attempt last{-1, "w", "second"};
  EXPECT_EQ(
      dead_record(
          "m/1", "t", "q", kReasonException, "second", &last,
          R"({"task":"t","retry_count":1,"errors":[{"time":"2024-01-01T00:00:00.000Z","worker":"v","error":"first"}]})"),
      R"({"id":"m/1","task":"t","queue":"q","reason":"exception","error":"second","attempts":[)"
      R"({"time":"2024-01-01T00:00:00.000Z","worker":"v","error":"first"},)"
      R"({"time":"1969-12-31T23:59:59.999Z","worker":"w","error":"second"}],)"
      R"("body":"{\"task\":\"t\",\"retry_count\":1,\"errors\":[{\"time\":\"2024-01-01T00:00:00.000Z\",\"worker\":\"v\",\"error\":\"first\"}]}"})");
}

TEST(DeadRecord, AnyBytesAreKept) {
  EXPECT_EQ(
      dead_record("m/1", "", "q", kReasonMalformed, "not_json", nullptr, R"({"errors":[1,)"),
      R"({"id":"m/1","task":"","queue":"q","reason":"malformed","error":"not_json","attempts":[],"body":"{\"errors\":[1,"})");
  EXPECT_EQ(
      dead_record("m/1", "", "q", kReasonMalformed, "not_utf8", nullptr, "\xff\xfe!a"),
      R"({"id":"m/1","task":"","queue":"q","reason":"malformed","error":"not_utf8","attempts":[],"body_base64":"//4hYQ=="})");
  EXPECT_EQ(dead_record("", "", "", "", "", nullptr, "\xff"),
            R"({"id":"","task":"","queue":"","reason":"","error":"","attempts":[],"body_base64":"/w=="})");
}

TEST(DeadRecord, IsReplayedAsItsLineWithItsIdAndRetriesFromZero) {
  const std::string line = R"({"task":"t","args":["\"é"],"extra":1,"retry_count":3,"errors":[]})";
  const auto job = replay_record(dead_record("m/1", "t", "q", kReasonException, "e", nullptr, line));
  ASSERT_TRUE(job);
  EXPECT_EQ(job->id, "m/1");
  EXPECT_EQ(job->line, R"({"id":"m/1","task":"t","args":["\"é"],"extra":1,"retry_count":0,"errors":[]})");
}

TEST(DeadRecord, OfNoJobIsNotReplayed) {
  for (const char* line : {"", "{", "\xff", R"({"task":1,"retry_count":0})"}) {
    EXPECT_FALSE(replay_record(dead_record("m/1", "t", "q", kReasonMalformed, "e", nullptr, line))) << line;
  }
  EXPECT_FALSE(replay_record("{}"));
  EXPECT_FALSE(replay_record("nonsense"));
}

TEST(Results, AreOneLineEach) {
  std::string chunk;
  append_result(chunk, 7, "[1]");
  append_result(chunk, 8, "");
  append_dead_result(chunk, 9, kReasonRejected, "no\n", 1);
  append_cancelled_result(chunk, 10);
  EXPECT_EQ(chunk,
            "{\"line\":7,\"result\":[1]}\n{\"line\":8,\"result\":null}\n"
            "{\"line\":9,\"state\":\"dead\",\"reason\":\"rejected\",\"error\":\"no\\n\",\"attempts\":1}\n"
            "{\"line\":10,\"state\":\"cancelled\"}\n");
}

TEST(Jobs, AreWrittenAsTheContractSays) {
  std::string out;
  append_job(out, {"work", "[7,3]", "", {}, {}});
  append_job(out, {"r\"", "", R"({"k":1})", 0, 250});
  EXPECT_EQ(out,
            "{\"task\":\"work\",\"args\":[7,3],\"retry_count\":0}\n"
            "{\"task\":\"r\\\"\",\"kwargs\":{\"k\":1},\"retry_count\":0,\"max_retries\":0,\"deadline_ms\":250}\n");
  for (std::size_t i = 0; i + 1 < split_lines(out).size(); ++i) {
    const auto offsets = split_lines(out);
    EXPECT_EQ(verdict(std::string_view(out).substr(offsets[i], offsets[i + 1] - 1 - offsets[i])), "accepted");
  }
}

}  // namespace
}  // namespace leveret::core
