/// Which parts of a range of numbers are free: first fit, neighbours joined. Holds no memory itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>

namespace leveret::core {

class arena {
 public:
  arena(std::uint64_t begin, std::uint64_t bytes) { free_.emplace(begin, bytes); }

  /// The lowest place of `bytes`, so that what was used before is used again; nothing if there is none.
  [[nodiscard]] std::optional<std::uint64_t> take(std::uint64_t bytes) {
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->second < bytes) continue;
      const std::uint64_t at = it->first;
      const std::uint64_t rest = it->second - bytes;
      free_.erase(it);
      if (rest != 0) free_.emplace(at + bytes, rest);
      return at;
    }
    return std::nullopt;
  }
  /// `at` and `bytes` are as taken.
  void give_back(std::uint64_t at, std::uint64_t bytes) {
    auto next = free_.lower_bound(at);
    if (next != free_.end() && next->first == at + bytes) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += bytes;
        return;
      }
    }
    free_.emplace(at, bytes);
  }
  [[nodiscard]] std::size_t pieces() const noexcept { return free_.size(); }

 private:
  std::map<std::uint64_t, std::uint64_t> free_;  // begin -> bytes
};

}  // namespace leveret::core
