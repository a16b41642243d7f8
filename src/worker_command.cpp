#include "worker_command.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <leveret/version.hpp>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "codec.hpp"
#include "default_url.hpp"
#include "pools/processes.hpp"
#include "stderr_log.hpp"
#include "worker.hpp"

namespace leveret::core {
namespace {

// What a signal handler may touch. One worker command runs at a time in a process: the signals are the process's.
volatile std::sig_atomic_t signals_seen = 0;
int signal_fd = -1;

void on_signal(int) {
  const int saved = errno;
  signals_seen = signals_seen + 1;
  const std::uint64_t one = 1;
  (void)!write(signal_fd, &one, sizeof one);
  errno = saved;
}

/// SIGTERM and SIGINT while it lives; what was there before afterwards.
class signal_watch {
 public:
  signal_watch() : fd_(eventfd(0, EFD_CLOEXEC)) {
    if (fd_ < 0) throw std::runtime_error("cannot watch signals: eventfd failed");
    signal_fd = fd_;
    signals_seen = 0;
    struct sigaction action{};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, &term_);
    sigaction(SIGINT, &action, &int_);
  }
  ~signal_watch() {
    sigaction(SIGTERM, &term_, nullptr);
    sigaction(SIGINT, &int_, nullptr);
    signal_fd = -1;
    close(fd_);
  }
  signal_watch(const signal_watch&) = delete;
  signal_watch& operator=(const signal_watch&) = delete;

  /// Any thread.
  void wake() const {
    const std::uint64_t one = 1;
    (void)!write(fd_, &one, sizeof one);
  }
  /// Until a signal or `wake`, or the time is over (-1: it never is).
  void wait(int milliseconds = -1) const {
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, milliseconds) > 0) {
      std::uint64_t count = 0;
      (void)!read(fd_, &count, sizeof count);
    }
  }

 private:
  int fd_;
  struct sigaction term_{};
  struct sigaction int_{};
};

// The worker that runs, for whoever asks how it is.
std::mutex running_mutex;
const worker* running = nullptr;

class announced {
 public:
  explicit announced(const worker& w) { set(&w); }
  ~announced() { set(nullptr); }
  announced(const announced&) = delete;
  announced& operator=(const announced&) = delete;

 private:
  static void set(const worker* w) {
    const std::lock_guard<std::mutex> lock(running_mutex);
    running = w;
  }
};

/// Tells systemd (sd_notify(3): one datagram to the socket that NOTIFY_SOCKET names). Without one nothing happens; what
/// can't be told is nobody's fault.
void tell_systemd(const char* what) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || (path[0] != '/' && path[0] != '@') || std::strlen(path) >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, std::strlen(path));
  if (path[0] == '@') address.sun_path[0] = 0;  // of the abstract namespace
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  (void)!sendto(fd, what, std::strlen(what), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length);
  close(fd);
}

