#include "children.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

extern char** environ;

namespace leveret::core {
namespace {

std::string because(int code) { return std::generic_category().message(code); }

}  // namespace

std::string describe(const child_end& end) {
  if (!end.error.empty()) return end.error;
  if (WIFSIGNALED(end.status)) {
    const int signal = WTERMSIG(end.status);
    const char* name = sigabbrev_np(signal);
    return "was killed by " + (name != nullptr ? "SIG" + std::string(name) : "signal " + std::to_string(signal));
  }
  return "ended with exit code " + std::to_string(WEXITSTATUS(end.status));
}

std::string megabytes(std::int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

children::children(std::vector<std::string> command, int memory, events on)
    : command_(std::move(command)), memory_(memory), on_(std::move(on)) {
  news_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (news_ < 0 || wake_ < 0) {
    const int code = errno;
    if (news_ >= 0) close(news_);
    throw std::runtime_error("cannot watch the pool's processes: eventfd: " + because(code));
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { watch(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

children::~children() {
  stop();
  close(news_);
  close(wake_);
}

void children::wake() const noexcept {
  const std::uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);
}

void children::start(std::uint32_t child) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    to_start_.push_back(child);
  }
  wake();
}

void children::kill(std::uint32_t child, int signal) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // The number can't have gone to another process: it is reaped under this lock.
  if (child < running_.size() && running_[child].pid != 0) ::kill(running_[child].pid, signal);
}

pid_t children::pid(std::uint32_t child) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return child < running_.size() ? running_[child].pid : 0;
}

void children::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    to_start_.clear();
    for (const process& p : running_) {
      if (p.pid != 0) ::kill(p.pid, SIGKILL);
    }
  }
  wake();
  if (thread_.joinable()) thread_.join();
}

void children::watch() {
  std::vector<pollfd> fds;
  std::vector<std::uint32_t> who;
  for (;;) {
    fds.assign({{wake_, POLLIN, 0}, {news_, POLLIN, 0}});
    who.clear();
    std::deque<std::uint32_t> to_start;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      to_start.swap(to_start_);
      for (std::uint32_t i = 0; i < running_.size(); ++i) {
        if (running_[i].pid == 0) continue;
        fds.push_back({running_[i].handle, POLLIN, 0});
        who.push_back(i);
      }
      if (stopping_ && who.empty()) return;
    }
    if (!to_start.empty()) {
      for (const std::uint32_t child : to_start) spawn(child);
      continue;
    }
    if (poll(fds.data(), fds.size(), -1) < 0) continue;
    std::uint64_t count = 0;
    if ((fds[0].revents & POLLIN) != 0) (void)!read(wake_, &count, sizeof count);
    if ((fds[1].revents & POLLIN) != 0) {
      (void)!read(news_, &count, sizeof count);
      on_.news();
    }
    for (std::size_t i = 0; i < who.size(); ++i) {
      if ((fds[i + 2].revents & POLLIN) != 0) reap(who[i]);
    }
  }
}

void children::spawn(std::uint32_t child) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (running_.size() <= child) running_.resize(child + 1);
    if (running_[child].pid != 0 || stopping_) return;
  }
  std::vector<std::string> words = command_;
  for (const std::string& word : {std::string("--memory"), std::to_string(memory_), std::string("--news"),
                                  std::to_string(news_), std::string("--child"), std::to_string(child)}) {
    words.push_back(word);
  }
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  // Onto itself: glibc takes close-on-exec away then (2.29 and later).
  posix_spawn_file_actions_adddup2(&files, memory_, memory_);
  posix_spawn_file_actions_adddup2(&files, news_, news_);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);

  pid_t pid = 0;
  const int code = posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  child_end failed;
  failed.child = child;
  if (code != 0) {
    failed.error = "could not be started: " + std::string(argv[0]) + ": " + because(code);
    on_.ended(failed);
    return;
  }
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (handle < 0) {
    failed.error = "could not be watched: pidfd_open: " + because(errno);
    ::kill(pid, SIGKILL);
    (void)waitpid(pid, nullptr, 0);
    on_.ended(failed);
    return;
  }
  fcntl(handle, F_SETFD, FD_CLOEXEC);
  const std::lock_guard<std::mutex> lock(mutex_);
  running_[child] = {pid, handle};
  if (stopping_) ::kill(pid, SIGKILL);
}

void children::reap(std::uint32_t child) {
  child_end end;
  end.child = child;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    process& p = running_[child];
    rusage used{};
    const pid_t reaped = wait4(p.pid, &end.status, WNOHANG, &used);
    if (reaped == 0) return;
    end.pid = p.pid;
    end.peak_bytes = static_cast<std::int64_t>(used.ru_maxrss) * 1024;
    close(p.handle);
    p = {};
  }
  on_.ended(end);
}

}  // namespace leveret::core
