#include "transports/sqlite/store.hpp"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "faults.hpp"
#include "ordered.hpp"
#include "transports/sqlite/schema.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr int kReadPatienceMs = 1000;
constexpr std::int64_t kCheckpointBytes = 8 << 20;
/// Numbers drawn from the file at once. A commit that draws none leaves the page of `state` alone: a fifth of what a
/// small commit writes.
constexpr std::int64_t kReserve = 1024;
constexpr std::int64_t kCheckpointAgain = 8;  // after one that could not copy all: this part of it more

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

/// Headers as a BLOB: for each, the name's length (u32, little endian), the name, the value's length, the value.
void put_string(std::string& out, const std::string& s) {
  const auto size = static_cast<std::uint32_t>(s.size());
  for (unsigned shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>((size >> shift) & 0xffu));
  out += s;
}

std::string encode_headers(const std::vector<header>& headers) {
  std::string out;
  for (const header& h : headers) {
    put_string(out, h.name);
    put_string(out, h.value);
  }
  return out;
}

bool take_string(std::string_view& from, std::string& out) {
  if (from.size() < 4) return false;
  std::uint32_t size = 0;
  for (unsigned i = 0; i < 4; ++i) size |= static_cast<std::uint32_t>(static_cast<unsigned char>(from[i])) << (8 * i);
  from.remove_prefix(4);
  if (from.size() < size) return false;
  out.assign(from.substr(0, size));
  from.remove_prefix(size);
  return true;
}

}  // namespace

std::vector<header> decode_headers(std::string_view blob) {
  std::vector<header> out;
  header h;
  while (take_string(blob, h.name) && take_string(blob, h.value)) out.push_back(h);
  return out;
}

store::store(const location& at, store_options options)
    : db_(open_database(at, options.patience_ms)),
      second_(open_second(at)),
      options_(std::move(options)),
      boot_(boot_id()),
      durability_(at.how),
      random_(options_.seed != 0 ? options_.seed : std::random_device()()) {
  db_.busy_timeout(kReadPatienceMs);
  db_.count_wal_pages();
  page_size_ = db_.integer("PRAGMA page_size");
  checkpoint_bytes_ = faults::threshold("LEVERET_CHECKPOINT_BYTES", kCheckpointBytes);
  const std::pair<statement*, const char*> all[] = {
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&begin_read_, "BEGIN"},
      {&end_read_, "COMMIT"},
      {&load_state_, sql::kLoadState},
      {&save_state_, sql::kSaveState},
      {&find_queue_, sql::kFindQueue},
      {&add_queue_, sql::kAddQueue},
      {&count_, sql::kCount},
      {&add_body_, sql::kAddBody},
      {&add_ready_, sql::kAddReady},
      {&add_delayed_, sql::kAddDelayed},
      {&first_due_, sql::kFirstDue},
      {&due_, sql::kDue},
      {&drop_delayed_, sql::kDropDelayed},
      {&first_ready_, sql::kFirstReady},
      {&running_, sql::kRunning},
      {&ready_, sql::kReady},
      {&drop_ready_, sql::kDropReady},
      {&add_lease_, sql::kAddLease},
      {&has_lease_, sql::kHasLease},
      {&drop_lease_, sql::kDropLease},
      {&leases_of_, sql::kLeasesOf},
      {&drop_lease_of_, sql::kDropLeaseOf},
      {&drop_body_, sql::kDropBody},
      {&body_, sql::kBody},
      {&add_result_, sql::kAddResult},
      {&results_for_, sql::kResultsFor},
      {&results_of_, sql::kResultsOf},
      {&oldest_results_, sql::kOldestResults},
      {&drop_result_, sql::kDropResult},
      {&add_dead_, sql::kAddDead},
      {&dead_, sql::kDead},
      {&oldest_dead_, sql::kOldestDead},
      {&drop_dead_, sql::kDropDead},
      {&ready_up_to_, sql::kReadyUpTo},
      {&delayed_after_, sql::kDelayedAfter},
      {&add_owner_, sql::kAddOwner},
      {&move_owner_, sql::kMoveOwner},
      {&has_owner_, sql::kHasOwner},
      {&drop_owner_, sql::kDropOwner},
      {&owners_, sql::kOwners},
      {&set_consumer_, sql::kSetConsumer},
      {&drop_consumer_, sql::kDropConsumer},
      {&drop_consumers_of_, sql::kDropConsumersOf},
      {&consumers_, sql::kConsumers},
      {&all_queues_, sql::kQueues},
      {&one_queue_, sql::kOneQueue},
      {&where_is_, sql::kWhereIs},
      {&is_leased_, sql::kIsLeased},
      {&ready_place_, sql::kReadyPlace},
      {&ready_search_, sql::kReadySearch},
      {&drop_one_ready_, sql::kDropOneReady},
      {&add_cancelled_, sql::kAddCancelled},
      {&cancelled_after_, sql::kCancelledAfter},
      {&trim_cancelled_, sql::kTrimCancelled},
      {&set_report_, sql::kSetReport},
      {&reports_, sql::kReports},
      {&one_report_, sql::kOneReport},
      {&trim_reports_, sql::kTrimReports},
      {&ready_after_, sql::kReadyAfter},
      {&delayed_of_, sql::kDelayedOf},
      {&leased_after_, sql::kLeasedAfter},
      {&queue_name_, sql::kQueueName},
      {&holder_, sql::kHolder},
      {&add_claim_, sql::kAddClaim},
      {&change_claim_, sql::kChangeClaim},
      {&drop_claim_, sql::kDropClaim},
      {&trim_claims_, sql::kTrimClaims},
      {&headers_, sql::kHeaders},
  };
  for (const auto& [made, text] : all) {
    *made = statement(db_, text);
    statements_.push_back(made);
  }
}

