// What simdjson alone does with the lines of jobs: each validated whole, its fields read; no profile checked, no
// attempt. The bound of reading.
//
//     json_lines FILE ROUNDS
//
// Reads the lines of FILE on one thread and prints the lines and the best round's seconds as JSON.
#include <simdjson.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

int main(int argc, char** argv) {
  simdjson::padded_string text;
  if (argc != 3 || simdjson::padded_string::load(argv[1]).get(text) != simdjson::SUCCESS) {
    (void)std::fprintf(stderr, "usage: json_lines FILE ROUNDS\n");
    return 2;
  }
  const char* const end = text.data() + text.size();
  simdjson::dom::parser parser;
  double best = 0;
  std::uint64_t lines = 0;
  std::int64_t sum = 0;  // of the integers among the arguments
  std::size_t tasks = 0;
  std::uint64_t retries = 0;
  for (int round = std::atoi(argv[2]); round > 0; --round) {
    lines = 0;
    const auto began = std::chrono::steady_clock::now();
    for (const char* at = text.data(); at < end; ++lines) {
      const char* const stop = static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
      simdjson::dom::object job;
      // dom validates all of the line; the padding behind the last one is the file's own.
      if (parser.parse(at, static_cast<std::size_t>(stop - at), false).get(job) != simdjson::SUCCESS) return 1;
      for (const auto field : job) {
        if (field.key == "task") tasks += std::string_view(field.value).size();
        if (field.key == "retry_count") retries += std::uint64_t(field.value);
        if (field.key != "args") continue;
        for (const simdjson::dom::element each : simdjson::dom::array(field.value)) sum += std::int64_t(each);
      }
      at = stop + 1;
    }
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    best = best == 0 ? took : std::min(best, took);
  }
  if (tasks == 0 || retries != 0) return 1;
  std::printf("{\"lines\": %llu, \"seconds\": %.6f, \"sum\": %lld}\n", static_cast<unsigned long long>(lines), best,
              static_cast<long long>(sum));
  return 0;
}
