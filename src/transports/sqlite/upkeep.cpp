#include "transports/sqlite/upkeep.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <leveret/error.hpp>
#include <memory>
#include <optional>
#include <set>

#include "transports/sqlite/database.hpp"
#include "transports/sqlite/location.hpp"
#include "transports/sqlite/pages.hpp"
#include "transports/sqlite/salvage.hpp"
#include "transports/sqlite/schema.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr int kPatienceMs = 10'000;
constexpr std::size_t kMostSentences = 20;
constexpr std::uint64_t kRowsAtOnce = 1000;
constexpr std::size_t kBytesAtOnce = 8u << 20;

// A file that nobody has seen yet is synced once, at its end.
constexpr const char* kSyncLater = "PRAGMA synchronous = OFF";

// SQLite's bytes of locks: those who read or write the file, and "somebody has the log's index open".
constexpr off_t kSharedFirst = 0x40000002;
constexpr off_t kSharedSize = 510;
constexpr off_t kIndexInUse = 128;

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string absolute(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  if (real == nullptr) throw storage_failed("cannot find " + path + ": " + std::strerror(errno));
  return real.get();
}

void sync_folder(const std::string& path) {
  const int fd = ::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void sync_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::fsync(fd) != 0) {
    const int code = errno;
    if (fd >= 0) ::close(fd);
    throw storage_failed("cannot write " + path + ": " + std::strerror(code));
  }
  ::close(fd);
}

/// The process that has a lock on the bytes; 0: none.
pid_t locked_by(const std::string& path, off_t first, off_t size) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return 0;
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = first;
  lock.l_len = size;
  const bool asked = ::fcntl(fd, F_GETLK, &lock) == 0;
  ::close(fd);
  if (!asked || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid > 0 ? lock.l_pid : -1;
}

/// Whether this process has the file open: to open and close it once more would drop its locks.
bool open_here(const std::string& path) {
  const auto close = [](DIR* d) { ::closedir(d); };
  const std::unique_ptr<DIR, decltype(close)> all(::opendir("/proc/self/fd"), close);
  if (all == nullptr) return false;
  char target[4096];
  while (const dirent* entry = ::readdir(all.get())) {
    const ssize_t size = ::readlinkat(::dirfd(all.get()), entry->d_name, target, sizeof target);
    if (size > 0 && std::string_view(target, static_cast<std::size_t>(size)) == path) return true;
  }
  return false;
}

/// The other process that has the database open; 0: none.
pid_t user_of(const std::string& path) {
  const pid_t user = locked_by(path + "-shm", kIndexInUse, 1);
  return user != 0 ? user : locked_by(path, kSharedFirst, kSharedSize);
}

void check_unused(const std::string& path) {
  const std::string doing = "cannot recover " + path + ": ";
  if (open_here(path)) throw storage_failed(doing + "this program has it open; close it first");
  const pid_t user = user_of(path);
  if (user == 0) return;
  throw storage_failed(doing + (user > 0 ? "process " + std::to_string(user) : std::string("another program")) +
                       " is using it; end workers and producers first");
}

/// A database that is made under another name beside `path`, and takes it when it is whole.
class new_file {
 public:
  explicit new_file(const std::string& path)
      : path_(absolute(folder_of(path)) + "/" + path.substr(path.rfind('/') + 1)), partial_(path_ + "-partial") {
    struct stat about{};
    if (::lstat(path.c_str(), &about) == 0) {
      throw storage_failed("cannot make " + path + ": there is a file of that name; name a new one, or move it away");
    }
    remove();
  }
  ~new_file() {
    if (!done_) remove();
  }
  new_file(const new_file&) = delete;
  new_file& operator=(const new_file&) = delete;

  /// Where to write.
  [[nodiscard]] const std::string& partial() const { return partial_; }