void store::close() noexcept {
  for (statement* s : statements_) *s = statement();
  second_.close();
  db_.close();
}

bool store::begin(bool full) {
  const bool sync = full && durability_ == durability::full;
  if (sync != synced_) {
    db_.execute(sync ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
    synced_ = sync;
  }
  committing_ = false;
  if (log_doubtful_ && !renew_log()) return false;
  // The caller waits by itself, so that it can say for whom; reads let SQLite wait (for a log being recovered).
  db_.busy_timeout(0);
  const int code = begin_.try_run();
  db_.busy_timeout(kReadPatienceMs);
  if (is_busy(code)) return false;
  if (code != SQLITE_OK) db_.fail(code, "cannot begin a transaction");
  return true;
}

void store::commit() {
  for (const auto& [queue, t] : tallies_) count_.run(queue, t.ready, t.ready_jobs, t.delayed, t.running, t.dead);
  if (state_changed_) save_state_.run(seq_end_, result_bytes_);
  committing_ = true;
  try {
    commit_.run();
  } catch (const database_error& e) {
    log_doubtful_ = log_doubtful_ || e.sync_failed();
    throw;
  }
  committing_ = false;
  tallies_.clear();
  declared_.clear();
  state_loaded_ = state_changed_ = false;
}

void store::rollback() noexcept {
  tallies_.clear();
  state_loaded_ = state_changed_ = false;
  seq_ = seq_end_ = -1;  // the reservation may have been rolled back too
  for (const std::string& name : declared_) {
    ordered_.erase(queues_[name]);
    queues_.erase(name);
  }
  declared_.clear();
  rings_ = 0;
  // SQLite rolls back by itself after some errors.
  if (db_.in_transaction()) sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void store::begin_read() { begin_read_.run(); }

void store::end_read() noexcept {
  if (db_.in_transaction()) sqlite3_exec(db_.handle(), "COMMIT", nullptr, nullptr, nullptr);
}

void store::checkpoint_if_needed() {
  const std::int64_t bytes = db_.wal_pages() * page_size_;
  if (bytes < checkpoint_bytes_) {
    checkpointed_at_ = 0;
    return;
  }
  if (checkpointed_at_ != 0 &&
      (db_.wal_pages() - checkpointed_at_) * page_size_ < checkpoint_bytes_ / kCheckpointAgain &&
      db_.wal_pages() >= checkpointed_at_) {
    return;
  }
  try_checkpoint();
}

void store::try_checkpoint() noexcept {
  // The WAL-reset race (SQLite before 3.51.3): a checkpoint must not run while another connection restarts the log. The
  // write lock of db_ keeps every writer out while second_ copies.
  if (!faults::skips(faults::point::checkpoint_lock)) {
    db_.busy_timeout(0);
    const int code = begin_.try_run();
    db_.busy_timeout(kReadPatienceMs);
    if (code != SQLITE_OK) return;
  }
  try {
    second_.checkpoint();
  } catch (const database_error& e) {
    log_doubtful_ = log_doubtful_ || e.sync_failed();
    // Full or failing disk: the log stays, the next try comes when it has grown further.
  }
  checkpointed_at_ = db_.wal_pages();
  if (db_.in_transaction()) sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

bool store::renew_log() {
  // Once an fsync has failed, Linux takes what it could not write for written: commits that were not synced yet may
  // miss on the disk, and none behind them would be found after a power cut, synced or not. So all of the log goes into
  // the file, which is synced, and the log begins again. TRUNCATE takes the write lock itself before it reads the log's
  // header, so the checkpoint rule needs no second connection.
  const int code = sqlite3_wal_checkpoint_v2(second_.handle(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  if (is_busy(code)) return false;
  if (code != SQLITE_OK) second_.fail(code, "cannot write the log anew after a failed fsync");
  log_doubtful_ = false;
  return true;
}

void store::load_state() {
  if (state_loaded_) return;
  rows r = load_state_.query();
  if (!r.next()) throw database_error(SQLITE_CORRUPT, "SQLite: the table state has no row");
  const std::int64_t end = r.integer(0);
  // New keys are counted up from it, and no use of a file comes near its half.
  if (end < 0 || end > INT64_MAX / 2) throw database_error(SQLITE_CORRUPT, "SQLite: the table state has no counter");
  // Somebody else has reserved numbers since, and may have used them: ours would come before theirs.
  if (end != seq_end_) seq_ = seq_end_ = end;
  result_bytes_ = r.count(1);
  state_loaded_ = true;
}

std::int64_t store::next_seq() {
  load_state();
  if (seq_ == seq_end_) reserve();
  return ++seq_;
}

std::int64_t store::last_seq() {
  load_state();
  const std::int64_t last = seq_end_;
  seq_ = seq_end_;
  reserve();
  return last;
}

void store::reserve() {
  seq_end_ += kReserve;
  state_changed_ = true;
}

std::optional<queue_key> store::find_queue(const std::string& name) {
  if (const auto found = queues_.find(name); found != queues_.end()) return found->second;
  rows r = find_queue_.query(name);
  if (!r.next()) return std::nullopt;
  know(name, r.integer(0));
  return queues_[name];
}

void store::know(const std::string& name, queue_key queue) {
  queues_[name] = queue;
  if (is_ordered(name)) ordered_.insert(queue);
}

queue_key store::declare(const std::string& name) {
  if (const auto found = find_queue(name)) return *found;
  add_queue_.run(name);
  declared_.push_back(name);
  know(name, sqlite3_last_insert_rowid(db_.handle()));
  return queues_[name];
}

void store::publish(const message& m, queue_key queue, unix_ms now) {
  const message_key msg = next_seq();
  const auto bytes = static_cast<std::int64_t>(m.data.size());
  const auto jobs = static_cast<std::int64_t>(m.jobs);
  const std::string headers = encode_headers(m.headers);
  if (add_body_.run(msg, queue, m.id, m.reply, static_cast<std::int64_t>(m.priority), m.due, jobs, blob_view{headers},
                    blob_view{m.data.view()}) == 0) {
    return;
  }
  tally& t = tallies_[queue];
  if (m.due > now) {
    add_delayed_.run(m.due, msg, queue, jobs, bytes);
    ++t.delayed;
  } else {
    add_ready_.run(queue, msg, msg, jobs, bytes, std::int64_t{0});
    ++t.ready;
    t.ready_jobs += jobs;
  }
  // A delayed one rings too: the consumer sets its timer.
  rings_ |= queue_interest(queue);
}

std::size_t store::move_due(unix_ms now, std::size_t limit) {
  struct row {
    std::int64_t due, msg, queue, jobs, bytes;
  };
  std::vector<row> found;
  {
    rows r = due_.query(now, static_cast<std::int64_t>(limit));
    while (r.next()) found.push_back({r.integer(0), r.integer(1), r.integer(2), r.count(3), r.count(4)});
  }
  for (const row& d : found) {
    drop_delayed_.run(d.due, d.msg);
    add_ready_.run(d.queue, next_seq(), d.msg, d.jobs, d.bytes, std::int64_t{0});
    tally& t = tallies_[d.queue];
    --t.delayed;
    ++t.ready;
    t.ready_jobs += d.jobs;
    rings_ |= queue_interest(d.queue);
  }
  return found.size();
}

std::optional<unix_ms> store::first_due() {
  rows r = first_due_.query();
  if (!r.next()) return std::nullopt;
  return r.integer(0);
}

// An ordered queue of which a message is out. The counts are exact: each changes in the transaction that it counts.
bool store::is_held_back(queue_key queue) {
  if (ordered_.count(queue) == 0) return false;
  const auto uncommitted = tallies_.find(queue);
  rows r = running_.query(queue);
  return (r.next() ? r.integer(0) : 0) + (uncommitted == tallies_.end() ? 0 : uncommitted->second.running) > 0;
}

bool store::has_ready(queue_key queue) {
  if (is_held_back(queue)) return false;
  rows r = first_ready_.query(queue);
  return r.next();
}

std::vector<lease> store::claim(owner_key owner, queue_key queue, std::size_t messages, std::uint64_t bytes,
                                bool one_at_least, bool& more) {
  std::vector<lease> out;
  more = false;
  if (is_held_back(queue)) return out;
  if (ordered_.count(queue) != 0) messages = std::min<std::size_t>(messages, 1);
  std::uint64_t taken = 0;
  {
    rows r = ready_.query(queue, static_cast<std::int64_t>(messages) + 1);
    while (r.next()) {
      lease l;
      l.queue = queue;
      l.seq = r.integer(0);
      l.msg = r.integer(1);
      l.jobs = r.count(2);
      l.bytes = r.count(3);
      l.returns = std::min<std::int64_t>(r.count(4), kMostReturns);
      if (out.size() == messages ||
          ((!out.empty() || !one_at_least) && taken + static_cast<std::uint64_t>(l.bytes) > bytes)) {
        more = true;
        break;
      }
      taken += static_cast<std::uint64_t>(l.bytes);
      // Random and not counted: a claim need not write the state row.
      l.number = static_cast<std::int64_t>(random_() >> 1);
      out.push_back(l);
    }
  }
  if (out.empty()) return out;
  drop_ready_.run(queue, out.back().seq);
  tally& t = tallies_[queue];
  for (const lease& l : out) {
    add_lease_.run(owner, l.msg, l.number, queue, l.seq, l.jobs, l.bytes, l.returns);
    --t.ready;
    t.ready_jobs -= l.jobs;
    ++t.running;
  }
  return out;
}

bool store::holds(owner_key owner, const lease& l) {
  rows r = has_lease_.query(owner, l.msg, l.number);
  return r.next();
}

bool store::end(owner_key owner, const lease& l) {
  if (drop_lease_.run(owner, l.msg, l.number) == 0) return false;
  drop_body_.run(l.msg);
  --tallies_[l.queue].running;
  if (ordered_.count(l.queue) != 0) rings_ |= queue_interest(l.queue);  // another's turn, perhaps
  return true;
}

void store::return_row(const lease& l, bool charge) {
  add_ready_.run(l.queue, l.seq, l.msg, l.jobs, l.bytes, l.returns + (charge ? 1 : 0));
  tally& t = tallies_[l.queue];
  --t.running;
  ++t.ready;
  t.ready_jobs += l.jobs;
  rings_ |= queue_interest(l.queue);
}

bool store::give_back(owner_key owner, const lease& l, bool charge) {
  if (drop_lease_.run(owner, l.msg, l.number) == 0) return false;
  return_row(l, charge);
  return true;
}

std::vector<message> store::read_bodies(const std::vector<lease>& leases) {
  std::vector<message> out;
  out.reserve(leases.size());
  blob_reader data(db_, "body", "data");
  for (const lease& l : leases) {
    message m;
    std::size_t size = 0;
    {
      rows r = body_.query(l.msg);
      if (!r.next()) throw database_error(SQLITE_CORRUPT, "SQLite: a leased message has no body");
      m.id = r.text(0);
      m.reply = r.text(1);
      m.priority = static_cast<std::uint8_t>(r.integer(2));
      m.due = r.integer(3);
      m.jobs = static_cast<std::uint32_t>(std::min<std::int64_t>(r.count(4), UINT32_MAX));
      m.headers = decode_headers(r.blob(5));
      size = static_cast<std::size_t>(r.count(6));
    }
    m.data = body::uninitialized(size);
    if (size > 0) data.read(l.msg, m.data.writable(), size);
    out.push_back(std::move(m));
  }
  return out;
}

}  // namespace leveret::core::sqlite
