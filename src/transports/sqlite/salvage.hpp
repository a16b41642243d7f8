/// The rows of a damaged file: which pages belong to which table, which rows of them are alive, and what is lost.
///
/// A page belongs to a table if it is reached from the table's root. Where that fails (a page above it is damaged),
/// pages that neither a table nor the free list reaches are taken by the shape of their rows, which differs for every
/// table. Such a page may be one that was freed: its rows are *found*, not *reached*, and count only where nothing
/// better is known.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "transports/sqlite/pages.hpp"
#include "transports/sqlite/upkeep.hpp"

namespace leveret::core::sqlite {

enum class table {
  state,
  queue,
  ready,
  delayed,
  leased,
  body,
  result,
  dead,
  cancelled,
  once,
  body_ids,
  queue_names,
  other
};

class salvage {
 public:
  explicit salvage(page_file& pages) : pages_(pages), seen_(std::size_t{pages.count()} + 1, use::unknown) {}

  /// Reads all pages once.
  void run(const progress_report& progress);

  struct placed {
    std::int64_t queue = 0;
    std::int64_t seq = 0;  // or when it is due
    std::int64_t returns = 0;
    enum class kind { ready, delayed, leased } what = kind::ready;
    bool reached = true;
  };
  struct kept_row {
    row_place at;
    bool reached = true;
  };

  // What was found, by the row's key.
  [[nodiscard]] const std::map<std::int64_t, std::string>& queues() const { return queues_; }
  [[nodiscard]] const std::map<std::int64_t, placed>& places() const { return places_; }
  [[nodiscard]] const std::map<std::int64_t, kept_row>& rows_of(table t) { return rows_[t]; }
  [[nodiscard]] const std::unordered_map<std::int64_t, std::string>& ids() const { return ids_; }
  /// Whether everything of a table could be read.
  [[nodiscard]] bool whole(table t) const { return holes_.find(t) == holes_.end(); }
  /// The highest key that was seen: what is new must be above it.
  [[nodiscard]] std::int64_t highest() const { return highest_; }
  [[nodiscard]] std::uint64_t lost_rows() const { return lost_rows_; }
  [[nodiscard]] std::uint64_t unreadable_pages() const { return unreadable_; }
  [[nodiscard]] const std::vector<std::string>& damage() const { return damage_; }

 private:
  enum class use : std::uint8_t { unknown, reached, free };

  void walk_schema();
  void walk(table t, const std::string& name, page_number root);
  void walk_free();
  void take_orphans(const progress_report& progress);
  void take_cells(table t, const std::string& name, page_number n, bool reached);
  void take(table t, const row& r, row_place at, bool reached);
  void hole(table t, const std::string& what);

  page_file& pages_;
  std::vector<use> seen_;
  std::map<std::int64_t, std::string> queues_;
  std::map<std::int64_t, placed> places_;
  std::map<table, std::map<std::int64_t, kept_row>> rows_;
  std::unordered_map<std::int64_t, std::string> ids_;
  std::map<table, std::uint64_t> holes_;
  std::int64_t highest_ = 0;
  std::uint64_t lost_rows_ = 0;
  std::uint64_t unreadable_ = 0;
  std::uint64_t done_ = 0;
  const progress_report* progress_ = nullptr;
  std::vector<std::string> damage_;
};

}  // namespace leveret::core::sqlite
