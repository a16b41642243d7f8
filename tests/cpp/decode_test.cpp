// Every kind of argument and result, through the real codec and the C ABI.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

#include "cpp/support/handler_call.hpp"

namespace {

using leveret::test::ended;
using leveret::test::one_task;

enum class level : std::uint8_t { low = 1, high = 2 };
enum class color { red, green, blue };

struct box {
  int x = 0;
  std::uint8_t y = 0;
  std::string label = "none";
  std::optional<double> weight;
};
struct shelf {
  std::vector<box> boxes;
  std::map<std::string, color> colors;
};
struct node {
  int value = 0;
  std::vector<node> children;
};
struct base {
  int inherited = 0;
};
struct derived : base {
  int own = 0;
};

}  // namespace

template <>
struct leveret::names<color> {
  static constexpr auto list = std::make_tuple(leveret::name("red", color::red), leveret::name("green", color::green));
};
template <>
struct leveret::fields<box> {
  static constexpr auto list =
      std::make_tuple(leveret::field("x", &box::x), leveret::field("y", &box::y),
                      leveret::field("label", &box::label).or_default(), leveret::field("weight", &box::weight));
};
template <>
struct leveret::fields<shelf> {
  static constexpr auto list =
      std::make_tuple(leveret::field("boxes", &shelf::boxes), leveret::field("colors", &shelf::colors).or_default());
};
template <>
struct leveret::fields<node> {
  static constexpr auto list =
      std::make_tuple(leveret::field("value", &node::value), leveret::field("children", &node::children).or_default());
};
template <>
struct leveret::fields<derived> {
  static constexpr auto list =
      std::make_tuple(leveret::field("inherited", &derived::inherited), leveret::field("own", &derived::own));
};

namespace {

/// Gives back what it takes: the value goes through decoding and encoding.
template <class T>
ended echo(std::string_view json) {
  return one_task([](T value) { return value; })("[" + std::string(json) + "]");
}

template <class T>
void expect_same(std::string_view json, std::string_view back = {}) {
  const ended end = echo<T>(json);
  EXPECT_EQ(end.outcome, LEVERET_SUCCEEDED) << json << ": " << end.failure;
  EXPECT_EQ(end.result, back.empty() ? json : back);
}

template <class T>
void expect_refused(std::string_view json, std::string_view why) {
  const ended end = echo<T>(json);
  EXPECT_EQ(end.outcome, LEVERET_BAD_ARGUMENTS) << json;
  EXPECT_EQ(end.failure, why);
}

template <class T>
void expect_bounds(const std::string& below, const std::string& lowest, const std::string& highest,
                   const std::string& above) {
  expect_same<T>(lowest);
  expect_same<T>(highest);
  const std::string range = "args[0]: expected integer " + lowest + " to " + highest + ", got ";
  if (!below.empty()) expect_refused<T>(below, range + below);
  if (!above.empty()) expect_refused<T>(above, range + above);
}

TEST(decode, integers_of_every_width_keep_their_bounds) {
  expect_bounds<std::int8_t>("-129", "-128", "127", "128");
  expect_bounds<std::uint8_t>("-1", "0", "255", "256");
  expect_bounds<std::int16_t>("-32769", "-32768", "32767", "32768");
  expect_bounds<std::uint16_t>("-1", "0", "65535", "65536");
  expect_bounds<std::int32_t>("-2147483649", "-2147483648", "2147483647", "2147483648");
  expect_bounds<std::uint32_t>("-1", "0", "4294967295", "4294967296");
  expect_bounds<std::int64_t>("", "-9223372036854775808", "9223372036854775807", "9223372036854775808");
  expect_bounds<std::uint64_t>("-1", "0", "18446744073709551615", "");
  expect_bounds<long long>("", "-9223372036854775808", "9223372036854775807", "18446744073709551615");
  expect_refused<std::uint64_t>("-9223372036854775808",
                                "args[0]: expected integer 0 to 18446744073709551615, got -9223372036854775808");
}

TEST(decode, a_number_with_a_point_is_no_integer) {
  expect_refused<int>("3.0", "args[0]: expected integer, got number");
  expect_refused<int>("1e2", "args[0]: expected integer, got number");
}

TEST(decode, other_kinds_are_named_on_both_sides) {
  expect_refused<int>("\"7\"", "args[0]: expected integer, got string");
  expect_refused<int>("null", "args[0]: expected integer, got null");
  expect_refused<int>("true", "args[0]: expected integer, got boolean");
  expect_refused<int>("[1]", "args[0]: expected integer, got array");
  expect_refused<int>("{}", "args[0]: expected integer, got object");
  expect_refused<bool>("1", "args[0]: expected boolean, got integer");
  expect_refused<double>("\"1\"", "args[0]: expected number, got string");
  expect_refused<std::string>("18446744073709551615", "args[0]: expected string, got integer");
  expect_refused<std::vector<int>>("{}", "args[0]: expected array, got object");
  expect_refused<box>("[]", "args[0]: expected object, got array");
}

TEST(decode, numbers) {
  expect_same<double>("0.1");
  expect_same<double>("-2.5e-300");
  expect_same<double>("7", "7.0");
  EXPECT_EQ(one_task([](double x) { return x == 0x1p64; })("[18446744073709551615]").result, "true");
  expect_same<float>("0.5");
  EXPECT_EQ(echo<float>("1e39").outcome, LEVERET_BAD_ARGUMENTS);
  EXPECT_EQ(echo<float>("-1e39").outcome, LEVERET_BAD_ARGUMENTS);
}

TEST(decode, strings_booleans_and_null) {
  expect_same<bool>("true");
  expect_same<bool>("false");
  expect_same<std::string>(R"("a\"\\\n é😀")");
  expect_same<std::string>(R"("nul\u0000inside")");
  expect_same<std::string_view>(R"("view")");
  expect_same<std::monostate>("null");
  expect_refused<std::monostate>("0", "args[0]: expected null, got integer");
}

TEST(decode, lists_name_the_index_of_a_bad_element) {
  expect_same<std::vector<int>>("[]");
  expect_same<std::vector<int>>("[1,2,3]");
  expect_same<std::vector<bool>>("[true,false]");
  expect_same<std::vector<std::vector<std::string>>>(R"([["a"],[],["b","c"]])");
  expect_same<std::array<int, 3>>("[1,2,3]");
  expect_refused<std::vector<int>>(R"([1,2,"3"])", "args[0][2]: expected integer, got string");
  expect_refused<std::vector<std::vector<int>>>("[[1],[2,null]]", "args[0][1][1]: expected integer, got null");
  expect_refused<std::array<int, 3>>("[1,2]", "args[0]: expected array of 3, got array of 2");
}

TEST(decode, dictionaries_name_the_key_of_a_bad_element) {
  expect_same<std::map<std::string, int>>(R"({"a":1,"b":2})");
  expect_same<std::unordered_map<std::string, std::vector<int>>>(R"({"k":[1]})");
  expect_refused<std::map<std::string, int>>(R"({"a":1,"b":"2"})", "args[0].b: expected integer, got string");
  expect_refused<std::map<std::string, int>>(R"({"two words":null})",
                                             R"(args[0]["two words"]: expected integer, got null)");
  expect_refused<std::map<std::string, int>>(R"({"":null})", R"(args[0][""]: expected integer, got null)");
  expect_refused<std::map<std::string, int>>(R"({"a\n\"":null})",
                                             R"(args[0]["a\u000a\""]: expected integer, got null)");
}

