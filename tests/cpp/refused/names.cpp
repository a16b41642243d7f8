// leveret: name every argument of the handler, or none
#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("t", [](int, int) {}, leveret::arg("x"));
}
