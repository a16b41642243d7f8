/// Publishes, confirmed, in a window. The I/O thread's own.
///
/// Every message is mandatory and persistent. It ends as accepted (confirmed), refused (returned: no such queue; nacked
/// until the deadline; its own channel error), or unknown (no answer before the deadline). After a lost connection what
/// was not confirmed is sent again with the same ids: a queue may then hold a message twice, never not at all.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "link.hpp"

namespace leveret::core::rabbitmq {

/// What became of one message. `missing`: refused because its queue does not exist.
struct publish_end {
  publish_outcome outcome;
  bool missing = false;
};
[[nodiscard]] publish_end refused(errc code, std::string text);

/// Messages whose ends are told together.
class publish_group {
 public:
  using done = std::function<void(std::vector<publish_end>)>;
  publish_group(reactor& r, std::size_t size, done then)
      : reactor_(r), ends_(size), told_(size, false), left_(size), then_(std::move(then)) {}

  /// The first end of a message counts. `then` is called at the end of the round: whoever ends a message may be walking
  /// over a queue that `then` would add to.
  void end(std::size_t index, publish_end how);
  /// For a group of no messages.
  void nothing() {
    const done then = std::move(then_);
    if (then) then({});
  }
  [[nodiscard]] bool ended(std::size_t index) const { return told_[index]; }
  [[nodiscard]] bool all_ended() const noexcept { return left_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return told_.size(); }
  reactor::timer_id timer = 0;

 private:
  reactor& reactor_;
  std::vector<publish_end> ends_;
  std::vector<bool> told_;
  std::size_t left_;
  done then_;
};

/// A message on its way out.
struct outgoing {
  std::string exchange;
  std::string routing_key;
  properties props;
  body data;
  std::shared_ptr<publish_group> group;
  std::size_t index = 0;
  std::string what;   ///< for texts: `to "queue"`
  bool sent = false;  ///< it may have left this process
  bool returned = false;
  std::uint32_t nacks = 0;
  std::string last_problem;  ///< of the latest try
};

class publisher final : public channel_events, public std::enable_shared_from_this<publisher> {
 public:
  publisher(reactor& r, link& l, const limits& lim, random_source random);
  /// After construction: it needs a shared pointer to itself.
  void start();

  /// Sends in the order given. At `deadline` those of the group that have no end yet are answered (see `expire`).
  void publish(std::vector<outgoing> messages);
  /// Ends what has no end yet, with the reason why.
  void expire(const std::shared_ptr<publish_group>& group);
  /// Sets the deadline of a group: one timer.
  void set_deadline(const std::shared_ptr<publish_group>& group, reactor::clock::time_point deadline);
  /// Sends what may be sent now.
  void pump();
  /// Nothing is on its way.
  [[nodiscard]] bool idle() const noexcept;
  /// Ends everything as unknown, closed.
  void close();

  void on_returned(incoming&& message) override;
  void on_confirm(std::uint64_t tag, bool multiple, bool acked) override;
  void on_closed(std::uint16_t code, const std::string& text) override;

 private:
  struct slot {
    outgoing message;
    bool open = true;
  };

  void up();
  void open_channel();
  void finish(slot& s, bool acked);
  void pop_front();
  [[nodiscard]] bool doubted() const;
  void take_back();
  void retry(outgoing message);
  [[nodiscard]] publish_end unanswered(const outgoing& message) const;

  reactor& reactor_;
  link& link_;
  const limits limits_;
  const random_source random_;
  std::shared_ptr<channel> channel_;
  std::deque<outgoing> ready_;
  std::deque<slot> unconfirmed_;  // tags base_tag_, base_tag_ + 1, …
  std::uint64_t base_tag_ = 1;
  std::size_t open_ = 0;  // open slots and their bytes: the window
  std::size_t open_bytes_ = 0;
  std::map<reactor::timer_id, outgoing> waiting_;  // nacked, to be sent again
  /// After a channel error: this many messages are sent one by one, so that the one at fault is found by itself.
  std::size_t careful_ = 0;
  std::uint32_t nacks_ = 0;  // in a row, on this channel
  reactor::clock::time_point opened_{};
  std::uint32_t channel_errors_ = 0;
  bool closed_ = false;
};

}  // namespace leveret::core::rabbitmq
