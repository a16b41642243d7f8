/// Redis's protocol, version 2, as bytes: hiredis encodes and decodes. Its connection is not used (net/socket.hpp says
/// why).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct redisReader;  // NOLINT(readability-identifier-naming): hiredis's

namespace leveret::core::redis {

using command = std::vector<std::string_view>;

/// Appends a command, as it is sent.
void append_command(std::string& out, const command& words);

struct reply {
  enum class kind { text, number, list, nothing, error } what = kind::nothing;
  std::string text;  ///< of an error: "CODE and words"
  long long number = 0;
  std::vector<reply> items;

  [[nodiscard]] bool is_error() const noexcept { return what == kind::error; }
};

/// Replies out of a stream of bytes.
class reply_reader {
 public:
  enum class got { reply, nothing_yet, malformed };

  reply_reader();

  /// Throws std::bad_alloc.
  void feed(const char* bytes, std::size_t size);
  /// Malformed: the stream is none of Redis's; nothing more comes of it.
  [[nodiscard]] got next(reply& out);

 private:
  struct freed {
    void operator()(redisReader* reader) const noexcept;
  };
  std::unique_ptr<redisReader, freed> reader_;
};

}  // namespace leveret::core::redis
