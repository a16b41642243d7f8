// What the machine gives: the steps of steps.cpp, no jobs around them. `loop STEPS` prints the seconds as JSON.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::int64_t count = std::atoll(argv[1]);
  auto x = static_cast<std::uint32_t>(argc);
  const auto began = std::chrono::steady_clock::now();
  for (std::int64_t step = 0; step < count; ++step) x = x * 1664525U + 1013904223U;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("{\"seconds\": %.6f, \"end\": %u}\n", took.count(), x);
  return 0;
}
