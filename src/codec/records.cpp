/// What Leveret itself writes: job lines, their next publications, dead records, results.
///
/// Grammar of what is written (contracts/README.md has it for readers): every text is one JSON object without white
/// space between its tokens; a rewritten line keeps the members it does not own, keys and values byte for byte.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "codec/scanner.hpp"

namespace leveret::core {

namespace {

constexpr std::size_t kKeptErrors = 16;
/// An error's text inside a line is cut here: a line carries 16 of them through every retry.
constexpr std::size_t kErrorBytesInLine = 1024;

/// Where the line feeds are among kBlock bytes: a bit each, the lowest for the first. Without a branch for each line,
/// which a processor can't foretell, and a call of memchr, it takes 2 ns a job and not 5.5.
constexpr std::size_t kBlock = 64;
std::uint64_t find_feeds(const char* bytes) noexcept {
  std::uint64_t found = 0;
#ifdef __SSE2__
  const __m128i feed = _mm_set1_epi8('\n');
  for (std::size_t at = 0; at < kBlock; at += sizeof feed) {
    const __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + at)), feed);
    found |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(equal))) << at;
  }
#else
  for (std::size_t at = 0; at < kBlock; ++at) found |= static_cast<std::uint64_t>(bytes[at] == '\n') << at;
#endif
  return found;
}

std::string_view cut(std::string_view text, std::size_t bytes) noexcept {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;  // not inside a character
  return text.substr(0, bytes);
}

/// Days since 1970-01-01 to year, month, day (proleptic Gregorian; Howard Hinnant's algorithm).
struct civil {
  std::int64_t year;
  unsigned month;
  unsigned day;
};
constexpr civil civil_from_days(std::int64_t days) noexcept {
  days += 719468;
  const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const auto day_of_era = static_cast<unsigned>(days - era * 146097);
  const unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const unsigned shifted = (5 * day_of_year + 2) / 153;
  const unsigned month = shifted < 10 ? shifted + 3 : shifted - 9;
  return {static_cast<std::int64_t>(year_of_era) + era * 400 + (month <= 2 ? 1 : 0), month,
          day_of_year - (153 * shifted + 2) / 5 + 1};
}

