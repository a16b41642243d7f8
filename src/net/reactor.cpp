#include "reactor.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "signals_blocked.hpp"

namespace leveret::core::net {

reactor::reactor() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (event_ < 0) throw std::system_error(errno, std::generic_category(), "cannot make an eventfd for a connection");
}

reactor::~reactor() {
  stop();
  ::close(event_);
}

void reactor::start(const std::string& name) {
  // All signals stay with the program's own threads. SIGPIPE too: OpenSSL writes without MSG_NOSIGNAL.
  const signals_blocked blocked;
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

void reactor::post(task t) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    wake = posted_.empty() && !looks_away_;
    posted_.push_back(std::move(t));
  }
  if (wake) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_, &one, sizeof one);  // full: it is awake already
  }
}

void reactor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

reactor::timer_id reactor::at(clock::time_point when, task t) {
  const timer_id id = ++last_timer_;
  timers_.emplace(std::make_pair(when, id), std::move(t));
  timer_times_.emplace(id, when);
  return id;
}

void reactor::cancel(timer_id id) {
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase(std::make_pair(found->second, id));
  timer_times_.erase(found);
}

void reactor::remove(pollable* p) {
  // In place and not erased: the loop of `run` may be walking over it.
  std::replace(pollables_.begin(), pollables_.end(), p, static_cast<pollable*>(nullptr));
}

void reactor::run_posted() {
  std::vector<task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (task& t : tasks) {
    t();
    t = nullptr;
  }
}

void reactor::run_timers() {
  // Only those due now and made before: a timer that makes another, due at once, must not starve the sockets.
  const clock::time_point now = clock::now();
  const timer_id newest = last_timer_;
  while (!timers_.empty() && timers_.begin()->first.first <= now && timers_.begin()->first.second <= newest) {
    auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
}

void reactor::run_round_end() {
  for (std::size_t i = 0; i < round_end_.size(); ++i) {  // NOLINT(modernize-loop-convert): it grows meanwhile
    const task t = std::move(round_end_[i]);             // it may add more
    t();
  }
  round_end_.clear();
  if (round_hook_) round_hook_();
}

// A pause and no wait for a signal: what comes meanwhile is to wait. False: there was none.
bool reactor::look_away() {
  if (moderated_.count() == 0) return false;
  clock::time_point until = clock::now() + std::exchange(moderated_, {});
  if (!round_end_.empty()) return false;
  if (!timers_.empty()) until = std::min(until, timers_.begin()->first.first);
  {
    const std::lock_guard lock(mutex_);
    looks_away_ = true;
  }
  std::this_thread::sleep_until(until);
  const std::lock_guard lock(mutex_);
  looks_away_ = false;
  return true;
}

void reactor::run() {
  std::vector<pollfd> descriptors;
  std::vector<pollable*> owners;
  while (true) {
    run_posted();
    run_timers();
    run_round_end();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && posted_.empty()) break;
    }
    pollables_.erase(std::remove(pollables_.begin(), pollables_.end(), nullptr), pollables_.end());
    descriptors.assign(1, pollfd{event_, POLLIN, 0});
    owners.assign(1, nullptr);
    for (std::size_t i = 0; i < pollables_.size(); ++i) {  // NOLINT(modernize-loop-convert): it may grow meanwhile
      pollable* const p = pollables_[i];
      if (p == nullptr) continue;
      const auto [descriptor, events] = p->prepare();
      if (descriptor < 0) continue;
      descriptors.push_back(pollfd{descriptor, events, 0});
      owners.push_back(p);
    }
    const bool looked_away = look_away();
    // What `prepare` found (a lost connection) may have left work for this round, others may have posted meanwhile.
    int timeout = -1;
    if (looked_away || !round_end_.empty()) {
      timeout = 0;
    } else if (!timers_.empty()) {
      const auto wait =
          std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first.first - clock::now()).count();
      timeout = static_cast<int>(std::clamp<std::int64_t>(wait, 0, 60'000));
    }
    if (::poll(descriptors.data(), descriptors.size(), timeout) <= 0) continue;
    if (descriptors[0].revents != 0) {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(event_, &count, sizeof count);
    }
    for (std::size_t i = 1; i < descriptors.size(); ++i) {
      if (descriptors[i].revents == 0) continue;
      // Still there? An earlier one's callbacks may have removed it.
      if (std::find(pollables_.begin(), pollables_.end(), owners[i]) == pollables_.end()) continue;
      owners[i]->ready(descriptors[i].revents);
    }
  }
  // Here: what they own, connections for one, takes itself off the list of pollables.
  round_end_.clear();
}

}  // namespace leveret::core::net
