/// What the C++ codec says of each of many inputs: one half of the differential fuzz test (differential.py is the
/// other).
///
/// Reads from standard input, until its end, a length (32 bits, little-endian) and as many bytes, again and again.
/// Answers each with one line: the refusal's name, or `accepted` and what was decoded as JSON: [foreign, task, id,
/// retry_count, max_retries, deadline_ms, expires_at, args, kwargs, whole].
///
/// On the way it asserts what must hold for every input, and answers `BROKEN: …` where it does not: the verdict does
/// not depend on the bytes behind the line; the parser and the reader that explains faults agree; what is decoded, and
/// the line of a next publication, are accepted again and mean the same.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "codec.hpp"
#include "codec/scanner.hpp"

namespace {

using namespace leveret::core;

std::string describe(const decoded_job& job) {
  json_writer w;
  w.begin_array();
  w.boolean(job.foreign);
  w.string_lossy(job.task);
  w.string_lossy(job.id);
  w.uinteger(job.retry_count);
  const auto number = [&w](const auto& value) {
    if (value) {
      w.integer(*value);
    } else {
      w.null();
    }
  };
  number(job.max_retries);
  number(job.deadline_ms);
  number(job.expires_at);
  w.raw_trusted(to_json(job.args));
  w.raw_trusted(to_json(job.kwargs));
  w.raw_trusted(to_json(job.foreign ? job.whole : leveret_value{}));
  w.end_array();
  return w.text();
}

class judge {
 public:
  std::string answer(const std::string& input) {
    refused_line why;
    const bool good = codec_.check(input, why);
    const refusal code = good ? refusal::none : why.code;
    if (!good && (code == refusal::none || why.text.empty())) return "BROKEN: refused without a reason";

    std::string description;
    decoded_job job;
    // Every one of these would prolong or complete a line that ends too early.
    for (const char tail : {'\0', '}', ']', '"', '0', 'e', '\\', ' '}) {
      const std::string padded = input + std::string(body::kPadding, tail);
      refused_line again;
      const bool same = codec_.decode({padded.data(), input.size()}, job, again);
      if (same != good || (!good && again.code != code)) {
        return std::string("BROKEN: the verdict depends on the bytes behind the line: ") + to_string(code) + " or " +
               to_string(again.code);
      }
      if (good && tail == '\0') description = describe(job);
    }
    if (input.size() <= kMaxLineBytes && json::is_utf8(input) && json::nesting(input, kMaxDepth + 1) <= kMaxDepth) {
      const bool parsed = good || code > refusal::too_deep;
      if (parsed && json::check_grammar(input).code != refusal::none) {
        return "BROKEN: the parser accepts what the reader refuses";
      }
      if (why.text.rfind("not valid JSON: ", 0) == 0) return "BROKEN: the reader accepts what the parser refuses";
    }
    if (!good) return to_string(code);
    if (const std::string fault = rewrites(input, job); !fault.empty()) return "BROKEN: " + fault;
    return "accepted " + description;
  }

 private:
  std::string rewrites(const std::string& input, const decoded_job& job) {
    const bool foreign = job.foreign;
    const std::string task(job.task);
    const std::string args = to_json(job.args);
    const std::string kwargs = to_json(job.kwargs);
    const std::string whole = foreign
                                  ? to_json(job.whole)
                                  : R"({"args":)" + args + R"(,"kwargs":)" + kwargs + R"(,"retry_count":0,"task":"t"})";
    refused_line why;
    if (whole.size() <= kMaxLineBytes) {
      if (!codec_.check(whole, why)) return "what was decoded is refused: " + why.text;
      const body again{whole};
      decoded_job second;
      if (!codec_.decode(again.view(), second, why) ||
          (foreign ? to_json(second.whole) != whole
                   : to_json(second.args) != args || to_json(second.kwargs) != kwargs)) {
        return "values do not survive";
      }
    }
    const failed_attempt attempt{1'700'000'000'000, "worker", "error \xff"};
    const body next{rewrite_line(input, "m/7", 41, &attempt)};
    if (next.size() > kMaxLineBytes) return {};
    decoded_job job_again;
    if (!codec_.decode(next.view(), job_again, why)) return "the next publication is refused: " + why.text;
    if (job_again.foreign != foreign || job_again.retry_count != 41 || job_again.task != task ||
        (!foreign && job_again.id != "m/7") || to_json(job_again.args) != args || to_json(job_again.kwargs) != kwargs) {
      return "the next publication is another job";
    }
    return {};
  }

  line_codec codec_;
};

}  // namespace

int main() {
  judge codec;
  std::string input;
  for (;;) {
    unsigned char head[4];
    const std::size_t got = std::fread(head, 1, sizeof head, stdin);
    if (got == 0) return 0;
    if (got != sizeof head) break;
    input.resize(static_cast<std::size_t>(head[0]) | static_cast<std::size_t>(head[1]) << 8 |
                 static_cast<std::size_t>(head[2]) << 16 | static_cast<std::size_t>(head[3]) << 24);
    if (std::fread(input.data(), 1, input.size(), stdin) != input.size()) break;
    std::puts(codec.answer(input).c_str());
  }
  std::fputs("verdicts: the input ends inside a record\n", stderr);
  return 1;
}
