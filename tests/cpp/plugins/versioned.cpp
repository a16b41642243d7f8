// One plugin of several that are built with headers whose statics have the same name and another layout: the size is
// given on the command line. Without the headers' precautions the dynamic linker makes one of them, and the bigger
// layout writes past the smaller one's end.
#include <algorithm>
#include <array>
#include <leveret/worker.hpp>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

struct probe {
  std::array<unsigned char, LEVERET_TEST_SIZE> bytes{};
  int count = 0;
};
inline probe namespace_probe;
inline probe& function_probe() {
  static probe made;
  return made;
}
template <class T>
struct template_probe {
  static inline probe made;
};

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret

namespace {

using leveret::detail::probe;

// How often each static was touched by this plugin, and whether its bytes are what this plugin wrote.
std::tuple<int, int, int, bool> touch(leveret::context&, bool first) {
  bool mine = true;
  for (probe* each : {&leveret::detail::namespace_probe, &leveret::detail::function_probe(),
                      &leveret::detail::template_probe<int>::made}) {
    const unsigned char expected = first ? 0 : LEVERET_TEST_FILL;
    mine = mine && std::all_of(each->bytes.begin(), each->bytes.end(), [=](unsigned char b) { return b == expected; });
    each->bytes.fill(LEVERET_TEST_FILL);
    ++each->count;
  }
  return {leveret::detail::namespace_probe.count, leveret::detail::function_probe().count,
          leveret::detail::template_probe<int>::made.count, mine};
}

}  // namespace

LEVERET_TASKS(tasks) {
  tasks.add(LEVERET_TEST_TASK, touch);
  tasks.add(LEVERET_TEST_TASK ".reject", [] { leveret::reject(LEVERET_VERSION); });
}
