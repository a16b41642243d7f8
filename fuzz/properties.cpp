/// libFuzzer's target for AMQP properties and tables: what a content header's bytes become in Leveret.
///
///     fuzz/run.py --seconds 60 properties
///
/// The bytes are those of a content header's property list, as a broker passes on what anybody published. rabbitmq-c's
/// own decoder is in the way, compiled without the sanitizers. What is read must survive Leveret's own writing.
#include <cstdlib>
#include <string>

#include "redelivery.hpp"
#include "transports/rabbitmq/wire.hpp"

namespace {

using namespace leveret::core;
using namespace leveret::core::rabbitmq;

constexpr std::size_t kMost = kFrameMax - kFrameOverhead - 12;

void check(bool holds) {
  if (!holds) std::abort();
}

bool equal(const std::vector<header>& a, const std::vector<header>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || a[i].value != b[i].value) return false;
  }
  return true;
}

/// The property list of the first content header in what `out` holds.
std::string written_properties(const output& out) {
  iovec parts[8];
  std::string bytes;
  const int count = out.parts(parts, 8);
  for (int i = 0; i < count; ++i) bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  const std::size_t method = kFrameOverhead + read_u32(bytes.data() + 3);
  check(bytes.size() > method + kFrameOverhead + 12 && bytes[method] == AMQP_FRAME_HEADER);
  return bytes.substr(method + 7 + 12, read_u32(bytes.data() + method + 3) - 12);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size > kMost) return 0;
  // Of its own size: the sanitizer sees a byte read behind it.
  const std::string payload(reinterpret_cast<const char*>(data), size);
  properties read;
  if (!decode_properties(payload, read)) return 0;
  for (const std::string* text : {&read.message_id, &read.content_type, &read.reply_to, &read.type}) {
    check(text->size() <= 255);
  }
  for (const header& h : read.headers) check(h.name.size() <= 255 && h.value.size() <= size + 350);

  delivery d;
  d.returns = static_cast<std::int32_t>(read.delivery_count > INT32_MAX ? INT32_MAX : read.delivery_count);
  d.msg.headers = read.headers;
  check(crashes_of(d) >= 0);
  for (const bool suspects : {false, true}) (void)on_return(d, suspects, true, 3);
  for (const header& h : read.headers) (void)number_header(read, h.name);

  static output out;
  if (!out.publish(1, "", "q", read, body(std::string_view("{}\n")), kFrameMax)) {
    check(out.empty());
    return 0;
  }
  properties again;
  check(decode_properties(written_properties(out), again));
  check(again.message_id == read.message_id && again.reply_to == read.reply_to && again.type == read.type);
  check(again.content_type == read.content_type && equal(again.headers, read.headers));
  check(again.due == read.due && again.jobs == (read.jobs > 0 ? read.jobs : 0));
  check(again.delivery_count == -1 && again.death_reason.empty() && again.death_queue.empty());
  out.consumed(out.size());
  return 0;
}
