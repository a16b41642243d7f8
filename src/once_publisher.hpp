/// Publishes many jobs that are to be there once, each in a message of its own, many on their way at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "client.hpp"

namespace leveret::core {

/// One thread fills one once_batch. Its client must outlive it.
class once_batch {
 public:
  explicit once_batch(client& to);
  once_batch(const once_batch&) = delete;
  once_batch& operator=(const once_batch&) = delete;
  /// Waits for what is on its way.
  ~once_batch();

  /// Sends one line (ended by a newline), with the claim of `e`. May block while too many are on their way. Throws what
  /// `finish` throws, once a job failed; nothing is sent after that. Throws unsupported where the broker keeps no keys.
  void add(const envelope& e, std::string_view line);
  /// Waits for every answer. Throws broker_unavailable, publish_refused, publish_unknown, closed.
  void finish();

  /// What was accepted, once nothing is on its way: the messages of the jobs before the first that was not, in the
  /// order added. Of a job that was there already, its message.
  struct result {
    std::vector<published> messages;
    std::uint64_t accepted_behind = 0;  ///< jobs behind the first that was not accepted that were
  };
  [[nodiscard]] result accepted() const;

 private:
  struct shared_state;

  void wait_for_at_most(std::uint64_t on_their_way) const;
  void throw_first_failure() const;

  client& to_;
  std::shared_ptr<shared_state> shared_;
};

}  // namespace leveret::core
