#include "stderr_log.hpp"

#include <chrono>
#include <cstdio>
#include <ctime>
#include <stdexcept>

namespace leveret::core {
namespace {

constexpr const char* kNames[] = {"debug", "info", "warning", "error"};

/// One log line stays one line, whatever a handler wrote.
void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += '?';
    } else {
      out += c;
    }
  }
}

/// RFC 3339 in UTC, with milliseconds.
std::string stamp_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char stamp[64];
  std::size_t size = std::strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
  size += static_cast<std::size_t>(std::snprintf(stamp + size, sizeof stamp - size, ".%03dZ", static_cast<int>(ms)));
  return {stamp, size};
}

}  // namespace

leveret_log_level log_level_of(const std::string& name) {
  for (int i = 0; i < 4; ++i) {
    if (name == kNames[i]) return static_cast<leveret_log_level>(i);
  }
  throw std::invalid_argument("unknown log level \"" + name + "\"; one of debug, info, warning, error");
}

stderr_log::stderr_log(const std::string& level, const std::string& format)
    : least_(log_level_of(level)), json_(format == "json") {
  if (!json_ && format != "text") {
    throw std::invalid_argument("unknown log format \"" + format + "\"; one of text, json");
  }
}

void stderr_log::log(leveret_log_level level, std::string_view event, std::string_view job, std::string_view text) {
  if (level < least_) return;
  const std::string stamp = stamp_now();
  std::string line;
  if (json_) {
    json_writer out;
    const auto put = [&out](const char* key, std::string_view value) {
      (void)out.key(key);
      out.string_lossy(value);
    };
    out.begin_object();
    put("ts", stamp);
    put("level", kNames[level]);
    put("event", event);
    if (!job.empty()) put("job", job);
    put("text", text);
    out.end_object();
    line = out.text();
  } else {
    line = stamp + ' ' + kNames[level] + ' ';
    line += event;
    if (!job.empty()) {
      line += " job=";
      append_escaped(line, job);
    }
    if (!text.empty()) {
      line += ' ';
      append_escaped(line, text);
    }
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);  // one write: lines of several threads don't mix
}

}  // namespace leveret::core
