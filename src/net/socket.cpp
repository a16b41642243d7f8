#include "socket.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

namespace leveret::core::net {
namespace {

std::string system_text(int code) { return std::generic_category().message(code); }

// What helps against a certificate that is not accepted.
std::string certificate_remedy(long verdict, const std::string& host) {
  switch (verdict) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return "it is for others than " + host + ": connect by a name that stands in it";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "renew it";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "compare the clocks";
    default:
      return "SSL_CERT_FILE names another authority";
  }
}

// The newest entry of OpenSSL's queue, in words.
std::string tls_text() {
  const unsigned long code = ::ERR_peek_last_error();
  ::ERR_clear_error();
  if (code == 0) return "the connection was closed";
  const int number = ERR_GET_REASON(code);
  if (number == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION || number == SSL_R_UNSUPPORTED_PROTOCOL) {
    return "the server does not speak TLS 1.2 or newer";
  }
  const char* const reason = ::ERR_reason_error_string(code);
  return reason != nullptr ? reason : "TLS error " + std::to_string(code);
}

}  // namespace

// Shared with the thread that resolves: getaddrinfo can block for as long as a name server is silent, and neither a
// heartbeat nor `close` may wait for that. So the thread is let go, and what it finds is dropped if nobody asks any
// more.
struct socket::lookup {
  std::mutex mutex;
  reactor* target = nullptr;  // null: forgotten
  std::function<void()> wake;
  bool done = false;
  std::vector<address> found;
  std::string error;
};

namespace {

template <class Address>
int resolve(const std::string& host, std::uint16_t port, int flags, std::vector<Address>& found) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* list = nullptr;
  const int status = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (status != 0) return status;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    Address a;
    std::memcpy(&a.bytes, entry->ai_addr, entry->ai_addrlen);
    a.size = entry->ai_addrlen;
    a.family = entry->ai_family;
    found.push_back(a);
  }
  ::freeaddrinfo(list);
  return 0;
}

}  // namespace

socket::socket(reactor& r, peer where) : reactor_(r), where_(std::move(where)) {}

socket::~socket() { close(); }

void socket::open(std::function<void()> wake) {
  stage_ = stage::resolving;
  lookup_ = std::make_shared<lookup>();
  if (resolve(where_.host, where_.port, AI_NUMERICHOST, lookup_->found) == 0) {
    lookup_->done = true;
    reactor_.at_round_end(std::move(wake));
    return;
  }
  lookup_->target = &reactor_;
  lookup_->wake = std::move(wake);
  // A thread of its own inherits this one's blocked signals.
  std::thread([shared = lookup_, host = where_.host, port = where_.port] {
    std::vector<address> found;
    const int status = resolve(host, port, 0, found);
    const std::lock_guard lock(shared->mutex);
    shared->found = std::move(found);
    if (status != 0) shared->error = ::gai_strerror(status);
    shared->done = true;
    if (shared->target != nullptr) shared->target->post(std::move(shared->wake));
  }).detach();
}

socket::progress socket::advance() {
  switch (stage_) {
    case stage::idle:
      error_ = "not opened";
      return progress::failed;
    case stage::resolving: {
      {
        const std::lock_guard lock(lookup_->mutex);
        if (!lookup_->done) return progress::pending;
        addresses_ = std::move(lookup_->found);
        if (addresses_.empty()) {
          error_ = "the host name cannot be resolved (" + lookup_->error + ")";
          return progress::failed;
        }
      }
      lookup_.reset();
      return connect_next();
    }
    case stage::connecting: {
      int code = 0;
      socklen_t size = sizeof code;
      if (::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &code, &size) != 0) code = errno;
      if (code == EINPROGRESS || code == EAGAIN) return progress::pending;
      if (code == 0) {
        // A spurious wake-up has no error either; only a peer's address proves the connection.
        sockaddr_storage peer{};
        socklen_t peer_size = sizeof peer;
        if (::getpeername(descriptor_, reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0) return progress::pending;
        return start_tls();
      }
      error_ = system_text(code);
      return connect_next();
    }
    case stage::handshaking:
      return handshake();
    case stage::open:
      return progress::ready;
  }
  return progress::failed;
}

socket::progress socket::connect_next() {
  while (next_address_ < addresses_.size()) {
    const address& a = addresses_[next_address_++];
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = ::socket(a.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor_ < 0) {
      error_ = system_text(errno);
      continue;
    }
    const int on = 1;
    ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    stage_ = stage::connecting;
    wanted_ = POLLOUT;
    if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&a.bytes), a.size) == 0) return start_tls();
    if (errno == EINPROGRESS) return progress::pending;
    error_ = system_text(errno);
  }
  return progress::failed;
}

