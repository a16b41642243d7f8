/// How fast one thread decodes lines: validated, checked, arguments read through the C ABI, as a worker does.
///
///     ninja -C build codec_benchmark && build/codec_benchmark [--rounds N]
///     build/codec_benchmark FILE ROUNDS
///
/// Prints lines/s, best and median of the rounds, for several shapes of a line; or, for the lines of a file, their
/// number and the best round's seconds as JSON.
#include "codec.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

namespace {

using namespace leveret::core;

struct shape {
  const char* name;
  std::function<std::string(int)> line;
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct decoded {
  std::vector<double> seconds;  // of the rounds, the shortest first
  std::size_t lines = 0;
  std::int64_t sum = 0;  // of the integers among the arguments
};

decoded decode(const char* name, const std::string& text, int rounds) {
  const body data{text};
  const std::vector<std::uint32_t> offsets = split_lines(data.view());
  leveret_host host{};
  set_value_functions(host);
  line_codec codec;
  decoded_job job;
  refused_line why;

  decoded out;
  out.lines = offsets.size() - 1;
  for (int round = 0; round < rounds; ++round) {
    const double start = seconds_now();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const std::string_view line = data.view().substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
      if (!codec.decode(line, job, why)) {
        std::fprintf(stderr, "codec_benchmark: %s: line %zu refused: %s\n", name, i, why.text.c_str());
        std::exit(1);
      }
      leveret_iterator it;
      leveret_value value;
      host.begin(job.args, &it);
      while (host.next(&it, nullptr, &value) != 0) {
        std::int64_t number = 0;
        if (host.get_integer(value, &number) != 0) out.sum += number;
      }
    }
    out.seconds.push_back(seconds_now() - start);
  }
  std::sort(out.seconds.begin(), out.seconds.end());
  return out;
}

void run(const shape& s, int rounds) {
  std::string text;
  for (int line = 0; text.size() < (1u << 20); ++line) text += s.line(line) + "\n";
  const decoded found = decode(s.name, text, rounds);
  const auto lines = static_cast<double>(found.lines);
  const double best = lines / found.seconds.front();
  const double median = lines / found.seconds[found.seconds.size() / 2];
  std::printf("%-28s %6zu B/line  best %6.2f M lines/s (%5.1f ns)  median %6.2f M lines/s (%5.1f ns)  [%lld]\n", s.name,
              text.size() / found.lines, best / 1e6, 1e9 / best, median / 1e6, 1e9 / median,
              static_cast<long long>(found.sum % 1000));
}

int run_file(const char* path, int rounds) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const decoded found = decode(path, text, rounds);
  std::printf("{\"lines\": %zu, \"seconds\": %.6f, \"sum\": %lld}\n", found.lines, found.seconds.front(),
              static_cast<long long>(found.sum));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 21;
  if (argc == 3 && argv[1][0] != '-') return run_file(argv[1], std::max(1, std::atoi(argv[2])));
  if (argc == 3 && std::strcmp(argv[1], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[2]));
  const std::string id = "01936c00-0000-7000-8000-000000000000/12";
  const shape shapes[] = {
      {"short", [](int) { return std::string(R"({"task":"work","args":[7,3],"retry_count":0})"); }},
      {"with id and max_retries",
       [&id](int i) {
         return R"({"id":")" + id + R"(","task":"work","args":[)" + std::to_string(i) +
                R"(,3],"retry_count":2,"max_retries":5})";
       }},
      {"kwargs",
       [](int i) {
         return R"({"task":"resize","args":["a.png"],"kwargs":{"width":80,"height":)" + std::to_string(i) +
                R"(},"retry_count":0})";
       }},
      {"foreign", [](int i) { return R"({"id":)" + std::to_string(i) + R"(,"value":7,"retry_count":0})"; }},
      {"1,000 numbers",
       [](int) {
         std::string line = R"({"task":"sum","args":[0)";
         for (int i = 1; i < 1000; ++i) line += "," + std::to_string(i);
         return line + R"(],"retry_count":0})";
       }},
      {"500 keys",
       [](int) {
         std::string line = R"({"task":"count","kwargs":{"key0":0)";
         for (int i = 1; i < 500; ++i) line += ",\"key" + std::to_string(i) + "\":" + std::to_string(i);
         return line + R"(},"retry_count":0})";
       }},
  };
  for (const shape& s : shapes) run(s, rounds);
}
