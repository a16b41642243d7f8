/// The producing side: publishes messages, waits for results, asks about queues. Blocking and thread-safe; used by the
/// Python package and by the C++ producer.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "coalescer.hpp"
#include "loop.hpp"
#include "transport.hpp"

namespace leveret::core {

struct client_options {
  limits lim;
  std::chrono::milliseconds publish_deadline{30'000};
  std::size_t batch_bytes = 64u << 10;
  /// How long a job that is sent alone waits for others to share its message with.
  std::chrono::microseconds linger{0};
  /// Whether somebody will ask for results of what is sent here: else what comes is not kept for him.
  bool takes_results = true;
  /// Called with every message before it is published, on the publishing thread; with one that claims a key when it is
  /// stored, on the loop. For tests.
  std::function<void(const message&)> on_publish;
};

/// Where a job that was sent alone is: perhaps with others.
struct sent_job {
  published message;
  std::uint32_t line = 0;  ///< from 1
  /// Not empty: nothing was stored, for this job is there already, by the key that the other one claimed.
  std::string existing;
};

class batch_publisher;
class ordered_batch;

class client {
 public:
  using clock = std::chrono::steady_clock;

  /// Opens the transport. Throws as open_transport.
  explicit client(const std::string& url, client_options options = {});
  ~client();
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  [[nodiscard]] std::string where() const;
  [[nodiscard]] capabilities what_it_can() const;
  [[nodiscard]] health how_it_is() const;

  /// Publishes `lines` (NDJSON, `jobs` lines, each ended by a newline) as one message and waits until it is accepted.
  /// Declares the queue at first use. Throws broker_unavailable, publish_refused, publish_unknown, closed.
  published publish(const envelope& e, std::string_view lines, std::uint32_t jobs);

  /// Publishes one line (ended by a newline) and waits until it is accepted. Jobs of one queue and `group` that are
  /// sent at the same time share messages (coalescer.hpp); results of a message are given to whoever asks first, so who
  /// wants results chooses groups that ask together. Throws as `publish`, and unsupported for a claim where the broker
  /// keeps no keys.
  sent_job send(const envelope& e, std::string_view group, std::string_view line);
  /// As `send`, without waiting: `then` is called on a thread of the client's, with what `send` would throw, or null.
  /// Throws closed.
  void send_soon(const envelope& e, std::string_view group, std::string_view line,
                 std::function<void(sent_job, std::exception_ptr)> then);

  [[nodiscard]] std::unique_ptr<batch_publisher> start_batch(const envelope& e);
  /// As `start_batch`, for jobs with keys: to the ordered queues of `e.queue` (ordered_publisher.hpp).
  [[nodiscard]] std::unique_ptr<ordered_batch> start_ordered_batch(const envelope& e);

  /// Result chunks of these messages that have come since the last call: waits for the first until `deadline`. Empty:
  /// the deadline passed. A chunk is given once. Throws broker_unavailable, closed.
  [[nodiscard]] std::vector<result_chunk> take_results(const std::vector<std::string>& message_ids,
                                                       clock::time_point deadline);
  /// Results of these messages are wanted no longer: what came is dropped, what comes later too.
  void forget_results(const std::vector<std::string>& message_ids);

  /// Results by message id from any process (transports with `fetch`). Throws unsupported.
  [[nodiscard]] std::vector<result_chunk> fetch_results(const std::vector<std::string>& message_ids);

  void declare(const std::string& queue);
  [[nodiscard]] std::vector<queue_stats> stats(const std::string& queue);
  [[nodiscard]] browse_page dead(const std::string& queue, const std::string& cursor, std::size_t limit);
  [[nodiscard]] std::uint64_t purge(const std::string& queue);
  /// Throws refused, with what the user of the url may not do with a queue of such a name.
  void check_access(const std::string& queue);
  /// Messages that wait or run. Throws unsupported, not_found.
  [[nodiscard]] message_page browse(const browse_query& query);
  /// Puts dead jobs back into `queue`, each with its id, its retries from 0 on, and nobody waiting for its result; all
  /// of them, or those of `ids`. One that no worker would take (malformed) stays. Gives how many went. Throws
  /// not_found.
  [[nodiscard]] std::uint64_t replay(const std::string& queue, const std::vector<std::string>& ids, bool all);
  /// Removes dead jobs for good: all of them, or those of `ids`. Gives how many. Throws not_found.
  [[nodiscard]] std::uint64_t drop_dead(const std::string& queue, const std::vector<std::string>& ids, bool all);
  /// Has jobs end as cancelled; gives in the order of `job_ids` whether each ended at once. Throws
  /// std::invalid_argument for what is no job's id, unsupported.
  [[nodiscard]] std::vector<bool> cancel(const std::vector<std::string>& job_ids, bool terminate = false);
  /// The latest progress of a job, a JSON object; empty: none is known. On brokers without a store only of jobs that
  /// this client sent, as far as it has come by now.
  [[nodiscard]] std::string progress(const std::string& job_id);
  /// The reports of a kind; empty `id`: all.
  [[nodiscard]] std::vector<report> known(const std::string& kind, const std::string& id);

  /// Waits for what is being published until the deadline, then ends. Idempotent, any thread.
  void close(std::chrono::milliseconds grace = std::chrono::milliseconds(5000));

 private:
  friend class batch_publisher;
  struct state;
  std::unique_ptr<state> state_;
};

/// Publishes many jobs in bounded memory: lines are packed into messages of up to batch_bytes, sent as they fill, at
/// most the confirm window unanswered. Not thread-safe: one thread fills one batch_publisher. Its client must outlive
/// it.
class batch_publisher {
 public:
  virtual ~batch_publisher() = default;

  /// Adds one line (ended by a newline). May block while the window is full. Throws what `finish` throws, once a
  /// message failed; nothing is sent after that.
  virtual void add(std::string_view line) = 0;
  /// Adds `jobs` whole lines, each ended by a newline; messages are cut only between lines.
  virtual void add_lines(std::string_view lines, std::uint32_t jobs) = 0;
  /// Sends the rest and waits for every answer. Throws broker_unavailable, publish_refused, publish_unknown, closed.
  virtual void finish() = 0;
  /// The messages accepted so far, in order: all before the first that was not accepted, nothing after it.
  [[nodiscard]] virtual const std::vector<published>& accepted() const = 0;
};

}  // namespace leveret::core
