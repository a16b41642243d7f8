/// A reader for lines as `append_job` writes nearly all of them: task, args, retry_count, in this order, without white
/// space; the arguments are integers of up to 18 digits, strings of ASCII without escapes, true, false, null. It costs
/// a third of a parse by simdjson, whose vectors pay off behind the end of so short a line only, and of the look at
/// what that found.
///
/// It judges nothing: what it does not read, good or bad, is simdjson's to read or refuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace leveret::core {

inline constexpr std::size_t kMostPlainBytes = 512;

struct plain_job {
  std::string_view task;
  std::uint32_t retry_count = 0;
  bool args = false;  ///< they are on the tape (values.hpp), from its second word on
};

/// False: not plain; the tape is unspecified then. `words` and `strings` have the room that simdjson's document has for
/// a line of kMostPlainBytes. At most body::kPadding bytes behind the line are read.
[[nodiscard]] bool read_plain(std::string_view line, std::uint64_t* words, std::uint8_t* strings,
                              plain_job& out) noexcept;

}  // namespace leveret::core
