/// A child process that is spoken to by lines: a test's private broker, a proxy. It ends when its standard input
/// closes, which happens at the latest when the test's process ends, however it ends.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

namespace leveret::testing_support {

class program {
 public:
  /// Starts it. Throws std::runtime_error when that fails.
  explicit program(const std::vector<std::string>& arguments);
  /// Closes its standard input and waits for its end.
  ~program();
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  /// The next line it prints; throws std::runtime_error at its end.
  std::string read_line();
  /// Sends a line and gives the answer behind "ok"; throws std::runtime_error for any other answer.
  std::string command(const std::string& line);

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  std::string what_;
  std::string buffer_;
};

/// A TCP port of 127.0.0.1 for a server that is told its port, and is started only later. No other test is given it
/// while this process lives. Not thread-safe.
[[nodiscard]] int free_port();

/// A private RabbitMQ node, started at first use and ended with the test's process. `LEVERET_TEST_AMQP` names a broker
/// to use instead; it can't be stopped by tests then.
class rabbitmq_node {
 public:
  static rabbitmq_node& shared();
  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] int port() const;
  /// The url of the same broker by another port (a proxy's).
  [[nodiscard]] std::string url_at(int port) const;
  void command(const std::string& line);

  rabbitmq_node();

 private:
  std::string url_;
  std::unique_ptr<program> process_;
};

/// A private Redis server: tests/support/redis_server.py says its commands.
class redis_server {
 public:
  /// Starts it, with more lines of configuration.
  explicit redis_server(const std::vector<std::string>& config = {});
  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] int port() const;
  std::string command(const std::string& line) { return process_.command(line); }

 private:
  program process_;
  std::string url_;
};

/// tests/support/proxy.py before `port`.
class proxy {
 public:
  explicit proxy(int port);
  [[nodiscard]] int port() const { return port_; }
  void command(const std::string& line) { (void)process_.command(line); }
  [[nodiscard]] int cuts() { return std::stoi(process_.command("cuts")); }
  [[nodiscard]] int count() { return std::stoi(process_.command("count")); }

 private:
  program process_;
  int port_;
};

}  // namespace leveret::testing_support
