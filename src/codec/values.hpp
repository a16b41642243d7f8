/// simdjson's tape, read directly: the document that a parse leaves behind, as doc/tape.md of simdjson describes it
/// since version 0.2. One 64-bit word a node, its type in the top byte; an integer or double has a second word; an
/// opening bracket holds the index behind its closing one and the number of its entries; a string holds its offset in
/// the string buffer. `dom::element` reads the same words, at four times the cost over long arrays (a type switch and a
/// skip for each).
///
/// Shared by the files that include simdjson. A leveret_value of the C ABI is the document and an index on its
/// tape.
#pragma once

#include <leveret/abi.h>
#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace leveret::core {

class tape {
 public:
  explicit tape(const simdjson::dom::document& document) noexcept
      : words_(document.tape.get()), strings_(document.string_buf.get()) {}

  static constexpr std::size_t kRoot = 1;  ///< index of the root value

  [[nodiscard]] char type(std::size_t at) const noexcept { return static_cast<char>(words_[at] >> 56); }
  [[nodiscard]] bool is_container(std::size_t at) const noexcept { return type(at) == '[' || type(at) == '{'; }
  /// Index behind the closing bracket of the container at `at`.
  [[nodiscard]] std::size_t behind(std::size_t at) const noexcept {
    return static_cast<std::size_t>(words_[at] & 0xffff'ffff);
  }
  /// Entries of the container at `at`. (24 bits: simdjson stops counting there, and no line has as many.)
  [[nodiscard]] std::size_t count(std::size_t at) const noexcept {
    return static_cast<std::size_t>(words_[at] >> 32 & 0xff'ffff);
  }
  /// Index of the node behind the value at `at`.
  [[nodiscard]] std::size_t after(std::size_t at) const noexcept {
    switch (type(at)) {
      case '[':
      case '{':
        return behind(at);
      case 'l':
      case 'u':
      case 'd':
        return at + 2;
      default:
        return at + 1;
    }
  }
  [[nodiscard]] std::int64_t integer(std::size_t at) const noexcept {
    return static_cast<std::int64_t>(words_[at + 1]);
  }
  [[nodiscard]] std::uint64_t uinteger(std::size_t at) const noexcept { return words_[at + 1]; }
  [[nodiscard]] double real(std::size_t at) const noexcept {
    double value;
    std::memcpy(&value, &words_[at + 1], sizeof value);
    return value;
  }
  [[nodiscard]] std::string_view string(std::size_t at) const noexcept {
    const std::uint8_t* start = strings_ + (words_[at] & 0xff'ffff'ffff'ffff);
    std::uint32_t size;
    std::memcpy(&size, start, sizeof size);
    return {reinterpret_cast<const char*>(start) + sizeof size, size};
  }

 private:
  const std::uint64_t* words_;
  const std::uint8_t* strings_;
};

inline leveret_value to_value(const simdjson::dom::document& document, std::size_t at) noexcept {
  return {&document, at};
}

/// Values that outlive every line: what absent `args` and `kwargs` are.
[[nodiscard]] leveret_value empty_array();
[[nodiscard]] leveret_value empty_object();

/// Appends the JSON text of a value that is no array or object.
void append_scalar(std::string& out, const tape& nodes, std::size_t at);

}  // namespace leveret::core
