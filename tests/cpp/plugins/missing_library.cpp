#include <leveret/worker.hpp>

int gone(int x);

LEVERET_TASKS(tasks) { tasks.add("gone", gone); }
