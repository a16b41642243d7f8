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

/// What a line says behind its task.
struct plain_job {
  std::uint32_t retry_count = 0;
  bool args = false;  ///< they are on the tape (values.hpp), from its second word on
};

/// Remembers how the last line began, with its task: lines of one message are mostly of one task.
class plain_reader {
 public:
  /// False: not plain; the tape is unspecified then. `words` and `strings` have the room that simdjson's document has
  /// for a line of kMostPlainBytes. At most body::kPadding bytes behind the line are read.
  [[nodiscard]] bool read(std::string_view line, std::uint64_t* words, std::uint8_t* strings, plain_job& out) noexcept;

  /// Of the line that was read last. Not in plain_job: a pair of words that was only just written and is copied as one
  /// is waited for until everything before it is done, handlers included. It is the reader's, until it reads a line
  /// that begins otherwise.
  [[nodiscard]] std::string_view task() const noexcept { return {head_ + sizeof kTask - 1, task_size_}; }
  /// One more with each line that begins otherwise than the one before.
  [[nodiscard]] std::uint64_t task_number() const noexcept { return task_number_; }

 private:
  static constexpr char kTask[] = R"({"task":")";
  [[nodiscard]] bool begins_as_last(std::string_view line) const noexcept;
  [[nodiscard]] bool read_head(std::string_view line) noexcept;

  char head_[kMostPlainBytes];
  std::size_t head_size_ = 0;  // 0: none is remembered; else at least eight
  std::size_t task_size_ = 0;
  std::uint64_t task_number_ = 0;
};

}  // namespace leveret::core
