#include "transports/sqlite/salvage.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kMostSentences = 20;
constexpr std::uint64_t kReportEvery = 256;  // pages

/// The columns of each table's rows: i(nteger), t(ext), b(lob). All differ.
struct shape {
  table of;
  const char* name;
  const char* columns;
  bool rowid;
};
constexpr shape kShapes[] = {
    {table::state, "state", "iii", true},
    {table::queue, "queue", "itiiiii", true},
    {table::ready, "ready", "iiiiii", false},
    {table::delayed, "delayed", "iiiii", false},
    {table::leased, "leased", "iiiiiiii", false},
    {table::body, "body", "iittiiibb", true},
    {table::result, "result", "ittiiib", true},
    {table::dead, "dead", "iitt", true},
    {table::cancelled, "cancelled", "itii", true},
    {table::once, "once", "itti", true},
    {table::body_ids, "sqlite_autoindex_body_1", "tii", false},
    {table::queue_names, "sqlite_autoindex_queue_1", "ti", false},
};

/// Where tables and indexes begin if the schema cannot be read: pages are given out in the order of their making. A
/// copy by VACUUM makes the indexes last. 0: not known (a file of an older schema got it wherever a page was free).
struct root {
  const char* name;
  page_number made;
  page_number copied;
  page_number copied_3;  // up to schema 3
};
constexpr root kRoots[] = {
    {"state", 2, 2, 2},
    {"queue", 3, 3, 3},
    {"sqlite_autoindex_queue_1", 4, 4, 4},
    {"ready", 5, 5, 5},
    {"delayed", 6, 6, 6},
    {"leased", 7, 7, 7},
    {"body", 8, 8, 8},
    {"sqlite_autoindex_body_1", 9, 9, 9},
    {"result", 10, 10, 10},
    {"result_by_reply", 11, 19, 17},
    {"result_by_id", 12, 20, 18},
    {"dead", 13, 11, 11},
    {"dead_by_queue", 14, 21, 19},
    {"owner", 15, 12, 12},
    {"consumer", 16, 13, 13},
    {"cancelled", 17, 14, 14},
    {"sqlite_autoindex_cancelled_1", 18, 15, 15},
    {"report", 19, 16, 16},
    {"once", 0, 17, 0},
    {"sqlite_autoindex_once_1", 0, 18, 0},
    {"once_by_expires", 0, 22, 0},
};
constexpr page_number kDiffers = 11;
constexpr page_number kDiffersFrom3 = 17;

const shape* shape_of(table t) {
  for (const shape& s : kShapes) {
    if (s.of == t) return &s;
  }
  return nullptr;
}

char letter(column::kind k) {
  switch (k) {
    case column::kind::integer:
      return 'i';
    case column::kind::text:
      return 't';
    case column::kind::blob:
      return 'b';
    case column::kind::null:
      return '0';
  }
  return '0';
}

bool fits(const shape& s, const row& r) {
  const std::string_view columns = s.columns;
  // A row from before `terminate` was added lacks it.
  if (r.size() != columns.size() && !(s.of == table::cancelled && r.size() + 1 == columns.size())) return false;
  for (std::size_t i = 0; i < r.size(); ++i) {
    if (letter(r[i].what) != columns[i]) return false;
  }
  return true;
}

}  // namespace

void salvage::hole(table t, const std::string& what) {
  ++holes_[t];
  if (damage_.size() < kMostSentences) damage_.push_back(what);
}

void salvage::run(const progress_report& progress) {
  progress_ = &progress;
  if (pages_.log().header_damaged) damage_.emplace_back("the head of the write-ahead log is damaged");
  if (pages_.log().behind > 0) {
    damage_.push_back("the write-ahead log is damaged, with " + std::to_string(pages_.log().behind) +
                      " pages behind the place (a power cut leaves that too, of what was not accepted yet)");
  }
  walk_schema();
  walk_free();
  take_orphans(progress);
  // Of these nothing is reached: they add what is not known yet.
  for (page_number i = 1; i <= pages_.behind(); ++i) {
    if (pages_.kind_of(pages_.count() + i)) take_cells(table::other, {}, pages_.count() + i, false);
  }
}

void salvage::walk_schema() {
  // The schema's own tree is short: it is walked by hand, for the roots.
  std::vector<page_number> todo{1};
  std::map<std::string, page_number> roots;
  for (std::size_t i = 0; i < todo.size() && i < 1000; ++i) {
    const page_number n = todo[i];
    if (n == 0 || n > pages_.count() || seen_[n] == use::reached) continue;
    seen_[n] = use::reached;
    for (const page_number child : pages_.children(n)) todo.push_back(child);
    if (pages_.kind_of(n) != page_file::tree::leaf_table) continue;
    for (std::uint16_t cell = 0; cell < pages_.cells(n); ++cell) {
      const auto r = pages_.read({n, cell});
      if (r && r->size() >= 5 && (*r)[4].what == column::kind::integer) {
        roots[(*r)[2].bytes] = static_cast<page_number>((*r)[4].number);
      }
    }
  }
  if (roots.empty()) {
    ++unreadable_;
    damage_.emplace_back("page 1, which says where the tables are, cannot be read");
    const auto is_table = [this](page_number n) {
      const auto kind = pages_.kind_of(n);
      return kind == page_file::tree::leaf_table || kind == page_file::tree::interior_table;
    };
    for (const root& r : kRoots) {
      const page_number page = !is_table(kDiffers) ? r.made : is_table(kDiffersFrom3) ? r.copied : r.copied_3;
      if (page != 0) roots[r.name] = page;
    }
  }
  for (const shape& s : kShapes) {
    if (const auto found = roots.find(s.name); found != roots.end()) {
      walk(s.of, s.name, found->second);
    } else {
      hole(s.of, std::string("where the table ") + s.name + " begins cannot be read");
    }
  }
  // Of no interest, but not to be taken for orphans.
  for (const auto& entry : roots) {
    if (std::none_of(std::begin(kShapes), std::end(kShapes), [&](const shape& s) { return entry.first == s.name; })) {
      walk(table::other, entry.first, entry.second);
    }
  }
}