  /// After its last connection was closed, with nothing left in its log.
  void finish() {
    sync_file(partial_);
    // A link, not a rename: it takes no other file's name away.
    if (::link(partial_.c_str(), path_.c_str()) != 0) {
      throw storage_failed("cannot make " + path_ + ": " + std::strerror(errno));
    }
    done_ = true;
    remove();
    sync_folder(path_);
  }

 private:
  void remove() const {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((partial_ + suffix).c_str());
  }

  std::string path_;
  std::string partial_;
  bool done_ = false;
};

[[noreturn]] void failed(const std::string& doing, const database_error& e) {
  throw storage_failed(doing + ": " + e.what());
}

/// Empties the log of a file that nobody else knows of, so that it is one file alone.
void end_log(connection& db) {
  if (sqlite3_wal_checkpoint_v2(db.handle(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) != SQLITE_OK) {
    db.fail(sqlite3_extended_errcode(db.handle()), "cannot write it");
  }
}

/// Puts the counts right, by what is there.
constexpr const char* kRecount =
    "UPDATE queue SET ready = (SELECT count(*) FROM ready r WHERE r.queue = queue.queue), "
    "ready_jobs = (SELECT coalesce(sum(jobs), 0) FROM ready r WHERE r.queue = queue.queue), "
    "delayed = (SELECT count(*) FROM delayed d WHERE d.queue = queue.queue), "
    "running = (SELECT count(*) FROM leased l WHERE l.queue = queue.queue), "
    "dead = (SELECT count(*) FROM dead d WHERE d.queue = queue.queue);"
    "UPDATE state SET result_bytes = (SELECT coalesce(sum(length(data)), 0) FROM result)";

class rebuild {
 public:
  rebuild(page_file& pages, salvage& from, connection& to, const progress_report& progress)
      : pages_(pages), from_(from), to_(to), progress_(progress), next_(from.highest()) {}

  recovered run() {
    for (const table t : {table::body, table::dead, table::result, table::cancelled, table::once})
      total_ += from_.rows_of(t).size();
    to_.execute("BEGIN IMMEDIATE");
    bodies();
    dead();
    results();
    cancelled();
    claims();
    lost();
    statement state(to_, "UPDATE state SET seq = ?1");
    state.run(next_);
    to_.execute(kRecount);
    to_.execute("COMMIT");
    out_.pages = pages_.count();
    out_.unreadable_pages = from_.unreadable_pages();
    out_.lost_rows += from_.lost_rows();
    out_.damage = from_.damage();
    return std::move(out_);
  }

 private:
  using kept_row = salvage::kept_row;
  using placed = salvage::placed;

  void step(std::size_t bytes) {
    bytes_ += bytes;
    if (++done_ % kRowsAtOnce != 0 && bytes_ < kBytesAtOnce) return;
    bytes_ = 0;
    to_.execute("COMMIT");
    if (progress_) progress_(done_, total_);
    to_.execute("BEGIN IMMEDIATE");
  }

  std::int64_t queue(std::int64_t key) {
    if (const auto found = queues_.find(key); found != queues_.end()) return found->second;
    const auto name = from_.queues().find(key);
    statement add(to_, "INSERT INTO queue(queue, name) VALUES(?1, ?2) ON CONFLICT DO NOTHING");
    const std::string lost_name = "recovered-" + std::to_string(key);
    if (add.run(key, name != from_.queues().end() ? name->second : lost_name) == 0) add.run(key, lost_name);
    return queues_[key] = key;
  }

  void bodies() {
    for (const auto& [key, name] : from_.queues()) queue(key);
    statement add(to_, sql::kAddBody);
    // First those that are certain, lest one that is not takes an id from them.
    for (const bool reached : {true, false}) {
      for (const auto& [msg, kept] : from_.rows_of(table::body)) {
        if (kept.reached == reached) body(add, msg, kept);
      }
    }
  }

  void body(statement& add, std::int64_t msg, const kept_row& kept) {
    const auto found = from_.places().find(msg);
    const bool has_place = found != from_.places().end();
    const bool places_whole = from_.whole(table::ready) && from_.whole(table::delayed) && from_.whole(table::leased);
    // A page that was freed, or so it seems: the message has ended.
    if (!kept.reached && !has_place && places_whole && kept.at.page <= pages_.count()) return;
    const auto r = pages_.read(kept.at);
    if (!r) return;
    const placed where = has_place ? found->second : placed{(*r)[1].number, msg, 0, placed::kind::ready, false};
    const std::int64_t q = queue(where.queue);
    const std::string& data = (*r)[8].bytes;
    std::int64_t jobs = (*r)[6].number;
    if (jobs != 0) {
      jobs = std::count(data.begin(), data.end(), '\n') + (!data.empty() && data.back() != '\n' ? 1 : 0);
    }
    if (add.run(msg, q, (*r)[2].bytes, (*r)[3].bytes, (*r)[4].number, (*r)[5].number, jobs, blob_view{(*r)[7].bytes},
                blob_view{data}) == 0) {
      return;  // its id is there: a message that was stored twice
    }
    const auto bytes = static_cast<std::int64_t>(data.size());
    if (where.what == placed::kind::delayed) {
      if (!delayed_) delayed_.emplace(to_, sql::kAddDelayed);
      delayed_->run(where.seq, msg, q, jobs, bytes);
      ++out_.delayed;
    } else {
      ready(q, where, msg, jobs, bytes);
      ++out_.waiting;
      if (where.what == placed::kind::leased) ++out_.running;
      if (!has_place) ++out_.unplaced;
    }
    out_.jobs += static_cast<std::uint64_t>(jobs);
    saved_.insert(msg);
    step(data.size());
  }

  void ready(std::int64_t q, const placed& where, std::int64_t msg, std::int64_t jobs, std::int64_t bytes) {
    if (!ready_) {
      ready_.emplace(to_,
                     "INSERT INTO ready(queue, seq, msg, jobs, bytes, returns) VALUES(?1, ?2, ?3, ?4, ?5, ?6) "
                     "ON CONFLICT DO NOTHING");
    }
    if (ready_->run(q, where.seq, msg, jobs, bytes, where.returns) == 0) {
      ready_->run(q, ++next_, msg, jobs, bytes, where.returns);
    }
  }

  void dead() {
    statement add(to_, sql::kAddDead);
    for (const auto& [n, kept] : from_.rows_of(table::dead)) {
      const auto r = pages_.read(kept.at);
      if (!r) continue;
      add.run(n, queue((*r)[1].number), (*r)[2].bytes, (*r)[3].bytes);
      ++out_.dead;
      step((*r)[3].bytes.size());
    }
  }

  void results() {
    statement add(to_, sql::kAddResult);
    for (const auto& [n, kept] : from_.rows_of(table::result)) {
      const auto r = pages_.read(kept.at);
      if (!r) continue;
      add.run(n, (*r)[1].bytes, (*r)[2].bytes, (*r)[3].number, (*r)[4].number, (*r)[5].number,
              blob_view{(*r)[6].bytes});
      ++out_.results;
      step((*r)[6].bytes.size());
    }
  }

  void cancelled() {
    statement add(to_, sql::kAddCancelled);
    for (const auto& [n, kept] : from_.rows_of(table::cancelled)) {
      const auto r = pages_.read(kept.at);
      if (!r) continue;
      add.run(n, (*r)[1].bytes, (*r)[2].number, r->size() > 3 ? (*r)[3].number : std::int64_t{0});
      ++out_.cancelled;
      step(0);
    }
  }

  void claims() {
    statement add(to_, sql::kAddClaim);
    for (const auto& [n, kept] : from_.rows_of(table::once)) {
      const auto r = pages_.read(kept.at);
      // A page that was freed has claims that were let go: held again, they would have sends refused.
      if (!r || !kept.reached) continue;
      add.run(n, (*r)[1].bytes, (*r)[2].bytes, (*r)[3].number);
      step(0);
    }
  }

  /// Messages of which a place or an id is left, and no body.
  void lost() {
    std::set<std::int64_t> keys;
    for (const auto& [msg, place] : from_.places()) {
      if (place.reached && saved_.count(msg) == 0) keys.insert(msg);
    }
    if (!from_.whole(table::body)) {
      for (const auto& [msg, id] : from_.ids()) {
        if (saved_.count(msg) == 0 && from_.places().count(msg) != 0) keys.insert(msg);
      }
    }
    for (const std::int64_t msg : keys) {
      const auto place = from_.places().find(msg);
      const auto id = from_.ids().find(msg);
      const auto name = place == from_.places().end() ? from_.queues().end() : from_.queues().find(place->second.queue);
      out_.lost.push_back({name == from_.queues().end() ? std::string() : name->second,
                           id == from_.ids().end() ? std::string() : id->second});
    }
  }

  page_file& pages_;
  salvage& from_;
  connection& to_;
  const progress_report& progress_;
  std::int64_t next_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
  std::size_t bytes_ = 0;
  std::map<std::int64_t, std::int64_t> queues_;
  std::set<std::int64_t> saved_;
  std::optional<statement> ready_;
  std::optional<statement> delayed_;
  recovered out_;
};

struct check {
  const char* sql;   // a number, 0 if all is well
  const char* what;  // said behind it
};
constexpr check kChecks[] = {
    {"SELECT count(*) FROM body b WHERE NOT EXISTS (SELECT 1 FROM ready r WHERE r.msg = b.msg AND r.queue = b.queue) "
     "AND b.msg NOT IN (SELECT msg FROM delayed) AND b.msg NOT IN (SELECT msg FROM leased)",
     " messages stand in no queue"},
    {"SELECT (SELECT count(*) FROM ready WHERE msg NOT IN (SELECT msg FROM body)) + "
     "(SELECT count(*) FROM delayed WHERE msg NOT IN (SELECT msg FROM body)) + "
     "(SELECT count(*) FROM leased WHERE msg NOT IN (SELECT msg FROM body))",
     " places in queues have lost their message"},
    {"SELECT count(*) FROM (SELECT msg FROM ready UNION ALL SELECT msg FROM delayed UNION ALL SELECT msg FROM leased) "
     "GROUP BY msg HAVING count(*) > 1",
     " messages stand in more than one place"},
    {"SELECT count(*) FROM body b WHERE length(data) <> coalesce((SELECT bytes FROM ready r WHERE r.msg = b.msg AND "
     "r.queue = b.queue), (SELECT bytes FROM delayed d WHERE d.msg = b.msg), "
     "(SELECT bytes FROM leased l WHERE l.msg = b.msg), length(data))",
     " messages have another length than they had"},
    {"SELECT count(*) FROM queue q WHERE ready <> (SELECT count(*) FROM ready r WHERE r.queue = q.queue) OR "
     "delayed <> (SELECT count(*) FROM delayed d WHERE d.queue = q.queue) OR "
     "running <> (SELECT count(*) FROM leased l WHERE l.queue = q.queue) OR "
     "dead <> (SELECT count(*) FROM dead d WHERE d.queue = q.queue)",
     " queues have wrong counts"},
    {"SELECT count(*) FROM (SELECT max(seq) AS most FROM state) WHERE most IS NULL OR most < "
     "max(coalesce((SELECT max(msg) FROM body), 0), coalesce((SELECT max(n) FROM result), 0), "
     "coalesce((SELECT max(n) FROM dead), 0), coalesce((SELECT max(n) FROM once), 0))",
     " counter of keys is behind: new jobs would take the place of old ones"},
};

}  // namespace

