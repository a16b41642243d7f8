// undefined.*leveret_get_library
#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("t", [] {});
}

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
