/// What people do to a database file: look at it, copy it, save what a damaged one still holds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace leveret::core::sqlite {

/// Called now and then with how much is done of how much; what it throws ends the work.
using progress_report = std::function<void(std::uint64_t done, std::uint64_t total)>;

struct file_state {
  std::uint64_t bytes = 0;
  /// What is damaged, a sentence each, at most some 20. Empty: nothing was found.
  std::vector<std::string> damage;
  /// What may be a trace of a power cut, or damage.
  std::vector<std::string> notes;
};

/// Looks for damage: SQLite's own check, every message against its place, the counts; the log's checksums
/// if nobody uses the file. Reads all of
/// the file; others may use it meanwhile. Blocks. `path` is resolved as by `prepare_file`.
[[nodiscard]] file_state examine(const std::string& path);

/// A copy of the file as it stands at one moment, while others go on with it: `to` is whole or not there. In the copy
/// nobody runs anything: what was running waits. Blocks. Throws storage_failed; `to` must not exist.
void back_up(const std::string& from, const std::string& to, const progress_report& progress);

/// A message whose row cannot be read, though its place in a queue can.
struct lost_message {
  std::string queue;
  std::string id;  ///< empty: that cannot be read either
};
struct recovered {
  std::uint64_t pages = 0;
  std::uint64_t unreadable_pages = 0;
  std::uint64_t waiting = 0;   ///< messages, of which were
  std::uint64_t running = 0;   ///< running, and
  std::uint64_t unplaced = 0;  ///< without a readable place in their queue: at its end, or perhaps ended before
  std::uint64_t delayed = 0;
  std::uint64_t jobs = 0;  ///< in all these messages
  std::uint64_t dead = 0;
  std::uint64_t results = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t lost_rows = 0;  ///< rows of any table that cannot be read and are none of `lost`
  std::vector<lost_message> lost;
  std::vector<std::string> damage;  ///< where, a sentence each, at most some 20
};

/// Saves what can be read of `from`, whole or damaged, into a new file `to`. `from` is only read, page by page; nobody
/// may have it open. Blocks. Throws storage_failed; `to` must not exist, and is whole or not there at the end.
[[nodiscard]] recovered recover(const std::string& from, const std::string& to, const progress_report& progress);

}  // namespace leveret::core::sqlite
