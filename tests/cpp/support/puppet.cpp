#include "cpp/support/puppet.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "claim.hpp"
#include "cpp/support/session.hpp"

namespace leveret::test {

namespace {

constexpr const char* kMark = "--as-puppet";

const char* name_of(core::publish_status s) {
  switch (s) {
    case core::publish_status::accepted:
      return "accepted";
    case core::publish_status::refused:
      return "refused";
    case core::publish_status::unknown:
      return "unknown";
  }
  return "?";
}

const char* name_of(core::settle_status s) {
  switch (s) {
    case core::settle_status::settled:
      return "settled";
    case core::settle_status::fenced:
      return "fenced";
    case core::settle_status::failed:
      return "failed";
  }
  return "?";
}

[[noreturn]] void system_error(const std::string& doing) {
  throw std::runtime_error(doing + ": " + std::strerror(errno));
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

class stage {
 public:
  std::string run(const std::vector<std::string>& words) {
    const auto found = commands_.find(words.at(0));
    if (found == commands_.end()) throw std::runtime_error("no such command");
    return (this->*found->second)(words);
  }

  /// Then it must end by _exit: what was the parent's is not to be destroyed, nor taken for leaked.
  [[nodiscard]] bool forked() const { return forked_; }

 private:
  using words_t = std::vector<std::string>;
  using command = std::string (stage::*)(const words_t&);

  std::string open(const words_t& w) {
    core::limits lim;
    lim.lease = std::chrono::milliseconds(std::stoll(w.at(2)));
    lim.renew = lim.lease / 3;
    session_ = std::make_unique<session>(w.at(1), lim);
    return "ok";
  }
  std::string declare(const words_t& w) {
    session_->declare(w.at(1));
    return "ok";
  }
  std::string publish(const words_t& w) {
    std::vector<core::message> messages;
    const std::size_t size = std::stoul(w.at(3));
    for (std::size_t i = 0; i < std::stoul(w.at(2)); ++i) {
      messages.push_back(make_message(w.at(1), size == 0 ? std::to_string(i) + "\n" : std::string(size, 'x')));
    }
    std::string out;
    for (const auto& o : session_->publish(std::move(messages)))
      out += std::string(out.empty() ? "" : " ") + name_of(o.status);
    return out;
  }
  std::string publish_id(const words_t& w) {
    const core::publish_outcome o = session_->publish(make_message(w.at(1), "x\n", w.at(2)));
    return std::string(name_of(o.status)) + (o.why.text.empty() ? "" : ": " + o.why.text);
  }
  std::string publish_claim(const words_t& w) {
    core::message m = make_message(w.at(1), "x\n", w.at(2));
    const core::unix_ms expires = session_->loop().wall() + 86'400'000;
    m.headers = {{core::kHeaderClaim, core::claim_text({core::held_until::end, expires, m.id + "/1", w.at(3)})}};
    return name_of(session_->publish(std::move(m)).status);
  }
  std::string publish_until_refused(const words_t& w) {
    for (int count = 0;; ++count) {
      const core::publish_outcome o = session_->publish(make_message(w.at(1), std::string(std::stoul(w.at(2)), 'x')));
      if (o.status != core::publish_status::accepted) return std::to_string(count) + " " + o.why.text;
    }
  }
  std::string commit_for(const words_t& w) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::stoll(w.at(2)));
    int count = 0;
    for (; std::chrono::steady_clock::now() < until; ++count) session_->must_publish(make_messages(w.at(1), 1));
    return std::to_string(count);
  }
  std::string subscribe(const words_t& w) {
    core::window window;
    window.messages = static_cast<std::uint32_t>(std::stoul(w.at(2)));
    if (w.size() > 3) window.bytes = std::stoull(w.at(3));
    subscription_ = std::make_unique<subscription>(*session_, w.at(1), window);
    return "ok";
  }
  std::string unsubscribe(const words_t& /*w*/) {
    subscription_->unsubscribe();
    return "ok";
  }
  std::string take(const words_t& w) {
    while (taken_.size() < std::stoul(w.at(1))) taken_.push_back(subscription_->next());
    std::string out;
    for (const core::delivery& d : taken_) out += (out.empty() ? "" : " ") + d.msg.id;
    return out;
  }
  std::string settle(const words_t& w) {
    std::vector<core::settlement> all;
    for (const core::delivery& d : taken_) {
      core::settlement s;
      s.token = d.token;
      if (w.at(1) != "-") s.results.push_back({d.msg.id, w.at(1), 1, 1, "{\"line\":1,\"result\":\"late\"}\n"});
      all.push_back(std::move(s));
    }
    std::string out;
    for (const auto& o : session_->settle(std::move(all)))
      out += std::string(out.empty() ? "" : " ") + name_of(o.status);
    return out;
  }
  std::string publish_and_settle(const words_t& w) {
    std::vector<core::message> messages;
    for (std::size_t i = 0; i < std::stoul(w.at(2)); ++i) {
      messages.push_back(make_message(w.at(1), std::string(std::stoul(w.at(3)), 'x')));
    }
    std::promise<std::string> published;
    session_->transport().publish(std::move(messages), session_->loop().now() + kPatience,
                                  [&](const auto& outcomes) { published.set_value(name_of(outcomes.at(0).status)); });
    const std::string settled = settle({"settle", "-"});
    return published.get_future().get() + " " + settled;
  }
  std::string lost(const words_t& w) {
    (void)subscription_->lost(std::stoul(w.at(1)));
    return "ok";
  }
  std::string fork(const words_t& /*w*/) {
    const pid_t child = ::fork();
    if (child < 0) system_error("fork");
    if (child > 0) ::_exit(0);
    // What the parent had open is left alone.
    static_cast<void>(subscription_.release());
    static_cast<void>(session_.release());
    forked_ = true;
    taken_.clear();
    return "ok";
  }
  std::string drop_to(const words_t& w) {
    if (::geteuid() != 0) return "ok";
    const auto id = static_cast<uid_t>(std::stoul(w.at(1)));
    if (::setresgid(id, id, id) != 0 || ::setresuid(id, id, id) != 0) system_error("setresuid");
    return "ok";
  }
  std::string own_mounts(const words_t& /*w*/) {
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (::unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) system_error("unshare");
    if (user != 0) {
      write_file("/proc/self/setgroups", "deny");
      write_file("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
      write_file("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
    }
    // Below a chroot the root need not be a mount (EINVAL), and its own mounts are its maker's business.
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 && errno != EINVAL) system_error("mount");
    return "ok";
  }
  std::string tmpfs(const words_t& w) {
    if (::mount("tmpfs", w.at(1).c_str(), "tmpfs", 0, ("size=" + w.at(2)).c_str()) != 0) system_error("mount");
    return "ok";
  }
  std::string remount(const words_t& w) {
    const unsigned long flags = MS_REMOUNT | (w.at(2) == "read-only" ? MS_RDONLY : 0);
    if (::mount("tmpfs", w.at(1).c_str(), "tmpfs", flags, nullptr) != 0) system_error("mount");
    return "ok";
  }
  std::string end(const words_t& /*w*/) {
    subscription_.reset();
    session_.reset();
    taken_.clear();
    return "ok";
  }
  std::string bind(const words_t& w) {
    if (::mount(w.at(1).c_str(), w.at(1).c_str(), nullptr, MS_BIND, nullptr) != 0) system_error("mount");
    return "ok";
  }
  std::string fill(const words_t& w) {
    write_file(w.at(1), std::string(std::stoul(w.at(2)), 'x'));
    return "ok";
  }
  std::string remove(const words_t& w) {
    if (::unlink(w.at(1).c_str()) != 0) system_error("unlink");
    return "ok";
  }
  std::string close(const words_t& /*w*/) {
    session_->close();
    return "ok";
  }

  std::unique_ptr<session> session_;
  std::unique_ptr<subscription> subscription_;
  std::vector<core::delivery> taken_;
  bool forked_ = false;

  const std::map<std::string, command> commands_{
      {"open", &stage::open},
      {"declare", &stage::declare},
      {"publish", &stage::publish},
      {"publish_id", &stage::publish_id},
      {"publish_claim", &stage::publish_claim},
      {"publish_until_refused", &stage::publish_until_refused},
      {"commit_for", &stage::commit_for},
      {"subscribe", &stage::subscribe},
      {"unsubscribe", &stage::unsubscribe},
      {"take", &stage::take},
      {"settle", &stage::settle},
      {"publish_and_settle", &stage::publish_and_settle},
      {"lost", &stage::lost},
      {"fork", &stage::fork},
      {"drop_to", &stage::drop_to},
      {"own_mounts", &stage::own_mounts},
      {"tmpfs", &stage::tmpfs},
      {"remount", &stage::remount},
      {"end", &stage::end},
      {"bind", &stage::bind},
      {"fill", &stage::fill},
      {"remove", &stage::remove},
      {"close", &stage::close},
  };
};

}  // namespace

std::optional<int> run_puppet(int argc, char** argv) {
  if (argc < 2 || std::strcmp(argv[1], kMark) != 0) return std::nullopt;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  stage s;
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream fields(line);
    for (std::string word; std::getline(fields, word, '\t');) words.push_back(word);
    try {
      const std::string answer = s.run(words);
      std::cout << "+" << answer << std::endl;
    } catch (const std::exception& e) {
      std::cout << "-" << e.what() << std::endl;
    }
  }
  if (s.forked()) ::_exit(0);
  return 0;
}

