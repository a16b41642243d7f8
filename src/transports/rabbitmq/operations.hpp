/// What is asked of the broker beside publishing and consuming: declare, count, purge, list dead jobs. Each operation
/// has a channel of its own on the consuming connection (a broker short of memory stops reading the publishing one),
/// starts again from its beginning after a lost connection, and ends within kOperationTimeout of the last
/// progress.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "link.hpp"
#include "queue_counts.hpp"
#include "topology.hpp"

namespace leveret::core::rabbitmq {

inline constexpr std::chrono::seconds kOperationTimeout{30};

class operations;

/// One operation in progress.
class operation final : public std::enable_shared_from_this<operation> {
 public:
  using step = std::function<void(const call_result&)>;

  /// Calls on the operation's channel. `then` is not called when the connection is lost: the operation begins again.
  void call(amqp_method_number_t id, void* method, step then);
  /// As `call`, for how many messages and consumers a queue has.
  void count(const std::string& queue, on_counts then);
  /// Acknowledges what a get gave.
  void ack(std::uint64_t tag) {
    if (!ended_ && channel_) channel_->ack(tag, false);
  }
  /// Publishes an empty message by the default exchange, which nobody misses.
  void publish(const std::string& queue);
  /// The broker closes a channel with each refusal: goes on with a fresh one.
  void fresh_channel();
  /// The permission that the calls from now on need.
  void needs(const char* permission) { permission_ = permission; }
  /// Ends with an answer of the broker that is an error. `remedy` may be empty.
  void refuse(errc code, const call_result& answer, const std::string& remedy = {});
  void fail(failure why);
  /// The broker answers: the time that an operation may take begins anew. For those whose length depends on the
  /// queue's.
  void progressed();
  /// Calls `then` after `delay`, unless the operation has ended or begun again by then.
  void later(std::chrono::milliseconds delay, std::function<void(operation&)> then);
  /// Ends well; the owner has told the result.
  void finish();
  [[nodiscard]] bool ended() const noexcept { return ended_; }

 private:
  friend class operations;
  operations* owner_ = nullptr;
  std::string what_;
  const char* permission_ = "configure and the read";
  std::function<void(operation&)> begin_;
  std::function<void(failure)> on_fail_;
  std::shared_ptr<channel> channel_;
  std::uint64_t attempt_ = 0;
  bool ended_ = false;
  reactor::timer_id timer_ = 0;
};

class operations {
 public:
  operations(reactor& r, link& l);
  /// `what` for texts: `declare queue "x"`. `begin` is called at each (re)start and calls `finish`, `refuse` or `fail`
  /// of the operation in the end; `on_fail` at most once.
  void run(std::string what, std::function<void(operation&)> begin, std::function<void(failure)> on_fail);
  [[nodiscard]] bool idle() const noexcept { return running_.empty(); }
  void close();

 private:
  friend class operation;
  void begin(const std::shared_ptr<operation>& op);
  void start_timer(const std::shared_ptr<operation>& op);

  reactor& reactor_;
  link& link_;
  std::set<std::shared_ptr<operation>> running_;
  bool closed_ = false;
};

/// What a queue was found to be.
struct found_queue {
  bool ours = true;      ///< has exactly what Leveret declares
  bool classic = false;  ///< known to keep no delivery count
};

/// Makes sure that `queue` exists (with its dead queue); without `create` a missing one is not_found.
void declare_queue(operations& ops, const std::string& queue, std::int64_t reply_expires_ms, bool create,
                   std::function<void(found_queue, maybe_failure)> then);
void count_queue(operations& ops, const std::string& queue, std::function<void(queue_stats, maybe_failure)> then);
void purge_queue(operations& ops, const std::string& queue, std::function<void(std::uint64_t, maybe_failure)> then);
/// Tries what a worker and a client do with `queue` on a queue of that name and an ending, which is this connection's
/// own and gone with it; refused names the permission that is missing. See access.cpp.
void check_queue_access(operations& ops, const std::string& queue, const std::string& ending,
                        std::function<void(maybe_failure)> then);
/// Declares the levels up to `level` and binds `queue` behind them. `from`: the first level not known to exist yet.
void declare_delay(operations& ops, const std::string& queue, std::uint32_t from, std::uint32_t level,
                   std::function<void(maybe_failure)> then);
/// Dead records of `queue` (its base name); see dead.cpp.
void browse_dead_queue(operations& ops, const std::string& queue, const std::string& cursor, std::size_t limit,
                       std::function<void(browse_page, maybe_failure)> then);

/// Revises the dead jobs of `queue`. `publish` sends what takes the place of a message's dead jobs (new messages, and
/// the records that stay) and says when all is confirmed; the message is acknowledged then.
using replace_dead =
    std::function<void(std::vector<message>, std::vector<dead_job>, std::function<void(maybe_failure)>)>;
void revise_dead_queue(operations& ops, const std::string& queue, dead_decision decide, replace_dead replace,
                       std::function<void(std::uint64_t, maybe_failure)> then);

}  // namespace leveret::core::rabbitmq
