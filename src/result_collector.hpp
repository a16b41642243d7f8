/// Results of a message's jobs as they come in, from one thread or several, until they are stored. Results of lines
/// that follow each other are written as one line of a chunk (`{"line":1,"results":[…]}`): else what names the line
/// would be most of what is stored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "message.hpp"

namespace leveret::core {

/// Results by the message that they belong to. The caller's lock guards it, if any.
class result_collector {
 public:
  explicit result_collector(std::string_view reply) : reply_(reply) {}

  /// `json` is one value, or empty for none.
  void add(std::string_view id, std::uint32_t line, std::string_view json);
  void add_dead(std::string_view id, std::uint32_t line, std::string_view reason, std::string_view error,
                std::uint32_t attempts);
  void add_expired(std::string_view id, std::uint32_t line);
  void add_cancelled(std::string_view id, std::uint32_t line);

  /// What came since the last call.
  [[nodiscard]] result_collector take() noexcept { return {reply_, std::exchange(parts_, {})}; }

  /// All that several have collected, a chunk for each message.
  [[nodiscard]] static std::vector<result_chunk> write(std::vector<result_collector> all);

 private:
  /// A result of the kind that is written in runs: its text ends at `end` in the part's texts, where the next begins.
  struct short_result {
    std::uint32_t line;
    std::uint32_t end;
  };
  struct part {
    result_chunk chunk;  // its data: what has lines of its own
    std::vector<short_result> results;
    std::string texts;
  };

  result_collector(std::string_view reply, std::vector<part> parts) : reply_(reply), parts_(std::move(parts)) {}

  part& part_for(std::string_view id, std::uint32_t line);
  static void write_runs(result_chunk& out, const std::vector<const part*>& parts);

  std::string_view reply_;
  std::vector<part> parts_;
};

/// Chunks of the same message become one.
[[nodiscard]] std::vector<result_chunk> merge_chunks(std::vector<result_chunk> chunks);

}  // namespace leveret::core
