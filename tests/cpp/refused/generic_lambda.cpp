// leveret: cannot tell what this handler takes
#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("t", [](auto x) { return x; });
}