file_state examine(const std::string& path) {
  file_state out;
  location at;
  at.path = path;
  prepare_file(at);
  struct stat about{};
  if (::stat(at.path.c_str(), &about) == 0) out.bytes = static_cast<std::uint64_t>(about.st_size);
  if (out.bytes > 0 && !open_here(at.path) && user_of(at.path) == 0) {
    const log_state log = look_at_log(at.path);
    if (log.header_damaged) out.notes.emplace_back("the head of the write-ahead log is damaged");
    if (log.behind > 0) {
      out.notes.push_back("the write-ahead log is damaged, with " + std::to_string(log.behind) +
                          " pages behind the place (a power cut leaves that too, of what was not accepted yet)");
    }
  }
  connection db = open_database(at, kPatienceMs);
  db.busy_timeout(kPatienceMs);
  const auto note = [&out](std::string sentence) {
    if (out.damage.size() < kMostSentences) out.damage.push_back(std::move(sentence));
  };
  try {
    // One snapshot for all of it.
    db.execute("BEGIN");
    statement integrity(db, "PRAGMA integrity_check(20)");
    for (rows r = integrity.query(); r.next();) {
      if (r.text(0) != "ok") note(std::string(r.text(0)));
    }
    for (const check& c : kChecks) {
      if (const std::int64_t wrong = db.integer(c.sql); wrong != 0) note(std::to_string(wrong) + c.what);
    }
    db.execute("COMMIT");
  } catch (const database_error& e) {
    note(e.what());
  }
  return out;
}

