#include "transports/sqlite/database.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace leveret::core::sqlite {

namespace {

int primary(int code) noexcept { return code & 0xff; }

}  // namespace

bool is_busy(int code) noexcept {
  // PROTOCOL: the race for a WAL read mark was lost many times; like BUSY it passes.
  return primary(code) == SQLITE_BUSY || primary(code) == SQLITE_LOCKED || primary(code) == SQLITE_PROTOCOL;
}

database_error moved_error() {
  return {SQLITE_READONLY_DBMOVED, "it was removed or replaced while this program had it open; restart the program"};
}

bool database_error::busy() const noexcept { return is_busy(code_); }
bool database_error::disk_full() const noexcept { return primary(code_) == SQLITE_FULL; }
bool database_error::corrupt() const noexcept {
  // No statement breaks a constraint of a sound file.
  return primary(code_) == SQLITE_CORRUPT || primary(code_) == SQLITE_NOTADB || primary(code_) == SQLITE_CONSTRAINT;
}
bool database_error::sync_failed() const noexcept {
  return code_ == SQLITE_IOERR_FSYNC || code_ == SQLITE_IOERR_DIR_FSYNC;
}
bool database_error::read_only() const noexcept {
  return primary(code_) == SQLITE_READONLY || primary(code_) == SQLITE_PERM || primary(code_) == SQLITE_CANTOPEN;
}

connection::connection(const std::string& path) {
  // NOMUTEX: a connection is one thread's. NOFOLLOW is not needed: the path was resolved before.
  const int code = sqlite3_open_v2(path.c_str(), &handle_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  if (code != SQLITE_OK) {
    const int extended = handle_ != nullptr ? sqlite3_extended_errcode(handle_) : code;
    const std::string text = handle_ != nullptr ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
    close();
    throw database_error(extended, text);
  }
  sqlite3_extended_result_codes(handle_, 1);
  // The last one to leave must not checkpoint: that would be outside the lock that keeps writers out (checkpoint rule).
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  // Anybody may have written the file: nothing in its schema is run.
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
}

connection::connection(connection&& other) noexcept { *this = std::move(other); }

connection& connection::operator=(connection&& other) noexcept {
  if (this != &other) {
    close();
    handle_ = std::exchange(other.handle_, nullptr);
    wal_pages_ = other.wal_pages_;
  }
  return *this;
}

void connection::close() noexcept {
  // v2: statements that outlive the connection keep it until they end.
  if (handle_ != nullptr) sqlite3_close_v2(std::exchange(handle_, nullptr));
}

void connection::fail(int code, const char* doing) const {
  std::string text = sqlite3_errmsg(handle_);
  const int system = sqlite3_system_errno(handle_);
  if ((primary(code) == SQLITE_IOERR || primary(code) == SQLITE_CANTOPEN) && system != 0) {
    text += " (errno " + std::to_string(system) + ")";
  }
  throw database_error(code, std::string(doing) + ": " + text);
}

void connection::execute(const char* sql) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code, "SQLite");
}

std::int64_t connection::integer(const char* sql) {
  statement s(*this, sql);
  rows r = s.query();
  return r.next() ? r.integer(0) : 0;
}

std::string connection::text(const char* sql) {
  statement s(*this, sql);
  rows r = s.query();
  return r.next() ? std::string(r.text(0)) : std::string();
}

void connection::busy_timeout(int ms) { sqlite3_busy_timeout(handle_, ms); }

bool connection::in_transaction() const noexcept { return sqlite3_get_autocommit(handle_) == 0; }

void connection::count_wal_pages() {
  // Installing a hook of our own also turns SQLite's automatic checkpoint off.
  sqlite3_wal_hook(
      handle_,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<connection*>(self)->wal_pages_ = pages;
        return SQLITE_OK;
      },
      this);
}

bool connection::checkpoint() {
  int in_log = 0;
  int copied = 0;
  const int code = sqlite3_wal_checkpoint_v2(handle_, "main", SQLITE_CHECKPOINT_PASSIVE, &in_log, &copied);
  if (is_busy(code)) return false;
  if (code != SQLITE_OK) fail(code, "checkpoint");
  return in_log == copied;
}

