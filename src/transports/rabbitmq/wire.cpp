#include "wire.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace leveret::core::rabbitmq {
namespace {

constexpr std::size_t kBuffer = 16u << 10;
constexpr std::size_t kSpareBuffers = 128;
// Bodies up to this size are copied behind their header, so that many small messages leave in one write.
constexpr std::size_t kCopiedBody = 8u << 10;
constexpr char kFrameEnd = static_cast<char>(AMQP_FRAME_END);

constexpr std::string_view kJobsHeader = "x-leveret-jobs";
constexpr std::string_view kDueHeader = "x-leveret-due";

void write_u16(char* to, std::uint16_t value) {
  to[0] = static_cast<char>(value >> 8);
  to[1] = static_cast<char>(value & 0xff);
}
void write_u32(char* to, std::uint32_t value) {
  write_u16(to, static_cast<std::uint16_t>(value >> 16));
  write_u16(to + 2, static_cast<std::uint16_t>(value & 0xffff));
}
void write_u64(char* to, std::uint64_t value) {
  write_u32(to, static_cast<std::uint32_t>(value >> 32));
  write_u32(to + 4, static_cast<std::uint32_t>(value & 0xffffffff));
}

// A header's value as text; false: a table, an array, nothing.
bool as_text(const amqp_field_value_t& value, std::string& out) {
  switch (value.kind) {
    case AMQP_FIELD_KIND_UTF8:
    case AMQP_FIELD_KIND_BYTES:
      out = as_view(value.value.bytes);
      return true;
    case AMQP_FIELD_KIND_BOOLEAN:
      out = value.value.boolean != 0 ? "true" : "false";
      return true;
    case AMQP_FIELD_KIND_I8:
      out = std::to_string(value.value.i8);
      return true;
    case AMQP_FIELD_KIND_U8:
      out = std::to_string(value.value.u8);
      return true;
    case AMQP_FIELD_KIND_I16:
      out = std::to_string(value.value.i16);
      return true;
    case AMQP_FIELD_KIND_U16:
      out = std::to_string(value.value.u16);
      return true;
    case AMQP_FIELD_KIND_I32:
      out = std::to_string(value.value.i32);
      return true;
    case AMQP_FIELD_KIND_U32:
      out = std::to_string(value.value.u32);
      return true;
    case AMQP_FIELD_KIND_I64:
      out = std::to_string(value.value.i64);
      return true;
    case AMQP_FIELD_KIND_U64:
    case AMQP_FIELD_KIND_TIMESTAMP:
      out = std::to_string(value.value.u64);
      return true;
    case AMQP_FIELD_KIND_F32:
      out = std::to_string(value.value.f32);
      return true;
    case AMQP_FIELD_KIND_F64:
      out = std::to_string(value.value.f64);
      return true;
    default:
      return false;
  }
}

bool as_integer(const amqp_field_value_t& value, std::int64_t& out) {
  switch (value.kind) {
    case AMQP_FIELD_KIND_I8:
      out = value.value.i8;  // NOLINT(bugprone-signed-char-misuse): a number, not a character
      return true;
    case AMQP_FIELD_KIND_U8:
      out = value.value.u8;
      return true;
    case AMQP_FIELD_KIND_I16:
      out = value.value.i16;
      return true;
    case AMQP_FIELD_KIND_U16:
      out = value.value.u16;
      return true;
    case AMQP_FIELD_KIND_I32:
      out = value.value.i32;
      return true;
    case AMQP_FIELD_KIND_U32:
      out = value.value.u32;
      return true;
    case AMQP_FIELD_KIND_I64:
      out = value.value.i64;
      return true;
    case AMQP_FIELD_KIND_U64:
      out = static_cast<std::int64_t>(value.value.u64);
      return true;
    default:
      return false;
  }
}

// What the broker writes itself. Republished, an old x-death makes RabbitMQ 3.x see a cycle and swallow the message.
bool brokers_own(std::string_view name) {
  return name == "x-death" || name == "x-delivery-count" || name == "x-acquired-count" || name == "x-opt-deaths" ||
         name.substr(0, 14) == "x-first-death-" || name.substr(0, 13) == "x-last-death-";
}

void read_last_death(const amqp_field_value_t& value, properties& out) {
  if (value.kind != AMQP_FIELD_KIND_ARRAY || value.value.array.num_entries < 1) return;
  const amqp_field_value_t& newest = value.value.array.entries[0];
  if (newest.kind != AMQP_FIELD_KIND_TABLE) return;
  for (int i = 0; i < newest.value.table.num_entries; ++i) {
    const amqp_table_entry_t& entry = newest.value.table.entries[i];
    if (as_view(entry.key) == "reason") (void)as_text(entry.value, out.death_reason);
    if (as_view(entry.key) == "queue") (void)as_text(entry.value, out.death_queue);
  }
}

// rabbitmq-c's decoder calls itself for a table in a table, and a header frame has room for 26,000 of them: more than a
// small stack holds. What Leveret reads nests three levels deep.
constexpr std::size_t kMostNested = 32;

/// Whether the table that `text` begins with nests deeper than that. `size`: its bytes, with its length. A table that
/// is broken is the decoder's to refuse.
bool nests_too_deep(std::string_view text, std::size_t& size) {
  struct level {
    std::size_t end;
    bool table;
  };
  std::array<level, kMostNested> open;
  std::size_t depth = 0;
  std::size_t at = 0;
  const auto enter = [&](bool table) {
    if (at + 4 > text.size()) return false;
    const std::size_t end = at + 4 + read_u32(text.data() + at);
    at += 4;
    if (end > text.size() || (depth > 0 && end > open[depth - 1].end)) return false;
    open[depth++] = {end, table};
    return true;
  };
  if (!enter(true)) return false;
  size = open[0].end;
  while (depth > 0) {
    const level& now = open[depth - 1];
    if (at >= now.end) {
      --depth;
      continue;
    }
    if (now.table) at += 1 + static_cast<unsigned char>(text[at]);
    if (at >= now.end) return false;
    switch (text[at++]) {
      case 't':
      case 'b':
      case 'B':
        at += 1;
        break;
      case 's':
      case 'u':
        at += 2;
        break;
      case 'I':
      case 'i':
      case 'f':
        at += 4;
        break;
      case 'D':
        at += 5;
        break;
      case 'l':
      case 'L':
      case 'd':
      case 'T':
        at += 8;
        break;
      case 'S':
      case 'x':
        if (at + 4 > now.end) return false;
        at += 4 + read_u32(text.data() + at);
        break;
      case 'A':
      case 'F':
        if (depth == kMostNested) return true;
        if (!enter(text[at - 1] == 'F')) return false;
        break;
      case 'V':
        break;
      default:
        return false;
    }
  }
  return false;
}

/// Takes a header table out of a property list if it nests too deep: `without` is the list without it. Such headers are
/// nobody's that Leveret knows, and the message is as good without them.
bool without_deep_headers(std::string_view payload, std::string& without) {
  if (payload.size() < 2) return false;
  const std::uint16_t flags = read_u16(payload.data());  // NOLINT(bugprone-suspicious-stringview-data-usage): two bytes
  if ((flags & AMQP_BASIC_HEADERS_FLAG) == 0 || (flags & 1u) != 0) return false;
  std::size_t at = 2;
  for (const int flag : {AMQP_BASIC_CONTENT_TYPE_FLAG, AMQP_BASIC_CONTENT_ENCODING_FLAG}) {
    if ((flags & flag) == 0) continue;
    if (at >= payload.size()) return false;
    at += 1 + static_cast<unsigned char>(payload[at]);
  }
  std::size_t size = 0;
  if (at > payload.size() || !nests_too_deep(payload.substr(at), size)) return false;
  without.assign(payload.substr(0, at));
  without.append(payload.substr(at + size));
  write_u16(without.data(), static_cast<std::uint16_t>(flags & ~AMQP_BASIC_HEADERS_FLAG));
  return true;
}

}  // namespace

