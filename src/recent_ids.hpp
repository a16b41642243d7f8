/// The ids that were added last, so many of them: whether one of them is this one. Pure.
///
/// Asked of every message and told of every one, so the ids lie one behind the other in a ring, whose places keep the
/// memory of the texts that were there, and a table of places by hash says where: no allocation once it is full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace leveret::core {

class recent_ids {
 public:
  explicit recent_ids(std::size_t most) : most_(most) {
    std::size_t buckets = 1;
    while (buckets < 2 * most) buckets *= 2;
    first_.resize(buckets, kNone);
  }

  [[nodiscard]] bool contains(std::string_view id) const { return find(id, std::hash<std::string_view>()(id)); }

  /// Forgets the oldest if there are too many. One that is there stays where it is.
  void add(std::string_view id) {
    const std::size_t hash = std::hash<std::string_view>()(id);
    if (most_ == 0 || find(id, hash)) return;
    if (places_.size() < most_) {
      places_.emplace_back();
    } else {
      unlink(oldest_);
    }
    place& p = places_[oldest_];
    p.id = id;
    p.hash = hash;
    std::uint32_t& first = first_[bucket(hash)];
    p.next = first;
    first = oldest_;
    oldest_ = oldest_ + 1 < most_ ? oldest_ + 1 : 0;
  }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct place {
    std::string id;
    std::size_t hash = 0;
    std::uint32_t next = kNone;  // of the same bucket
  };

  [[nodiscard]] std::size_t bucket(std::size_t hash) const noexcept { return hash & (first_.size() - 1); }

  [[nodiscard]] bool find(std::string_view id, std::size_t hash) const {
    for (std::uint32_t at = first_[bucket(hash)]; at != kNone; at = places_[at].next) {
      if (places_[at].hash == hash && places_[at].id == id) return true;
    }
    return false;
  }

  void unlink(std::uint32_t at) {
    std::uint32_t* link = &first_[bucket(places_[at].hash)];
    while (*link != at) link = &places_[*link].next;
    *link = places_[at].next;
  }

  std::size_t most_;
  std::vector<place> places_;
  std::vector<std::uint32_t> first_;
  std::uint32_t oldest_ = 0;  // the place to be written next
};

}  // namespace leveret::core
