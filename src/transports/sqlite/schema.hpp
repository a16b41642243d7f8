/// What stands in a database file, and how one is opened, made and refused.
///
/// One table per state, so that nothing scans past rows of another state. A message is a row of `body` (its bytes,
/// never moved) and one narrow row of `ready`, `delayed` or `leased`, which is what moves:
///
///     publish    body + ready | delayed
///     due        delayed -> ready, at the end
///     claim      ready -> leased
///     release    leased -> ready, at its old place (seq)
///     settle     leased and body are deleted
///
///     state      one row: seq, the counter that places, message keys, results and owners are drawn from; never reused.
///                Who draws reserves many, and draws on until the row says that somebody else has reserved since
///     queue      name, and counts kept by every transaction that changes them, so that statistics cost one row
///     ready      (queue, seq): the queue's order
///     delayed    (due, msg)
///     leased     (owner, msg): `lease` is the fencing token: a settle must name it
///     body       msg; `id` is unique in its queue while the message is there, which makes a resend a no-op
///     result     n; by reply address in order of n, and by message id
///     dead       n; by queue in order of n
///     owner      a transport that holds leases: how others see whether it lives (bell.hpp)
///     consumer   subscriptions of an owner
///     cancelled  n; ids of jobs that are to end as cancelled where they are met
///     report     kind and id: what workers and jobs made known, the latest each
///     once       n; by key: the job that holds it (claim.hpp), or what a broker beside which this file keeps results
///                keeps there
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "transports/sqlite/database.hpp"
#include "transports/sqlite/location.hpp"