std::uint16_t read_u16(const char* at) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(at[0]) << 8 | static_cast<unsigned char>(at[1]));
}
std::uint32_t read_u32(const char* at) { return static_cast<std::uint32_t>(read_u16(at)) << 16 | read_u16(at + 2); }
std::uint64_t read_u64(const char* at) { return static_cast<std::uint64_t>(read_u32(at)) << 32 | read_u32(at + 4); }

amqp_field_value_t& table::add(std::string_view name, amqp_field_value_kind_t kind) {
  amqp_table_entry_t entry{};
  entry.key = as_bytes(name);
  entry.value.kind = static_cast<std::uint8_t>(kind);
  entries_.push_back(entry);
  return entries_.back().value;
}

table& table::text(std::string_view name, std::string_view value) {
  add(name, AMQP_FIELD_KIND_UTF8).value.bytes = as_bytes(value);
  return *this;
}
table& table::integer(std::string_view name, std::int64_t value) {
  add(name, AMQP_FIELD_KIND_I64).value.i64 = value;
  return *this;
}
table& table::boolean(std::string_view name, bool value) {
  add(name, AMQP_FIELD_KIND_BOOLEAN).value.boolean = value ? 1 : 0;
  return *this;
}
table& table::nested(std::string_view name, const table& value) {
  add(name, AMQP_FIELD_KIND_TABLE).value.table = value.raw();
  return *this;
}
amqp_table_t table::raw() const {
  return {static_cast<int>(entries_.size()), const_cast<amqp_table_entry_t*>(entries_.data())};
}