/// How often systemd wants to hear from us, halved; 0: never.
int watchdog_ms() {
  const char* text = std::getenv("WATCHDOG_USEC");
  const char* who = std::getenv("WATCHDOG_PID");
  if (text == nullptr || (who != nullptr && std::to_string(getpid()) != who)) return 0;
  const long long micros = std::strtoll(text, nullptr, 10);
  return micros > 0 ? static_cast<int>(std::min(micros / 2'000, 3'600'000LL)) : 0;
}

std::string join(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

void print_banner(const worker& w, const registry& tasks, const std::string& threads, std::chrono::milliseconds grace) {
  std::fprintf(stderr,
               "leveret %s worker %s\n"
               "  broker   %s\n"
               "  queues   %s%s\n"
               "  tasks    %s\n"
               "  threads  %s\n"
               "  stop     Ctrl-C or SIGTERM: running jobs get %.3g s, a second one ends them\n",
               LEVERET_VERSION, w.options().name.c_str(), w.where().c_str(), join(w.options().queues).c_str(),
               w.options().ordered.empty() ? "" : ("; in order " + join(w.options().ordered)).c_str(),
               tasks.names().c_str(), threads.c_str(), static_cast<double>(grace.count()) / 1000.0);
}

void print_summary(const worker_summary& s, bool json) {
  const auto ended = static_cast<double>(s.counts.succeeded + s.counts.dead);
  const double rate = s.seconds > 0 ? ended / s.seconds : 0;
  if (json) {
    json_writer out;
    out.begin_object();
    const auto number = [&out](const char* key, std::uint64_t value) {
      (void)out.key(key);
      out.uinteger(value);
    };
    number("succeeded", s.counts.succeeded);
    number("retried", s.counts.retried);
    number("dead", s.counts.dead);
    number("expired", s.counts.expired);
    number("cancelled", s.counts.cancelled);
    number("returned", s.counts.returned);
    (void)out.key("seconds");
    (void)out.real(s.seconds);
    (void)out.key("jobs_per_s");
    (void)out.real(rate);
    (void)out.key("grace_exceeded");
    out.boolean(s.grace_exceeded);
    out.end_object();
    std::printf("%s\n", out.text().c_str());
  } else {
    std::printf("succeeded %llu, retried %llu, dead %llu in %.3f s (%.0f jobs/s)\n",
                static_cast<unsigned long long>(s.counts.succeeded), static_cast<unsigned long long>(s.counts.retried),
                static_cast<unsigned long long>(s.counts.dead), s.seconds, rate);
  }
  std::fflush(stdout);
}

/// The processes that run the handlers, started; their tasks go into `tasks`.
std::unique_ptr<process_pool> start_children(const worker_command_options& options, const std::string& name,
                                             registry& tasks, worker_options& chosen) {
  process_settings settings;
  settings.command = options.child_command;
  settings.processes = options.processes;
  settings.threads = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  // A thread that waits for room among the coroutines has parked its attempt already.
  settings.parked = options.concurrency + settings.threads;
  settings.worker = name;
  settings.default_task = options.default_task;
  settings.retries.max_retries = options.max_retries;
  settings.max_crashes = options.max_crashes;
  settings.max_jobs_per_child = options.max_jobs_per_child;
  settings.max_bytes_per_child = options.max_bytes_per_child;
  auto children = std::make_unique<process_pool>(std::move(settings));
  const child_description described = children->start();
  for (const described_task& one : described.tasks) {
    leveret_task task{};
    task.size = sizeof task;
    task.name = {one.name.data(), one.name.size()};
    task.queue = {one.queue.data(), one.queue.size()};
    task.signature = {one.signature.data(), one.signature.size()};
    task.max_retries = one.max_retries;
    task.call = [](void*, leveret_call*) { return LEVERET_FAILED; };  // never called here
    const std::string why = tasks.add(task, one.source, nullptr, std::chrono::milliseconds(one.hard_limit_ms));
    if (!why.empty()) throw std::invalid_argument(why);
  }
  const auto told = described.facts.find(kFactUrl);
  if (chosen.url.empty() && told != described.facts.end()) chosen.url = told->second;
  const auto ordered = described.facts.find(kFactOrdered);
  if (ordered != described.facts.end()) {
    std::istringstream names(ordered->second);
    for (std::string name; std::getline(names, name, ',');) chosen.ordered_by_tasks.push_back(name);
  }
  return children;
}

int run(const worker_command_options& options, const registry& own_tasks) {
  stderr_log log(options.log_level, options.log_format);
  worker_options chosen;
  chosen.url = options.url;
  chosen.queues = options.queues;
  chosen.ordered = options.ordered;
  chosen.threads = options.threads;
  chosen.burst = options.burst;
  chosen.default_task = options.default_task;
  chosen.retries.max_retries = options.max_retries;
  chosen.max_crashes = options.max_crashes;
  chosen.lim = options.lim;
  chosen.max_memory = options.max_memory;

  chosen.name = default_worker_name();

  const signal_watch signals;
  chosen.on_finished = [&signals] { signals.wake(); };
  registry childrens_tasks;
  std::unique_ptr<process_pool> children;
  if (!options.child_command.empty()) {
    children = start_children(options, chosen.name, childrens_tasks, chosen);
    // Jobs that go on without a thread are held all at once, one a message at worst.
    chosen.lim.prefetch_messages = std::max(chosen.lim.prefetch_messages, std::min(children->threads(), 65'535u));
  }
  const registry& tasks = children ? childrens_tasks : own_tasks;
  if (chosen.url.empty()) chosen.url = default_url();
  worker w(std::move(chosen), tasks, log, std::move(children));
  w.start();
  if (!options.quiet) {
    std::string threads = std::to_string(w.options().threads);
    if (!options.child_command.empty()) {
      threads += " in each of " + std::to_string(options.processes) + " process" + (options.processes == 1 ? "" : "es");
    }
    print_banner(w, tasks, threads, options.grace);
  }

  const announced known(w);
  tell_systemd("READY=1");
  const int watchdog = watchdog_ms();
  while (signals_seen == 0 && !w.finished()) {
    signals.wait(watchdog > 0 ? watchdog : -1);
    // Pinged only while the loop turns: one that hangs is restarted.
    if (watchdog > 0 && w.look(std::chrono::milliseconds(watchdog)).live) tell_systemd("WATCHDOG=1");
  }
  tell_systemd("STOPPING=1");
  const int before = signals_seen;
  if (before > 0) log.log(LEVERET_INFO, "stopping", {}, "receiving ends; running jobs may end");

  // `stop` blocks for the grace; this thread goes on listening for the second signal.
  worker_summary summary;
  std::atomic<bool> stopped{false};
  std::thread stopping([&] {
    summary = w.stop(options.grace);
    stopped.store(true);
    signals.wake();
  });
  while (!stopped.load()) {
    if (signals_seen >= before + (before > 0 ? 1 : 2)) w.hurry();
    signals.wait();
  }
  stopping.join();

  print_summary(summary, options.json);
  if (summary.grace_exceeded) {
    std::fprintf(stderr, "leveret worker: running jobs did not end within the grace; they were given back uncharged\n");
    std::fflush(stderr);
    std::_Exit(1);  // their threads still run: nothing may be destroyed under them
  }
  return 0;
}

}  // namespace

std::optional<worker::liveness> running_worker(std::chrono::milliseconds patience) {
  const std::lock_guard<std::mutex> lock(running_mutex);
  if (running == nullptr) return std::nullopt;
  return running->look(patience);
}

int run_worker_command(const worker_command_options& options, const registry& tasks) {
  try {
    return run(options, tasks);
  } catch (const std::invalid_argument& wrong) {
    std::fprintf(stderr, "leveret worker: %s\n", wrong.what());
    return 2;
  } catch (const child_refused&) {
    return 2;  // it has said why
  } catch (const error& failed) {
    std::fprintf(stderr, "leveret worker: %s\n", failed.what());
    return failed.code() == errc::unsupported || failed.code() == errc::not_found ? 2 : 1;
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "leveret worker: %s\n", failed.what());
    return 1;
  }
}

}  // namespace leveret::core
