#include "program.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <system_error>

extern char** environ;

namespace leveret::testing_support {

program::program(const std::vector<std::string>& arguments) : what_(arguments.at(1)) {
  int to[2];
  int from[2];
  if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0) throw std::runtime_error("no pipe for " + what_);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, to[0], 0);
  ::posix_spawn_file_actions_adddup2(&actions, from[1], 1);
  std::vector<char*> argv;
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const int status = ::posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(to[0]);
  ::close(from[1]);
  in_ = to[1];
  out_ = from[0];
  if (status != 0) {
    throw std::runtime_error("cannot start " + what_ + ": " + std::generic_category().message(status));
  }
}

program::~program() {
  ::close(in_);
  int status = 0;
  if (pid_ > 0) ::waitpid(pid_, &status, 0);
  ::close(out_);
}

std::string program::read_line() {
  while (true) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    char part[4096];
    const ssize_t got = ::read(out_, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw std::runtime_error(what_ + " ended; its standard error says why");
    buffer_.append(part, static_cast<std::size_t>(got));
  }
}

std::string program::command(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("cannot speak to " + what_);
  }
  const std::string answer = read_line();
  if (answer.rfind("ok", 0) != 0) throw std::runtime_error(what_ + ", " + line + ": " + answer);
  return answer.size() > 3 ? answer.substr(3) : "";
}

int free_port() {
  // Each lives as long as this process: a port is claimed as long as who asked for it (ports.py).
  static std::vector<std::unique_ptr<program>> claims;
  claims.push_back(std::make_unique<program>(std::vector<std::string>{
      "python3", "-c",
      "import sys; sys.path.insert(0, sys.argv[1]); import ports; print(ports.free_port(), flush=True); "
      "sys.stdin.read()",
      std::string(LEVERET_SOURCE_DIR) + "/tests/support"}));
  return std::stoi(claims.back()->read_line());
}

rabbitmq_node& rabbitmq_node::shared() {
  static rabbitmq_node node;
  return node;
}

rabbitmq_node::rabbitmq_node() {
  if (const char* given = std::getenv("LEVERET_TEST_AMQP"); given != nullptr && *given != '\0') {
    url_ = given;
    return;
  }
  process_ = std::make_unique<program>(
      std::vector<std::string>{"python3", std::string(LEVERET_SOURCE_DIR) + "/tests/support/rabbitmq_node.py"});
  url_ = process_->read_line();
}

int rabbitmq_node::port() const {
  const std::size_t colon = url_.rfind(':');
  return std::stoi(url_.substr(colon + 1));
}

std::string rabbitmq_node::url_at(int port) const {
  const std::size_t colon = url_.rfind(':');
  const std::size_t slash = url_.find('/', colon);
  return url_.substr(0, colon + 1) + std::to_string(port) + (slash == std::string::npos ? "/" : url_.substr(slash));
}

void rabbitmq_node::command(const std::string& line) {
  if (!process_) throw std::runtime_error("this test stops its broker: run it without LEVERET_TEST_AMQP");
  (void)process_->command(line);
}

namespace {

std::vector<std::string> redis_arguments(const std::vector<std::string>& config) {
  std::vector<std::string> arguments{"python3", std::string(LEVERET_SOURCE_DIR) + "/tests/support/redis_server.py"};
  arguments.insert(arguments.end(), config.begin(), config.end());
  return arguments;
}

}  // namespace

redis_server::redis_server(const std::vector<std::string>& config)
    : process_(redis_arguments(config)), url_(process_.read_line()) {}

int redis_server::port() const { return std::stoi(url_.substr(url_.rfind(':') + 1)); }

proxy::proxy(int port)
    : process_({"python3", std::string(LEVERET_SOURCE_DIR) + "/tests/support/proxy.py", std::to_string(port)}),
      port_(std::stoi(process_.read_line())) {}

}  // namespace leveret::testing_support
