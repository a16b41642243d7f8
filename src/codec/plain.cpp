#include "codec/plain.hpp"

#include <cstring>

#include "codec.hpp"

namespace leveret::core {

namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first of eight bytes is the lowest");

constexpr char kArgsKey[] = R"(,"args":[)";
constexpr char kRetryCountKey[] = R"(,"retry_count":)";
constexpr char kFirstAttempt[] = R"(,"retry_count":0})";
constexpr std::ptrdiff_t kMostDigits = 18;  // any such number fits into 64 bits; behind them another digit is no comma

/// Of eight bytes, the top bit of the first that is no plain text: a quote, a backslash, a control character, beyond
/// ASCII. Bits above that one mean nothing.
constexpr std::uint64_t first_special(std::uint64_t bytes) noexcept {
  constexpr std::uint64_t kOnes = 0x0101'0101'0101'0101;
  const std::uint64_t quote = (bytes ^ kOnes * '"') - kOnes;
  const std::uint64_t backslash = (bytes ^ kOnes * '\\') - kOnes;
  const std::uint64_t control = bytes - kOnes * ' ';
  return (quote | backslash | control | bytes) & kOnes * 0x80;
}

/// Takes tokens; false: another stands there, or none that is plain. One may reach beyond the line's end, into what
/// stands there: then `at_end` is not reached.
class reader {
 public:
  explicit reader(std::string_view line) noexcept : at_(line.data()), end_(at_ + line.size()) {}

  [[nodiscard]] bool at_end() const noexcept { return at_ == end_; }
  [[nodiscard]] char next() const noexcept { return *at_; }

  bool take(char expected) noexcept {
    if (*at_ != expected) return false;
    ++at_;
    return true;
  }
  template <std::size_t N>
  bool take(const char (&expected)[N]) noexcept {
    if (std::memcmp(at_, expected, N - 1) != 0) return false;
    at_ += N - 1;
    return true;
  }
  /// The same, if nothing follows.
  template <std::size_t N>
  bool take_end(const char (&expected)[N]) noexcept {
    return static_cast<std::size_t>(end_ - at_) == N - 1 && take(expected);
  }
  void skip(std::size_t bytes) noexcept { at_ += bytes; }
  [[nodiscard]] std::size_t taken(std::string_view line) const noexcept {
    return static_cast<std::size_t>(at_ - line.data());
  }

  /// Behind its opening quote.
  bool string(std::string_view& out) noexcept {
    std::uint64_t special = 0;
    const char* at = at_;
    for (; special == 0; at += sizeof special) {
      if (at >= end_) return false;
      std::memcpy(&special, at, sizeof special);
      special = first_special(special);
    }
    at += __builtin_ctzll(special) / 8;
    at -= sizeof special;
    out = {at_, static_cast<std::size_t>(at - at_)};
    at_ = at;
    return take('"');
  }

  bool integer(std::int64_t& out) noexcept {
    const bool negative = take('-');
    const char* const first = at_;
    const char* const most = first + kMostDigits;
    out = 0;
    for (; at_ != most; ++at_) {
      const unsigned digit = static_cast<unsigned char>(*at_) - unsigned{'0'};
      if (digit > 9) break;
      out = out * 10 + digit;
    }
    const std::ptrdiff_t digits = at_ - first;
    if (negative) out = -out;
    return digits > 0 && (*first != '0' || (digits == 1 && !negative));
  }

  [[nodiscard]] bool beyond() const noexcept { return at_ >= end_; }

 private:
  const char* at_;
  const char* const end_;
};

/// Writes a tape (values.hpp).
class writer {
 public:
  writer(std::uint64_t* words, std::uint8_t* strings) noexcept : words_(words), strings_(strings) {}

