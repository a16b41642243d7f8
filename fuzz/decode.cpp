/// libFuzzer's target for the codec, under AddressSanitizer and UndefinedBehaviorSanitizer.
///
///     fuzz/run.py --seconds 60 codec
///
/// The line's padding ends where a page without access begins: reading one byte too many ends the program, in
/// simdjson's library too, which the sanitizers do not see.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "codec.hpp"

namespace {

using namespace leveret::core;

/// A buffer of `size` bytes that ends at a page without access.
class guarded {
 public:
  explicit guarded(std::size_t size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    usable_ = (size + page - 1) / page * page;
    mapped_ = usable_ + page;
    void* start = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) std::abort();
    start_ = static_cast<char*>(start);
    if (mprotect(start_ + usable_, page, PROT_NONE) != 0) std::abort();
    data_ = start_ + usable_ - size;
  }
  ~guarded() { munmap(start_, mapped_); }
  guarded(const guarded&) = delete;
  guarded& operator=(const guarded&) = delete;

  [[nodiscard]] char* data() const { return data_; }

 private:
  std::size_t usable_ = 0;
  std::size_t mapped_ = 0;
  char* start_ = nullptr;
  char* data_ = nullptr;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static line_codec codec;
  const guarded buffer(size + body::kPadding);
  if (size > 0) std::memcpy(buffer.data(), data, size);
  std::memset(buffer.data() + size, '}', body::kPadding);
  const std::string_view line(buffer.data(), size);

  decoded_job job;
  refused_line why;
  if (codec.decode(line, job, why)) {
    const std::string whole = to_json(job.foreign ? job.whole : job.args);
    if (job.foreign && whole.size() <= kMaxLineBytes && !codec.check(whole, why)) std::abort();
    const failed_attempt attempt{0, "w", "e"};
    const std::string next = rewrite_line(line, "m/1", 1, &attempt);
    if (next.size() <= kMaxLineBytes && !codec.check(next, why)) std::abort();
  } else if (why.code == refusal::none || why.text.empty()) {
    std::abort();
  }
  json_writer writer;
  if (writer.raw(line) && !writer.complete()) std::abort();
  const std::string record = dead_record("i", "t", "q", kReasonMalformed, line, nullptr, line);
  if (record.size() <= kMaxLineBytes && !codec.check("{\"record\":" + record + "}", why) &&
      why.code != refusal::too_long) {
    std::abort();
  }
  return 0;
}