TEST(decode, optionals) {
  expect_same<std::optional<int>>("null");
  expect_same<std::optional<int>>("5");
  expect_refused<std::optional<int>>("\"5\"", "args[0]: expected integer, got string");
}

TEST(decode, tuples_have_their_size) {
  expect_same<std::tuple<int, std::string, bool>>(R"([1,"a",true])");
  expect_same<std::pair<int, double>>("[1,0.5]");
  expect_same<std::tuple<>>("[]");
  expect_refused<std::tuple<int, int>>("[1]", "args[0]: expected array of 2, got array of 1");
  expect_refused<std::tuple<int, int>>("[1,2,3]", "args[0]: expected array of 2, got array of 3");
  expect_refused<std::tuple<int, int>>("[1,true]", "args[0][1]: expected integer, got boolean");
}

TEST(decode, a_variant_takes_the_first_that_fits) {
  using value = std::variant<std::int64_t, double, std::string>;
  expect_same<value>("1");
  expect_same<value>("1.5");
  expect_same<value>("\"s\"");
  expect_refused<value>("[]", "args[0]: expected integer, number or string, got array");
  const ended end = one_task([](const std::variant<double, int>& v) { return v.index(); })("[1]");
  EXPECT_EQ(end.result, "0");
}

TEST(decode, a_variant_says_what_is_wrong_inside_the_alternative_that_was_meant) {
  const auto why = [](std::string_view json) {
    return one_task([](const std::variant<int, box>&) {})("[" + std::string(json) + "]").failure;
  };
  EXPECT_EQ(why(R"({"x":1})"), "args[0].y: missing");
  EXPECT_EQ(why(R"({"x":"1","y":2})"), "args[0].x: expected integer, got string");
}

TEST(decode, enums_travel_by_integer_or_by_name) {
  expect_same<level>("2");
  expect_refused<level>("256", "args[0]: expected integer 0 to 255, got 256");
  expect_same<color>("\"green\"");
  expect_refused<color>("\"blue\"", R"(args[0]: expected "red" or "green", got "blue")");
  expect_refused<color>("1", R"(args[0]: expected "red" or "green", got integer)");
}