void salvage::walk(table t, const std::string& name, page_number root) {
  std::vector<page_number> todo{root};
  const shape* wanted = shape_of(t);
  const bool rowid = wanted != nullptr && wanted->rowid;
  while (!todo.empty()) {
    const page_number n = todo.back();
    todo.pop_back();
    if (++done_ % kReportEvery == 0 && *progress_)
      (*progress_)(std::min<std::uint64_t>(done_, pages_.count()), pages_.count());
    const auto kind = n == 0 || n > pages_.count() || seen_[n] == use::reached ? std::nullopt : pages_.kind_of(n);
    const bool of_table = kind == page_file::tree::leaf_table || kind == page_file::tree::interior_table;
    if (!kind || (t != table::other && of_table != rowid)) {
      ++unreadable_;
      hole(t, "page " + std::to_string(n) + " of " + name + " cannot be read");
      continue;
    }
    seen_[n] = use::reached;
    // In order, for what has no order of its own.
    const std::vector<page_number> below = pages_.children(n);
    todo.insert(todo.end(), below.rbegin(), below.rend());
    if (*kind != page_file::tree::interior_table) take_cells(t, name, n, true);
  }
}

void salvage::walk_free() {
  bool whole = false;
  for (const page_number n : pages_.free_pages(whole)) {
    if (n > 0 && n <= pages_.count() && seen_[n] == use::unknown) seen_[n] = use::free;
  }
  if (!whole && damage_.size() < kMostSentences) damage_.emplace_back("the list of free pages is damaged");
}

void salvage::take_orphans(const progress_report& progress) {
  if (holes_.empty()) return;
  for (page_number n = 1; n <= pages_.count(); ++n) {
    if (n % kReportEvery == 0 && progress) progress(n, pages_.count());
    if (seen_[n] != use::unknown) continue;
    const auto kind = pages_.kind_of(n);
    if (!kind || *kind == page_file::tree::interior_table) continue;
    take_cells(table::other, {}, n, false);
  }
}

void salvage::take_cells(table t, const std::string& name, page_number n, bool reached) {
  const std::uint16_t count = pages_.cells(n);
  const auto mark = [this](page_number overflow) { seen_[overflow] = use::reached; };
  const bool of_table = pages_.kind_of(n) == page_file::tree::leaf_table;
  for (std::uint16_t cell = 0; cell < count; ++cell) {
    // Nothing of a table that nobody asks for is read, but which pages hold it.
    const auto r = reached ? pages_.read({n, cell}, mark) : pages_.read({n, cell});
    if (reached && t == table::other) continue;
    if (reached) {
      if (r && fits(*shape_of(t), *r)) {
        take(t, *r, {n, cell}, true);
      } else {
        if (t != table::body_ids && t != table::queue_names && t != table::body) ++lost_rows_;
        hole(t, "row " + std::to_string(cell) + " on page " + std::to_string(n) + " of " + name + " cannot be read");
      }
      continue;
    }
    if (!r) continue;
    for (const shape& s : kShapes) {
      // Other indexes have rows like those of the queues' names.
      if (s.of != table::queue_names && s.rowid == of_table && fits(s, *r)) take(s.of, *r, {n, cell}, false);
    }
  }
}

void salvage::take(table t, const row& r, row_place at, bool reached) {
  const auto number = [&](std::size_t i) { return r[i].number; };
  switch (t) {
    case table::state:
      if (reached) highest_ = std::max(highest_, number(1));
      return;
    case table::queue:
      queues_.emplace(number(0), r[1].bytes);
      return;
    case table::queue_names:
      queues_.emplace(number(1), r[0].bytes);
      return;
    case table::ready:
      places_.emplace(number(2), placed{number(0), number(1), number(5), placed::kind::ready, reached});
      return;
    case table::delayed:
      places_.emplace(number(1), placed{number(2), number(0), 0, placed::kind::delayed, reached});
      return;
    case table::leased:
      places_.emplace(number(1), placed{number(3), number(4), number(7), placed::kind::leased, reached});
      return;
    case table::body_ids:
      ids_.emplace(number(2), r[0].bytes);
      return;
    case table::body:
    case table::result:
    case table::dead:
    case table::cancelled:
    case table::once:
      rows_[t].emplace(number(0), kept_row{at, reached});
      highest_ = std::max(highest_, number(0));
      return;
    case table::other:
      return;
  }
}

}  // namespace leveret::core::sqlite
