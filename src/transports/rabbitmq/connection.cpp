#include "connection.hpp"

#include <poll.h>

#include <algorithm>
#include <cstring>

namespace leveret::core::rabbitmq {
namespace {

constexpr std::size_t kReadBuffer = 512u << 10;
constexpr int kReadRounds = 4;  // then others' turn: timers, posts, the other connection
constexpr int kWriteParts = 128;
constexpr std::uint64_t kLargestBody = 1ull << 30;

// The decoder's tables live here until the next frame. One I/O thread a transport.
class decode_pool {
 public:
  decode_pool() { ::init_amqp_pool(&value_, 4096); }
  ~decode_pool() { ::empty_amqp_pool(&value_); }
  amqp_pool_t* fresh() {
    ::recycle_amqp_pool(&value_);
    return &value_;
  }

 private:
  amqp_pool_t value_{};
};

bool has_content(amqp_method_number_t id) {
  return id == AMQP_BASIC_DELIVER_METHOD || id == AMQP_BASIC_RETURN_METHOD || id == AMQP_BASIC_GET_OK_METHOD;
}

}  // namespace

// ---- connection: life ----

connection::connection(reactor& r, const endpoint& where, const limits& lim, std::string purpose)
    : reactor_(r),
      where_(where),
      purpose_(std::move(purpose)),
      client_name_(lim.client_name),
      heartbeat_(where.heartbeat.value_or(
          std::max(std::chrono::seconds(1), std::chrono::ceil<std::chrono::seconds>(lim.heartbeat)))),
      socket_(r, {where.host, where.port, where.tls, where.verify}) {}

connection::~connection() { reactor_.remove(this); }

void connection::open(events e) {
  events_ = std::move(e);
  reactor_.add(this);
  socket_.open([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self && self->state_ == state::connecting) self->progress();
  });
}

void connection::progress() {
  switch (socket_.advance()) {
    case net::socket::progress::pending:
      return;
    case net::socket::progress::failed:
      lose({errc::broker_unavailable, socket_.error()});
      return;
    case net::socket::progress::ready:
      break;
  }
  state_ = state::starting;
  in_.resize(kReadBuffer);
  last_read_ = last_write_ = reactor::clock::now();
  out_.protocol_header();
}

void connection::close() {
  if (state_ == state::closing || state_ == state::lost) return;
  if (state_ != state::open) {
    lose({errc::closed, "closed"});
    return;
  }
  state_ = state::closing;
  amqp_connection_close_t method{};
  method.reply_code = AMQP_REPLY_SUCCESS;
  method.reply_text = as_bytes("done");
  (void)out_.method(0, AMQP_CONNECTION_CLOSE_METHOD, &method);
}

void connection::lose(failure why) {
  if (state_ == state::lost) return;
  const auto keep = shared_from_this();
  state_ = state::lost;
  reactor_.cancel(timer_);
  reactor_.remove(this);
  socket_.close();
  body_channel_ = nullptr;
  std::unordered_map<std::uint16_t, std::shared_ptr<channel>> channels;
  channels.swap(channels_);
  for (const auto& entry : channels) entry.second->end(call_result::kind::lost, 0, why.text);
  const auto on_lost = std::move(events_.on_lost);
  events_ = {};
  if (on_lost) on_lost(std::move(why));
}

void connection::arm_heartbeat() {
  timer_ =
      reactor_.after(heartbeat_ / 4.0 < std::chrono::milliseconds(250)
                         ? reactor::clock::duration(std::chrono::milliseconds(250))
                         : std::chrono::duration_cast<reactor::clock::duration>(heartbeat_ / 4.0),
                     [weak = weak_from_this()] {
                       const auto self = weak.lock();
                       if (!self || self->state_ == state::lost) return;
                       const auto now = reactor::clock::now();
                       // Heartbeats are a sign of life of the broker, and every byte counts as one.
                       if (now - self->last_read_ > 2 * self->heartbeat_) {
                         self->lose({errc::broker_unavailable, "nothing was heard from the broker for " +
                                                                   std::to_string((2 * self->heartbeat_).count()) +
                                                                   " s (heartbeat): the connection is taken for dead"});
                         return;
                       }
                       if (now - self->last_write_ >= self->heartbeat_ / 2.0 && self->out_.empty()) {
                         self->out_.heartbeat();
                       }
                       self->arm_heartbeat();
                     });
}

