// Connection methods: the greeting, login, tuning, and the end.
#include <unistd.h>

#include <algorithm>
#include <leveret/version.hpp>

#include "connection.hpp"

namespace leveret::core::rabbitmq {
namespace {

std::string find_text(const amqp_table_t& fields, std::string_view name) {
  for (int i = 0; i < fields.num_entries; ++i) {
    if (as_view(fields.entries[i].key) == name && fields.entries[i].value.kind == AMQP_FIELD_KIND_UTF8) {
      return text_of(fields.entries[i].value.value.bytes);
    }
  }
  return {};
}

}  // namespace

void connection::start_ok(const amqp_connection_start_t& start) {
  const std::string product = find_text(start.server_properties, "product");
  server_ = product + " " + find_text(start.server_properties, "version");
  const std::string_view mechanisms = as_view(start.mechanisms);
  if (mechanisms.find("PLAIN") == std::string_view::npos) {
    lose({errc::broker_unavailable, "the broker offers no login by password (PLAIN), only " + std::string(mechanisms)});
    return;
  }
  const std::string response = std::string(1, '\0') + where_.user + std::string(1, '\0') + where_.password;
  table capabilities;
  capabilities.boolean("publisher_confirms", true)
      .boolean("exchange_exchange_bindings", true)
      .boolean("basic.nack", true)
      .boolean("consumer_cancel_notify", true)
      .boolean("connection.blocked", true)
      .boolean("authentication_failure_close", true);
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  const std::string name =
      (client_name_.empty() ? std::string(host) + ", pid " + std::to_string(::getpid()) : client_name_) + ": " +
      purpose_;
  table client;
  client.text("product", "leveret")
      .text("version", LEVERET_VERSION)
      .text("connection_name", name)
      .nested("capabilities", capabilities);
  amqp_connection_start_ok_t method{};
  method.client_properties = client.raw();
  method.mechanism = as_bytes("PLAIN");
  method.response = as_bytes(response);
  method.locale = as_bytes("en_US");
  state_ = state::tuning;
  send_method(0, AMQP_CONNECTION_START_OK_METHOD, &method);
}

void connection::server_closed(std::uint16_t code, const std::string& text) {
  std::string why = "the broker closed the connection: " + text + " (" + std::to_string(code) + ")";
  if (state_ == state::tuning && code == AMQP_ACCESS_REFUSED) {
    why = "the broker refused the user or password of the url (" + std::to_string(code) +
          " ACCESS_REFUSED); user guest may log in from the broker's own machine only";
  } else if (state_ == state::opening && (code == AMQP_NOT_ALLOWED || code == AMQP_NOT_FOUND)) {
    why = "the broker has no vhost \"" + where_.vhost + "\" for this user (" + text +
          "); check the path of the url, or make it with rabbitmqctl add_vhost and set_permissions";
  } else if (state_ == state::opening && code == AMQP_ACCESS_REFUSED) {
    why = "the user of the url may not use vhost \"" + where_.vhost + "\" (" + text +
          "); allow it with rabbitmqctl set_permissions";
  }
  lose({errc::broker_unavailable, why});
}

void connection::connection_method(const amqp_method_t& method) {
  switch (method.id) {
    case AMQP_CONNECTION_START_METHOD:
      if (state_ == state::starting) start_ok(*static_cast<const amqp_connection_start_t*>(method.decoded));
      return;
    case AMQP_CONNECTION_TUNE_METHOD: {
      if (state_ != state::tuning) return;
      const auto& offer = *static_cast<const amqp_connection_tune_t*>(method.decoded);
      frame_max_ = offer.frame_max == 0 ? kFrameMax : std::min(offer.frame_max, kFrameMax);
      if (frame_max_ < 4096) frame_max_ = 4096;
      if (offer.channel_max != 0) channel_max_ = std::min(offer.channel_max, channel_max_);
      if (offer.heartbeat != 0) heartbeat_ = std::min(heartbeat_, std::chrono::seconds(offer.heartbeat));
      amqp_connection_tune_ok_t answer{};
      answer.channel_max = channel_max_;
      answer.frame_max = frame_max_;
      answer.heartbeat = static_cast<std::uint16_t>(std::min<std::int64_t>(heartbeat_.count(), 65'535));
      send_method(0, AMQP_CONNECTION_TUNE_OK_METHOD, &answer);
      amqp_connection_open_t open{};
      open.virtual_host = as_bytes(where_.vhost);
      send_method(0, AMQP_CONNECTION_OPEN_METHOD, &open);
      if (state_ == state::lost) return;
      state_ = state::opening;
      arm_heartbeat();
      return;
    }
    case AMQP_CONNECTION_OPEN_OK_METHOD:
      if (state_ != state::opening) return;
      state_ = state::open;
      if (events_.on_open) events_.on_open();
      return;
    case AMQP_CONNECTION_CLOSE_METHOD: {
      const auto& said = *static_cast<const amqp_connection_close_t*>(method.decoded);
      const std::uint16_t code = said.reply_code;
      const std::string text = text_of(said.reply_text);
      amqp_connection_close_ok_t answer{};
      (void)out_.method(0, AMQP_CONNECTION_CLOSE_OK_METHOD, &answer);
      flush();
      server_closed(code, text);
      return;
    }
    case AMQP_CONNECTION_CLOSE_OK_METHOD:
      lose({errc::closed, "closed"});
      return;
    case AMQP_CONNECTION_BLOCKED_METHOD:
      if (events_.on_blocked) {
        events_.on_blocked(true, text_of(static_cast<const amqp_connection_blocked_t*>(method.decoded)->reason));
      }
      return;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
      if (events_.on_blocked) events_.on_blocked(false, {});
      return;
    default:
      return;
  }
}

}  // namespace leveret::core::rabbitmq