socket::progress socket::start_tls() {
  if (!where_.tls) {
    stage_ = stage::open;
    wanted_ = POLLIN;
    return progress::ready;
  }
  context_ = ::SSL_CTX_new(::TLS_client_method());
  if (context_ == nullptr) {
    error_ = "TLS cannot be set up: " + tls_text();
    return progress::failed;
  }
  ::SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
  ::SSL_CTX_set_mode(context_,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  // SSL_CERT_FILE and SSL_CERT_DIR name other authorities, as for every OpenSSL program.
  ::SSL_CTX_set_default_verify_paths(context_);
  ::SSL_CTX_set_verify(context_, where_.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  tls_ = ::SSL_new(context_);
  if (tls_ == nullptr || ::SSL_set_fd(tls_, descriptor_) != 1) {
    error_ = "TLS cannot be set up: " + tls_text();
    return progress::failed;
  }
  in6_addr ip{};
  const bool is_ip =
      ::inet_pton(AF_INET, where_.host.c_str(), &ip) == 1 || ::inet_pton(AF_INET6, where_.host.c_str(), &ip) == 1;
  if (is_ip) {
    ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(tls_), where_.host.c_str());
  } else {
    ::SSL_set_tlsext_host_name(tls_, where_.host.c_str());
    ::SSL_set1_host(tls_, where_.host.c_str());
  }
  stage_ = stage::handshaking;
  return handshake();
}

socket::progress socket::handshake() {
  ::ERR_clear_error();
  const int result = ::SSL_connect(tls_);
  if (result == 1) {
    stage_ = stage::open;
    wanted_ = POLLIN;
    return progress::ready;
  }
  const int code = ::SSL_get_error(tls_, result);
  if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
    wanted_ = code == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    return progress::pending;
  }
  const long verdict = ::SSL_get_verify_result(tls_);
  if (where_.verify && verdict != X509_V_OK) {
    ::ERR_clear_error();
    error_ = std::string("the server's certificate is not accepted: ") + ::X509_verify_cert_error_string(verdict) +
             " (" + certificate_remedy(verdict, where_.host) + ")";
  } else {
    error_ = "the TLS handshake failed: " + tls_text() + " (is it a TLS port?)";
  }
  return progress::failed;
}

socket::io socket::tls_ended(int result, const char* verb) {
  const int code = ::SSL_get_error(tls_, result);
  if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
    wanted_ = code == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    return io::again;
  }
  error_ = code == SSL_ERROR_ZERO_RETURN             ? "the server closed the connection"
           : code == SSL_ERROR_SYSCALL && errno != 0 ? system_text(errno)
                                                     : std::string("TLS ") + verb + " failed: " + tls_text();
  return io::closed;
}

socket::io socket::read(const iovec* parts, int count, std::size_t& size) {
  size = 0;
  if (tls_ != nullptr) {
    ::ERR_clear_error();
    errno = 0;
    const int got = ::SSL_read(tls_, parts[0].iov_base, static_cast<int>(parts[0].iov_len));
    if (got <= 0) return tls_ended(got, "reading");
    size = static_cast<std::size_t>(got);
    return io::some;
  }
  const ssize_t got = ::readv(descriptor_, parts, count);
  if (got > 0) {
    size = static_cast<std::size_t>(got);
    return io::some;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return io::again;
  error_ = got == 0 ? "the server closed the connection" : system_text(errno);
  return io::closed;
}

socket::io socket::write(const iovec* parts, int count, std::size_t& size) {
  size = 0;
  if (tls_ != nullptr) {
    ::ERR_clear_error();
    errno = 0;
    const int put = ::SSL_write(tls_, parts[0].iov_base, static_cast<int>(parts[0].iov_len));
    if (put <= 0) return tls_ended(put, "writing");
    size = static_cast<std::size_t>(put);
    return io::some;
  }
  msghdr head{};
  head.msg_iov = const_cast<iovec*>(parts);
  head.msg_iovlen = static_cast<std::size_t>(count);
  const ssize_t put = ::sendmsg(descriptor_, &head, MSG_NOSIGNAL);
  if (put >= 0) {
    size = static_cast<std::size_t>(put);
    return io::some;
  }
  if (errno == EAGAIN || errno == EINTR) return io::again;
  error_ = system_text(errno);
  return io::closed;
}

bool socket::holds_input() const noexcept { return tls_ != nullptr && ::SSL_has_pending(tls_) == 1; }

void socket::close() {
  if (lookup_) {
    const std::lock_guard lock(lookup_->mutex);
    lookup_->target = nullptr;
  }
  lookup_.reset();
  if (tls_ != nullptr) ::SSL_free(tls_);
  if (context_ != nullptr) ::SSL_CTX_free(context_);
  tls_ = nullptr;
  context_ = nullptr;
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
  stage_ = stage::idle;
}

}  // namespace leveret::core::net
