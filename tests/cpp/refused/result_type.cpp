// leveret: no result can have this type
#include <leveret/worker.hpp>

struct opaque {};

LEVERET_TASKS(tasks) {
  tasks.add("t", [] { return opaque{}; });
}
