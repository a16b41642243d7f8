// Another plugin's task name.
#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("add", [] {});
}
