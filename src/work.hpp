/// One delivery while its lines run, as the loop sees it. A pool makes it, and alone knows how lines are taken and
/// where their outcomes are kept meanwhile.
///
/// Ends exactly once: when every line has ended, was given back, or was taken away, `on_ended` is posted to the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attempt.hpp"
#include "codec.hpp"
#include "message.hpp"
#include "result_collector.hpp"

namespace leveret::core {

/// All functions are the loop's, unless said otherwise.
class work {
 public:
  using ended = std::function<void(const std::shared_ptr<work>&)>;

  work(const work&) = delete;
  work& operator=(const work&) = delete;
  virtual ~work() = default;

  /// Any thread.
  [[nodiscard]] const delivery& what() const noexcept { return delivery_; }
  /// Any thread.
  [[nodiscard]] bool wants_results() const noexcept { return !delivery_.msg.reply.empty(); }
  /// At least one: a message without a line counts as one empty line, which the codec refuses, so that it ends on the
  /// record. Any thread.
  [[nodiscard]] std::uint32_t lines() const noexcept { return static_cast<std::uint32_t>(offsets_.size() - 1); }
  /// Any thread.
  [[nodiscard]] std::string_view line(std::uint32_t index) const noexcept {
    return {delivery_.msg.data.data() + offsets_[index], offsets_[index + 1] - 1 - offsets_[index]};
  }

  [[nodiscard]] virtual bool started() const noexcept = 0;
  [[nodiscard]] virtual bool has_unstarted() const noexcept = 0;
  /// No line is started any more. Those that never will are added to `unstarted()`. May end the work.
  virtual void stop_starting() = 0;
  /// The worker is about to stop: no line is started any more, unless the message can only go on as a whole.
  virtual void wind_down() { stop_starting(); }
  /// Takes the running lines away from their threads: what they still do is dropped. They are added to `unstarted()`.
  /// Implies stop_starting. Ends the work.
  virtual void abandon_running() = 0;
  /// Indexes of the lines given back, sorted once the work has ended.
  [[nodiscard]] const std::vector<std::uint32_t>& unstarted() const noexcept { return unstarted_; }

  /// Results written since the last call.
  [[nodiscard]] virtual std::vector<result_chunk> take_results() = 0;
  /// After the end.
  [[nodiscard]] virtual std::vector<failed_line> take_failures() = 0;
  /// Lines that run right now, for reports: up to `most`.
  [[nodiscard]] virtual std::vector<std::uint32_t> running_lines(std::size_t most) const = 0;
  /// How many have succeeded by now.
  [[nodiscard]] virtual std::uint64_t succeeded_lines() const noexcept = 0;

 protected:
  explicit work(delivery d) : delivery_(std::move(d)), offsets_(split_lines(delivery_.msg.data.view())) {
    if (offsets_.size() < 2) offsets_ = {0, 1};
  }
  [[nodiscard]] const std::vector<std::uint32_t>& offsets() const noexcept { return offsets_; }

  std::vector<std::uint32_t> unstarted_;

 private:
  const delivery delivery_;
  std::vector<std::uint32_t> offsets_;
};

}  // namespace leveret::core