std::shared_ptr<channel> connection::open_channel(std::weak_ptr<channel_events> events) {
  if (state_ != state::open) return nullptr;
  for (std::uint32_t tries = 0; tries < channel_max_; ++tries) {
    const std::uint16_t id = next_channel_;
    next_channel_ = id >= channel_max_ ? std::uint16_t{1} : static_cast<std::uint16_t>(id + 1);
    if (channels_.count(id) != 0) continue;
    const std::shared_ptr<channel> ch(new channel(*this, id, std::move(events)));
    channels_.emplace(id, ch);
    amqp_channel_open_t method{};
    ch->call(AMQP_CHANNEL_OPEN_METHOD, &method, nullptr);
    return ch;
  }
  return nullptr;
}

void connection::send_method(std::uint16_t channel, amqp_method_number_t id, void* method) {
  // Names are at most 255 bytes and tables short: what does not fit is a defect of ours, not of the network.
  if (!out_.method(channel, id, method)) broken(std::string("a method too large to send: ") + ::amqp_method_name(id));
}

// ---- connection: bytes ----

std::pair<int, short> connection::prepare() {
  if (state_ == state::lost) return {-1, 0};
  if (state_ == state::connecting) return {socket_.descriptor(), socket_.wanted()};
  if (!write_blocked_) flush();
  if (state_ == state::lost) return {-1, 0};
  return {socket_.descriptor(), static_cast<short>(write_blocked_ ? POLLIN | POLLOUT : POLLIN)};
}

void connection::ready(short events) {
  const auto keep = shared_from_this();
  if (state_ == state::connecting) {
    progress();
    return;
  }
  if ((events & (POLLOUT | POLLERR | POLLHUP)) != 0) {
    write_blocked_ = false;
    // Not on an error: what the broker said before it hung up is still to be read.
    if ((events & POLLOUT) != 0) flush();
  }
  if (state_ != state::lost && (events & (POLLIN | POLLERR | POLLHUP)) != 0) read();
}

void connection::flush() {
  while (!out_.empty()) {
    iovec parts[kWriteParts];
    const int count = out_.parts(parts, kWriteParts);
    std::size_t size = 0;
    switch (socket_.write(parts, count, size)) {
      case net::socket::io::some:
        out_.consumed(size);
        last_write_ = reactor::clock::now();
        break;
      case net::socket::io::again:
      case net::socket::io::closed:
        // Closed: the broker may have said why before; `read` finds that, and the end after it.
        write_blocked_ = true;
        return;
    }
  }
}

void connection::read() {
  for (int round = 0; round < kReadRounds; ++round) {
    iovec parts[2];
    int count = 0;
    std::size_t direct = 0;
    if (body_left_ > 0 && in_begin_ == in_end_) {
      direct = body_left_;
      parts[count++] = {body_channel_->message_.data.writable() + body_channel_->body_filled_, direct};
    }
    if (in_begin_ == in_end_) {
      in_begin_ = in_end_ = 0;
    } else if (in_begin_ > 0 && in_.size() - in_end_ < kReadBuffer / 4) {
      std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
      in_end_ -= in_begin_;
      in_begin_ = 0;
    }
    parts[count++] = {in_.data() + in_end_, in_.size() - in_end_};
    std::size_t size = 0;
    switch (socket_.read(parts, count, size)) {
      case net::socket::io::again:
        return;
      case net::socket::io::closed:
        if (state_ == state::closing) {
          lose({errc::closed, "closed"});
        } else if (state_ == state::starting) {
          lose({errc::broker_unavailable, socket_.error() + " during the greeting (is it an AMQP 0-9-1 port?)"});
        } else if (state_ == state::tuning) {
          lose({errc::broker_unavailable, "the broker closed the connection at login: wrong user or password?"});
        } else {
          lose({errc::broker_unavailable, socket_.error()});
        }
        return;
      case net::socket::io::some:
        break;
    }
    last_read_ = reactor::clock::now();
    const std::size_t to_body = std::min(size, direct);
    if (to_body > 0) {
      body_channel_->body_filled_ += to_body;
      body_left_ -= to_body;
      body_end_ = body_left_ == 0;
    }
    in_end_ += size - to_body;
    if (!parse()) return;
  }
  // TLS may hold decrypted bytes that poll() knows nothing of.
  if (socket_.holds_input()) {
    reactor_.at_round_end([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->state_ != state::lost) self->read();
    });
  }
}

