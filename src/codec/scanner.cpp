#include "codec/scanner.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace leveret::core::json {

namespace {

constexpr bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

constexpr int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3f));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

/// Reads one JSON text by the grammar of RFC 8259, with the profile's two rules that are local: no lone surrogates, and
/// numbers in range.
class reader {
 public:
  explicit reader(std::string_view text) noexcept : text_(text) {}

  [[nodiscard]] fault run() noexcept {
    skip_space();
    if (at_ == text_.size()) {
      fail("a value is missing");
    } else if (value()) {
      skip_space();
      if (at_ != text_.size()) fail("something follows the value");
    }
    return syntax_.code != refusal::none ? syntax_ : range_;
  }

  /// One value from `at`; false at a fault. `at` ends behind it.
  [[nodiscard]] bool value_at(std::size_t& at) noexcept {
    at_ = at;
    const bool good = value();
    at = at_;
    return good;
  }

  /// One string literal from `at`, unescaped into `out` unless that is null.
  [[nodiscard]] bool string_at(std::size_t& at, std::string* out) {
    at_ = at;
    const bool good = peek() == '"' && string(out);
    at = at_;
    return good;
  }

 private:
  [[nodiscard]] char peek() const noexcept { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool fail(const char* what) noexcept {
    if (syntax_.code == refusal::none) syntax_ = {refusal::not_json, at_, what};
    return false;
  }
  void skip_space() noexcept {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  bool value() noexcept {
    if (at_ >= text_.size()) return fail("a value is missing");
    switch (text_[at_]) {
      case '{':
        return object();
      case '[':
        return array();
      case '"':
        return string(nullptr);
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  bool word(std::string_view expected) noexcept {
    if (text_.substr(at_, expected.size()) != expected) return fail("neither a value nor true, false, null");
    at_ += expected.size();
    return true;
  }

  bool object() noexcept {
    const nested level(*this);
    if (depth_ > kMaxDepth) return fail("nested too deep");
    ++at_;
    skip_space();
    if (peek() == '}') {
      ++at_;
      return true;
    }
    for (;;) {
      skip_space();
      if (peek() != '"') return fail("a key is missing");
      if (!string(nullptr)) return false;
      skip_space();
      if (peek() != ':') return fail("a colon is missing");
      ++at_;
      skip_space();
      if (!value()) return false;
      skip_space();
      if (peek() == '}') {
        ++at_;
        return true;
      }
      if (peek() != ',') return fail("a comma or } is missing");
      ++at_;
    }
  }

  bool array() noexcept {
    const nested level(*this);
    if (depth_ > kMaxDepth) return fail("nested too deep");
    ++at_;
    skip_space();
    if (peek() == ']') {
      ++at_;
      return true;
    }
    for (;;) {
      skip_space();
      if (!value()) return false;
      skip_space();
      if (peek() == ']') {
        ++at_;
        return true;
      }
      if (peek() != ',') return fail("a comma or ] is missing");
      ++at_;
    }
  }

  /// Four hexadecimal digits behind `\u`; at_ is at the `u`.
  bool code_unit(std::uint32_t& out) noexcept {
    if (text_.size() - at_ < 5) return fail("\\u needs four hexadecimal digits");
    out = 0;
    for (std::size_t i = 1; i <= 4; ++i) {
      const int digit = hex_digit(text_[at_ + i]);
      if (digit < 0) return fail("\\u needs four hexadecimal digits");
      out = out << 4 | static_cast<std::uint32_t>(digit);
    }
    at_ += 5;
    return true;
  }

  bool string(std::string* out) {
    ++at_;
    for (;;) {
      std::size_t run = at_;
      while (run < text_.size() && text_[run] != '"' && text_[run] != '\\' &&
             static_cast<unsigned char>(text_[run]) >= 0x20) {
        ++run;
      }
      if (out != nullptr) out->append(text_.substr(at_, run - at_));
      at_ = run;
      if (at_ == text_.size()) return fail("a string has no end");
      if (text_[at_] == '"') {
        ++at_;
        return true;
      }
      if (text_[at_] != '\\') return fail("a control character in a string must be escaped");
      ++at_;
      if (at_ == text_.size()) return fail("a string has no end");
      if (text_[at_] == 'u') {
        std::uint32_t code = 0;
        if (!code_unit(code)) return false;
        if (code >= 0xdc00 && code <= 0xdfff) return fail("a surrogate without its first half");
        if (code >= 0xd800 && code <= 0xdbff) {
          std::uint32_t low = 0;
          if (text_.substr(at_, 2) != "\\u") return fail("a surrogate without its second half");
          ++at_;
          if (!code_unit(low)) return false;
          if (low < 0xdc00 || low > 0xdfff) return fail("a surrogate without its second half");
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        if (out != nullptr) append_utf8(*out, code);
        continue;
      }
      static constexpr std::string_view kEscapes = "\"\\/bfnrt";
      static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
      const std::size_t which = kEscapes.find(text_[at_]);
      if (which == std::string_view::npos) return fail("an unknown escape");
      if (out != nullptr) out->push_back(kMeanings[which]);
      ++at_;
    }
  }

  bool number() noexcept {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    const std::size_t digits = at_;
    if (!is_digit(peek())) return fail(at_ == start ? "neither a value nor true, false, null" : "a digit is missing");
    while (is_digit(peek())) ++at_;
    if (text_[digits] == '0' && at_ - digits > 1) return fail("a number begins with a superfluous 0");
    bool integer = true;
    if (peek() == '.') {
      integer = false;
      ++at_;
      if (!is_digit(peek())) return fail("a digit is missing");
      while (is_digit(peek())) ++at_;
    }
    if (peek() == 'e' || peek() == 'E') {
      integer = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (!is_digit(peek())) return fail("a digit is missing");
      while (is_digit(peek())) ++at_;
    }
    if (range_.code == refusal::none) check_range(start, digits, integer);
    return true;
  }

  void check_range(std::size_t start, std::size_t digits, bool integer) noexcept {
    const std::string_view literal = text_.substr(start, at_ - start);
    if (integer) {
      static constexpr std::string_view kLowest = "9223372036854775808";    // 2^63
      static constexpr std::string_view kHighest = "18446744073709551615";  // 2^64 - 1
      const std::string_view magnitude = text_.substr(digits, at_ - digits);
      const std::string_view bound = digits > start ? kLowest : kHighest;
      // No superfluous zeros: of two numbers of the same length the greater is the one later in the alphabet.
      if (magnitude.size() > bound.size() || (magnitude.size() == bound.size() && magnitude > bound)) {
        range_ = {refusal::number_range, start, "an integer outside -2^63 to 2^64-1"};
      }
      return;
    }
    double parsed = 0;
    const auto result = std::from_chars(literal.data(), literal.data() + literal.size(), parsed);
    // out_of_range says too large and too small alike; too small is a double, zero.
    if (result.ec == std::errc::result_out_of_range && is_large(literal)) {
      range_ = {refusal::number_range, start, "a number too large for a double"};
    }
  }

  /// Whether the magnitude of a literal that is out of a double's range is above 1, that is, too large and not too
  /// small.
  [[nodiscard]] static bool is_large(std::string_view literal) noexcept {
    const std::size_t e = literal.find_first_of("eE");
    const std::string_view mantissa = literal.substr(0, e);
    const std::size_t first = mantissa.find_first_of("123456789");
    if (first == std::string_view::npos) return false;
    const std::size_t point = std::min(mantissa.find('.'), mantissa.size());
    // The power of ten of the first significant digit, before the exponent.
    const auto power =
        first < point ? static_cast<std::int64_t>(point - first) - 1 : -static_cast<std::int64_t>(first - point);
    if (e == std::string_view::npos) return power >= 0;
    const bool negative = literal[e + 1] == '-';
    std::size_t i = e + 1;
    if (literal[i] == '-' || literal[i] == '+') ++i;
    std::int64_t exponent = 0;
    for (; i < literal.size(); ++i) {
      exponent = exponent * 10 + (literal[i] - '0');
      if (exponent > 100'000'000) break;  // no line is that long: the sign decides
    }
    return power + (negative ? -exponent : exponent) >= 0;
  }

  struct nested {
    explicit nested(reader& owner) noexcept : owner_(owner) { ++owner_.depth_; }
    ~nested() { --owner_.depth_; }
    nested(const nested&) = delete;
    nested& operator=(const nested&) = delete;
    reader& owner_;
  };

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0;  // bounds the recursion whatever the text is
  fault syntax_;
  fault range_;
};

/// Length of the well-formed UTF-8 character at the beginning of `bytes`, or 0. `bytes` is not empty.
std::size_t utf8_length(std::string_view bytes) noexcept {
  const auto byte = [&bytes](std::size_t i) -> std::uint32_t {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u;
  };
  const auto tail = [&byte](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!tail(1) || !tail(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

/// 0: stands for itself; 'u': \u00xx; else the letter behind the backslash.
constexpr std::array<char, 256> make_escapes() {
  std::array<char, 256> table{};
  for (std::size_t i = 0; i < 0x20; ++i) table[i] = 'u';
  table['\b'] = 'b';
  table['\f'] = 'f';
  table['\n'] = 'n';
  table['\r'] = 'r';
  table['\t'] = 't';
  table['"'] = '"';
  table['\\'] = '\\';
  return table;
}
constexpr std::array<char, 256> kEscapeOf = make_escapes();

void append_escaped(std::string& out, std::string_view utf8) {
  std::size_t done = 0;
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto c = static_cast<unsigned char>(utf8[i]);
    const char escape = kEscapeOf[c];
    if (escape == 0) continue;
    out.append(utf8, done, i - done);
    out.push_back('\\');
    if (escape == 'u') {
      static constexpr char kHex[] = "0123456789abcdef";
      out.append("u00");
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else {
      out.push_back(escape);
    }
    done = i + 1;
  }
  out.append(utf8, done, utf8.size() - done);
}

}  // namespace

std::size_t nesting(std::string_view text, std::size_t enough) noexcept {
  std::ptrdiff_t depth = 0;
  std::ptrdiff_t deepest = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i) {
          if (text[i] == '\\') ++i;
        }
        break;
      case '[':
      case '{':
        if (++depth > deepest) deepest = depth;
        if (deepest >= static_cast<std::ptrdiff_t>(enough)) return enough;
        break;
      case ']':
      case '}':
        --depth;
        break;
      default:
        break;
    }
  }
  return static_cast<std::size_t>(deepest);
}

fault check_grammar(std::string_view text) noexcept { return reader(text).run(); }

namespace {

void skip_space(std::string_view text, std::size_t& at) noexcept {
  while (at < text.size() && is_space(text[at])) ++at;
}

/// Moves `at` over the opening bracket, or over the comma before the next entry. False: no further entry.
bool enter_next(std::string_view text, std::size_t& at, bool& first, char open, char close) noexcept {
  skip_space(text, at);
  if (at >= text.size() || text[at] != (first ? open : ',')) return false;
  ++at;
  skip_space(text, at);
  const bool ended = first && at < text.size() && text[at] == close;
  first = false;
  return !ended;
}

}  // namespace

member_scanner::member_scanner(std::string_view text) noexcept : text_(text) {}

bool member_scanner::next() {
  if (!enter_next(text_, at_, first_, '{', '}')) return false;
  reader source(text_);
  key_.clear();
  const std::size_t key_start = at_;
  if (!source.string_at(at_, &key_)) return false;
  raw_key_ = text_.substr(key_start, at_ - key_start);
  skip_space(text_, at_);
  if (at_ >= text_.size() || text_[at_] != ':') return false;
  ++at_;
  skip_space(text_, at_);
  const std::size_t start = at_;
  if (!source.value_at(at_)) return false;
  raw_value_ = text_.substr(start, at_ - start);
  return true;
}

element_scanner::element_scanner(std::string_view text) noexcept : text_(text) {}

bool element_scanner::next() noexcept {
  if (!enter_next(text_, at_, first_, '[', ']')) return false;
  const std::size_t start = at_;
  if (!reader(text_).value_at(at_)) return false;
  raw_value_ = text_.substr(start, at_ - start);
  return true;
}

bool unescape(std::string_view literal, std::string& out) {
  out.clear();
  std::size_t at = 0;
  return reader(literal).string_at(at, &out) && at == literal.size();
}

void append_compact(std::string& out, std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    if (is_space(text[i])) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    if (text[i] == '"') {
      for (; end < text.size() && text[end] != '"'; ++end) {
        if (text[end] == '\\') ++end;
      }
      end = std::min(end + 1, text.size());
    }
    out.append(text, i, end - i);
    i = end;
  }
}

void append_string(std::string& out, std::string_view utf8) {
  out.push_back('"');
  append_escaped(out, utf8);
  out.push_back('"');
}

void append_string_lossy(std::string& out, std::string_view bytes) {
  if (is_utf8(bytes)) return append_string(out, bytes);
  out.push_back('"');
  std::size_t done = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t length = utf8_length(bytes.substr(i));
    if (length != 0) {
      i += length;
      continue;
    }
    append_escaped(out, bytes.substr(done, i - done));
    out.append("\xef\xbf\xbd");
    done = ++i;
  }
  append_escaped(out, bytes.substr(done));
  out.push_back('"');
}

void append_integer(std::string& out, std::int64_t value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, static_cast<std::size_t>(end - digits));
}

void append_unsigned(std::string& out, std::uint64_t value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, static_cast<std::size_t>(end - digits));
}

void append_double(std::string& out, double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  const std::string_view text(digits, static_cast<std::size_t>(end - digits));
  out.append(text);
  if (text.find_first_of(".e") == std::string_view::npos) out.append(".0");
}

}  // namespace leveret::core::json