TEST(decode, structs_by_their_fields) {
  expect_same<box>(R"({"x":1,"y":2,"label":"a","weight":0.5})");
  expect_same<box>(R"({"y":2,"x":1})", R"({"x":1,"y":2,"label":"none","weight":null})");
  expect_same<box>(R"({"x":1,"y":2,"unknown":[1,2]})", R"({"x":1,"y":2,"label":"none","weight":null})");
  expect_same<derived>(R"({"inherited":1,"own":2})");
  expect_same<node>(R"({"value":1,"children":[{"value":2,"children":[]}]})");
  expect_refused<box>(R"({"x":1})", "args[0].y: missing");
  expect_refused<box>(R"({"x":1,"y":300})", "args[0].y: expected integer 0 to 255, got 300");
  expect_refused<box>(R"({"x":1,"y":2,"label":null})", "args[0].label: expected string, got null");
}

TEST(decode, paths_lead_through_everything) {
  expect_refused<shelf>(R"({"boxes":[{"x":1,"y":2},{"x":1,"y":2,"label":5}]})",
                        "args[0].boxes[1].label: expected string, got integer");
  expect_refused<shelf>(R"({"boxes":[],"colors":{"wall":"pink"}})",
                        R"(args[0].colors.wall: expected "red" or "green", got "pink")");
  expect_refused<std::vector<std::optional<std::tuple<int, box>>>>(R"([null,[1,{"y":1}]])", "args[0][1][1].x: missing");
}

TEST(decode, raw_json_is_the_text_without_white_space) {
  expect_same<leveret::json>(R"({ "a" : [ 1 , 2.50 , "x y" ] })", R"({"a":[1,2.5,"x y"]})");
  expect_same<std::vector<leveret::json>>(R"([1,"a",{}])");
  expect_same<std::map<std::string, leveret::json>>(R"({"a":[],"b":null})");
}

TEST(decode, copies_of_raw_json_keep_their_text) {
  leveret::json owned(std::string("[1]"));
  const leveret::json copy = owned;
  owned = leveret::json(std::string("[2, \"long enough to be on the heap and not in the object\"]"));
  EXPECT_EQ(copy.text(), "[1]");
  const leveret::json moved = std::move(owned);
  EXPECT_EQ(moved.text(), "[2, \"long enough to be on the heap and not in the object\"]");
  EXPECT_EQ(leveret::json().text(), "null");
  EXPECT_EQ(leveret::json::view("").text(), "");
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class F>
void expect_bad_result(F handler, std::string_view why) {
  const ended end = one_task(std::move(handler))();
  EXPECT_EQ(end.outcome, LEVERET_BAD_RESULT);
  EXPECT_EQ(end.failure, why);
}

TEST(encode, a_result_without_json_form_is_refused_with_its_path) {
  expect_bad_result([] { return kNan; }, "result: NaN is not JSON");
  expect_bad_result([] { return -kInfinity; }, "result: infinity is not JSON");
  expect_bad_result([] { return std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()}; },
                    "result[1]: NaN is not JSON");
  expect_bad_result([] { return std::string("\xff"); }, "result: string is not UTF-8");
  expect_bad_result([] { return std::map<std::string, int>{{"\xc3", 1}}; }, "result: a key is not UTF-8");
  expect_bad_result([] { return box{1, 2, "x", kNan}; }, "result.weight: NaN is not JSON");
  expect_bad_result([] { return std::make_tuple(1, std::make_pair(2, kNan)); }, "result[1][1]: NaN is not JSON");
  expect_bad_result([] { return leveret::json(std::string("{1}")); }, "result: not one value of JSON");
  expect_bad_result([] { return leveret::json(std::string("1 2")); }, "result: not one value of JSON");
  expect_bad_result([] { return color::blue; }, R"(result: 2 is none of "red" or "green")");
  expect_bad_result([]() -> const char* { return nullptr; }, "result: null pointer");
}

TEST(encode, results_of_every_kind) {
  EXPECT_EQ(one_task([] {})().result, "");
  EXPECT_EQ(one_task([] { return "literal"; })().result, "\"literal\"");
  EXPECT_EQ(one_task([] { return std::optional<int>(); })().result, "null");
  EXPECT_EQ(one_task([] { return nullptr; })().result, "null");
  EXPECT_EQ(one_task([] { return level::high; })().result, "2");
  EXPECT_EQ(one_task([] { return leveret::json(std::string(" [ 1 ] ")); })().result, "[1]");
  static const std::vector<int> kept{1, 2};
  EXPECT_EQ(one_task([]() -> const std::vector<int>& { return kept; })().result, "[1,2]");
}

}  // namespace
