// Uses a function that nothing defines, as a forgotten source file or library makes it.
#include <leveret/worker.hpp>

namespace images {
int decode(int x);
}

LEVERET_TASKS(tasks) {
  tasks.add("decode", [](int x) { return images::decode(x); });
}
