/// Turns messages and settlements into publishes. The I/O thread's own.
///
/// A settlement's publishes are all confirmed before its delivery is acknowledged: a crash in between repeats, it never
/// loses. Nothing is ever rejected: a dead job is published to the dead queue.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "consumer.hpp"
#include "publisher.hpp"

namespace leveret::core::rabbitmq {

/// For how long a settlement's publishes are tried.
inline constexpr std::chrono::seconds kSettleTimeout{30};
/// Dead records of one settlement are packed into messages of up to this size.
inline constexpr std::size_t kDeadPack = 64u << 10;

class sender {
 public:
  sender(reactor& r, link& publishing, link& consuming, loop& to, publisher& p, consumers& c, operations& ops,
         const limits& lim, random_source random);

  void publish(std::vector<message> messages, reactor::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then);
  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then);
  /// Publishes messages, and dead records to their dead queues; `then` when all is confirmed, or the first failure.
  void replace_dead(std::vector<message> messages, std::vector<dead_job> stay, std::function<void(maybe_failure)> then);
  [[nodiscard]] bool idle() const noexcept { return settling_ == 0; }

 private:
  struct settle_call;
  struct one_settlement;

  /// The message as it goes to its queue, due or not.
  [[nodiscard]] outgoing from_message(message& m);
  /// Sends messages (moved from) as members of `group`, from `first` on. Those of a settlement take one delay level,
  /// and may have grown past the largest message (retries with their errors): refused, their jobs would run for ever.
  void send(std::vector<message>& messages, const std::shared_ptr<publish_group>& group, std::size_t first,
            bool settling);
  void send_delayed(outgoing item, unix_ms due, const std::string& queue, bool rough);
  void when_delays_ready(const std::string& queue, std::uint32_t level, std::function<void(maybe_failure)> then);
  void add_dead(std::vector<outgoing>& out, std::vector<dead_job>& jobs);
  void add_results(std::vector<outgoing>& out, std::vector<result_chunk>& chunks);

  void settle_one(const std::shared_ptr<settle_call>& call, std::size_t index, settlement s);
  void published(const std::shared_ptr<one_settlement>& s, std::vector<publish_end> ends);
  void make_dead_queues(const std::shared_ptr<one_settlement>& s, const std::vector<std::size_t>& missing);
  void acknowledge(const std::shared_ptr<settle_call>& call, std::size_t index, delivery_token token);
  void complete(settle_call& call, std::size_t index, settle_status status, std::string why);

  struct delays_of_queue {
    std::uint32_t levels = 0;  // 0 … levels-1 exist
    reactor::clock::time_point checked;
    std::uint32_t asked = 0;  // being made
    std::vector<std::pair<std::uint32_t, std::function<void(maybe_failure)>>> waiting;
  };

  reactor& reactor_;
  link& publishing_;
  loop& loop_;
  publisher& publisher_;
  consumers& consumers_;
  operations& operations_;
  const limits limits_;
  const random_source random_;
  std::map<std::string, delays_of_queue> delays_;
  std::size_t settling_ = 0;
};

}  // namespace leveret::core::rabbitmq
