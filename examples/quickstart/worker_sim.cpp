// The quickstart's worker: the same source is a plugin (leveret build worker_sim.cpp; leveret worker worker_sim.so) and
// a program (leveret build --exe worker_sim.cpp; ./worker_sim).
#include <cstdint>
#include <leveret/worker.hpp>

using leveret::arg;

// Something to compute that no compiler can drop: 1,000 steps of a linear congruential generator (the constants of
// Numerical Recipes, modulo 2^32) from the job's value. In Python, exactly:
//
//     x = value % 2**32
//     for _ in range(1000):
//         x = (x * 1664525 + 1013904223) % 2**32
//
// The id only tells jobs apart.
std::int64_t work(std::int64_t /*id*/, std::int64_t value) {
  auto x = static_cast<std::uint32_t>(value);
  for (int step = 0; step < 1000; ++step) x = x * 1664525U + 1013904223U;
  return x;
}

LEVERET_TASKS(tasks) {
  tasks.add("work", work, arg("id"), arg("value") = 3);
  tasks.add("noop", [] {});  // what `leveret bench` sends: the cost of a job that does nothing
}

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
