// Jobs that compute for as long as they are told to: steps of the generator of examples/quickstart/worker_sim.cpp. A
// job that comes to another end than its sender did is dead, and so no success.
#include <cstdint>
#include <leveret/worker.hpp>

namespace {

void steps(std::int64_t value, std::int64_t count, std::int64_t end) {
  auto x = static_cast<std::uint32_t>(value);
  for (std::int64_t step = 0; step < count; ++step) x = x * 1664525U + 1013904223U;
  if (x != end) leveret::reject("computed something else");
}

}  // namespace

LEVERET_TASKS(tasks) { tasks.add("steps", steps, leveret::arg("value"), leveret::arg("count"), leveret::arg("end")); }
