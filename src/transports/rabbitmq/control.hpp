/// What processes tell each other beside jobs, by two streams, which every reader can read from any point on: cancelled
/// jobs (`leveret.control`, read from its first message) and what workers report (`leveret.workers`, its last minutes).
/// The I/O thread's own; watchers are called on the loop.
///
/// A stream has no end that a reader could see over AMQP: a reader publishes a mark of its own, and has read what was
/// there before when the mark comes by.
///
/// A cancelled job is a line of the contract: `{"task":"leveret.cancel","id":"…","retry_count":0}`; the task is
/// `leveret.terminate` if what runs it is to be killed.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "link.hpp"
#include "operations.hpp"
#include "sender.hpp"

namespace leveret::core::rabbitmq {

inline constexpr const char* kControlStream = "leveret.control";
inline constexpr const char* kWorkersStream = "leveret.workers";
inline constexpr const char* kCancelTask = "leveret.cancel";
inline constexpr const char* kTerminateTask = "leveret.terminate";

class control {
 public:
  using done = std::function<void(maybe_failure)>;

  control(reactor& r, link& l, loop& to, operations& ops, sender& s, const limits& lim, random_source random);

  void cancel(std::vector<cancellation> jobs, done then);
  void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then);
  void make_known(report r, done then);
  void known(std::string id, std::function<void(std::vector<report>, maybe_failure)> then);
  [[nodiscard]] bool idle() const noexcept { return publishing_ == 0; }
  void close();

 private:
  struct reading;

  void up();
  void declare(const std::string& stream, done then);
  void publish(message m, done then);
  void read(const std::shared_ptr<reading>& r);
  void consume(const std::shared_ptr<reading>& r);
  void deliver(const std::shared_ptr<reading>& r, const incoming& message);
  void closed(const std::shared_ptr<reading>& r, std::uint16_t code, const std::string& text);
  void finish(const std::shared_ptr<reading>& r, maybe_failure why);

  reactor& reactor_;
  link& link_;
  loop& loop_;
  operations& operations_;
  sender& sender_;
  const limits limits_;
  const random_source random_;
  std::set<std::string> declared_;
  std::set<std::shared_ptr<reading>> readings_;
  std::size_t publishing_ = 0;
  bool closing_ = false;
};

}  // namespace leveret::core::rabbitmq
