/// The memory transport: a broker inside the process, for tests, embedded workers and `memory://` demos. The reference
/// of the seam: what the others do over a file or a wire is done here in one step.
///
/// `memory://name` (and `memory://`, the one without a name) is one broker for the whole process. Its contents live as
/// long as any transport of that name is open and are gone at the last close.
///
/// Rules where the seam leaves room:
///  - A queue's order is a sequence number, given when a message is stored or becomes due; a delivery that goes back
///    goes to its old place. A message too large for every consumer's window waits, and those behind it too.
///  - Due times go by the wall clock of the loop that asks (the consumer's), so that a manual_loop decides.
///  - A message published again with the same id to the same queue is stored once: as long as it exists, and for the
///  last
///    kRememberedIds that ended.
///  - Results that their watcher had stay for `fetch`, see result_store.
///
/// Threads: one mutex per broker, under which every decision is made and every callback is put into the outbox of its
/// transport; so callbacks come in the order of the decisions. The outbox is emptied on the loop, without the mutex.
/// Lock order: the list of brokers, a broker, a loop's own.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "claim.hpp"
#include "transport.hpp"
#include "transports/memory/claims.hpp"
#include "transports/memory/result_store.hpp"

namespace leveret::core::memory {

inline constexpr std::size_t kRememberedIds = 65'536;

struct connection;
struct queue;

struct stored {
  message msg;
  std::uint64_t place = 0;  // in the queue
  std::int32_t returns = 0;
  bool handed_out = false;  // ever
  bool id_noted = false;    // its id is in broker::ids
};
using stored_ptr = std::unique_ptr<stored>;

struct subscription {
  connection* owner = nullptr;
  queue* from = nullptr;
  window most;
  subscriber events;  // never changed: read on the loop without the mutex
  std::uint32_t held = 0;
  std::uint64_t held_bytes = 0;
};
using subscription_ptr = std::shared_ptr<subscription>;

// A message handed out. Its subscription may have ended meanwhile.
struct lease {
  stored_ptr what;
  subscription_ptr by;
  bool seen = false;  // on_delivery was called
};

struct queue {
  std::string name;
  std::map<std::uint64_t, stored_ptr> ready;   // by place
  std::multimap<unix_ms, stored_ptr> delayed;  // by due time, then in the order stored
  std::uint64_t ready_jobs = 0;
  std::uint64_t ready_uncounted = 0;  // ready messages whose number of jobs nobody knows
  std::uint64_t running = 0;
  std::vector<subscription_ptr> consumers;
  std::size_t next = 0;  // whose turn it is
};

struct watcher {
  connection* owner = nullptr;
  std::shared_ptr<std::function<void(result_chunk)>> on_result;
};

struct dead_entry {
  std::uint64_t number = 0;
  dead_job job;
};

struct listener {
  connection* owner = nullptr;
  std::shared_ptr<std::function<void(cancelled_job)>> on_cancelled;
};

struct kept_report {
  report what;
  unix_ms expires = 0;
};

struct broker {
  explicit broker(std::string its_url) : url(std::move(its_url)) {}

  const std::string url;
  std::mutex mutex;
  std::map<std::string, queue> queues;  // never erased: pointers stay good
  std::map<std::string, std::deque<dead_entry>> dead;
  std::unordered_map<std::string, watcher> watchers;
  std::vector<cancelled_job> cancelled;                                // in the order cancelled
  std::unordered_set<std::string> cancelled_ids;                       // their ids
  std::vector<listener> listeners;                                     // of cancelled jobs
  std::map<std::pair<std::string, std::string>, kept_report> reports;  // by kind and id
  result_store results;
  claims claimed;
  std::unordered_set<std::string> ids;       // queue and id of messages that exist or ended lately
  std::deque<const std::string*> ended_ids;  // into `ids`, in the order ended
  std::uint64_t last_place = 0;
  std::uint64_t last_token = 0;
  std::uint64_t last_dead = 0;
};

// What a transport object leaves on its loop: it outlives the object as long as callbacks are posted. Everything but
// `killed` is guarded by the broker's mutex.
struct connection : std::enable_shared_from_this<connection> {
  connection(std::shared_ptr<broker> b, loop& its_loop, limits its_limits)
      : at(std::move(b)), l(its_loop), lim(std::move(its_limits)) {}

  // Calls `t` on the loop, after everything given here before. What it owns is never destroyed under the mutex.
  void call(loop::task t);
  void drain();

  const std::shared_ptr<broker> at;
  loop& l;
  const limits lim;
  bool open = true;
  std::atomic<bool> killed{false};
  std::vector<loop::task> outbox;
  bool drain_posted = false;
  subscription_id last_subscription = 0;
  std::map<subscription_id, subscription_ptr> subscriptions;
  std::unordered_map<delivery_token, lease> leases;
  unix_ms timer_due = 0;  // what the timer waits for; 0: there is none
  loop::timer_id timer = 0;
  std::uint64_t timer_number = 0;  // a timer that could not be cancelled any more is known by an older one
};

// Queues that a call changed, each once, in the order of the changes (never by address: a run must be repeatable).
class touched_queues {
 public:
  void add(queue& q) {
    if (std::find(queues_.begin(), queues_.end(), &q) == queues_.end()) queues_.push_back(&q);
  }
  [[nodiscard]] const std::vector<queue*>& all() const noexcept { return queues_; }

 private:
  std::vector<queue*> queues_;
};

// ---- decisions, all under the broker's mutex ----

[[nodiscard]] queue* find_queue(broker& b, const std::string& name);
[[nodiscard]] failure no_such_queue(const broker& b, const std::string& what, const std::string& name);
[[nodiscard]] failure is_closed(const broker& b, const std::string& what);

// Hands out what is ready to the consumers that have room, in turn.
void hand_out(broker& b, queue& q, unix_ms now);
void hand_out(broker& b, const touched_queues& queues, unix_ms now);

/// `at_any_rate`: also if the key that it claims is another job's.
[[nodiscard]] publish_outcome accept(connection& c, message m, unix_ms now, touched_queues& touched,
                                     bool at_any_rate = false);
[[nodiscard]] settle_outcome settle_one(connection& c, settlement& s, unix_ms now, touched_queues& touched);

using lease_place = std::unordered_map<delivery_token, lease>::iterator;
// Puts a delivery back to its old place. Gives its queue, which has something to hand out now.
queue& give_back(connection& c, lease_place which, bool charged);
void give_back_all(connection& c, bool charged, touched_queues& touched);

// Removes a message that waits.
void take_away(broker& b, queue& q, std::map<std::uint64_t, stored_ptr>::iterator which);
void take_away(broker& b, queue& q, std::multimap<unix_ms, stored_ptr>::iterator which);
void store_result(connection& c, result_chunk chunk, unix_ms now);

void remove_consumer(queue& q, const subscription& s);
[[nodiscard]] queue_stats stats_of(broker& b, queue& q, unix_ms now);
[[nodiscard]] message_page browse(broker& b, queue& q, const browse_query& query, std::uint64_t after, unix_ms now);
// Does what `decide` says with each dead job. Gives how many left; adds the queues that got something.
std::uint64_t revise_dead(connection& c, const std::string& name, const dead_decision& decide, unix_ms now,
                          touched_queues& touched);
[[nodiscard]] cancel_outcome cancel(connection& c, const cancellation& job, unix_ms now);
void drop_reports(broker& b, unix_ms now);

// Removes what waits, gives the number of messages.
std::uint64_t purge(broker& b, queue& q);

}  // namespace leveret::core::memory
