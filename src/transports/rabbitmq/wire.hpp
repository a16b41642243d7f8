/// AMQP 0-9-1 frames as bytes, on rabbitmq-c's encoders and decoders; the only file that includes it. Nothing of the
/// library's connection state is used (see net/socket.hpp for why), so none of its abort()s can be reached.
///
/// A frame: type (1 byte), channel (2), size (4), payload, 0xCE. A message: a method frame, a header frame (class,
/// weight, body size, properties), and as many body frames as the agreed frame size makes necessary. Frames of one
/// message are contiguous within a channel; channels may interleave.
#pragma once

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "../../message.hpp"

namespace leveret::core::rabbitmq {

inline constexpr std::size_t kFrameOverhead = 8;
inline constexpr std::uint32_t kFrameMax =
    131'072;  ///< RabbitMQ's own default; more is never agreed, 4.1 wants >= 8192

[[nodiscard]] inline amqp_bytes_t as_bytes(std::string_view text) {
  return {text.size(), const_cast<char*>(text.data())};
}
[[nodiscard]] inline std::string_view as_view(amqp_bytes_t bytes) {
  return {static_cast<const char*>(bytes.bytes), bytes.len};
}

[[nodiscard]] inline std::string text_of(amqp_bytes_t bytes) { return std::string(as_view(bytes)); }

/// Arguments, headers or client properties being written. Names and texts are referenced, not copied.
class table {
 public:
  table& text(std::string_view name, std::string_view value);
  table& integer(std::string_view name, std::int64_t value);
  table& boolean(std::string_view name, bool value);
  table& nested(std::string_view name, const table& value);
  [[nodiscard]] amqp_table_t raw() const;

 private:
  amqp_field_value_t& add(std::string_view name, amqp_field_value_kind_t kind);
  std::vector<amqp_table_entry_t> entries_;
};

/// A message's properties, as Leveret uses them.
struct properties {
  std::string message_id;
  std::string content_type;  ///< of what is sent; that of what comes is nothing to go by
  std::string reply_to;
  std::string type;
  std::vector<header> headers;       ///< the broker's own (x-death …) and Leveret's below are not in it
  std::int64_t jobs = 0;             ///< x-leveret-jobs; 0: not known
  std::int64_t due = 0;              ///< x-leveret-due, unix_ms; 0: none
  std::int64_t delivery_count = -1;  ///< x-delivery-count; -1: absent
  std::string death_reason;          ///< of the last death (x-death's first entry)
  std::string death_queue;
};

/// The text of a header; empty: there is none.
[[nodiscard]] std::string_view text_header(const properties& p, std::string_view name);
/// A header that is a whole number, as a number or as text; 0: there is none, or it is no such number.
[[nodiscard]] std::int64_t number_header(const properties& p, std::string_view name);

/// Decodes a content header's properties. False: malformed.
[[nodiscard]] bool decode_properties(std::string_view payload, properties& out);

/// Bytes to be written: small frames copied into shared buffers, large bodies referenced.
class output {
 public:
  output();
  output(const output&) = delete;
  output& operator=(const output&) = delete;

  void protocol_header();
  void heartbeat();
  /// False: the method does not fit into a frame; nothing was added.
  [[nodiscard]] bool method(std::uint16_t channel, amqp_method_number_t id, void* decoded);
  /// basic.publish, persistent. False: the properties do not fit into a frame; nothing was added.
  [[nodiscard]] bool publish(std::uint16_t channel, std::string_view exchange, std::string_view routing_key,
                             const properties& props, const body& data, std::uint32_t frame_max);

  [[nodiscard]] bool empty() const noexcept { return pieces_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// The next bytes, at most `count` parts; gives how many.
  [[nodiscard]] int parts(iovec* out, int count) const;
  void consumed(std::size_t size);

 private:
  // Either a buffer of ours or bytes of a body.
  struct piece {
    std::string bytes;
    body shared;
    std::size_t begin = 0;
    std::size_t end = 0;
    bool is_shared = false;
  };

  char* reserve(std::size_t size);
  void frame_head(char* to, std::uint8_t type, std::uint16_t channel, std::size_t size);

  std::deque<piece> pieces_;
  std::vector<std::string> spare_;
  std::string scratch_;
  std::size_t size_ = 0;
};

[[nodiscard]] std::uint16_t read_u16(const char* at);
[[nodiscard]] std::uint32_t read_u32(const char* at);
[[nodiscard]] std::uint64_t read_u64(const char* at);

}  // namespace leveret::core::rabbitmq