rows::~rows() { of_.reset(); }

bool rows::next() {
  const int code = sqlite3_step(of_.handle_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) of_.on_->fail(code, "SQLite");
  return false;
}

std::int64_t rows::integer(int column) const { return sqlite3_column_int64(of_.handle_, column); }

std::int64_t rows::count(int column) const {
  return std::clamp<std::int64_t>(integer(column), 0, std::int64_t{1} << 40);
}

std::string_view rows::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(of_.handle_, column));
  return data == nullptr ? std::string_view()
                         : std::string_view(data, static_cast<std::size_t>(sqlite3_column_bytes(of_.handle_, column)));
}

std::string_view rows::blob(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(of_.handle_, column));
  return data == nullptr ? std::string_view()
                         : std::string_view(data, static_cast<std::size_t>(sqlite3_column_bytes(of_.handle_, column)));
}

statement::statement(connection& on, const char* sql) : on_(&on) {
  const int code = sqlite3_prepare_v3(on.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
  if (code != SQLITE_OK) on.fail(code, "SQLite");
}

statement::~statement() { sqlite3_finalize(handle_); }

statement::statement(statement&& other) noexcept { *this = std::move(other); }

statement& statement::operator=(statement&& other) noexcept {
  if (this != &other) {
    sqlite3_finalize(handle_);
    on_ = std::exchange(other.on_, nullptr);
    handle_ = std::exchange(other.handle_, nullptr);
  }
  return *this;
}

void statement::bind(int index, std::int64_t value) {
  if (const int code = sqlite3_bind_int64(handle_, index, value); code != SQLITE_OK) on_->fail(code, "SQLite");
}

void statement::bind(int index, std::string_view text) {
  // A null pointer would bind NULL, an empty text is meant.
  const char* data = text.data() == nullptr ? "" : text.data();
  if (const int code = sqlite3_bind_text64(handle_, index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
      code != SQLITE_OK) {
    on_->fail(code, "SQLite");
  }
}

void statement::bind(int index, blob_view bytes) {
  const char* data = bytes.bytes.data() == nullptr ? "" : bytes.bytes.data();
  if (const int code = sqlite3_bind_blob64(handle_, index, data, bytes.bytes.size(), SQLITE_STATIC);
      code != SQLITE_OK) {
    on_->fail(code, "SQLite");
  }
}

std::int64_t statement::finish() {
  int code = sqlite3_step(handle_);
  while (code == SQLITE_ROW) code = sqlite3_step(handle_);
  if (code != SQLITE_DONE) {
    try {
      on_->fail(code, "SQLite");
    } catch (...) {
      reset();
      throw;
    }
  }
  const std::int64_t changed = sqlite3_changes64(on_->handle());
  reset();
  return changed;
}

int statement::try_run() noexcept {
  const int code = sqlite3_step(handle_);
  sqlite3_reset(handle_);
  return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

void statement::reset() noexcept { sqlite3_reset(handle_); }

blob_reader::~blob_reader() { sqlite3_blob_close(handle_); }

void blob_reader::read(std::int64_t row, char* out, std::size_t size) {
  int code = SQLITE_OK;
  if (handle_ == nullptr) {
    code = sqlite3_blob_open(on_.handle(), "main", table_, column_, row, 0, &handle_);
  } else {
    code = sqlite3_blob_reopen(handle_, row);
  }
  if (code == SQLITE_OK && (size > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
                            static_cast<std::size_t>(sqlite3_blob_bytes(handle_)) != size)) {
    throw database_error(SQLITE_CORRUPT, "SQLite: a row's size differs from what its columns say");
  }
  if (code == SQLITE_OK && size > 0) code = sqlite3_blob_read(handle_, out, static_cast<int>(size), 0);
  if (code != SQLITE_OK) on_.fail(code, "SQLite");
}

}  // namespace leveret::core::sqlite
