/// The database's content in the words of the seam: each function is a step of a transaction that `writer` begins and
/// commits. One thread. Throws database_error.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "message.hpp"
#include "transport.hpp"
#include "transports/sqlite/bell.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/location.hpp"

namespace leveret::core::sqlite {

using queue_key = std::int64_t;
using message_key = std::int64_t;
using owner_key = std::int64_t;

/// As many returns as a delivery can say.
inline constexpr std::int64_t kMostReturns = INT32_MAX;

/// A row of `leased`: everything needed to give the message back without looking.
struct lease {
  message_key msg = 0;
  std::int64_t number = 0;  ///< the fencing token
  queue_key queue = 0;
  std::int64_t seq = 0;
  std::int64_t jobs = 0;
  std::int64_t bytes = 0;
  std::int64_t returns = 0;
};

struct store_options {
  std::chrono::milliseconds lease{30'000};
  std::chrono::seconds result_ttl{86'400};
  std::uint64_t result_cap_bytes = 1ull << 30;
  std::string client_name;
  std::uint64_t seed = 0;
  int patience_ms = 5000;  ///< for other processes while opening
};

/// Another transport that holds leases or subscriptions.
struct owner_row {
  owner_key owner = 0;
  std::string boot;
  seat_identity seat;
  std::chrono::milliseconds lease{0};
};

/// A purge in steps: what is left to look at.
struct purge_state {
  queue_key queue = 0;
  bool dead = false;
  std::int64_t ready_up_to = -1;  ///< what is published while it runs stays
  bool ready_done = false;
  std::int64_t delayed_due = INT64_MIN;
  std::int64_t delayed_msg = INT64_MIN;
  std::int64_t delayed_up_to = -1;  ///< message keys above it are newer than the purge
  std::uint64_t removed = 0;
};

/// A walk through the dead jobs of a queue, in steps.
struct revise_state {
  queue_key queue = 0;
  std::int64_t after = 0;
  std::int64_t up_to = -1;  ///< what dies while it runs stays
  std::uint64_t left = 0;   ///< how many left the list
};

/// Where a page of messages begins: behind these columns of its table.
struct browse_place {
  std::int64_t first = INT64_MIN;
  std::int64_t second = INT64_MIN;
};

/// What wakes those who watch for cancelled jobs; no reply address is called that.
inline constexpr const char* kCancelledBell = "leveret.cancelled";

/// Headers as the BLOB of `body.headers`.
[[nodiscard]] std::vector<header> decode_headers(std::string_view blob);

class store {
 public:
  store(const location& at, store_options options);

  /// Ends the connections; nothing else may follow.
  void close() noexcept;

  // Transactions.
  /// BEGIN IMMEDIATE. `full`: its commit survives a power cut. False: another connection holds the lock.
  [[nodiscard]] bool begin(bool full);
  void commit();
  void rollback() noexcept;
  /// Whether the running transaction's commit is, or the last one was, of those that survive a power cut.
  [[nodiscard]] bool synced() const noexcept { return synced_; }
  /// Whether the latest failure came out of COMMIT itself: what it wrote may come back after a crash.
  [[nodiscard]] bool failed_in_commit() const noexcept { return committing_; }
  /// Rings that the committed transaction owes.
  [[nodiscard]] std::uint64_t rings() const noexcept { return rings_; }
  [[nodiscard]] std::uint64_t take_rings() noexcept { return std::exchange(rings_, 0); }
  void begin_read();
  void end_read() noexcept;
  /// Copies the log into the file if it has grown by a threshold; call it while this process has the turn and no
  /// transaction.
  void checkpoint_if_needed();
  /// As above, whatever the size; nothing is thrown.
  void try_checkpoint() noexcept;

  // Queues.
  [[nodiscard]] std::optional<queue_key> find_queue(const std::string& name);
  queue_key declare(const std::string& name);

  // Messages.
  /// A message with an id that is there already is left alone: the resend of an unknown outcome.
  void publish(const message& m, queue_key queue, unix_ms now);
  /// Moves up to `limit` due messages into their queues. Gives how many.
  std::size_t move_due(unix_ms now, std::size_t limit);
  [[nodiscard]] std::optional<unix_ms> first_due();
  /// Whether something can be claimed.
  [[nodiscard]] bool has_ready(queue_key queue);
  /// Leases the head of the queue: up to `messages`, of up to `bytes` in all. `one_at_least`: the first whatever its
  /// size. `more`: there was more. Of an ordered queue one message, and none while anybody holds one.
  [[nodiscard]] std::vector<lease> claim(owner_key owner, queue_key queue, std::size_t messages, std::uint64_t bytes,
                                         bool one_at_least, bool& more);
  [[nodiscard]] bool holds(owner_key owner, const lease& l);
  /// Ends the message. False: the lease is no longer there (fenced).
  [[nodiscard]] bool end(owner_key owner, const lease& l);
  /// Back to its old place. `charge`: as an unclean return. False: fenced.
  bool give_back(owner_key owner, const lease& l, bool charge);
  /// Fills deliveries' messages from their bodies, in a read transaction.
  [[nodiscard]] std::vector<message> read_bodies(const std::vector<lease>& leases);

  // Results and dead jobs.
  void add_result(const result_chunk& r, unix_ms now);
  /// Drops results past their time or past the cap, the oldest first, in bounded steps. True: there may be more.
  bool trim_results(unix_ms now, std::size_t limit);
  [[nodiscard]] bool results_to_trim(unix_ms now);
  void add_dead(const dead_job& job);
  /// Results for an address after `cursor`, up to about `bytes`; moves the cursor.
  [[nodiscard]] std::vector<result_chunk> results_for(const std::string& reply, std::int64_t& cursor, std::size_t limit,
                                                      std::size_t bytes);
  [[nodiscard]] std::vector<result_chunk> results_of(const std::string& message_id);
  [[nodiscard]] browse_page dead_page(queue_key queue, const std::string& name, std::int64_t after, std::size_t limit);

  // Keys that jobs hold (store_claims.cpp).
  /// Takes the key that a message claims for its job. Gives the job that has it, if that is another one.
  [[nodiscard]] std::optional<std::string> find_other_holder(const message& m, unix_ms now);
  void let_go(const claimed_key& k);
  /// As transport::exchange.
  [[nodiscard]] std::string exchange(const exchanged_value& what, unix_ms now);

  // Owners.
  [[nodiscard]] owner_key add_owner(const seat_identity& seat);
  void move_owner(owner_key owner, const seat_identity& seat);
  [[nodiscard]] bool has_owner(owner_key owner);
  [[nodiscard]] std::vector<owner_row> owners();
  /// Gives back all its leases and forgets it. `charge`: its process died or stopped. Gives the number of messages.
  std::size_t remove_owner(owner_key owner, bool charge);
  void set_consumers(owner_key owner, queue_key queue, std::int64_t count);
  /// This boot of the machine; an owner of another boot is dead.
  [[nodiscard]] const std::string& boot() const noexcept { return boot_; }

  // Looking.
  /// Empty name: all queues. `here`: to see which consumers live.
  [[nodiscard]] std::vector<queue_stats> stats(const std::string& name, const seat& here);
  /// How many live consumers each queue has that has some.
  [[nodiscard]] std::map<queue_key, std::uint64_t> live_consumers(const seat& here);

  // Purging.
  /// One bounded step. False: done.
  [[nodiscard]] bool purge_step(purge_state& p);

  // Looking and changing by hand (store_control.cpp).
  /// One bounded step. False: done.
  [[nodiscard]] bool revise_step(revise_state& r, const std::string& name, const dead_decision& decide, unix_ms now);
  [[nodiscard]] cancel_outcome cancel(const cancellation& job, unix_ms now);
  /// Cancelled jobs after `cursor`, at most `limit`; moves the cursor.
  [[nodiscard]] std::vector<cancelled_job> cancelled_after(std::int64_t& cursor, std::size_t limit);
  void set_report(const report& r, unix_ms now);
  [[nodiscard]] std::vector<report> reports(const std::string& kind, const std::string& id, unix_ms now);
  /// Drops cancellations and reports that are over.
  void trim_control(unix_ms now);
  /// In a read transaction.
  [[nodiscard]] message_page browse(const browse_query& query, queue_key queue, const browse_place& after, unix_ms now,
                                    std::size_t bytes);

 private:
  struct tally {
    std::int64_t ready = 0;
    std::int64_t ready_jobs = 0;
    std::int64_t delayed = 0;
    std::int64_t running = 0;
    std::int64_t dead = 0;
  };

  /// Makes sure of all that was committed before an fsync failed. False: somebody reads or writes; try again.
  [[nodiscard]] bool renew_log();
  void load_state();
  std::int64_t next_seq();
  /// The last number that anybody has drawn: every later one, anybody's, is greater.
  std::int64_t last_seq();
  void reserve();
  void return_row(const lease& l, bool charge);
  void know(const std::string& name, queue_key queue);
  [[nodiscard]] bool is_held_back(queue_key queue);
  /// Before the body of a message that did not run is dropped.
  void let_go_of(message_key msg);
  bool remove_waiting(message_key msg, queue_key queue, unix_ms due, std::int64_t jobs);

  connection db_;
  connection second_;
  store_options options_;
  std::string boot_;
  durability durability_;
  std::mt19937_64 random_;
  bool synced_ = true;  // what PRAGMA synchronous says now
  bool committing_ = false;
  bool log_doubtful_ = false;  // an fsync failed, and nothing was made sure of since
  int checkpointed_at_ = 0;
  std::int64_t page_size_ = 4096;
  std::int64_t checkpoint_bytes_ = 0;
  std::uint64_t rings_ = 0;

  // What the running transaction holds back until its end.
  bool state_loaded_ = false;
  bool state_changed_ = false;
  // Numbers above seq_ up to seq_end_ are this store's as long as the file says seq_end_ too. -1: none.
  std::int64_t seq_ = -1;
  std::int64_t seq_end_ = -1;
  std::int64_t result_bytes_ = 0;
  std::map<queue_key, tally> tallies_;
  std::vector<std::string> declared_;

  std::unordered_map<std::string, queue_key> queues_;  // never forgotten: queues are not removed
  std::unordered_set<queue_key> ordered_;              // those of them that are

  std::vector<statement*> statements_;  // all of those below
  statement begin_, commit_, begin_read_, end_read_;
  statement load_state_, save_state_, find_queue_, add_queue_, count_;
  statement add_body_, add_ready_, add_delayed_, first_due_, due_, drop_delayed_, first_ready_, ready_, drop_ready_,
      running_;
  statement add_lease_, has_lease_, drop_lease_, leases_of_, drop_lease_of_, drop_body_, body_;
  statement add_result_, results_for_, results_of_, oldest_results_, drop_result_;
  statement add_dead_, dead_, oldest_dead_, drop_dead_, ready_up_to_, delayed_after_;
  statement add_owner_, move_owner_, has_owner_, drop_owner_, owners_, set_consumer_, drop_consumer_;
  statement drop_consumers_of_, consumers_, all_queues_, one_queue_;
  statement where_is_, is_leased_, ready_place_, ready_search_, drop_one_ready_, add_cancelled_, cancelled_after_;
  statement trim_cancelled_, set_report_, reports_, one_report_, trim_reports_, ready_after_, delayed_of_;
  statement leased_after_, queue_name_;
  statement holder_, add_claim_, change_claim_, drop_claim_, trim_claims_, headers_;
};

}  // namespace leveret::core::sqlite
