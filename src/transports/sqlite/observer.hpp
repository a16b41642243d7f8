/// Decides which other transports are gone, so that what they hold comes back.
///
/// A dead process is seen by its lock, at once. One that is alive but stopped is seen by its renewal counter: unchanged
/// for its lease time, as this observer saw it. Only time in which the observer itself ran counts: a machine that was
/// suspended, or an observer that was stopped too, has seen nothing.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

class observer {
 public:
  /// CLOCK_BOOTTIME, or a test's.
  using time = std::chrono::milliseconds;

  /// Looks at every owner but `me`; gives those that are gone.
  [[nodiscard]] std::vector<owner_key> look(store& db, const seat& here, owner_key me, time now);
  /// Looks again at one that was found gone, in the transaction that gives back what it holds. False: it is back.
  [[nodiscard]] bool still_gone(const owner_row& row, const store& db, const seat& here) const;

 private:
  struct seen {
    seat_identity at;
    std::uint32_t beats = 0;
    time unchanged{0};
    time looked{0};
  };
  std::map<owner_key, seen> seen_;
};

[[nodiscard]] observer::time boot_time();

}  // namespace leveret::core::sqlite
