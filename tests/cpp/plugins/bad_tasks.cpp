#include <leveret/worker.hpp>

LEVERET_TASKS(tasks) {
  tasks.add("fine", [] {});
  tasks.add("narrow", [](std::uint8_t width) { return width; }, leveret::arg("width") = 1000);
}
