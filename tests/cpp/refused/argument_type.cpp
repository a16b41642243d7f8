// leveret: no argument can have this type
#include <leveret/worker.hpp>
#include <thread>

LEVERET_TASKS(tasks) {
  tasks.add("t", [](const std::thread::id&) {});
}
