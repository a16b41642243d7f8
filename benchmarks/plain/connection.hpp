// A connection of the plain programs; whatever fails ends the program.
#pragma once

#include <amqp.h>
#include <amqp_tcp_socket.h>

#include <cstdio>
#include <cstdlib>

[[noreturn]] inline void fail(const char* what) {
  (void)std::fprintf(stderr, "plain rabbitmq-c: %s failed\n", what);
  std::exit(1);
}

inline void check(const amqp_rpc_reply_t& reply, const char* what) {
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

inline amqp_connection_state_t connect(int port) {
  amqp_connection_state_t c = amqp_new_connection();
  amqp_socket_t* const socket = amqp_tcp_socket_new(c);
  if (amqp_socket_open(socket, "127.0.0.1", port) != 0) fail("connect");
  check(amqp_login(c, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
  amqp_channel_open(c, 1);
  check(amqp_get_rpc_reply(c), "channel.open");
  return c;
}

inline void close(amqp_connection_state_t c) {
  check(amqp_connection_close(c, AMQP_REPLY_SUCCESS), "connection.close");
  amqp_destroy_connection(c);
}
