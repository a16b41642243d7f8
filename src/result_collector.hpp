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
  /// For a message with this id, and lines of others that have become its own. Both views outlive the collector.
  result_collector(std::string_view own_id, std::string_view reply) : own_id_(own_id), reply_(reply) {}

  /// `json` is one value, or empty for none.
  void add(std::string_view id, std::uint32_t line, std::string_view json) {
    if (!is_own(id)) {
      add_to(part_of(id), line, json);
    } else if (json.empty() && !own_.runs.empty() && own_.runs.back().goes_on(line, true)) {
      ++own_.runs.back().count;
    } else {
      add_to(own_, line, json);
    }
  }
  void add_dead(std::string_view id, std::uint32_t line, std::string_view reason, std::string_view error,
                std::uint32_t attempts);
  void add_expired(std::string_view id, std::uint32_t line);
  void add_cancelled(std::string_view id, std::uint32_t line);

  /// What came since the last call.
  [[nodiscard]] result_collector take() noexcept {
    return {own_id_, reply_, std::exchange(own_, {}), std::exchange(others_, {})};
  }

  /// All that several have collected, a chunk for each message.
  [[nodiscard]] static std::vector<result_chunk> write(const std::vector<result_collector>& all);

 private:
  /// Of so many lines at most, so that its text is no longer than a written run's.
  static constexpr std::uint32_t kRunLines = 256;
  /// Short results of `count` lines that follow each other, from `line` on. Their text, a comma behind each, ends at
  /// `end` in the part's texts, where the next run's begins; a run of nothings has none.
  struct run {
    std::uint32_t line;
    std::uint32_t count;
    std::uint32_t end;
    bool nothings;

    [[nodiscard]] bool goes_on(std::uint32_t with, bool nothing) const noexcept {
      return with == line + count && count < kRunLines && nothing == nothings;
    }
  };
  struct part {
    std::string id;                         // of others only
    std::string lines;                      // what has lines of its own
    std::uint32_t first_line = UINT32_MAX;  // of `lines`, as the next
    std::uint32_t last_line = 0;
    std::vector<run> runs;
    std::string texts;      // with room for more: appending to a string is a third of what a short result costs
    std::size_t bytes = 0;  // of `texts`, so far
  };
  /// A run on its way into a chunk.
  struct told_run {
    std::uint32_t line;
    std::uint32_t count;
    std::string_view text;
  };

  result_collector(std::string_view own_id, std::string_view reply, part own, std::vector<part> others)
      : own_id_(own_id), reply_(reply), own_(std::move(own)), others_(std::move(others)) {}

  /// Almost all are told by the very same characters.
  [[nodiscard]] bool is_own(std::string_view id) const noexcept {
    return id.data() == own_id_.data() && id.size() == own_id_.size();
  }
  part& part_of(std::string_view id);
  static void add_to(part& p, std::uint32_t line, std::string_view json);
  static std::string& lines_of(part& p, std::uint32_t line);
  static result_chunk write_chunk(std::string_view id, std::string_view reply, const std::vector<const part*>& parts);
  static bool write_in_order(std::string& out, const std::vector<told_run>& told, std::uint32_t first,
                             std::uint32_t last, std::size_t bytes);

  std::string_view own_id_;
  std::string_view reply_;
  part own_;
  std::vector<part> others_;
};

/// Chunks of the same message become one.
[[nodiscard]] std::vector<result_chunk> merge_chunks(std::vector<result_chunk> chunks);

}  // namespace leveret::core
