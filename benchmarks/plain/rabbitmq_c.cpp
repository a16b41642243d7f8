// What plain rabbitmq-c does with a quorum queue, nothing decoded: the bound of the RabbitMQ transport.
//
//     rabbitmq_c publish|consume PORT QUEUE MESSAGES BYTES
//
// `publish` has at most 1,000 messages without their confirms; `consume` reads with a prefetch of 1,000 and
// acknowledges every hundredth with all before it. Prints the seconds as JSON once all is confirmed, or read and
// acknowledged.
#include <amqp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "connection.hpp"

namespace {

constexpr std::uint64_t kWindow = 1000;
constexpr std::uint64_t kAckEvery = 100;

void publish(amqp_connection_state_t c, amqp_bytes_t queue, std::uint64_t messages, std::size_t bytes) {
  amqp_confirm_select(c, 1);
  check(amqp_get_rpc_reply(c), "confirm.select");
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG;
  properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  properties.content_type = amqp_cstring_bytes("application/json");
  std::string text(bytes, 'x');
  const amqp_bytes_t body{text.size(), text.data()};
  std::uint64_t sent = 0;
  std::uint64_t confirmed = 0;
  while (confirmed < messages) {
    while (sent < messages && sent - confirmed < kWindow) {
      if (amqp_basic_publish(c, 1, amqp_empty_bytes, queue, 0, 0, &properties, body) != AMQP_STATUS_OK) fail("publish");
      ++sent;
    }
    amqp_maybe_release_buffers(c);
    amqp_frame_t frame;
    if (amqp_simple_wait_frame(c, &frame) != AMQP_STATUS_OK) fail("waiting for confirms");
    if (frame.frame_type != AMQP_FRAME_METHOD) continue;
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("a confirm");
    const auto* const ack = static_cast<const amqp_basic_ack_t*>(frame.payload.method.decoded);
    // The broker confirms in order here, several at once or one.
    confirmed = ack->multiple != 0 ? ack->delivery_tag : confirmed + 1;
  }
}

void consume(amqp_connection_state_t c, amqp_bytes_t queue, std::uint64_t messages) {
  amqp_basic_qos(c, 1, 0, kWindow, 0);
  check(amqp_get_rpc_reply(c), "basic.qos");
  amqp_basic_consume(c, 1, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  check(amqp_get_rpc_reply(c), "basic.consume");
  for (std::uint64_t n = 1; n <= messages; ++n) {
    amqp_maybe_release_buffers(c);
    amqp_envelope_t envelope;
    check(amqp_consume_message(c, &envelope, nullptr, 0), "reading");
    if (n % kAckEvery == 0 || n == messages) amqp_basic_ack(c, 1, envelope.delivery_tag, 1);
    amqp_destroy_envelope(&envelope);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    (void)std::fprintf(stderr, "usage: rabbitmq_c publish|consume PORT QUEUE MESSAGES BYTES\n");
    return 2;
  }
  const std::string mode = argv[1];
  const auto messages = static_cast<std::uint64_t>(std::atoll(argv[4]));
  const auto bytes = static_cast<std::size_t>(std::atoll(argv[5]));
  amqp_connection_state_t c = connect(std::atoi(argv[2]));
  const amqp_bytes_t queue = amqp_cstring_bytes(argv[3]);
  const auto began = std::chrono::steady_clock::now();
  if (mode == "publish") {
    publish(c, queue, messages, bytes);
  } else {
    consume(c, queue, messages);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("{\"seconds\": %.6f}\n", took.count());
  close(c);
  return 0;
}
