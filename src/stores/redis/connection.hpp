/// One connection to a Redis server, on the I/O thread: login, commands written as the socket takes them, replies in
/// the order of the commands. It lives once: when it is lost it is dropped, and the store makes the next one.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/reactor.hpp"
#include "net/socket.hpp"
#include "resp.hpp"
#include "url.hpp"

namespace leveret::core::redis {

class connection final : public net::pollable, public std::enable_shared_from_this<connection> {
 public:
  struct events {
    std::function<void()> on_open;
    std::function<void(const std::string& why)> on_lost;  ///< once; nothing comes after it
    std::function<void(reply)> on_reply;                  ///< to the oldest command without one
    std::function<void()> on_written;                     ///< `unsent` has become less
  };

  /// A server that is owed an answer and sends nothing for `patience` counts as lost.
  connection(net::reactor& r, endpoint where, std::chrono::milliseconds patience, std::string name);
  ~connection() override;

  void open(events e);
  void send(const command& words);
  /// Bytes that the socket has not taken yet.
  [[nodiscard]] std::size_t unsent() const noexcept { return out_.size() - written_; }
  /// Ends it at once; `on_lost` is called unless it was before.
  void cut(const std::string& why) { lose(why); }

  [[nodiscard]] std::pair<int, short> prepare() override;
  void ready(short events) override;

 private:
  enum class state { connecting, greeting, open, lost };
  // Commands of the login, each with what it makes of an error: nothing if it does not matter.
  struct greeting_step {
    std::vector<std::string> words;
    std::function<std::string(const std::string& error)> refused;
  };

  void progress();
  void greet();
  void greeted(const reply& answer);
  void write();
  void read();
  [[nodiscard]] bool take_replies();
  void owe();
  void watch_silence();
  void lose(const std::string& why);

  net::reactor& reactor_;
  const endpoint where_;
  const std::chrono::milliseconds patience_;
  const std::string name_;
  net::socket socket_;
  events events_;
  state state_ = state::connecting;
  std::deque<greeting_step> greeting_;
  reply_reader replies_;
  std::vector<char> in_;
  std::string out_;
  std::size_t written_ = 0;  // of out_
  bool write_blocked_ = false;
  std::size_t owed_ = 0;  // replies that have not come
  net::reactor::clock::time_point last_sign_{};
  net::reactor::timer_id silence_ = 0;  // 0: not watched
};

}  // namespace leveret::core::redis
