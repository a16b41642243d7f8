// A plugin with one task of each sort, in two source files, and a main that a plugin never runs.
#include "good.hpp"

using leveret::arg;

namespace {

struct point {
  int x = 0;
  int y = 0;
};

struct model {
  std::string name;
  std::string operator()(const std::string& input) { return name + "(" + input + ")"; }
};

}  // namespace

template <>
struct leveret::fields<point> {
  static constexpr auto list = std::make_tuple(leveret::field("x", &point::x), leveret::field("y", &point::y));
};

LEVERET_TASKS(tasks) {
  tasks.add("add", [](std::int64_t x, std::int64_t y) { return x + y; }, arg("x"), arg("y") = 1).max_retries(5);
  tasks.add("mirror", [](point p) { return point{p.y, p.x}; }).queue("points");
  tasks.add("reject", [](const std::string& why) { leveret::reject(why); });
  tasks.add_per_thread("infer", [] { return model{"m"}; });
  add_more(tasks);
}

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
