/// Gives back what it gets, in every C++ type of docs/types.md, and sends jobs to Python handlers.
#include <array>
#include <cstdint>
#include <leveret/producer.hpp>
#include <leveret/worker.hpp>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

using leveret::arg;

enum class color { red, green };
template <>
struct leveret::names<color> {
  static constexpr auto list = std::make_tuple(leveret::name("red", color::red), leveret::name("green", color::green));
};
enum class level { low = 1, high = 5 };

struct point {
  std::int64_t x = 0;
  double y = 0;
  std::optional<std::string> label;
};
template <>
struct leveret::fields<point> {
  static constexpr auto list =
      std::make_tuple(leveret::field("x", &point::x), leveret::field("y", &point::y).or_default(),
                      leveret::field("label", &point::label));
};

namespace {

template <class T>
T echo(const T& value) {
  return value;
}

/// Sends `value` to a Python task, and gives the job's id.
std::string forward(const std::string& url, const std::string& task, const leveret::json& value) {
  const leveret::producer to(url);
  return to.task(task).queue("default").keep_results().send(value);
}

}  // namespace

LEVERET_TASKS(tasks) {
  tasks.add("integer", echo<std::int64_t>, arg("value"));
  tasks.add("unsigned", echo<std::uint64_t>, arg("value"));
  tasks.add("number", echo<double>, arg("value"));
  tasks.add("boolean", echo<bool>, arg("value"));
  tasks.add("text", echo<std::string>, arg("value"));
  tasks.add("nothing", [](std::monostate) {}, arg("value"));
  tasks.add("maybe", echo<std::optional<std::int64_t>>, arg("value"));
  tasks.add("either", echo<std::variant<std::int64_t, std::string>>, arg("value"));
  tasks.add("integers", echo<std::vector<std::int64_t>>, arg("value"));
  tasks.add("pair", echo<std::tuple<std::int64_t, std::string>>, arg("value"));
  tasks.add("counts", echo<std::map<std::string, std::int64_t>>, arg("value"));
  tasks.add("point", echo<point>, arg("value"));
  tasks.add("points", echo<std::vector<point>>, arg("value"));
  tasks.add("color", echo<color>, arg("value"));
  tasks.add("level", echo<level>, arg("value"));
  tasks.add("anything", echo<leveret::json>, arg("value"));
  tasks.add("forward", forward, arg("url"), arg("task"), arg("value"));
}
