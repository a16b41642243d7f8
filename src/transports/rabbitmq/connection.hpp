/// One AMQP 0-9-1 connection and its channels, all on the I/O thread: login, heartbeats, calls and their replies,
/// content assembly. It never blocks; what is sent is written when the socket takes it.
///
/// A connection lives once: when it is lost, every open call is answered `lost`, every channel is told, and it is
/// dropped. `link` makes the next one.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../../net/reactor.hpp"
#include "../../net/socket.hpp"
#include "../../transport.hpp"
#include "url.hpp"
#include "wire.hpp"

namespace leveret::core::rabbitmq {

using net::pollable;
using net::reactor;

class connection;

/// A message as it came: by basic.deliver, basic.return or basic.get-ok.
struct incoming {
  std::uint64_t tag = 0;
  bool redelivered = false;
  std::uint16_t reply_code = 0;  ///< returned messages
  std::string reply_text;
  std::string routing_key;
  properties props;
  body data;
};

/// How a call ended. `refused`: the broker closed the channel with `code` and `text`.
struct call_result {
  enum class kind { done, refused, lost } how = kind::done;
  std::uint16_t code = 0;
  std::string text;
  const amqp_method_t* method = nullptr;  ///< the reply; valid in the callback only
  incoming* message = nullptr;            ///< basic.get-ok: likewise

  [[nodiscard]] bool done() const noexcept { return how == kind::done; }
};
/// What to do about a refusal by the broker with `code` and `text`; empty unless a permission is missing: the one that
/// the text names, else `permission`. See access.cpp.
[[nodiscard]] std::string access_remedy(std::uint16_t code, std::string_view text, std::string_view permission);

using on_reply = std::function<void(const call_result&)>;

/// What a channel's user is told.
class channel_events {
 public:
  channel_events() = default;
  channel_events(const channel_events&) = delete;
  channel_events& operator=(const channel_events&) = delete;
  virtual ~channel_events() = default;
  // Who overrides them may keep the message.
  virtual void on_deliver(incoming&&) {}
  virtual void on_returned(incoming&&) {}
  virtual void on_confirm(std::uint64_t /*tag*/, bool /*multiple*/, bool /*acked*/) {}
  virtual void on_cancelled() {}
  /// The broker closed the channel (its code), or the connection is lost (code 0). The last event.
  virtual void on_closed(std::uint16_t /*code*/, const std::string& /*text*/) {}
};

/// One channel. Calls are pipelined; replies come in their order.
class channel : public std::enable_shared_from_this<channel> {
 public:
  [[nodiscard]] bool open() const noexcept { return state_ == state::open; }
  /// Sends a method that has a reply.
  void call(amqp_method_number_t id, void* method, on_reply then);
  /// Sends one that has none.
  void send(amqp_method_number_t id, void* method);
  [[nodiscard]] bool publish(std::string_view exchange, std::string_view routing_key, const properties& props,
                             const body& data);
  void ack(std::uint64_t tag, bool multiple);
  /// Back to its queue.
  void requeue(std::uint64_t tag);
  /// Ends the channel; open calls are answered `lost` and no event comes any more. Unsettled deliveries go back.
  void close();

 private:
  friend class connection;
  enum class state { open, closing, closed };

  channel(connection& owner, std::uint16_t id, std::weak_ptr<channel_events> events)
      : owner_(&owner), id_(id), events_(std::move(events)) {}
  void end(call_result::kind how, std::uint16_t code, const std::string& text);
  void reply(const amqp_method_t* method, incoming* message);

  connection* owner_;  // null when closed
  const std::uint16_t id_;
  std::weak_ptr<channel_events> events_;
  state state_ = state::open;
  std::deque<on_reply> calls_;

  // The message that is coming in, if any.
  enum class content { none, header, body } content_ = content::none;
  amqp_method_number_t content_method_ = 0;
  incoming message_;
  std::size_t body_filled_ = 0;
};

class connection final : public pollable, public std::enable_shared_from_this<connection> {
 public:
  struct events {
    std::function<void()> on_open;
    /// Once, also when it never opened. `text` of the failure is the cause alone.
    std::function<void(failure)> on_lost;
    std::function<void(bool blocked, std::string reason)> on_blocked;
  };

  connection(reactor& r, const endpoint& where, const limits& lim, std::string purpose);
  ~connection() override;

  void open(events e);
  [[nodiscard]] bool is_open() const noexcept { return state_ == state::open; }
  /// The broker's own description: "RabbitMQ 3.10.8".
  [[nodiscard]] const std::string& server() const noexcept { return server_; }
  /// Null when no channel is free. The events' owner is held weakly.
  [[nodiscard]] std::shared_ptr<channel> open_channel(std::weak_ptr<channel_events> events = {});
  /// Says goodbye; `on_lost` comes when the broker has answered, or the connection breaks.
  void close();
  /// Ends it at once, without a word to the broker. `on_lost` is called.
  void cut(const std::string& why) { lose({errc::closed, why}); }
  /// Bytes handed in and not taken by the socket yet.
  [[nodiscard]] std::size_t unwritten() const noexcept { return out_.size(); }

  [[nodiscard]] std::pair<int, short> prepare() override;
  void ready(short events) override;

 private:
  friend class channel;
  enum class state { connecting, starting, tuning, opening, open, closing, lost };

  void progress();
  void arm_heartbeat();
  void flush();
  void read();
  [[nodiscard]] bool parse();
  void frame(std::uint8_t type, std::uint16_t id, std::string_view payload);
  void connection_method(const amqp_method_t& method);
  void channel_method(channel& ch, const amqp_method_t& method);
  void content_header(channel& ch, std::string_view payload);
  void content_done(channel& ch);
  void start_ok(const amqp_connection_start_t& start);
  void server_closed(std::uint16_t code, const std::string& text);
  void lose(failure why);
  void broken(const std::string& what) { lose({errc::broker_unavailable, "the broker broke the protocol: " + what}); }
  void send_method(std::uint16_t channel, amqp_method_number_t id, void* method);

  reactor& reactor_;
  const endpoint where_;
  const std::string purpose_;
  const std::string client_name_;
  std::chrono::seconds heartbeat_;
  net::socket socket_;
  events events_;
  state state_ = state::connecting;
  std::string server_;
  std::uint32_t frame_max_ = 4096;
  std::uint16_t channel_max_ = 2047;

  output out_;
  bool write_blocked_ = false;
  std::vector<char> in_;
  std::size_t in_begin_ = 0;
  std::size_t in_end_ = 0;
  // A body frame is copied (or read) straight to where the message's body is.
  channel* body_channel_ = nullptr;
  std::size_t body_left_ = 0;  // of the frame
  bool body_end_ = false;      // its end byte is next

  std::unordered_map<std::uint16_t, std::shared_ptr<channel>> channels_;
  std::uint16_t next_channel_ = 1;
  reactor::clock::time_point last_read_;
  reactor::clock::time_point last_write_;
  reactor::timer_id timer_ = 0;
};

}  // namespace leveret::core::rabbitmq
