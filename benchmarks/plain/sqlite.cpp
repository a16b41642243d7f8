// What plain SQLite does with messages in a WAL file with synchronous=FULL, nothing decoded: the bound of the SQLite
// transport.
//
//     sqlite FILE MESSAGES BYTES
//
// Stores messages of so many bytes, kGroup a transaction, then takes them out again: reads kGroup bodies and deletes
// the kGroup before them, a transaction. Prints the seconds of both as JSON.
#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t kGroup = 16;

void run(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return;
  (void)std::fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
  std::exit(1);
}

class statement {
 public:
  statement(sqlite3* db, const char* sql) : db_(db) {
    if (sqlite3_prepare_v2(db, sql, -1, &made_, nullptr) != SQLITE_OK) fail(sql);
  }
  ~statement() { sqlite3_finalize(made_); }
  statement(const statement&) = delete;
  statement& operator=(const statement&) = delete;

  [[nodiscard]] sqlite3_stmt* get() const { return made_; }
  /// Runs it for a row's number; whether there is a row.
  bool step(std::int64_t number) {
    sqlite3_bind_int64(made_, 1, number);
    const int code = sqlite3_step(made_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) fail("a statement");
    return code == SQLITE_ROW;
  }
  void reset() { sqlite3_reset(made_); }

 private:
  void fail(const char* what) const {
    (void)std::fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db_));
    std::exit(1);
  }

  sqlite3* db_;
  sqlite3_stmt* made_ = nullptr;
};

double publish(sqlite3* db, std::uint64_t messages, const std::string& body) {
  statement insert(db, "INSERT INTO message VALUES(?, ?)");
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t n = 0; n < messages;) {
    run(db, "BEGIN IMMEDIATE");
    for (std::uint64_t i = 0; i < kGroup && n < messages; ++i) {
      sqlite3_bind_blob64(insert.get(), 2, body.data(), body.size(), SQLITE_STATIC);
      insert.step(static_cast<std::int64_t>(++n));
      insert.reset();
    }
    run(db, "COMMIT");
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

double drain(sqlite3* db, std::uint64_t messages) {
  statement read(db, "SELECT body FROM message WHERE id = ?");
  statement remove(db, "DELETE FROM message WHERE id = ?");
  std::uint64_t bytes = 0;
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t first = 1; first <= messages + kGroup; first += kGroup) {
    run(db, "BEGIN IMMEDIATE");
    for (std::uint64_t n = first; n < first + kGroup; ++n) {
      if (n > kGroup) {
        remove.step(static_cast<std::int64_t>(n - kGroup));
        remove.reset();
      }
      if (read.step(static_cast<std::int64_t>(n))) {
        const auto* const body = static_cast<const char*>(sqlite3_column_blob(read.get(), 0));
        const std::string copy(body, static_cast<std::size_t>(sqlite3_column_bytes(read.get(), 0)));
        bytes += copy.size();
      }
      read.reset();
    }
    run(db, "COMMIT");
  }
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  statement count(db, "SELECT 1 FROM message LIMIT ?");
  if (count.step(1) || bytes == 0) {
    (void)std::fprintf(stderr, "messages are left, or none was read\n");
    std::exit(1);
  }
  return took;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    (void)std::fprintf(stderr, "usage: sqlite FILE MESSAGES BYTES\n");
    return 2;
  }
  const auto messages = static_cast<std::uint64_t>(std::atoll(argv[2]));
  sqlite3* db = nullptr;
  if (sqlite3_open(argv[1], &db) != SQLITE_OK) return 1;
  run(db,
      "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;"
      "CREATE TABLE message(id INTEGER PRIMARY KEY, body BLOB) STRICT");
  const double published = publish(db, messages, std::string(static_cast<std::size_t>(std::atoll(argv[3])), 'x'));
  const double drained = drain(db, messages);
  sqlite3_close(db);
  std::printf("{\"publish\": %.6f, \"drain\": %.6f}\n", published, drained);
  return 0;
}
