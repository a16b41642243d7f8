/// Results on their way back: watching reply queues. The I/O thread's own; watchers are called on the loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "link.hpp"
#include "operations.hpp"

namespace leveret::core::rabbitmq {

class replies {
 public:
  using done = std::function<void(maybe_failure)>;

  replies(reactor& r, link& l, loop& to, operations& ops, const limits& lim, random_source random);

  void watch(const std::string& reply, std::function<void(result_chunk)> on_result, done then);
  void unwatch(const std::string& reply, const done& then);
  void close();

 private:
  struct watch_state;

  void up();
  void start(const std::shared_ptr<watch_state>& w);
  void answer(const std::shared_ptr<watch_state>& w, maybe_failure why);
  void closed(const std::shared_ptr<watch_state>& w, std::uint16_t code, const std::string& text);
  void deliver(const std::shared_ptr<watch_state>& w, incoming message);

  reactor& reactor_;
  link& link_;
  loop& loop_;
  operations& operations_;
  const limits limits_;
  const random_source random_;
  bool closing_ = false;
  std::unordered_map<std::string, std::shared_ptr<watch_state>> watches_;
};

}  // namespace leveret::core::rabbitmq
