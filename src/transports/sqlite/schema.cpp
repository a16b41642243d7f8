#include "transports/sqlite/schema.hpp"

#include <chrono>
#include <leveret/error.hpp>
#include <thread>

#include "transports/sqlite/bell.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr const char* kSchema = R"(
CREATE TABLE state(
  one INTEGER PRIMARY KEY CHECK(one = 1), seq INTEGER NOT NULL, result_bytes INTEGER NOT NULL) STRICT;
INSERT INTO state(one, seq, result_bytes) VALUES(1, 0, 0);
CREATE TABLE queue(
  queue INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, ready INTEGER NOT NULL DEFAULT 0,
  ready_jobs INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE ready(
  queue INTEGER NOT NULL, seq INTEGER NOT NULL, msg INTEGER NOT NULL, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL,
  returns INTEGER NOT NULL, PRIMARY KEY(queue, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE delayed(
  due INTEGER NOT NULL, msg INTEGER NOT NULL, queue INTEGER NOT NULL, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY(due, msg)) STRICT, WITHOUT ROWID;
CREATE TABLE leased(
  owner INTEGER NOT NULL, msg INTEGER NOT NULL, lease INTEGER NOT NULL, queue INTEGER NOT NULL, seq INTEGER NOT NULL,
  jobs INTEGER NOT NULL, bytes INTEGER NOT NULL, returns INTEGER NOT NULL, PRIMARY KEY(owner, msg))
  STRICT, WITHOUT ROWID;
CREATE TABLE body(
  msg INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, reply TEXT NOT NULL, priority INTEGER NOT NULL,
  due INTEGER NOT NULL, jobs INTEGER NOT NULL, headers BLOB NOT NULL, data BLOB NOT NULL, UNIQUE(id, queue)) STRICT;
CREATE TABLE result(
  n INTEGER PRIMARY KEY, reply TEXT NOT NULL, id TEXT NOT NULL, first_line INTEGER NOT NULL,
  last_line INTEGER NOT NULL, expires INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX result_by_reply ON result(reply);
CREATE INDEX result_by_id ON result(id);
CREATE TABLE dead(n INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, record TEXT NOT NULL) STRICT;
CREATE INDEX dead_by_queue ON dead(queue);
CREATE TABLE owner(
  owner INTEGER PRIMARY KEY, pid INTEGER NOT NULL, boot TEXT NOT NULL, bell INTEGER NOT NULL, slot INTEGER NOT NULL,
  nonce INTEGER NOT NULL, lease_ms INTEGER NOT NULL, name TEXT NOT NULL) STRICT;
CREATE TABLE consumer(
  owner INTEGER NOT NULL, queue INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY(owner, queue))
  STRICT, WITHOUT ROWID;
)";

/// What schema 2 added; a file of schema 1 gets it when it is opened.
constexpr const char* kSchema2 = R"(
CREATE TABLE cancelled(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, expires INTEGER NOT NULL) STRICT;
CREATE TABLE report(
  kind TEXT NOT NULL, id TEXT NOT NULL, time INTEGER NOT NULL, expires INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(kind, id)) STRICT, WITHOUT ROWID;
)";

/// What schema 3 added to those.
constexpr const char* kSchema3 = "ALTER TABLE cancelled ADD COLUMN terminate INTEGER NOT NULL DEFAULT 0";

/// What schema 4 added.
constexpr const char* kSchema4 = R"(
CREATE TABLE once(
  n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, expires INTEGER NOT NULL) STRICT;
CREATE INDEX once_by_expires ON once(expires);
)";

struct named_sql {
  const char* name;
  const char* text;
};
constexpr named_sql kHot[] = {
    {"load state", sql::kLoadState},
    {"save state", sql::kSaveState},
    {"find queue", sql::kFindQueue},
    {"count", sql::kCount},
    {"add body", sql::kAddBody},
    {"add ready", sql::kAddReady},
    {"add delayed", sql::kAddDelayed},
    {"first due", sql::kFirstDue},
    {"due", sql::kDue},
    {"drop delayed", sql::kDropDelayed},
    {"first ready", sql::kFirstReady},
    {"running", sql::kRunning},
    {"ready", sql::kReady},
    {"drop ready", sql::kDropReady},
    {"add lease", sql::kAddLease},
    {"has lease", sql::kHasLease},
    {"drop lease", sql::kDropLease},
    {"leases of an owner", sql::kLeasesOf},
    {"drop lease of an owner", sql::kDropLeaseOf},
    {"drop body", sql::kDropBody},
    {"body", sql::kBody},
    {"add result", sql::kAddResult},
    {"results for a reply", sql::kResultsFor},
    {"results of a message", sql::kResultsOf},
    {"oldest results", sql::kOldestResults},
    {"drop result", sql::kDropResult},
    {"add dead", sql::kAddDead},
    {"dead", sql::kDead},
    {"oldest dead", sql::kOldestDead},
    {"drop dead", sql::kDropDead},
    {"ready up to", sql::kReadyUpTo},
    {"delayed after", sql::kDelayedAfter},
    {"has owner", sql::kHasOwner},
    {"drop owner", sql::kDropOwner},
    {"one queue", sql::kOneQueue},
    {"where is", sql::kWhereIs},
    {"add cancelled", sql::kAddCancelled},
    {"cancelled after", sql::kCancelledAfter},
    {"set report", sql::kSetReport},
    {"one report", sql::kOneReport},
    {"reports", sql::kReports},
    {"holder", sql::kHolder},
    {"add claim", sql::kAddClaim},
    {"change claim", sql::kChangeClaim},
    {"drop claim", sql::kDropClaim},
    {"trim claims", sql::kTrimClaims},
    {"headers", sql::kHeaders},
};

void check_schema(connection& db, const std::string& path) {
  const std::int64_t application = db.integer("PRAGMA application_id");
  const std::int64_t version = db.integer("PRAGMA user_version");
  if (application != kApplicationId) {
    cannot_open(path, "it is a SQLite database of another program; name another file");
  }
  if (version > kSchemaVersion) {
    cannot_open(path, "it was made by a newer Leveret (schema " + std::to_string(version) + ", this one knows " +
                          std::to_string(kSchemaVersion) + "); use that version, or another file");
  }
  if (version < 1) cannot_open(path, "its schema version is " + std::to_string(version) + "; name another file");
}

void set_version(connection& db) { db.execute(("PRAGMA user_version = " + std::to_string(kSchemaVersion)).c_str()); }

/// Brings a file of an older Leveret up to date.
void upgrade(connection& db) {
  if (db.integer("PRAGMA user_version") >= kSchemaVersion) return;
  db.execute("BEGIN IMMEDIATE");
  // Another process may have been faster.
  const std::int64_t version = db.integer("PRAGMA user_version");
  if (version < kSchemaVersion) {
    if (version < 2) db.execute(kSchema2);
    if (version < 3) db.execute(kSchema3);
    db.execute(kSchema4);
    set_version(db);
  }
  db.execute("COMMIT");
}

bool empty(connection& db) {
  return db.integer("PRAGMA application_id") == 0 && db.integer("PRAGMA user_version") == 0 &&
         db.integer("SELECT count(*) FROM sqlite_schema") == 0;
}

void make_schema(connection& db, const std::string& path) {
  db.execute("BEGIN IMMEDIATE");
  // Another process may have been faster.
  if (empty(db)) {
    db.execute(kSchema);
    db.execute(kSchema2);
    db.execute(kSchema3);
    db.execute(kSchema4);
    db.execute(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str());
    set_version(db);
  } else {
    check_schema(db, path);
  }
  db.execute("COMMIT");
}

void configure(connection& db) {
  // Debian compiles SQLite with SECURE_DELETE, which overwrites every deleted body: five times the cost of a drain.
  db.execute("PRAGMA secure_delete = OFF");
  db.execute("PRAGMA cache_size = -16384");
  db.execute("PRAGMA mmap_size = 0");
  db.execute("PRAGMA temp_store = MEMORY");
}

}  // namespace

