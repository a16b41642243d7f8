/// A connection that comes back: made on first need, and after a loss again. Several servers are tried in turn, in an
/// order of this link's own, so that clients spread; a round in which none answered is followed by a pause with full
/// jitter. The I/O thread's own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../ids.hpp"
#include "connection.hpp"

namespace leveret::core::rabbitmq {

class link {
 public:
  /// A user of the link. Called in the order added.
  struct user {
    std::function<void()> on_up;
    std::function<void(const failure&)> on_down;
  };

  link(reactor& r, std::vector<endpoint> servers, const limits& lim, random_source random, std::string purpose);

  void add(user u) { users_.push_back(std::move(u)); }
  /// Connects, unless it does already, and keeps on until `close`.
  void need();
  /// Tells the end of the first attempt with each server, once: the errors, or none.
  void on_first(std::function<void(maybe_failure)> then) { on_first_ = std::move(then); }
  /// Called whenever `state` or `detail` changed.
  void on_change(std::function<void()> then) { on_change_ = std::move(then); }

  /// Null while it is down.
  [[nodiscard]] connection* up() const noexcept { return up_ ? connection_.get() : nullptr; }
  [[nodiscard]] bool blocked() const noexcept { return blocked_; }
  /// Why it is down or blocked, for people.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }
  [[nodiscard]] bool needed() const noexcept { return needed_; }
  [[nodiscard]] bool ended() const noexcept { return closing_ && !connection_; }
  [[nodiscard]] const std::string& server() const noexcept { return server_; }

  /// Says goodbye and stays down; `ended` becomes true.
  void close();
  void cut();

 private:
  void connect();
  void lost(failure why);
  void changed() {
    if (on_change_) on_change_();
  }

  reactor& reactor_;
  std::vector<endpoint> servers_;
  std::size_t at_ = 0;
  std::size_t tried_ = 0;  // servers in a row that were not reached
  std::string problems_;   // theirs
  const limits limits_;
  const random_source random_;
  const std::string purpose_;
  std::vector<user> users_;
  std::function<void(maybe_failure)> on_first_;
  std::function<void()> on_change_;
  std::shared_ptr<connection> connection_;
  bool needed_ = false;
  bool up_ = false;
  bool blocked_ = false;
  bool closing_ = false;
  std::uint32_t failures_ = 0;
  std::string detail_;
  std::string server_;
  reactor::timer_id timer_ = 0;  // of the attempt's timeout, or of the next attempt
};

/// uniform(0, min(most, least * 2^failures)): full jitter.
[[nodiscard]] std::chrono::milliseconds full_jitter(std::uint32_t failures, std::chrono::milliseconds least,
                                                    std::chrono::milliseconds most, const random_source& random);

}  // namespace leveret::core::rabbitmq
