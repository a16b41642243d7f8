#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {}