// False: lost.
bool connection::parse() {
  while (true) {
    const std::size_t there = in_end_ - in_begin_;
    const char* const at = in_.data() + in_begin_;
    if (body_left_ > 0) {
      const std::size_t size = std::min(there, body_left_);
      std::memcpy(body_channel_->message_.data.writable() + body_channel_->body_filled_, at, size);
      body_channel_->body_filled_ += size;
      body_left_ -= size;
      in_begin_ += size;
      if (body_left_ > 0) return true;
      body_end_ = true;
      continue;
    }
    if (body_end_) {
      if (there < 1) return true;
      if (static_cast<unsigned char>(*at) != AMQP_FRAME_END) {
        broken("a frame does not end where it says");
        return false;
      }
      ++in_begin_;
      body_end_ = false;
      const auto ch = body_channel_->shared_from_this();
      body_channel_ = nullptr;
      if (ch->body_filled_ == ch->message_.data.size()) content_done(*ch);
      if (state_ == state::lost) return false;
      continue;
    }
    if (there < 8) return true;
    const auto type = static_cast<std::uint8_t>(at[0]);
    if (state_ == state::starting && std::memcmp(at, "AMQP", 4) == 0) {
      lose({errc::broker_unavailable, "the broker does not speak AMQP 0-9-1 there"});
      return false;
    }
    const std::uint16_t id = read_u16(at + 1);
    const std::size_t size = read_u32(at + 3);
    const bool known = type == AMQP_FRAME_METHOD || type == AMQP_FRAME_HEADER || type == AMQP_FRAME_BODY ||
                       type == AMQP_FRAME_HEARTBEAT;
    if (!known || size + kFrameOverhead > std::max<std::size_t>(frame_max_, kFrameMax)) {
      if (state_ == state::starting) {
        lose({errc::broker_unavailable, "what answers there is no AMQP 0-9-1 broker"});
      } else {
        broken("an impossible frame (type " + std::to_string(type) + ", " + std::to_string(size) + " bytes)");
      }
      return false;
    }
    if (type == AMQP_FRAME_BODY) {
      const auto found = channels_.find(id);
      if (found == channels_.end() || found->second->content_ != channel::content::body ||
          size > found->second->message_.data.size() - found->second->body_filled_) {
        broken("a body frame where none can be");
        return false;
      }
      in_begin_ += 7;
      body_channel_ = found->second.get();
      body_left_ = size;
      body_end_ = size == 0;
      continue;
    }
    if (there < size + kFrameOverhead) return true;
    if (static_cast<unsigned char>(at[7 + size]) != AMQP_FRAME_END) {
      broken("a frame does not end where it says");
      return false;
    }
    in_begin_ += size + kFrameOverhead;
    frame(type, id, {at + 7, size});
    if (state_ == state::lost) return false;
  }
}

// ---- connection: frames ----

void connection::frame(std::uint8_t type, std::uint16_t id, std::string_view payload) {
  if (type == AMQP_FRAME_HEARTBEAT) return;
  if (type == AMQP_FRAME_HEADER) {
    const auto found = channels_.find(id);
    if (found == channels_.end() || found->second->content_ != channel::content::header) {
      broken("a content header where none can be");
      return;
    }
    content_header(*found->second, payload);
    return;
  }
  if (payload.size() < 4) {
    broken("a method frame without a method");
    return;
  }
  thread_local decode_pool pool;
  amqp_method_t method{};
  method.id = read_u32(payload.data());  // NOLINT(bugprone-suspicious-stringview-data-usage): reads four bytes
  if (::amqp_decode_method(method.id, pool.fresh(), as_bytes(payload.substr(4)), &method.decoded) < 0) {
    broken("a method that cannot be decoded");
    return;
  }
  if (id == 0) {
    connection_method(method);
    return;
  }
  const auto found = channels_.find(id);
  if (found == channels_.end()) {
    broken("a method on channel " + std::to_string(id) + ", which is not open");
    return;
  }
  channel_method(*found->second, method);
}

