/// The jobs that are to end as cancelled, as a worker knows them: filled by the loop from what the transport tells,
/// asked by pool threads at the start of every job. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_set>

namespace leveret::core {

class cancelled_jobs {
 public:
  /// Beyond it the oldest are forgotten: those jobs ended long ago, or will run.
  static constexpr std::size_t kMost = 1'000'000;

  void add(std::string id);
  /// One relaxed load as long as nothing was ever cancelled.
  [[nodiscard]] bool contains(std::string_view id) const { return any_.load(std::memory_order_acquire) && find(id); }

 private:
  [[nodiscard]] bool find(std::string_view id) const;

  std::atomic<bool> any_{false};
  mutable std::shared_mutex mutex_;  // a leaf
  std::unordered_set<std::string> ids_;
  std::deque<const std::string*> order_;  // into `ids_`
};

}  // namespace leveret::core