  void add(char type, std::uint64_t payload) noexcept { words_[next_++] = word(type, payload); }
  void integer(std::int64_t value) noexcept {
    add('l', 0);
    words_[next_++] = static_cast<std::uint64_t>(value);
  }
  /// In the buffer of strings: its size in four bytes, its bytes, a zero.
  void string(std::string_view text) noexcept {
    add('"', used_);
    const auto size = static_cast<std::uint32_t>(text.size());
    std::memcpy(strings_ + used_, &size, sizeof size);
    std::memcpy(strings_ + used_ + sizeof size, text.data(), text.size());
    used_ += sizeof size + text.size();
    strings_[used_++] = 0;
  }
  /// The array that the whole tape is.
  void end_array(std::uint64_t count) noexcept {
    add(']', kRoot);
    words_[kRoot] = word('[', count << 32 | next_);
  }

 private:
  static constexpr std::size_t kRoot = 1;  // the first word is the tape's own

  static constexpr std::uint64_t word(char type, std::uint64_t payload) noexcept {
    return static_cast<std::uint64_t>(static_cast<unsigned char>(type)) << 56 | payload;
  }

  std::uint64_t* const words_;
  std::size_t next_ = kRoot + 1;
  std::uint8_t* const strings_;
  std::size_t used_ = 0;
};

bool read_argument(reader& from, writer& to) noexcept {
  std::string_view text;
  std::int64_t number = 0;
  switch (from.next()) {
    case '"':
      if (!from.take('"') || !from.string(text)) return false;
      to.string(text);
      return true;
    case 't':
      to.add('t', 0);
      return from.take("true");
    case 'f':
      to.add('f', 0);
      return from.take("false");
    case 'n':
      to.add('n', 0);
      return from.take("null");
    default:
      if (!from.integer(number)) return false;
      to.integer(number);
      return true;
  }
}

/// Behind the opening bracket.
bool read_arguments(reader& from, writer to) noexcept {
  std::uint64_t count = 0;
  if (!from.take(']')) {
    do {
      if (from.beyond() || !read_argument(from, to)) return false;
      ++count;
    } while (from.take(','));
    if (!from.take(']')) return false;
  }
  to.end_array(count);
  return true;
}

}  // namespace

bool plain_reader::begins_as_last(std::string_view line) const noexcept {
  if (head_size_ == 0 || line.size() < head_size_) return false;
  std::uint64_t differences = 0;
  std::uint64_t one = 0;
  std::uint64_t other = 0;
  const auto compare = [&](std::size_t at) {
    std::memcpy(&one, line.data() + at, sizeof one);
    std::memcpy(&other, head_ + at, sizeof other);
    differences |= one ^ other;
  };
  // The last eight bytes overlap those before them.
  for (std::size_t at = 0; at + sizeof one < head_size_; at += sizeof one) compare(at);
  compare(head_size_ - sizeof one);
  return differences == 0;
}

bool plain_reader::read_head(std::string_view line) noexcept {
  reader from(line);
  std::string_view task;
  head_size_ = 0;
  if (!from.take(kTask) || !from.string(task) || task.empty() || task.size() > kMaxTaskNameBytes) return false;
  ++task_number_;
  task_size_ = task.size();
  head_size_ = from.taken(line);
  std::memcpy(head_, line.data(), head_size_);
  return true;
}

bool plain_reader::read(std::string_view line, std::uint64_t* words, std::uint8_t* strings, plain_job& out) noexcept {
  if (line.size() > kMostPlainBytes) return false;
  if (!begins_as_last(line) && !read_head(line)) return false;
  reader from(line);
  from.skip(head_size_);
  out.args = from.take(kArgsKey);
  if (out.args && !read_arguments(from, writer(words, strings))) return false;
  std::int64_t retry_count = 0;
  if (!from.take_end(kFirstAttempt)) {
    if (!from.take(kRetryCountKey) || !from.integer(retry_count) || !from.take('}') || !from.at_end()) return false;
    if (retry_count < 0 || retry_count > kMaxRetryCount) return false;
  }
  out.retry_count = static_cast<std::uint32_t>(retry_count);
  return true;
}

}  // namespace leveret::core
