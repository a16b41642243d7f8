/// Keys that jobs hold, for a broker that keeps none: in the store beside it (docs/adr/0023-idempotent-sends.md has the
/// reasons, and what each crash leaves).
///
/// A key's value is `?<job id> <sender's mark>` while a sender publishes that job's message, and `!<job id>` once it is
/// confirmed. A sender that finds the first waits. If it has not changed for `limits::sending_lease`, whoever had it is
/// taken for dead: the one that waits puts its own mark there and publishes the message in its place, under the same
/// message id, so that whatever became of the first one, no other job comes of the key.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "claim.hpp"
#include "ids.hpp"
#include "loop.hpp"
#include "results_store.hpp"

namespace leveret::core {

/// The loop's own.
class store_claims {
 public:
  store_claims(results_store& store, loop& l, const limits& lim);

  /// A message's reservation.
  struct reserved {
    bool publish = false;  ///< and then `settle`
    claim what;            ///< `job`: the one that the key is for, perhaps another sender's
    std::string value;     ///< of the key meanwhile
    publish_outcome outcome;
  };
  /// Takes the key of a message or finds its job. `then` may be called at once.
  void reserve(const claim& c, loop::clock::time_point deadline, std::function<void(reserved)> then);
  /// Notes what became of the message: the key is its job's, or free again, or as it was if nobody knows.
  void settle(const reserved& r, const publish_outcome& published, std::function<void()> then);
  /// Lets keys go; gives the first failure.
  void let_go(const std::vector<claimed_key>& keys, std::function<void(maybe_failure)> then);

  /// What waits is answered; nothing is begun any more.
  void close();

 private:
  struct attempt;
  using attempt_ptr = std::shared_ptr<attempt>;

  void ask(const attempt_ptr& a);
  void take_over(const attempt_ptr& a, const std::string& value, const std::string& job);
  void found(const attempt_ptr& a, const std::string& value, const maybe_failure& why);
  void wait(const attempt_ptr& a, const std::string& value, const std::string& job);
  void end(const attempt_ptr& a, reserved r);
  void refuse(const attempt_ptr& a, errc code, const std::string& why);
  void let_go_one(const claimed_key& key, const std::string& expected, const std::function<void(maybe_failure)>& then);
  [[nodiscard]] std::string new_value(const std::string& job);

  results_store& store_;
  loop& loop_;
  const std::chrono::milliseconds lease_;
  const random_source random_;
  std::unordered_set<attempt_ptr> open_;
  bool closed_ = false;
};

}  // namespace leveret::core
