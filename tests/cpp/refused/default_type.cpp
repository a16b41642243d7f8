// leveret: the default has another type than the argument
#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("t", [](int) {}, leveret::arg("x") = 2.5);
}
