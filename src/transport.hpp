/// The seam between Leveret and a broker. Message-level: a transport knows nothing of tasks, arguments or retries.
///
/// Threads: every function may be called from any thread. Only `open_transport` and `close` block; everything else
/// returns at once and completes by a callback on the loop. Every callback is called exactly once, also after a lost
/// connection and at `close` (with errc::closed). A callback may call the transport.
///
/// A transport is accepted when tests/conformance passes on it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <leveret/error.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loop.hpp"
#include "message.hpp"

namespace leveret::core {

/// What went wrong, as a value: the loop never throws. `text` says operation, object, cause and remedy.
struct failure {
  errc code = errc::storage;
  std::string text;
};
using maybe_failure = std::optional<failure>;

struct capabilities {
  bool delivery_count = true;  ///< `delivery::returns` is known
  bool fetch = false;          ///< results can be looked up by message id, from any process
  bool list_queues = false;
  bool browse_live = false;      ///< ready and delayed messages can be listed without taking them
  bool job_reports = false;      ///< progress of jobs is `known` to any process
  bool exactly_one_end = false;  ///< a late settle is fenced (RabbitMQ: the sender keeps the first result)
  bool claims = false;           ///< messages may claim keys (claim.hpp)
};

enum class health_state { connected, connecting, blocked, failed, closed };
struct health {
  health_state state = health_state::connected;
  std::string detail;  ///< for people: what is waited for, since when
};

struct limits {
  std::uint32_t prefetch_messages = 64;
  std::uint64_t prefetch_bytes = 32ull << 20;
  std::size_t max_message_bytes = 1u << 20;  ///< larger ones are refused at publish
  std::uint32_t confirm_window_messages = 1000;
  std::uint64_t confirm_window_bytes = 4ull << 20;
  std::chrono::milliseconds heartbeat{10'000};
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds reconnect_min{100};
  std::chrono::milliseconds reconnect_max{10'000};
  std::chrono::milliseconds lease{30'000};
  std::chrono::milliseconds sending_lease{10'000};  ///< see store_claims.hpp
  std::chrono::milliseconds renew{10'000};
  std::chrono::milliseconds ack_flush{10};
  std::uint32_t ack_flush_messages = 32;  ///< SQLite; RabbitMQ: an eighth of the prefetch, at most 128
  std::uint32_t ack_flush_commits = 8;  ///< SQLite: nor longer than so many synced commits take; 0: regardless of them
  std::chrono::seconds result_ttl{86'400};
  std::uint64_t result_cap_bytes = 1ull << 30;
  std::uint64_t seed = 0;   ///< for jitter; 0: from the system's random source
  std::string client_name;  ///< shown to operators; empty: host, pid
};

struct queue_stats {
  std::string queue;
  std::uint64_t ready = 0;                  ///< messages waiting
  std::optional<std::uint64_t> ready_jobs;  ///< jobs in them, where the broker can tell
  std::optional<std::uint64_t> delayed;     ///< messages not due yet
  std::optional<std::uint64_t> running;     ///< messages handed out
  std::optional<std::uint64_t> dead;        ///< dead jobs kept (RabbitMQ: messages of the dead queue)
  std::optional<std::uint64_t> consumers;
};

/// `publish`'s answer for one message.
enum class publish_status {
  accepted,  ///< durable
  refused,   ///< certainly not stored
  unknown    ///< no answer before the deadline or close; publish again with the same id
};
struct publish_outcome {
  publish_status status = publish_status::unknown;
  failure why;  ///< not for accepted
  /// Accepted: the key that the message claims is another job's, this one's, and the message was not stored.
  std::string existing;
};

enum class settle_status {
  settled,
  fenced,  ///< the delivery was lost meanwhile and is somebody else's: nothing was done (see capabilities)
  failed   ///< not acknowledged, and nothing else is certain; still this consumer's: settle it again, or release it
};
struct settle_outcome {
  settle_status status = settle_status::settled;
  std::string why;
};

using subscription_id = std::uint64_t;

struct window {
  std::uint32_t messages = 64;
  std::uint64_t bytes = 32ull << 20;  ///< at least one message is always handed out
  /// What `messages` will be at most after any resize; 0: as it is now. A broker's prefetch follows this one, since
  /// changing a prefetch gives messages back, and RabbitMQ counts each return.
  std::uint32_t most = 0;
};

/// Events of a subscription, on the loop.
struct subscriber {
  std::function<void(delivery)> on_delivery;
  /// These deliveries are no longer this consumer's (connection lost, lease expired). Settling them answers `fenced`.
  std::function<void(std::vector<delivery_token>)> on_lost;
  /// The subscription ended for good (queue deleted and not to be made again, closed).
  std::function<void(failure)> on_ended;
};

/// One entry of `browse`: a dead job's record (`dead_job::record`'s form, made from what the broker kept).
struct browse_entry {
  std::string cursor;  ///< pass the last one to go on after it
  std::string id;
  std::string queue;
  std::string record;
};
struct browse_page {
  std::vector<browse_entry> entries;
  bool more = false;
};

/// Where a message is, for `browse`.
enum class message_state { ready, delayed, running };

struct browse_query {
  std::string queue;
  message_state state = message_state::ready;
  std::string id;      ///< that message alone; empty: all
  std::string cursor;  ///< of an earlier page's last entry; empty: from the start
  std::size_t limit = 100;
};
struct browsed_message {
  std::string cursor;
  message msg;
};
/// Less than `limit` where the bodies are large; `more` says whether something follows.
struct message_page {
  std::vector<browsed_message> entries;
  bool more = false;
};

/// What is to become of a dead job.
struct dead_fate {
  bool stays = true;
  std::optional<message> publish;  ///< in its place, if it does not stay
};
/// Called on a thread of the transport's, perhaps again for the same entry when a transaction is repeated: it must not
/// block and must not count.
using dead_decision = std::function<dead_fate(const browse_entry&)>;

/// A job that is to end as cancelled.
struct cancellation {
  std::string id;          ///< the job's
  std::string message_id;  ///< of its first message, and its line there
  std::uint32_t line = 0;
  std::string result;      ///< the contract's result line that says so
  bool terminate = false;  ///< the process of a worker's pool that runs it is to be killed
};
/// A cancelled job, as workers are told of it.
struct cancelled_job {
  std::string id;
  bool terminate = false;
};
enum class cancel_outcome {
  ended,  ///< it waited: it is gone, or will be skipped, and its result is stored
  asked   ///< workers are told: one that has not started it yet ends it as cancelled
};

/// A fact that any process of the broker may want to know: of a kind and id, the latest counts.
struct report {
  std::string kind;
  std::string id;
  std::string body;   ///< JSON
  std::string reply;  ///< progress: the address of the job's sender, for brokers without a store
  unix_ms time = 0;   ///< when it was stored
  std::chrono::milliseconds ttl{60'000};
};
inline constexpr const char* kReportWorker = "worker";      ///< id: the worker's name
inline constexpr const char* kReportProgress = "progress";  ///< id: the job's

/// What `exchange` does to a key.
struct exchanged_value {
  std::string key;
  std::string expected;
  std::string value;
  std::chrono::milliseconds ttl{0};
};

class transport {
 public:
  template <class T>
  using reply = std::function<void(T, maybe_failure)>;
  using done = std::function<void(maybe_failure)>;

  transport() = default;
  transport(const transport&) = delete;
  transport& operator=(const transport&) = delete;
  virtual ~transport() = default;

  [[nodiscard]] virtual capabilities what_it_can() const = 0;
  [[nodiscard]] virtual health how_it_is() const = 0;
  /// The absolute path or host, for messages; never a password.
  [[nodiscard]] virtual std::string where() const = 0;

  /// Makes sure that `queue` exists. One that exists is used as it is. `ours` is false for a queue that was found with
  /// other properties than Leveret declares (RabbitMQ: classic, other arguments).
  struct declared {
    bool ours = true;
  };
  virtual void declare(const std::string& queue, reply<declared> then) = 0;

  /// Unknown queue: errc::not_found. Empty `queue`: all (where list_queues), else unsupported.
  virtual void stats(const std::string& queue, reply<std::vector<queue_stats>> then) = 0;
  /// Dead jobs of `queue`, oldest first, after `cursor` (empty: from the start).
  virtual void browse_dead(const std::string& queue, const std::string& cursor, std::size_t limit,
                           reply<browse_page> then) = 0;
  /// Removes everything that waits in `queue` (ready and, where it can tell, delayed); `queue`.dead names the dead
  /// jobs. Gives the number of messages (dead: records) removed.
  virtual void purge(const std::string& queue, reply<std::uint64_t> then) = 0;
  /// Whether this user may declare, publish to and consume a queue of such a name; a trial that leaves nothing behind.
  /// errc::refused names what is not allowed. A broker without users: nothing to refuse.
  virtual void check_access(const std::string& queue, done then) = 0;

  /// Stores messages; each has an id. The queue must exist: one that does not is `refused`. Messages of one call to one
  /// queue keep their order. Answers no later than `deadline`, in the order given. With the capability `claims` a
  /// message that claims a key (claim.hpp) takes it, or is not stored: that key's job comes back as `existing`.
  virtual void publish(std::vector<message> messages, loop::clock::time_point deadline,
                       std::function<void(std::vector<publish_outcome>)> then) = 0;

  /// Calls `hand_over`, which publishes, for a caller that does nothing but wait for the answer: a transport may do
  /// that work here and now, on the caller's thread, callbacks included, instead of waking a thread of its own. Blocks
  /// as long as it takes. The caller holds no lock that a callback takes.
  virtual void lend_thread(const std::function<void()>& hand_over) { hand_over(); }

  /// Hands out messages of `queue` in order, never more than `w` at once. An unknown queue: on_ended(not_found).
  virtual subscription_id subscribe(const std::string& queue, window w, subscriber events) = 0;
  virtual void resize(subscription_id id, window w) = 0;
  /// No on_delivery after `then`; what was handed out stays so until settled or released.
  virtual void unsubscribe(subscription_id id, done then) = 0;

  /// Ends deliveries. In one transaction each (SQLite), or everything in it confirmed and then acknowledged (RabbitMQ).
  /// Answers in the order given.
  virtual void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) = 0;
  /// Gives deliveries back to their places in the queue, uncharged where the broker allows.
  virtual void release(std::vector<delivery_token> tokens, done then) = 0;

  /// Hands over result chunks stored for the address `reply`, those already there first. Unwatched results stay where
  /// they are (and are kept for result_ttl). A chunk of no lines (first_line 0) is a job's progress: `id` is the job's,
  /// `data` the report's body (brokers without a store). The callback is called on the loop until `unwatch`.
  virtual void watch(const std::string& reply, std::function<void(result_chunk)> on_result, done then) = 0;
  virtual void unwatch(const std::string& reply, done then) = 0;
  /// A fresh reply address, durable before `then` is called.
  virtual void make_reply(reply<std::string> then) = 0;
  /// Result chunks by message id, from any process; without the capability errc::unsupported.
  virtual void fetch(std::vector<std::string> message_ids, reply<std::vector<result_chunk>> then) = 0;

  /// Stores results that are nobody's to watch, for `fetch`; durable when `then` is called. Without the capability
  /// errc::unsupported.
  virtual void keep_results(std::vector<result_chunk> results, done then) = 0;
  /// For a transport that is, or has, the store beside a broker: where the value of a key is `expected` it becomes
  /// `value`, for `ttl` if it was empty before. Empty stands for none. Gives the value that is there then. By default
  /// errc::unsupported.
  virtual void exchange(exchanged_value what, reply<std::string> then);

  // ---- for people and for other processes ----

  /// Messages that wait or run, in order; without `browse_live` errc::unsupported.
  virtual void browse(browse_query query, reply<message_page> then) = 0;
  /// Goes once through the dead jobs of `queue`, oldest first, and does with each what `decide` says. A job leaves in
  /// the transaction that publishes what takes its place (RabbitMQ: that is confirmed first). Gives how many left.
  virtual void revise_dead(const std::string& queue, dead_decision decide, reply<std::uint64_t> then) = 0;
  /// Has jobs end as cancelled; answers in the order given. Durable when `then` is called.
  virtual void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) = 0;
  /// Calls `on_cancelled` on the loop for every cancelled job: those of before, then (`then` is called) those that
  /// come. Of a job that was cancelled before its delivery it is called before on_delivery. A job may be told twice.
  /// Once a transport.
  virtual void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) = 0;
  /// Makes a fact known; it may be lost in a crash.
  virtual void make_known(report r, done then) = 0;
  /// The facts of a kind that are not over; empty `id`: all. RabbitMQ knows those of workers alone.
  virtual void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) = 0;

  /// Blocks: no new work, waits until what was accepted is done or `deadline`, then ends all threads; unsettled
  /// deliveries go back. Every open callback has been posted when it returns. Idempotent. Not on the loop's thread.
  virtual void close(loop::clock::time_point deadline) = 0;
};

/// Opens `url` (`memory://[name]`, `sqlite:///path`, `amqp://`, `amqps://`, these two with `?results=` and a
/// store's url: results_store.hpp). Blocks until connected (RabbitMQ: at most
/// limits.connect_timeout). Throws `error` (broker_unavailable, storage) or std::invalid_argument for a bad url. `loop`
/// must outlive the transport.
[[nodiscard]] std::unique_ptr<transport> open_transport(const std::string& url, loop& l, const limits& lim);

/// One each, called by open_transport.
[[nodiscard]] std::unique_ptr<transport> open_memory(const std::string& url, loop& l, const limits& lim);
[[nodiscard]] std::unique_ptr<transport> open_sqlite(const std::string& url, loop& l, const limits& lim);
[[nodiscard]] std::unique_ptr<transport> open_rabbitmq(const std::string& url, loop& l, const limits& lim);

/// The url for people: the absolute path or host, the password never. Throws std::invalid_argument for a url that is
/// none.
[[nodiscard]] std::string display_url(const std::string& url);

/// Throws std::invalid_argument unless `name` is a queue name: 1 to 128 bytes of letters, digits, '.', '_', '-', ':';
/// not reserved by its suffix ('.dead', '.suspects', '.ordered').
void check_queue_name(const std::string& name);

}  // namespace leveret::core
