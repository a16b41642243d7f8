/// Results kept in a store of their own, beside a broker that can't be asked for them: RabbitMQ hands a result to its
/// job's sender alone. Asked for by the url: `amqp://host?results=sqlite:///path`, `amqp://host?results=redis://host`.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport.hpp"

namespace leveret::core {

/// The seam between Leveret and what keeps results. Threads and callbacks as a transport's: every function may be
/// called from any thread, only `close` blocks, every callback is called exactly once, on the loop.
class results_store {
 public:
  using kept = std::function<void(std::vector<maybe_failure>)>;

  results_store() = default;
  results_store(const results_store&) = delete;
  results_store& operator=(const results_store&) = delete;
  virtual ~results_store() = default;

  /// Stores chunks; answers in the order given, when the store has them. Failed: perhaps stored all the same; store it
  /// again. A chunk may be stored again at any time (a message that was delivered twice); where a line has several
  /// ends, the one stored first counts.
  virtual void keep(std::vector<result_chunk> results, kept then) = 0;
  /// All chunks of these messages; those of one message in the order in which they were stored first.
  virtual void fetch(std::vector<std::string> message_ids, transport::reply<std::vector<result_chunk>> then) = 0;

  /// As transport::exchange.
  virtual void exchange(exchanged_value what, transport::reply<std::string> then) = 0;

  [[nodiscard]] virtual health how_it_is() const = 0;
  /// The absolute path or host, for messages; never a password.
  [[nodiscard]] virtual std::string where() const = 0;
  /// Blocks: nothing new, waits until what was accepted is answered or `deadline`, then ends all threads. Idempotent.
  /// Not on the loop's thread.
  virtual void close(loop::clock::time_point deadline) = 0;
};

/// Opens `sqlite:///path`, `redis://[user:password@]host[:port][/db]` or `rediss://…` (TLS). Blocks until connected.
/// Throws as open_transport. `loop` must outlive the store.
[[nodiscard]] std::unique_ptr<results_store> open_results_store(const std::string& url, loop& l, const limits& lim);

/// One each, called by open_results_store.
[[nodiscard]] std::unique_ptr<results_store> open_redis(const std::string& url, loop& l, const limits& lim);
/// A transport that keeps results: one with the capability `fetch`.
[[nodiscard]] std::unique_ptr<results_store> results_in(std::unique_ptr<transport> store);

struct broker_and_results {
  std::string broker;   ///< the url without the parameter
  std::string results;  ///< its value, decoded; empty: none
};

/// Takes the parameter `results` out of a url. Throws std::invalid_argument, with a text that never repeats a password,
/// for one that is no store's url, or that stands in a url of another broker than RabbitMQ.
[[nodiscard]] broker_and_results split_results(const std::string& url);

/// A store's url for people: the absolute path or host. Throws std::invalid_argument for a url that is none.
[[nodiscard]] std::string display_results_url(const std::string& url);

/// `broker`, with results kept in `store` as well, before their deliveries are settled, and looked up there; and with
/// the keys that messages claim (store_claims.hpp). `l` is the loop of both.
[[nodiscard]] std::unique_ptr<transport> with_results(std::unique_ptr<transport> broker,
                                                      std::unique_ptr<results_store> store, loop& l, const limits& lim);

}  // namespace leveret::core