void append_padded(std::string& out, std::int64_t value, int width) {
  char digits[20];
  int at = 0;
  do {
    digits[at++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  for (int i = at; i < width; ++i) out.push_back('0');
  while (at > 0) out.push_back(digits[--at]);
}

/// RFC 3339 in UTC with milliseconds, quoted. Times outside the years 0 to 9999 are clamped: RFC 3339 has no others.
void append_time(std::string& out, unix_ms time) {
  constexpr unix_ms kFirst = -62'167'219'200'000;
  constexpr unix_ms kLast = 253'402'300'799'999;
  time = std::clamp(time, kFirst, kLast);
  constexpr std::int64_t kDay = 86'400'000;
  std::int64_t days = time / kDay;
  std::int64_t rest = time % kDay;
  if (rest < 0) {
    rest += kDay;
    --days;
  }
  const civil date = civil_from_days(days);
  out.push_back('"');
  append_padded(out, date.year, 4);
  out.push_back('-');
  append_padded(out, date.month, 2);
  out.push_back('-');
  append_padded(out, date.day, 2);
  out.push_back('T');
  append_padded(out, rest / 3'600'000, 2);
  out.push_back(':');
  append_padded(out, rest / 60'000 % 60, 2);
  out.push_back(':');
  append_padded(out, rest / 1000 % 60, 2);
  out.push_back('.');
  append_padded(out, rest % 1000, 3);
  out.append("Z\"");
}

void append_attempt(std::string& out, const failed_attempt& attempt, std::size_t error_bytes) {
  out.append("{\"time\":");
  append_time(out, attempt.time);
  out.append(",\"worker\":");
  json::append_string_lossy(out, attempt.worker);
  out.append(",\"error\":");
  json::append_string_lossy(out, cut(attempt.error, error_bytes));
  out.push_back('}');
}

/// The elements of a JSON array's text (or of nothing), as they stand.
std::vector<std::string_view> elements_of(std::string_view array) {
  std::vector<std::string_view> found;
  json::element_scanner elements(array);
  while (elements.next()) found.push_back(elements.raw_value());
  return found;
}

/// `[…]` of the newest `count` earlier errors and of `newest`.
void append_errors(std::string& out, const std::vector<std::string_view>& earlier, std::size_t count,
                   const failed_attempt* newest, std::size_t error_bytes) {
  out.push_back('[');
  bool first = true;
  for (std::size_t i = earlier.size() - std::min(count, earlier.size()); i < earlier.size(); ++i) {
    if (!first) out.push_back(',');
    first = false;
    json::append_compact(out, earlier[i]);
  }
  if (newest != nullptr) {
    if (!first) out.push_back(',');
    append_attempt(out, *newest, error_bytes);
  }
  out.push_back(']');
}

void append_base64(std::string& out, std::string_view bytes) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto byte = [&bytes](std::size_t i) -> unsigned {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u;
  };
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const unsigned three = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out.push_back(kAlphabet[three >> 18 & 63]);
    out.push_back(kAlphabet[three >> 12 & 63]);
    out.push_back(i + 1 < bytes.size() ? kAlphabet[three >> 6 & 63] : '=');
    out.push_back(i + 2 < bytes.size() ? kAlphabet[three & 63] : '=');
  }
}

std::string_view without_cr(std::string_view line) noexcept {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

const char* to_string(refusal code) noexcept {
  switch (code) {
    case refusal::none:
      return "none";
    case refusal::empty_line:
      return "empty_line";
    case refusal::byte_order_mark:
      return "byte_order_mark";
    case refusal::too_long:
      return "too_long";
    case refusal::not_utf8:
      return "not_utf8";
    case refusal::not_json:
      return "not_json";
    case refusal::number_range:
      return "number_range";
    case refusal::too_deep:
      return "too_deep";
    case refusal::duplicate_key:
      return "duplicate_key";
    case refusal::not_object:
      return "not_object";
    case refusal::bad_field:
      return "bad_field";
    case refusal::unsupported_field:
      return "unsupported_field";
  }
  return "none";
}

std::vector<std::uint32_t> split_lines(std::string_view data) {
  std::vector<std::uint32_t> offsets;
  offsets.reserve(data.size() / 32 + 2);
  offsets.push_back(0);
  std::size_t at = 0;
  for (; at + kBlock <= data.size(); at += kBlock) {
    for (std::uint64_t feeds = find_feeds(data.data() + at); feeds != 0; feeds &= feeds - 1) {
      offsets.push_back(static_cast<std::uint32_t>(at + static_cast<unsigned>(__builtin_ctzll(feeds)) + 1));
    }
  }
  for (; at < data.size(); ++at) {
    if (data[at] == '\n') offsets.push_back(static_cast<std::uint32_t>(at + 1));
  }
  // Without a final newline the last line ends as if there were one.
  if (!data.empty() && data.back() != '\n') offsets.push_back(static_cast<std::uint32_t>(data.size() + 1));
  return offsets;
}

std::int32_t count_crashes(std::string_view line) {
  std::int32_t crashes = 0;
  for (json::member_scanner members(without_cr(line)); members.next();) {
    if (members.key() != "errors") continue;
    for (const std::string_view attempt : elements_of(members.raw_value())) {
      for (json::member_scanner fields(attempt); fields.next();) {
        if (fields.key() == "error" && fields.raw_value().substr(1, kCrashError.size()) == kCrashError) ++crashes;
      }
    }
  }
  return crashes;
}

std::string rewrite_line(std::string_view line, std::string_view id, std::uint32_t retry_count,
                         const failed_attempt* attempt) {
  line = without_cr(line);
  // Two passes: what is there decides what is written first.
  bool foreign = true;
  bool has_retry_count = false;
  std::string_view errors;
  for (json::member_scanner members(line); members.next();) {
    if (members.key() == "task") foreign = false;
    if (members.key() == "retry_count") has_retry_count = true;
    if (members.key() == "errors") errors = members.raw_value();
  }
  // A foreign object is its handler's argument: what is added to it would be too.
  if (foreign) attempt = nullptr;

  std::string out;
  out.reserve(line.size() + id.size() + 32 +
              (attempt != nullptr ? 96 + attempt->worker.size() + attempt->error.size() : 0));
  out.push_back('{');
  const auto separate = [&out] {
    if (out.size() > 1) out.push_back(',');
  };
  if (!foreign) {
    out.append("\"id\":");
    json::append_string_lossy(out, id);
  }
  for (json::member_scanner members(line); members.next();) {
    if (members.key() == "id" && !foreign) continue;
    if (members.key() == "errors" && attempt != nullptr) continue;
    separate();
    out.append(members.raw_key());
    out.push_back(':');
    if (members.key() == "retry_count") {
      json::append_unsigned(out, retry_count);
    } else {
      out.append(members.raw_value());
    }
  }
  if (!has_retry_count) {
    separate();
    out.append("\"retry_count\":");
    json::append_unsigned(out, retry_count);
  }
  if (attempt != nullptr) {
    separate();
    const std::size_t before = out.size();
    const std::vector<std::string_view> earlier = elements_of(errors);
    std::size_t count = kKeptErrors - 1;
    // Errors must not make a line too long that the producer was allowed to write: the oldest give way.
    for (;;) {
      out.resize(before);
      out.append("\"errors\":");
      append_errors(out, earlier, count, attempt, kErrorBytesInLine);
      if (out.size() < kMaxLineBytes) break;
      if (count == 0) {
        out.resize(before - (before > 1 ? 1 : 0));
        break;
      }
      count = std::min(count, earlier.size());
      count = count == 0 ? 0 : count - 1;
    }
  }
  out.push_back('}');
  return out;
}

std::string dead_record(std::string_view id, std::string_view task, std::string_view queue, std::string_view reason,
                        std::string_view error, const failed_attempt* last, std::string_view line) {
  line = without_cr(line);
  const bool utf8 = json::is_utf8(line);
  std::string_view errors;
  // A malformed line may hold anything: only what is valid up to its end is taken over.
  if (utf8 && json::check_value(line, kMaxDepth) == refusal::none) {
    for (json::member_scanner members(line); members.next();) {
      if (members.key() == "errors") errors = members.raw_value();
    }
  }
  std::string out;
  out.reserve(line.size() + line.size() / 4 + 256 + error.size());
  out.append("{\"id\":");
  json::append_string_lossy(out, id);
  out.append(",\"task\":");
  json::append_string_lossy(out, task);
  out.append(",\"queue\":");
  json::append_string_lossy(out, queue);
  out.append(",\"reason\":");
  json::append_string_lossy(out, reason);
  out.append(",\"error\":");
  json::append_string_lossy(out, error);
  out.append(",\"attempts\":");
  append_errors(out, elements_of(errors), kKeptErrors - (last != nullptr ? 1 : 0), last, std::string_view::npos);
  if (utf8) {
    out.append(",\"body\":");
    json::append_string(out, line);
  } else {
    out.append(R"(,"body_base64":")");
    append_base64(out, line);
    out.push_back('"');
  }
  out.push_back('}');
  return out;
}

void add_claim_to_record(std::string& record, std::string_view claim) {
  record.pop_back();
  record.append(",\"once\":");
  json::append_string_lossy(record, claim);
  record.push_back('}');
}

// Once a job: put together on the stack, for each append costs as much as running a short job's line.
void append_result(std::string& chunk, std::uint32_t line, std::string_view json) {
  constexpr std::string_view kBegin = R"({"line":)";
  constexpr std::string_view kMiddle = R"(,"result":)";
  constexpr std::string_view kNothing = "null";
  constexpr std::size_t kDigits = 10;
  constexpr std::size_t kShort = 32;
  std::array<char, kBegin.size() + kDigits + kMiddle.size() + kShort + 2> text;  // NOLINT: filled up to `to`
  char* to = std::copy(kBegin.begin(), kBegin.end(), text.data());
  to = std::to_chars(to, to + kDigits, line).ptr;
  to = std::copy(kMiddle.begin(), kMiddle.end(), to);
  if (json.empty()) json = kNothing;
  if (json.size() <= kShort) {
    to = std::copy(json.begin(), json.end(), to);
  } else {
    chunk.append(text.data(), static_cast<std::size_t>(to - text.data()));
    chunk.append(json);
    to = text.data();
  }
  *to++ = '}';
  *to++ = '\n';
  chunk.append(text.data(), static_cast<std::size_t>(to - text.data()));
}

void append_results(std::string& chunk, std::uint32_t line, std::string_view json, std::size_t count) {
  json.remove_suffix(1);
  if (count == 1) {
    append_result(chunk, line, json);
    return;
  }
  chunk.append(R"({"line":)");
  json::append_unsigned(chunk, line);
  chunk.append(R"(,"results":[)");
  chunk.append(json);
  chunk.append("]}\n");
}

void append_dead_result(std::string& chunk, std::uint32_t line, std::string_view reason, std::string_view error,
                        std::uint32_t attempts) {
  chunk.append(R"({"line":)");
  json::append_unsigned(chunk, line);
  chunk.append(R"(,"state":"dead","reason":)");
  json::append_string_lossy(chunk, reason);
  chunk.append(",\"error\":");
  json::append_string_lossy(chunk, error);
  chunk.append(",\"attempts\":");
  json::append_unsigned(chunk, attempts);
  chunk.append("}\n");
}

void append_expired_result(std::string& chunk, std::uint32_t line) {
  chunk.append(R"({"line":)");
  json::append_unsigned(chunk, line);
  chunk.append(R"(,"state":"expired"})"
               "\n");
}

void append_cancelled_result(std::string& chunk, std::uint32_t line) {
  chunk.append(R"({"line":)");
  json::append_unsigned(chunk, line);
  chunk.append(R"(,"state":"cancelled"})"
               "\n");
}

std::optional<replayed_job> replay_record(std::string_view record) {
  replayed_job job;
  std::string line;
  for (json::member_scanner members(record); members.next();) {
    if (members.key() == "id" && !json::unescape(members.raw_value(), job.id)) return std::nullopt;
    if (members.key() == "once" && !json::unescape(members.raw_value(), job.claim)) return std::nullopt;
    if (members.key() == "body" && !json::unescape(members.raw_value(), line)) return std::nullopt;
  }
  line_codec codec;
  refused_line why;
  if (job.id.empty() || line.empty() || !codec.check(line, why)) return std::nullopt;
  job.line = rewrite_line(line, job.id, 0, nullptr);
  return job;
}

void append_job(std::string& out, const new_job& job) {
  out.append("{\"task\":");
  json::append_string_lossy(out, job.task);
  if (!job.args.empty()) {
    out.append(",\"args\":");
    out.append(job.args);
  }
  if (!job.kwargs.empty()) {
    out.append(",\"kwargs\":");
    out.append(job.kwargs);
  }
  out.append(",\"retry_count\":0");
  if (job.max_retries) {
    out.append(",\"max_retries\":");
    json::append_integer(out, *job.max_retries);
  }
  if (job.deadline_ms) {
    out.append(",\"deadline_ms\":");
    json::append_integer(out, *job.deadline_ms);
  }
  out.append("}\n");
}

}  // namespace leveret::core
