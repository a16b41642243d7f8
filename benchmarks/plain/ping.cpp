// How long a message takes through an idle quorum queue with plain rabbitmq-c: the bound of the RabbitMQ transport.
//
//     ping PORT QUEUE COUNT PAUSE_MS
//
// One connection publishes persistent messages with confirms, another one of the same program consumes them without
// acknowledgements. Prints a JSON array: microseconds from each publish to the return of the call that read it.
#include <amqp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "connection.hpp"

namespace {

using clock = std::chrono::steady_clock;

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    (void)std::fprintf(stderr, "usage: ping PORT QUEUE COUNT PAUSE_MS\n");
    return 2;
  }
  const int port = std::atoi(argv[1]);
  const std::string queue = argv[2];
  const auto count = static_cast<std::size_t>(std::atoll(argv[3]));
  const std::chrono::milliseconds pause(std::atoll(argv[4]));
  amqp_connection_state_t reading = connect(port);
  amqp_basic_consume(reading, 1, amqp_cstring_bytes(queue.c_str()), amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
  check(amqp_get_rpc_reply(reading), "basic.consume");
  std::vector<clock::time_point> arrived(count);
  std::thread reader([&] {
    for (clock::time_point& when : arrived) {
      amqp_maybe_release_buffers(reading);
      amqp_envelope_t envelope;
      check(amqp_consume_message(reading, &envelope, nullptr, 0), "reading");
      when = clock::now();
      amqp_destroy_envelope(&envelope);
    }
  });

  amqp_connection_state_t writing = connect(port);
  amqp_confirm_select(writing, 1);
  check(amqp_get_rpc_reply(writing), "confirm.select");
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
  properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  std::vector<clock::time_point> sent;
  for (std::size_t i = 0; i < count; ++i) {
    std::this_thread::sleep_for(pause);
    sent.push_back(clock::now());
    if (amqp_basic_publish(writing, 1, amqp_empty_bytes, amqp_cstring_bytes(queue.c_str()), 0, 0, &properties,
                           amqp_cstring_bytes("ping")) != AMQP_STATUS_OK) {
      fail("publish");
    }
    amqp_frame_t frame;
    if (amqp_simple_wait_frame(writing, &frame) != AMQP_STATUS_OK) fail("waiting for a confirm");
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("a confirm");
    amqp_maybe_release_buffers(writing);
  }
  reader.join();
  for (std::size_t i = 0; i < count; ++i) {
    const std::chrono::duration<double, std::micro> took = arrived[i] - sent[i];
    std::printf("%s%.1f", i == 0 ? "[" : ", ", took.count());
  }
  std::printf("]\n");
  close(writing);
  close(reading);
  return 0;
}