std::string_view text_header(const properties& p, std::string_view name) {
  for (const header& h : p.headers) {
    if (h.name == name) return h.value;
  }
  return {};
}

std::int64_t number_header(const properties& p, std::string_view name) {
  const std::string_view text = text_header(p, name);
  std::int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size() ? value : 0;
}

bool decode_properties(std::string_view payload, properties& out) {
  // The pool owns the decoded tables until the next call on this thread.
  struct pool {
    amqp_pool_t value{};
    pool() { ::init_amqp_pool(&value, 4096); }
    ~pool() { ::empty_amqp_pool(&value); }
  };
  thread_local pool decoded_in;
  ::recycle_amqp_pool(&decoded_in.value);
  std::string without;
  if (without_deep_headers(payload, without)) payload = without;
  void* decoded = nullptr;
  if (::amqp_decode_properties(AMQP_BASIC_CLASS, &decoded_in.value, as_bytes(payload), &decoded) < 0) return false;
  const auto& raw = *static_cast<const amqp_basic_properties_t*>(decoded);
  if ((raw._flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0) out.message_id = as_view(raw.message_id);
  if ((raw._flags & AMQP_BASIC_REPLY_TO_FLAG) != 0) out.reply_to = as_view(raw.reply_to);
  if ((raw._flags & AMQP_BASIC_TYPE_FLAG) != 0) out.type = as_view(raw.type);
  if ((raw._flags & AMQP_BASIC_HEADERS_FLAG) == 0) return true;
  for (int i = 0; i < raw.headers.num_entries; ++i) {
    const amqp_table_entry_t& entry = raw.headers.entries[i];
    const std::string_view name = as_view(entry.key);
    if (name == kJobsHeader) {
      (void)as_integer(entry.value, out.jobs);
    } else if (name == kDueHeader) {
      (void)as_integer(entry.value, out.due);
    } else if (name == "x-delivery-count") {
      (void)as_integer(entry.value, out.delivery_count);
    } else if (name == "x-death") {
      read_last_death(entry.value, out);
    } else if (!brokers_own(name)) {
      header h;
      h.name = name;
      if (as_text(entry.value, h.value)) out.headers.push_back(std::move(h));
    }
  }
  return true;
}

output::output() : scratch_(kFrameMax, '\0') {}

char* output::reserve(std::size_t size) {
  if (pieces_.empty() || pieces_.back().is_shared || pieces_.back().end + size > pieces_.back().bytes.size()) {
    piece p;
    if (!spare_.empty() && size <= kBuffer) {
      p.bytes = std::move(spare_.back());
      spare_.pop_back();
    } else {
      p.bytes.resize(std::max(kBuffer, size));
    }
    pieces_.push_back(std::move(p));
  }
  piece& last = pieces_.back();
  char* const at = last.bytes.data() + last.end;
  last.end += size;
  size_ += size;
  return at;
}

void output::frame_head(char* to, std::uint8_t type, std::uint16_t channel, std::size_t size) {
  to[0] = static_cast<char>(type);
  write_u16(to + 1, channel);
  write_u32(to + 3, static_cast<std::uint32_t>(size));
}

void output::protocol_header() { std::memcpy(reserve(8), "AMQP\0\0\x09\x01", 8); }

void output::heartbeat() {
  char* const at = reserve(kFrameOverhead);
  frame_head(at, AMQP_FRAME_HEARTBEAT, 0, 0);
  at[7] = kFrameEnd;
}

bool output::method(std::uint16_t channel, amqp_method_number_t id, void* decoded) {
  const int encoded = ::amqp_encode_method(id, decoded, {scratch_.size() - kFrameOverhead, scratch_.data()});
  if (encoded < 0) return false;
  const auto size = static_cast<std::size_t>(encoded);
  char* const at = reserve(kFrameOverhead + 4 + size);
  frame_head(at, AMQP_FRAME_METHOD, channel, 4 + size);
  write_u32(at + 7, id);
  std::memcpy(at + 11, scratch_.data(), size);
  at[11 + size] = kFrameEnd;
  return true;
}

bool output::publish(std::uint16_t channel, std::string_view exchange, std::string_view routing_key,
                     const properties& props, const body& data, std::uint32_t frame_max) {
  if (exchange.size() > 255 || routing_key.size() > 255 || props.message_id.size() > 255 ||
      props.reply_to.size() > 255 || props.type.size() > 255 || props.content_type.size() > 255) {
    return false;
  }
  table headers;
  if (props.jobs > 0) headers.integer(kJobsHeader, props.jobs);
  if (props.due != 0) headers.integer(kDueHeader, props.due);
  for (const header& h : props.headers) {
    if (h.name.size() > 128) return false;
    if (!brokers_own(h.name) && h.name != kJobsHeader && h.name != kDueHeader) headers.text(h.name, h.value);
  }
  amqp_basic_properties_t raw{};
  raw._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG;
  raw.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  raw.content_type = as_bytes(props.content_type);
  raw.message_id = as_bytes(props.message_id);
  if (!props.reply_to.empty()) {
    raw._flags |= AMQP_BASIC_REPLY_TO_FLAG;
    raw.reply_to = as_bytes(props.reply_to);
  }
  if (!props.type.empty()) {
    raw._flags |= AMQP_BASIC_TYPE_FLAG;
    raw.type = as_bytes(props.type);
  }
  raw.headers = headers.raw();
  if (raw.headers.num_entries > 0) raw._flags |= AMQP_BASIC_HEADERS_FLAG;
  const int encoded =
      ::amqp_encode_properties(AMQP_BASIC_CLASS, &raw, {frame_max - kFrameOverhead - 12, scratch_.data()});
  if (encoded < 0) return false;
  const auto properties_size = static_cast<std::size_t>(encoded);

  // basic.publish is short and always the same: ticket, exchange, routing key, one byte of flags (bit 0: mandatory).
  const std::size_t method_size = 4 + 2 + 1 + exchange.size() + 1 + routing_key.size() + 1;
  char* at = reserve(kFrameOverhead + method_size + kFrameOverhead + 12 + properties_size);
  frame_head(at, AMQP_FRAME_METHOD, channel, method_size);
  at += 7;
  write_u32(at, AMQP_BASIC_PUBLISH_METHOD);
  write_u16(at + 4, 0);
  at += 6;
  *at++ = static_cast<char>(exchange.size());
  std::memcpy(at, exchange.data(), exchange.size());
  at += exchange.size();
  *at++ = static_cast<char>(routing_key.size());
  std::memcpy(at, routing_key.data(), routing_key.size());
  at += routing_key.size();
  *at++ = 1;
  *at++ = kFrameEnd;
  frame_head(at, AMQP_FRAME_HEADER, channel, 12 + properties_size);
  at += 7;
  write_u16(at, AMQP_BASIC_CLASS);
  write_u16(at + 2, 0);
  write_u64(at + 4, data.size());
  std::memcpy(at + 12, scratch_.data(), properties_size);
  at[12 + properties_size] = kFrameEnd;

  const std::size_t most = frame_max - kFrameOverhead;
  for (std::size_t begin = 0; begin < data.size(); begin += most) {
    const std::size_t size = std::min(most, data.size() - begin);
    if (size <= kCopiedBody) {
      char* const frame = reserve(kFrameOverhead + size);
      frame_head(frame, AMQP_FRAME_BODY, channel, size);
      std::memcpy(frame + 7, data.data() + begin, size);
      frame[7 + size] = kFrameEnd;
    } else {
      frame_head(reserve(7), AMQP_FRAME_BODY, channel, size);
      piece p;
      p.shared = data;
      p.begin = begin;
      p.end = begin + size;
      p.is_shared = true;
      pieces_.push_back(std::move(p));
      size_ += size;
      *reserve(1) = kFrameEnd;
    }
  }
  return true;
}

int output::parts(iovec* out, int count) const {
  int used = 0;
  for (const piece& p : pieces_) {
    if (used == count) break;
    const char* const base = p.is_shared ? p.shared.data() : p.bytes.data();
    out[used].iov_base = const_cast<char*>(base + p.begin);
    out[used].iov_len = p.end - p.begin;
    ++used;
  }
  return used;
}

void output::consumed(std::size_t size) {
  size_ -= size;
  while (size > 0) {
    piece& first = pieces_.front();
    const std::size_t part = std::min(size, first.end - first.begin);
    first.begin += part;
    size -= part;
    if (first.begin < first.end) break;
    if (!first.is_shared && first.bytes.size() == kBuffer && spare_.size() < kSpareBuffers) {
      spare_.push_back(std::move(first.bytes));
    }
    pieces_.pop_front();
  }
}

}  // namespace leveret::core::rabbitmq
