/// Results of the memory transport: kept in the order stored, found by message id or by reply address. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "message.hpp"

namespace leveret::core::memory {

/// A chunk leaves when its time is over, or when there are too many bytes: the oldest first, and of those that their
/// watcher has had only kHandedBytes are kept, because nothing but a look-up by another client still wants them.
class result_store {
 public:
  static constexpr std::size_t kHandedBytes = 64u << 20;

  /// `handed`: a watcher gets it right now.
  void add(result_chunk chunk, bool handed, unix_ms expires, std::uint64_t cap_bytes);
  /// The chunks at `reply` that no watcher has had, in the order stored; from now on they count as handed.
  [[nodiscard]] std::vector<result_chunk> take(const std::string& reply);
  /// All chunks of a message.
  [[nodiscard]] std::vector<result_chunk> find(const std::string& id) const;
  void expire(unix_ms now);

 private:
  struct kept {
    result_chunk chunk;
    unix_ms expires = 0;
    bool handed = false;
  };
  using sequence = std::uint64_t;

  void drop(std::map<sequence, kept>::iterator which);
  void hand(sequence number, kept& k);

  std::map<sequence, kept> all_;
  std::unordered_map<std::string, std::deque<sequence>> by_id_;
  std::unordered_map<std::string, std::deque<sequence>> waiting_;  // by reply, not handed yet
  std::deque<sequence> handed_;                                    // may name chunks that have left
  sequence last_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t handed_bytes_ = 0;
};

}  // namespace leveret::core::memory
