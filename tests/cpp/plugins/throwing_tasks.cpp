#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("fine", [] {});
  throw 5;  // NOLINT(bugprone-std-exception-baseclass): that is the point
}
