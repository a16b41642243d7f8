/// amqp:// and amqps:// urls.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace leveret::core::rabbitmq {

/// Where and as whom to connect, one server of a url:
/// `amqp[s]://[user[:password]@]host[:port][,host[:port]]…[/vhost][?heartbeat=SECONDS][&verify=none]`.
struct endpoint {
  bool tls = false;
  bool verify = true;  ///< of the server's certificate and name; `verify=none` turns it off, and `where` says so
  std::string host = "localhost";
  std::uint16_t port = 5672;
  std::string user = "guest";
  std::string password = "guest";
  std::string vhost = "/";
  std::optional<std::chrono::seconds> heartbeat;

  /// For people: never holds user or password.
  [[nodiscard]] std::string where() const;
};

/// Percent-encoding is decoded in user, password, host and vhost. Throws std::invalid_argument, with a text that never
/// repeats the user or password, for anything else than the form above; parameters that are not known are refused. One
/// or more, in the url's order, that differ by host and port.
[[nodiscard]] std::vector<endpoint> parse_url(const std::string& url);

/// For people, as `endpoint::where`: `amqp://a:5672,b:5672/vhost`.
[[nodiscard]] std::string where(const std::vector<endpoint>& servers);

}  // namespace leveret::core::rabbitmq
