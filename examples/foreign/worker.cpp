/// Executes what producer.py publishes: objects without a task, handed whole to the default task.
///
///     leveret build examples/foreign/worker.cpp
///     leveret worker worker.so --url amqp://localhost --queue foreign --default-task step
#include <cstdint>
#include <cstdio>
#include <leveret/worker.hpp>

struct number {
  std::int64_t id = 0;
  std::int64_t value = 0;
};

template <>
struct leveret::fields<number> {
  static constexpr auto list =
      std::make_tuple(leveret::field("id", &number::id), leveret::field("value", &number::value));
};

static std::int64_t step(leveret::context& context, const number& n) {
  const std::int64_t result = n.id * n.value;
  context.log("number " + std::to_string(n.id) + " gives " + std::to_string(result));
  return result;
}

LEVERET_TASKS(tasks) { tasks.add("step", step); }

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