puppet::puppet(const std::string& fault_point) {
  int in[2];
  int out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) system_error("pipe");
  std::vector<std::string> texts;
  for (char** e = environ; *e != nullptr; ++e) texts.emplace_back(*e);
  if (!fault_point.empty()) texts.push_back("LEVERET_FAULT_POINT=" + fault_point);
  std::vector<char*> environment;
  for (std::string& text : texts) environment.push_back(text.data());
  environment.push_back(nullptr);
  char self[] = "/proc/self/exe";
  char mark[] = "--as-puppet";
  char* arguments[] = {self, mark, nullptr};
  pid_ = ::fork();
  if (pid_ < 0) system_error("fork");
  if (pid_ == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::execve(self, arguments, environment.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
}

puppet::~puppet() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(to_);
  ::close(from_);
}

void puppet::send(const std::string& line) {
  const std::string whole = line + "\n";
  if (::write(to_, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) system_error("puppet");
}

std::string puppet::answer() {
  while (unread_.find('\n') == std::string::npos) {
    pollfd p{from_, POLLIN, 0};
    const auto patience = static_cast<int>(std::chrono::milliseconds(kPatience).count());
    if (::poll(&p, 1, patience) <= 0) throw std::runtime_error("the puppet does not answer");
    char buffer[4096];
    const ssize_t got = ::read(from_, buffer, sizeof buffer);
    if (got <= 0) throw std::runtime_error("the puppet ended");
    unread_.append(buffer, static_cast<std::size_t>(got));
  }
  const std::size_t end = unread_.find('\n');
  const std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  if (line.empty() || line[0] != '+') throw std::runtime_error(line.empty() ? "no answer" : line.substr(1));
  return line.substr(1);
}

void puppet::signal(int number) { ::kill(pid_, number); }

void puppet::wait_stopped() {
  int status = 0;
  if (::waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status)) throw std::runtime_error("it did not stop");
}

int puppet::wait_ended() {
  int status = 0;
  if (::waitpid(pid_, &status, 0) != pid_) system_error("waitpid");
  pid_ = 0;
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace leveret::test