namespace leveret::core::sqlite {

inline constexpr std::int64_t kApplicationId = 0x4c767274;  // "Lvrt"
inline constexpr std::int64_t kSchemaVersion = 4;
/// Of the files that Leveret makes; docs/adr/0024 has what it costs and gives.
inline constexpr std::size_t kPageSize = 8192;

/// The statements that run per message or per wake; `store` prepares them under these names.
namespace sql {
inline constexpr const char* kLoadState = "SELECT seq, result_bytes FROM state WHERE one = 1";
inline constexpr const char* kSaveState = "UPDATE state SET seq = ?1, result_bytes = ?2 WHERE one = 1";
inline constexpr const char* kFindQueue = "SELECT queue FROM queue WHERE name = ?1";
inline constexpr const char* kAddQueue = "INSERT INTO queue(name) VALUES(?1)";
inline constexpr const char* kCount =
    "UPDATE queue SET ready = ready + ?2, ready_jobs = ready_jobs + ?3, delayed = delayed + ?4, "
    "running = running + ?5, dead = dead + ?6 WHERE queue = ?1";
inline constexpr const char* kAddBody =
    "INSERT INTO body(msg, queue, id, reply, priority, due, jobs, headers, data) "
    "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT(id, queue) DO NOTHING";
inline constexpr const char* kAddReady =
    "INSERT INTO ready(queue, seq, msg, jobs, bytes, returns) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
inline constexpr const char* kAddDelayed =
    "INSERT INTO delayed(due, msg, queue, jobs, bytes) VALUES(?1, ?2, ?3, ?4, ?5)";
inline constexpr const char* kFirstDue = "SELECT due FROM delayed ORDER BY due LIMIT 1";
inline constexpr const char* kDue =
    "SELECT due, msg, queue, jobs, bytes FROM delayed WHERE due <= ?1 ORDER BY due, msg LIMIT ?2";
inline constexpr const char* kDropDelayed = "DELETE FROM delayed WHERE due = ?1 AND msg = ?2";
inline constexpr const char* kFirstReady = "SELECT seq FROM ready WHERE queue = ?1 ORDER BY seq LIMIT 1";
inline constexpr const char* kRunning = "SELECT running FROM queue WHERE queue = ?1";
inline constexpr const char* kReady =
    "SELECT seq, msg, jobs, bytes, returns FROM ready WHERE queue = ?1 ORDER BY seq LIMIT ?2";
inline constexpr const char* kDropReady = "DELETE FROM ready WHERE queue = ?1 AND seq <= ?2";
inline constexpr const char* kAddLease =
    "INSERT INTO leased(owner, msg, lease, queue, seq, jobs, bytes, returns) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
inline constexpr const char* kHasLease = "SELECT 1 FROM leased WHERE owner = ?1 AND msg = ?2 AND lease = ?3";
inline constexpr const char* kDropLease = "DELETE FROM leased WHERE owner = ?1 AND msg = ?2 AND lease = ?3";
inline constexpr const char* kLeasesOf =
    "SELECT msg, queue, seq, jobs, bytes, returns FROM leased WHERE owner = ?1 ORDER BY msg LIMIT ?2";
inline constexpr const char* kDropLeaseOf = "DELETE FROM leased WHERE owner = ?1 AND msg = ?2";
inline constexpr const char* kDropBody = "DELETE FROM body WHERE msg = ?1";
inline constexpr const char* kBody =
    "SELECT id, reply, priority, due, jobs, headers, length(data) FROM body WHERE msg = ?1";
inline constexpr const char* kAddResult =
    "INSERT INTO result(n, reply, id, first_line, last_line, expires, data) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
inline constexpr const char* kResultsFor =
    "SELECT n, id, first_line, last_line, data FROM result WHERE reply = ?1 AND n > ?2 ORDER BY n LIMIT ?3";
inline constexpr const char* kResultsOf =
    "SELECT reply, id, first_line, last_line, data FROM result WHERE id = ?1 ORDER BY n";
inline constexpr const char* kOldestResults = "SELECT n, expires, length(data) FROM result ORDER BY n LIMIT ?1";
inline constexpr const char* kDropResult = "DELETE FROM result WHERE n = ?1";
inline constexpr const char* kAddDead = "INSERT INTO dead(n, queue, id, record) VALUES(?1, ?2, ?3, ?4)";
inline constexpr const char* kDead = "SELECT n, id, record FROM dead WHERE queue = ?1 AND n > ?2 ORDER BY n LIMIT ?3";
inline constexpr const char* kOldestDead = "SELECT n FROM dead WHERE queue = ?1 ORDER BY n LIMIT ?2";
inline constexpr const char* kDropDead = "DELETE FROM dead WHERE n = ?1";
inline constexpr const char* kReadyUpTo =
    "SELECT seq, msg, jobs FROM ready WHERE queue = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
inline constexpr const char* kDelayedAfter =
    "SELECT due, msg, queue FROM delayed WHERE (due, msg) > (?1, ?2) ORDER BY due, msg LIMIT ?3";
inline constexpr const char* kAddOwner =
    "INSERT INTO owner(owner, pid, boot, bell, slot, nonce, lease_ms, name) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
inline constexpr const char* kMoveOwner = "UPDATE owner SET bell = ?2, slot = ?3, nonce = ?4 WHERE owner = ?1";
inline constexpr const char* kHasOwner = "SELECT 1 FROM owner WHERE owner = ?1";
inline constexpr const char* kDropOwner = "DELETE FROM owner WHERE owner = ?1";
inline constexpr const char* kOwners = "SELECT owner, boot, bell, slot, nonce, lease_ms FROM owner";
inline constexpr const char* kSetConsumer =
    "INSERT INTO consumer(owner, queue, count) VALUES(?1, ?2, ?3) ON CONFLICT(owner, queue) DO UPDATE SET count = ?3";
inline constexpr const char* kDropConsumer = "DELETE FROM consumer WHERE owner = ?1 AND queue = ?2";
inline constexpr const char* kDropConsumersOf = "DELETE FROM consumer WHERE owner = ?1";
inline constexpr const char* kConsumers =
    "SELECT c.queue, c.count, o.boot, o.bell, o.slot, o.nonce FROM consumer c JOIN owner o USING(owner)";
inline constexpr const char* kQueues =
    "SELECT queue, name, ready, ready_jobs, delayed, running, dead FROM queue ORDER BY name";
inline constexpr const char* kOneQueue =
    "SELECT queue, name, ready, ready_jobs, delayed, running, dead FROM queue WHERE name = ?1";
inline constexpr const char* kWhereIs = "SELECT msg, queue, jobs, reply, due FROM body WHERE id = ?1";
inline constexpr const char* kIsLeased = "SELECT 1 FROM leased WHERE msg = ?1";
inline constexpr const char* kReadyPlace = "SELECT seq FROM ready WHERE queue = ?1 AND seq = ?2 AND msg = ?2";
inline constexpr const char* kReadySearch = "SELECT seq FROM ready WHERE queue = ?1 AND msg = ?2";
inline constexpr const char* kDropOneReady = "DELETE FROM ready WHERE queue = ?1 AND seq = ?2";
inline constexpr const char* kAddCancelled =
    "INSERT INTO cancelled(n, id, expires, terminate) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(id) DO UPDATE "
    "SET expires = ?3, terminate = max(terminate, ?4), n = CASE WHEN ?4 THEN ?1 ELSE n END";
inline constexpr const char* kCancelledAfter =
    "SELECT n, id, terminate FROM cancelled WHERE n > ?1 ORDER BY n LIMIT ?2";
inline constexpr const char* kTrimCancelled = "DELETE FROM cancelled WHERE expires <= ?1";
inline constexpr const char* kSetReport =
    "INSERT INTO report(kind, id, time, expires, body) VALUES(?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT(kind, id) DO UPDATE SET time = ?3, expires = ?4, body = ?5";
inline constexpr const char* kReports =
    "SELECT id, time, body FROM report WHERE kind = ?1 AND expires > ?2 ORDER BY id";
inline constexpr const char* kOneReport =
    "SELECT id, time, body FROM report WHERE kind = ?1 AND id = ?3 AND expires > ?2";
inline constexpr const char* kTrimReports = "DELETE FROM report WHERE expires <= ?1";
inline constexpr const char* kReadyAfter =
    "SELECT seq, msg, bytes FROM ready WHERE queue = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
inline constexpr const char* kDelayedOf =
    "SELECT due, msg, bytes FROM delayed WHERE queue = ?1 AND (due, msg) > (?2, ?3) ORDER BY due, msg LIMIT ?4";
inline constexpr const char* kLeasedAfter =
    "SELECT seq, msg, bytes FROM leased WHERE queue = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
inline constexpr const char* kHolder = "SELECT value FROM once WHERE key = ?1 AND expires > ?2";
inline constexpr const char* kAddClaim =
    "INSERT INTO once(n, key, value, expires) VALUES(?1, ?2, ?3, ?4) "
    "ON CONFLICT(key) DO UPDATE SET value = ?3, expires = ?4";
inline constexpr const char* kChangeClaim = "UPDATE once SET value = ?2 WHERE key = ?1";
inline constexpr const char* kDropClaim = "DELETE FROM once WHERE key = ?1 AND value = ?2";
inline constexpr const char* kTrimClaims =
    "DELETE FROM once WHERE n IN (SELECT n FROM once WHERE expires <= ?1 LIMIT 2)";
inline constexpr const char* kHeaders = "SELECT headers FROM body WHERE msg = ?1 AND length(headers) > 0";
inline constexpr const char* kQueueName = "SELECT name FROM queue WHERE queue = ?1";
}  // namespace sql

/// Opens the file and makes or checks its schema. Waits up to `patience_ms` for other processes that do the same.
/// Throws storage_failed, or broker_unavailable if it stays locked.
[[nodiscard]] connection open_database(const location& at, int patience_ms);
/// Another connection to the same file, for checkpoints.
[[nodiscard]] connection open_second(const location& at);

/// EXPLAIN QUERY PLAN of every statement above that runs per message or per wake, on an empty database at `path`: name
/// and plan. So that a test can say that none of them scans.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> query_plans(const std::string& path);

/// The sentence for a damaged file.
[[nodiscard]] std::string corrupt_text(const std::string& path, const std::string& detail);

}  // namespace leveret::core::sqlite
