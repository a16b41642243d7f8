/// A non-blocking byte stream to a server, plain or TLS: resolve, connect, handshake, read, write. The I/O thread's
/// own.
///
/// Why not rabbitmq-c's sockets: its writes block (without limit when the broker stops reading, rabbitmq-c#780 and
/// #519), its login and calls block the thread that must send heartbeats, and it has no default CA paths before 0.14.
/// Why not hiredis's: a timeout there is one of a single read, its name lookup has none, and it has no TLS before 1.0.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "reactor.hpp"

struct ssl_st;
struct ssl_ctx_st;

namespace leveret::core::net {

/// Whom to connect to.
struct peer {
  std::string host;
  std::uint16_t port = 0;
  bool tls = false;
  bool verify = true;  ///< of the server's certificate and name
};

class socket {
 public:
  enum class progress { pending, ready, failed };
  enum class io { some, again, closed };

  socket(reactor& r, peer where);
  ~socket();
  socket(const socket&) = delete;
  socket& operator=(const socket&) = delete;

  /// Starts to resolve and connect. `wake` is called on the I/O thread when the name is resolved; `advance` goes on
  /// then.
  void open(std::function<void()> wake);
  /// Goes on with connecting; call it when `descriptor` is ready. Failed: `error` says why.
  [[nodiscard]] progress advance();
  /// Poll events that `advance`, or a write or read that gave `again`, waits for.
  [[nodiscard]] short wanted() const noexcept { return wanted_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] const std::string& error() const noexcept { return error_; }

  /// One read or write of what is there. `closed`: `error` says why.
  [[nodiscard]] io read(const iovec* parts, int count, std::size_t& size);
  [[nodiscard]] io write(const iovec* parts, int count, std::size_t& size);
  /// Whether bytes are here that `descriptor` does not announce.
  [[nodiscard]] bool holds_input() const noexcept;
  void close();

 private:
  struct address {
    sockaddr_storage bytes{};
    socklen_t size = 0;
    int family = 0;
  };
  struct lookup;  // shared with the thread that asks the name server

  [[nodiscard]] progress connect_next();
  [[nodiscard]] progress start_tls();
  [[nodiscard]] progress handshake();
  [[nodiscard]] io tls_ended(int result, const char* verb);

  reactor& reactor_;
  const peer where_;
  enum class stage { idle, resolving, connecting, handshaking, open } stage_ = stage::idle;
  std::shared_ptr<lookup> lookup_;
  std::vector<address> addresses_;
  std::size_t next_address_ = 0;
  int descriptor_ = -1;
  short wanted_ = 0;
  std::string error_;
  ssl_ctx_st* context_ = nullptr;
  ssl_st* tls_ = nullptr;
};

}  // namespace leveret::core::net
