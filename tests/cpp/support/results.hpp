/// What chunks say of each job.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

/// Calls `each(line, outcome)` for every job: `"result":4}`, also of a run of them, or `"state":…}`.
template <class Each>
void for_each_outcome(const std::string& data, Each each) {
  constexpr std::string_view kStart = R"({"line":)";
  constexpr std::string_view kRun = R"("results":[)";
  std::istringstream lines(data);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, kStart.size(), kStart) != 0) continue;
    auto number = static_cast<std::uint32_t>(std::stoul(line.substr(kStart.size())));
    const std::string outcome = line.substr(line.find(',') + 1);
    if (outcome.compare(0, kRun.size(), kRun) != 0) {
      each(number, outcome);
      continue;
    }
    bool quoted = false;
    std::string value;
    for (std::size_t at = kRun.size(); at < outcome.size(); ++at) {
      const char c = outcome[at];
      if (c == '"') quoted = !quoted;
      if (c == '\\') value += outcome[at++];
      if (!quoted && (c == ',' || c == ']')) {
        each(number++, R"("result":)" + value + "}");
        value.clear();
        if (c == ']') break;
      } else {
        value += outcome[at];
      }
    }
  }
}

/// How many outcomes a chunk has.
inline std::size_t count_outcomes(const std::string& data) {
  std::size_t count = 0;
  for_each_outcome(data, [&](std::uint32_t, const std::string&) { ++count; });
  return count;
}