void back_up(const std::string& from, const std::string& to, const progress_report& progress) {
  const std::string doing = "cannot back up " + from + " to " + to;
  location at;
  at.path = absolute(from);
  prepare_file(at);
  new_file target(to);
  try {
    connection db = open_database(at, kPatienceMs);
    db.busy_timeout(kPatienceMs);
    if (progress) progress(0, 2);
    // A read transaction: writers go on beside it.
    statement copy(db, "VACUUM INTO ?1");
    copy.run(std::string_view(target.partial()));
  } catch (const database_error& e) {
    if (e.corrupt()) throw storage_failed(doing + ": " + corrupt_text(at.path, e.what()));
    failed(doing, e);
  }
  if (progress) progress(1, 2);
  try {
    ::chmod(target.partial().c_str(), 0600);
    location copied;
    copied.path = target.partial();
    connection db = open_database(copied, kPatienceMs);
    db.busy_timeout(kPatienceMs);
    db.execute(kSyncLater);
    db.execute("BEGIN IMMEDIATE");
    db.execute(
        "INSERT INTO ready(queue, seq, msg, jobs, bytes, returns) "
        "SELECT queue, seq, msg, jobs, bytes, returns FROM leased; DELETE FROM leased; DELETE FROM owner; "
        "DELETE FROM consumer; DELETE FROM report");
    db.execute(kRecount);
    db.execute("COMMIT");
    end_log(db);
  } catch (const database_error& e) {
    failed(doing, e);
  }
  target.finish();
  if (progress) progress(2, 2);
}

recovered recover(const std::string& from, const std::string& to, const progress_report& progress) {
  const std::string path = absolute(from);
  struct stat about{};
  if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
    throw storage_failed("cannot recover " + path + ": it is not an ordinary file");
  }
  check_unused(path);
  new_file target(to);
  page_file pages(path);
  salvage rows_of(pages);
  rows_of.run(progress);
  location at;
  at.path = target.partial();
  recovered out;
  try {
    prepare_file(at);
    connection db = open_database(at, kPatienceMs);
    db.busy_timeout(kPatienceMs);
    db.execute(kSyncLater);
    out = rebuild(pages, rows_of, db, progress).run();
    end_log(db);
  } catch (const database_error& e) {
    failed("cannot recover " + path + " to " + to, e);
  }
  target.finish();
  return out;
}

}  // namespace leveret::core::sqlite
