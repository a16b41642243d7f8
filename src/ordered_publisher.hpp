/// Publishes many jobs with keys: each to its ordered queue, in messages of several jobs. Of each queue one message is
/// on its way at a time, so that no refusal and nothing sent again changes the order; the queues do not wait for each
/// other. Memory is bounded by the confirm window.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client.hpp"
#include "ordered.hpp"

namespace leveret::core {

/// One thread fills one ordered_batch. Its client must outlive it.
class ordered_batch {
 public:
  /// Makes ready for messages to a shard's queue; blocks; throws.
  using prepare_shard = std::function<void(std::uint32_t shard)>;
  /// Publishes lines as one message to a shard's queue: gives its id, calls `then` on the loop. Throws closed.
  using publish_shard = std::function<std::string(std::uint32_t shard, std::string_view lines, std::uint32_t jobs,
                                                  std::function<void(const publish_outcome&)> then)>;

  ordered_batch(std::size_t batch_bytes, std::uint64_t window_bytes, prepare_shard prepare, publish_shard publish);
  ordered_batch(const ordered_batch&) = delete;
  ordered_batch& operator=(const ordered_batch&) = delete;
  /// Waits for what is on its way.
  ~ordered_batch();

  /// Adds one line (ended by a newline). May block while the window is full. Throws what `finish` throws, once a
  /// message failed; nothing is sent after that.
  void add(std::uint32_t shard, std::string_view line);
  /// Sends the rest and waits for every answer. Throws broker_unavailable, publish_refused, publish_unknown, closed.
  void finish();

  /// Where a job is, in the order added: its message, as an index into `messages`, and its line there, from 1.
  struct place {
    std::uint32_t message = 0;
    std::uint32_t line = 0;
  };
  /// What was accepted, once nothing is on its way: the jobs before the first one that was not, and the messages that
  /// have them. Messages may have jobs behind that one too.
  struct result {
    std::vector<published> messages;
    std::vector<place> jobs;
    std::uint64_t accepted_behind = 0;  ///< jobs behind the first that was not accepted that were
  };
  [[nodiscard]] result accepted() const;

 private:
  struct part {  // a message
    std::string lines;
    std::uint32_t jobs = 0;
    std::uint32_t number = 0;
  };
  struct shard_state {
    bool ready = false;
    bool busy = false;  // a message of it is on its way
    std::deque<part> waiting;
  };
  struct sent_message {
    published what;
    bool accepted = false;
  };
  struct shared_state;

  static void send_next(const std::shared_ptr<shared_state>& s, std::uint32_t shard,
                        std::unique_lock<std::mutex>& lock);
  void wait_idle(std::unique_lock<std::mutex>& lock) const;

  const std::size_t batch_bytes_;
  const prepare_shard prepare_;
  std::shared_ptr<shared_state> shared_;
  std::vector<place> jobs_;
};

}  // namespace leveret::core
