// The bare loop of worker_sim.cpp, a call for each job, with instructions between two jobs that wait for nothing:
// additions to four registers. It shows what is left of a core's looking ahead, by which the next job's steps begin
// before the last one's have ended, once anything at all is done for a job.
//
//     between THREADS JOBS INSTRUCTIONS        (INSTRUCTIONS: 0, 200, 400 or 800)
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

[[gnu::noinline]] std::uint32_t steps(std::uint32_t x) {
  for (int step = 0; step < 1000; ++step) x = x * 1664525U + 1013904223U;
  return x;
}

struct registers {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  std::uint64_t d = 0;
};

template <int Count>
[[gnu::always_inline]] inline void add(registers& r) {
  if constexpr (Count > 0) {
    asm volatile("add $1, %0\n\tadd $1, %1\n\tadd $1, %2\n\tadd $1, %3" : "+r"(r.a), "+r"(r.b), "+r"(r.c), "+r"(r.d));
    add<Count - 4>(r);
  }
}

using counter = std::atomic<std::uint32_t>;

template <int Between>
std::uint64_t take_jobs(counter& next, std::uint32_t jobs) {
  constexpr std::uint32_t kShare = 64;
  std::uint64_t sum = 0;
  registers r;
  for (std::uint32_t from = next.fetch_add(kShare); from < jobs; from = next.fetch_add(kShare)) {
    for (std::uint32_t i = from; i < from + kShare && i < jobs; ++i) {
      sum += steps(i % 25);
      add<Between>(r);
    }
  }
  return sum;
}

using job_taker = std::uint64_t (*)(counter&, std::uint32_t);

job_taker taker_of(int between) {
  switch (between) {
    case 0:
      return take_jobs<0>;
    case 200:
      return take_jobs<200>;
    case 400:
      return take_jobs<400>;
    case 800:
      return take_jobs<800>;
    default:
      return nullptr;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const job_taker take = argc == 4 ? taker_of(std::atoi(argv[3])) : nullptr;
  if (take == nullptr) {
    (void)std::fprintf(stderr, "usage: between THREADS JOBS 0|200|400|800\n");
    return 2;
  }
  const auto jobs = static_cast<std::uint32_t>(std::atoll(argv[2]));
  counter next{0};
  std::atomic<std::uint64_t> sum{0};
  const auto began = std::chrono::steady_clock::now();
  std::vector<std::thread> all;
  for (int i = 0; i < std::atoi(argv[1]); ++i) all.emplace_back([&] { sum += take(next, jobs); });
  for (std::thread& t : all) t.join();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  (void)std::fprintf(stderr, "sum %llu\n", static_cast<unsigned long long>(sum.load()));
  std::printf("{\"seconds\": %.7f}\n", took.count());
  return 0;
}
