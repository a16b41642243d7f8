#include "transports/sqlite/observer.hpp"

#include <time.h>

#include <algorithm>

namespace leveret::core::sqlite {

namespace {

// Several polls: the longest that one look may add to what an owner has been silent for.
constexpr std::chrono::milliseconds kLongestLook{1000};

bool same(const seat_identity& a, const seat_identity& b) {
  return a.bell == b.bell && a.slot == b.slot && a.nonce == b.nonce;
}

}  // namespace

observer::time boot_time() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::chrono::milliseconds(static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000);
}

std::vector<owner_key> observer::look(store& db, const seat& here, owner_key me, time now) {
  std::vector<owner_key> gone;
  std::map<owner_key, seen> current;
  for (const owner_row& row : db.owners()) {
    if (row.owner == me) continue;
    std::uint32_t beats = 0;
    if (row.boot != db.boot() || here.judge(row.seat, beats) == life::dead) {
      gone.push_back(row.owner);
      continue;
    }
    const auto before = seen_.find(row.owner);
    seen s{row.seat, beats, time(0), now};
    if (before != seen_.end() && same(before->second.at, row.seat) && before->second.beats == beats) {
      s.unchanged = before->second.unchanged + std::min(now - before->second.looked, kLongestLook);
    }
    current[row.owner] = s;
    if (s.unchanged >= row.lease) gone.push_back(row.owner);
  }
  seen_ = std::move(current);
  return gone;
}

bool observer::still_gone(const owner_row& row, const store& db, const seat& here) const {
  std::uint32_t beats = 0;
  if (row.boot != db.boot() || here.judge(row.seat, beats) == life::dead) return true;
  const auto found = seen_.find(row.owner);
  return found != seen_.end() && same(found->second.at, row.seat) && found->second.beats == beats &&
         found->second.unchanged >= row.lease;
}

}  // namespace leveret::core::sqlite
