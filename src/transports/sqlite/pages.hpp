/// A database file read page by page, without SQLite: for files that SQLite refuses. By the file format's page
/// (sqlite.org/fileformat2.html); only what Leveret's own files have: no pointer maps, no real numbers.
///
/// Nothing is written, no lock is taken, and what was committed to the write-ahead log lies over the file's own pages.
/// Pages of the log that were committed behind a damaged place, where SQLite stops, have numbers of their own, above
/// all others: a power cut leaves such ones too, so they may add to what the file says, and never replace it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace leveret::core::sqlite {

using page_number = std::uint32_t;

/// One column of a row.
struct column {
  enum class kind { null, integer, text, blob };
  kind what = kind::null;
  std::int64_t number = 0;
  std::string bytes;
};
using row = std::vector<column>;

/// Where a row stands: its cell of its page.
struct row_place {
  page_number page = 0;
  std::uint16_t cell = 0;
};

/// What a log holds, by its checksums.
struct log_state {
  std::size_t committed = 0;  ///< frames that SQLite takes for committed
  std::size_t behind = 0;     ///< frames that were committed behind a damaged one: SQLite forgets them
  bool header_damaged = false;
};

class page_file {
 public:
  /// `path` and, if it is there, `path`-wal. Throws storage_failed if the file cannot be read at all.
  explicit page_file(const std::string& path);
  ~page_file();
  page_file(const page_file&) = delete;
  page_file& operator=(const page_file&) = delete;

  [[nodiscard]] page_number count() const noexcept { return count_; }
  /// How many pages behind a damaged place of the log follow page `count()`.
  [[nodiscard]] page_number behind() const noexcept { return static_cast<page_number>(behind_.size()); }
  [[nodiscard]] std::size_t page_size() const noexcept { return page_size_; }
  [[nodiscard]] const log_state& log() const noexcept { return log_; }

  /// From 1 on. Null: no such page, or the disk does not give it.
  [[nodiscard]] std::shared_ptr<const std::string> page(page_number n);

  enum class tree { interior_index = 2, interior_table = 5, leaf_index = 10, leaf_table = 13 };
  /// What kind of page it is, if its header can be one.
  [[nodiscard]] std::optional<tree> kind_of(page_number n);
  /// Number of cells, at most as many as fit.
  [[nodiscard]] std::uint16_t cells(page_number n);
  /// The pages below an interior page, in order.
  [[nodiscard]] std::vector<page_number> children(page_number n);
  /// The row of a cell. The first column of a table's row is the rowid. None: it cannot be read. `overflow` is told the
  /// pages that hold its end.
  [[nodiscard]] std::optional<row> read(row_place at, const std::function<void(page_number)>& overflow = {});

  /// The pages of the free list, as far as it can be followed. `whole`: to its end.
  [[nodiscard]] std::vector<page_number> free_pages(bool& whole);

 private:
  void read_log();
  [[nodiscard]] std::shared_ptr<const std::string> overflow_page(page_number n, bool of_behind);
  [[nodiscard]] bool read_at(int file, std::uint64_t offset, char* out, std::size_t size) const;
  [[nodiscard]] std::size_t usable() const noexcept { return page_size_ - reserved_; }
  [[nodiscard]] std::optional<std::size_t> cell_start(const std::string& page, page_number n, std::uint16_t cell) const;

  int file_ = -1;
  int log_file_ = -1;
  std::size_t page_size_ = 0;
  std::size_t reserved_ = 0;
  page_number count_ = 0;
  log_state log_;
  std::unordered_map<page_number, std::uint64_t> in_log_;          // offset of the latest committed copy
  std::vector<std::uint64_t> behind_;                              // offsets of the pages numbered above count_
  std::unordered_map<page_number, std::size_t> latest_behind_;     // which of them is a page's latest copy
  std::unordered_map<page_number, std::uint64_t> damaged_behind_;  // a damaged copy, by its offset
  struct cached {
    page_number n = 0;
    std::shared_ptr<const std::string> content;
  };
  std::vector<cached> cache_;
};

/// What a log holds beside `path`; all zero without one.
[[nodiscard]] log_state look_at_log(const std::string& path);

}  // namespace leveret::core::sqlite