void connection::channel_method(channel& ch, const amqp_method_t& method) {
  const auto keep = ch.shared_from_this();
  if (ch.content_ != channel::content::none) {
    broken("a method amid a message");
    return;
  }
  if (has_content(method.id)) {
    ch.content_ = channel::content::header;
    ch.content_method_ = method.id;
    ch.message_ = {};
    ch.body_filled_ = 0;
    if (method.id == AMQP_BASIC_DELIVER_METHOD) {
      const auto& m = *static_cast<const amqp_basic_deliver_t*>(method.decoded);
      ch.message_.tag = m.delivery_tag;
      ch.message_.redelivered = m.redelivered != 0;
    } else if (method.id == AMQP_BASIC_GET_OK_METHOD) {
      const auto& m = *static_cast<const amqp_basic_get_ok_t*>(method.decoded);
      ch.message_.tag = m.delivery_tag;
      ch.message_.redelivered = m.redelivered != 0;
    } else {
      const auto& m = *static_cast<const amqp_basic_return_t*>(method.decoded);
      ch.message_.reply_code = m.reply_code;
      ch.message_.reply_text = text_of(m.reply_text);
      ch.message_.routing_key = text_of(m.routing_key);
    }
    return;
  }
  const auto events = ch.events_.lock();
  switch (method.id) {
    case AMQP_BASIC_ACK_METHOD: {
      const auto& m = *static_cast<const amqp_basic_ack_t*>(method.decoded);
      if (events) events->on_confirm(m.delivery_tag, m.multiple != 0, true);
      return;
    }
    case AMQP_BASIC_NACK_METHOD: {
      const auto& m = *static_cast<const amqp_basic_nack_t*>(method.decoded);
      if (events) events->on_confirm(m.delivery_tag, m.multiple != 0, false);
      return;
    }
    case AMQP_BASIC_CANCEL_METHOD:
      if (events) events->on_cancelled();
      return;
    case AMQP_CHANNEL_FLOW_METHOD: {
      amqp_channel_flow_ok_t answer{};
      answer.active = static_cast<const amqp_channel_flow_t*>(method.decoded)->active;
      send_method(ch.id_, AMQP_CHANNEL_FLOW_OK_METHOD, &answer);
      return;
    }
    case AMQP_CHANNEL_CLOSE_METHOD: {
      const auto& m = *static_cast<const amqp_channel_close_t*>(method.decoded);
      const std::uint16_t code = m.reply_code;
      const std::string text = text_of(m.reply_text);
      amqp_channel_close_ok_t answer{};
      send_method(ch.id_, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer);
      // Both closed at once: the broker answers ours too, so the number stays taken until then.
      if (ch.state_ == channel::state::closing) return;
      channels_.erase(ch.id_);
      ch.end(call_result::kind::refused, code, text);
      return;
    }
    case AMQP_CHANNEL_CLOSE_OK_METHOD:
      channels_.erase(ch.id_);
      ch.end(call_result::kind::lost, 0, "the channel is closed");
      return;
    default:
      ch.reply(&method, nullptr);
      return;
  }
}

void connection::content_header(channel& ch, std::string_view payload) {
  if (payload.size() < 12) {
    broken("a short content header");
    return;
  }
  const std::uint64_t size = read_u64(payload.data() + 4);
  if (size > kLargestBody || !decode_properties(payload.substr(12), ch.message_.props)) {
    broken("a content header that cannot be decoded");
    return;
  }
  ch.message_.data = size == 0 ? body() : body::uninitialized(size);
  ch.content_ = channel::content::body;
  if (size == 0) content_done(ch);
}

void connection::content_done(channel& ch) {
  const auto keep = ch.shared_from_this();
  ch.content_ = channel::content::none;
  incoming message = std::move(ch.message_);  // the next one begins with a fresh one
  if (ch.content_method_ == AMQP_BASIC_GET_OK_METHOD) {
    const amqp_method_t method{AMQP_BASIC_GET_OK_METHOD, nullptr};
    ch.reply(&method, &message);
    return;
  }
  const auto events = ch.events_.lock();
  if (!events) return;
  if (ch.content_method_ == AMQP_BASIC_DELIVER_METHOD) {
    events->on_deliver(std::move(message));
  } else {
    events->on_returned(std::move(message));
  }
}

}  // namespace leveret::core::rabbitmq