std::string corrupt_text(const std::string& path, const std::string& detail) {
  return "the file " + path + " is damaged or not a SQLite database (" + detail +
         "); it was left as it is: go back to a backup, or save what is readable with: leveret recover " + path;
}

namespace {

connection open_once(const location& at, int patience_ms) {
  connection db(at.path);
  db.busy_timeout(patience_ms);
  configure(db);
  // The page size counts only while the file is empty, and must be said before the log exists.
  if (empty(db)) {
    db.execute(("PRAGMA page_size = " + std::to_string(kPageSize)).c_str());
    const std::string mode = db.text("PRAGMA journal_mode = WAL");
    if (mode != "wal") cannot_open(at.path, "SQLite cannot use a write-ahead log there (it says \"" + mode + "\")");
    make_schema(db, at.path);
  } else {
    check_schema(db, at.path);
    if (db.text("PRAGMA journal_mode") != "wal") db.execute("PRAGMA journal_mode = WAL");
    upgrade(db);
  }
  db.execute("PRAGMA synchronous = FULL");
  db.busy_timeout(0);
  return db;
}

}  // namespace

connection open_database(const location& at, int patience_ms) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  while (true) {
    try {
      return open_once(at, patience_ms);
    } catch (const database_error& e) {
      // Two processes that both turn an empty file into a database get BUSY at once, to avoid a deadlock.
      if (e.busy() && std::chrono::steady_clock::now() < give_up) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        continue;
      }
      if (e.corrupt()) throw storage_failed("cannot open the SQLite file: " + corrupt_text(at.path, e.what()));
      if (e.busy()) {
        const std::string holder = describe_lock_holder(at.path, 0);
        throw broker_unavailable("cannot open the SQLite file " + at.path + ": it has been locked for " +
                                 std::to_string(patience_ms) + " ms" + (holder.empty() ? "" : " by " + holder) +
                                 "; let that program go on or end it");
      }
      if (e.disk_full()) cannot_open(at.path, std::string(e.what()) + "; free some space on its disk");
      cannot_open(at.path, e.what());
    }
  }
}

connection open_second(const location& at) {
  connection db(at.path);
  configure(db);
  db.execute("PRAGMA cache_size = -256");
  db.execute("PRAGMA synchronous = FULL");
  return db;
}

std::vector<std::pair<std::string, std::string>> query_plans(const std::string& path) {
  location at;
  at.path = path;
  prepare_file(at);
  connection db = open_database(at, 5000);
  std::vector<std::pair<std::string, std::string>> out;
  for (const named_sql& one : kHot) {
    statement s(db, (std::string("EXPLAIN QUERY PLAN ") + one.text).c_str());
    rows r = s.query();
    std::string plan;
    while (r.next()) plan += std::string(r.text(3)) + "\n";
    out.emplace_back(one.name, plan);
  }
  return out;
}

}  // namespace leveret::core::sqlite
