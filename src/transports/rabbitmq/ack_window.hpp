/// Which deliveries of one channel to acknowledge, in as few frames as possible. Pure.
///
/// The contiguous prefix of finished deliveries goes as one ack with multiple=1, stragglers beyond it go singly. The
/// tag of a multiple ack must be outstanding itself: a multiple ack of a tag that was acknowledged before closes the
/// channel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace leveret::core::rabbitmq {

class ack_window {
 public:
  struct ack {
    std::uint64_t tag;
    bool multiple;
  };

  /// The channel's next tag came: they count from 1.
  void delivered() {
    slots_.push_back(state::out);
    ++out_;
  }
  /// To be acknowledged with the next flush.
  void finish(std::uint64_t tag) {
    if (change(tag, state::finished)) ++finished_;
  }
  /// Settled in another way (requeued).
  void gone(std::uint64_t tag) { (void)change(tag, state::gone); }

  /// What to send now, in order.
  [[nodiscard]] std::vector<ack> flush() {
    std::vector<ack> acks;
    std::uint64_t last = 0;
    std::size_t run = 0;
    while (!slots_.empty() && slots_.front() != state::out) {
      if (slots_.front() == state::finished) {
        last = base_;
        ++run;
      }
      slots_.pop_front();
      ++base_;
    }
    if (run > 0) acks.push_back({last, run > 1});
    finished_ -= run;
    for (std::size_t i = 0; finished_ > 0 && i < slots_.size(); ++i) {
      if (slots_[i] != state::finished) continue;
      acks.push_back({base_ + i, false});
      slots_[i] = state::gone;
      --finished_;
    }
    return acks;
  }

  /// Waiting for a flush.
  [[nodiscard]] std::size_t finished() const noexcept { return finished_; }
  /// Neither finished nor gone.
  [[nodiscard]] std::size_t out() const noexcept { return out_; }

 private:
  enum class state : std::uint8_t { out, finished, gone };

  bool change(std::uint64_t tag, state to) {
    if (tag < base_ || tag - base_ >= slots_.size()) return false;
    state& s = slots_[static_cast<std::size_t>(tag - base_)];
    if (s != state::out) return false;
    s = to;
    --out_;
    return true;
  }

  std::deque<state> slots_;
  std::uint64_t base_ = 1;
  std::size_t finished_ = 0;
  std::size_t out_ = 0;
};

}  // namespace leveret::core::rabbitmq
