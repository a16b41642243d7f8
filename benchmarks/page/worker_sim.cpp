// The page's simulated worker, as it is told there: 10,000 pairs {id, value} preloaded in a std::queue behind a mutex,
// four threads that pop one at a time, 1,000 steps of a linear congruential generator whose result nobody reads. There
// is no broker, no JSON and no acknowledgement. A compiler may drop the work, and at -O2 does.
//
//     worker_sim simulated|computed THREADS JOBS
//
// `computed` is the bound of honest work: no queue, only the loop, its results added up and printed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

namespace {

struct task {
  int id;
  int value;
};

std::uint32_t steps(std::uint32_t x) {
  for (int step = 0; step < 1000; ++step) x = x * 1664525U + 1013904223U;
  return x;
}

double run(int threads, const std::vector<task>& tasks, bool computed) {
  std::queue<task> waiting;
  for (const task& t : tasks) waiting.push(t);
  std::mutex mutex;
  std::atomic<std::uint64_t> sum{0};
  std::atomic<std::size_t> next{0};
  const auto simulate = [&] {
    for (;;) {
      task t{};
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (waiting.empty()) return;
        t = waiting.front();
        waiting.pop();
      }
      (void)steps(static_cast<std::uint32_t>(t.value));
    }
  };
  const auto compute = [&] {
    constexpr std::size_t kShare = 64;
    std::uint64_t mine = 0;
    for (std::size_t from = next.fetch_add(kShare); from < tasks.size(); from = next.fetch_add(kShare)) {
      for (std::size_t i = from; i < std::min(from + kShare, tasks.size()); ++i) {
        mine += steps(static_cast<std::uint32_t>(tasks[i].value));
      }
    }
    sum += mine;
  };
  const auto began = std::chrono::steady_clock::now();
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) {
    if (computed) {
      all.emplace_back(compute);
    } else {
      all.emplace_back(simulate);
    }
  }
  for (std::thread& t : all) t.join();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  if (computed) (void)std::fprintf(stderr, "sum %llu\n", static_cast<unsigned long long>(sum.load()));
  return took.count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    (void)std::fprintf(stderr, "usage: worker_sim simulated|computed THREADS JOBS\n");
    return 2;
  }
  const bool computed = std::string(argv[1]) == "computed";
  const int threads = std::atoi(argv[2]);
  const int jobs = std::atoi(argv[3]);
  std::vector<task> tasks;
  tasks.reserve(static_cast<std::size_t>(jobs));
  for (int i = 0; i < jobs; ++i) tasks.push_back({i, i % 25});
  std::printf("{\"seconds\": %.7f}\n", run(threads, tasks, computed));
  return 0;
}
