/// The contract's profile read by hand: names the fault of a line that the parser refused, in the order that
/// contracts/README.md fixes, and finds the members of an accepted object in its text. No third-party library; not on
/// the hot path (see decode.cpp).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "codec.hpp"

namespace leveret::core::json {

/// What is wrong with a text, and where it was seen (a byte offset).
struct fault {
  refusal code = refusal::none;
  std::size_t offset = 0;
  const char* what = "";  ///< static
};

/// Whether `text` is well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

/// Deepest nesting of brackets, those in strings not counted: a count of characters, defined for any text, not a parse.
/// Stops counting at `enough`.
[[nodiscard]] std::size_t nesting(std::string_view text, std::size_t enough) noexcept;

/// The first fault of one JSON value that is UTF-8 and no deeper than kMaxDepth: not_json, else number_range, else
/// none. Duplicate keys are not looked for. Linear; the stack is bounded by kMaxDepth frames.
[[nodiscard]] fault check_grammar(std::string_view text) noexcept;

/// The members of the object that `text` is. Yields what is well formed and stops at the first thing that is not, so
/// that it also reads the beginning of a malformed line.
class member_scanner {
 public:
  explicit member_scanner(std::string_view text) noexcept;
  /// False at the end, or where the text is not an object's.
  [[nodiscard]] bool next();

  [[nodiscard]] const std::string& key() const noexcept { return key_; }            ///< unescaped
  [[nodiscard]] std::string_view raw_key() const noexcept { return raw_key_; }      ///< with its quotes, as it stands
  [[nodiscard]] std::string_view raw_value() const noexcept { return raw_value_; }  ///< as it stands, trimmed

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  bool first_ = true;
  std::string key_;
  std::string_view raw_key_;
  std::string_view raw_value_;
};

/// The elements of the array that `text` is; as member_scanner.
class element_scanner {
 public:
  explicit element_scanner(std::string_view text) noexcept;
  [[nodiscard]] bool next() noexcept;
  [[nodiscard]] std::string_view raw_value() const noexcept { return raw_value_; }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  bool first_ = true;
  std::string_view raw_value_;
};

/// Unescapes a string literal (with its quotes). False: not a well-formed one; `out` is then unspecified.
[[nodiscard]] bool unescape(std::string_view literal, std::string& out);

/// Drops white space outside strings from a valid text.
void append_compact(std::string& out, std::string_view text);

/// Appends a string literal with its quotes. `utf8` must be valid.
void append_string(std::string& out, std::string_view utf8);
/// The same from any bytes; invalid ones become U+FFFD.
void append_string_lossy(std::string& out, std::string_view bytes);
void append_integer(std::string& out, std::int64_t value);
void append_unsigned(std::string& out, std::uint64_t value);
/// The shortest form that reads back as the same double, and as a double: `3.0` and not `3`. `value` must be finite.
void append_double(std::string& out, double value);

/// The fault of one whole JSON value inside the profile, duplicate keys and nesting up to `max_depth` included; the
/// root may be anything. Implemented beside the parser, in decode.cpp.
[[nodiscard]] refusal check_value(std::string_view text, std::size_t max_depth);

}  // namespace leveret::core::json
