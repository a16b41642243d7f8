/// redis:// and rediss:// urls.
#pragma once

#include <cstdint>
#include <string>

namespace leveret::core::redis {

/// Where and as whom to connect: `redis[s]://[[user]:password@]host[:port][/db]`, with TLS also `?verify=none`.
struct endpoint {
  bool tls = false;
  bool verify = true;  ///< of the server's certificate and name; `verify=none` turns it off, and `where` says so
  std::string host = "localhost";
  std::uint16_t port = 6379;
  std::string user;      ///< empty: the server's default user
  std::string password;  ///< empty: none
  std::uint32_t database = 0;

  /// For people: never holds user or password.
  [[nodiscard]] std::string where() const;
};

/// Percent-encoding is decoded in user, password and host. Throws std::invalid_argument, with a text that never repeats
/// the user or password, for anything else than the form above.
[[nodiscard]] endpoint parse_url(const std::string& url);

}  // namespace leveret::core::redis
