/// A thin layer over SQLite's C interface: errors as exceptions, statements that reset themselves. Used on one thread
/// at a time; only this folder sees SQLite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;
struct sqlite3_blob;

namespace leveret::core::sqlite {

/// SQLite said no. Stays inside the transport: its threads turn it into `failure` values.
class database_error : public std::runtime_error {
 public:
  database_error(int code, const std::string& text) : std::runtime_error(text), code_(code) {}
  /// SQLite's extended result code.
  [[nodiscard]] int code() const noexcept { return code_; }
  [[nodiscard]] bool busy() const noexcept;
  [[nodiscard]] bool disk_full() const noexcept;
  /// The file's content is not what was written: SQLite finds a page broken, or rows that contradict each other.
  [[nodiscard]] bool corrupt() const noexcept;
  [[nodiscard]] bool sync_failed() const noexcept;
  [[nodiscard]] bool read_only() const noexcept;

 private:
  int code_;
};

/// Bytes bound as a BLOB. Not copied: they live until the statement is reset.
struct blob_view {
  std::string_view bytes;
};

class connection {
 public:
  connection() = default;
  /// Opens an existing file for reading and writing. Throws database_error.
  explicit connection(const std::string& path);
  ~connection() { close(); }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  connection(connection&& other) noexcept;
  connection& operator=(connection&& other) noexcept;

  /// Runs statements without results. Throws database_error.
  void execute(const char* sql);
  /// The first column of the first row, 0 without one.
  [[nodiscard]] std::int64_t integer(const char* sql);
  [[nodiscard]] std::string text(const char* sql);
  /// How long SQLite itself waits for a lock; 0: not at all.
  void busy_timeout(int ms);
  [[nodiscard]] bool in_transaction() const noexcept;
  /// Pages in the write-ahead log after this connection's latest commit.
  [[nodiscard]] int wal_pages() const noexcept { return wal_pages_; }
  void count_wal_pages();
  /// PASSIVE: copies what it can without waiting for anyone. True: all of the log was copied.
  bool checkpoint();

  [[nodiscard]] sqlite3* handle() const noexcept { return handle_; }
  [[noreturn]] void fail(int code, const char* doing) const;
  void close() noexcept;

 private:
  sqlite3* handle_ = nullptr;
  int wal_pages_ = 0;
};

class statement;

/// A run of a statement; resets it at its end.
class rows {
 public:
  explicit rows(statement& of) : of_(of) {}
  ~rows();
  rows(const rows&) = delete;
  rows& operator=(const rows&) = delete;

  /// Throws database_error.
  [[nodiscard]] bool next();
  [[nodiscard]] std::int64_t integer(int column) const;
  /// A number of things, for arithmetic: what a file that somebody else wrote says beyond 0 and 2^40 is brought there.
  [[nodiscard]] std::int64_t count(int column) const;
  /// Valid until `next`.
  [[nodiscard]] std::string_view text(int column) const;
  [[nodiscard]] std::string_view blob(int column) const;

 private:
  statement& of_;
};

class statement {
 public:
  statement() = default;
  statement(connection& on, const char* sql);
  ~statement();
  statement(const statement&) = delete;
  statement& operator=(const statement&) = delete;
  statement(statement&& other) noexcept;
  statement& operator=(statement&& other) noexcept;

  /// Binds from 1 on and starts.
  template <class... T>
  [[nodiscard]] rows query(const T&... values) {
    int index = 0;
    (bind(++index, values), ...);
    return rows(*this);
  }
  /// Runs to the end. Gives the number of rows changed.
  template <class... T>
  std::int64_t run(const T&... values) {
    int index = 0;
    (bind(++index, values), ...);
    return finish();
  }
  /// One step; SQLite's result code, never thrown. For BEGIN.
  [[nodiscard]] int try_run() noexcept;

 private:
  friend class rows;
  void bind(int index, std::int64_t value);
  void bind(int index, std::string_view text);
  void bind(int index, blob_view bytes);
  std::int64_t finish();
  void reset() noexcept;

  connection* on_ = nullptr;
  sqlite3_stmt* handle_ = nullptr;
};

/// Reads one BLOB column row after row straight into the caller's memory: large values are copied once.
class blob_reader {
 public:
  blob_reader(connection& on, const char* table, const char* column) : on_(on), table_(table), column_(column) {}
  ~blob_reader();
  blob_reader(const blob_reader&) = delete;
  blob_reader& operator=(const blob_reader&) = delete;
  /// `size` is the value's size. Throws database_error.
  void read(std::int64_t row, char* out, std::size_t size);

 private:
  connection& on_;
  const char* table_;
  const char* column_;
  sqlite3_blob* handle_ = nullptr;
};

/// The file was removed or replaced while it was open.
[[nodiscard]] database_error moved_error();

/// SQLite's primary result codes that the transport names, so that its other files need no sqlite3.h.
[[nodiscard]] bool is_busy(int code) noexcept;

}  // namespace leveret::core::sqlite
