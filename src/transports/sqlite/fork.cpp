#include "transports/sqlite/fork.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <leveret/error.hpp>
#include <map>
#include <mutex>
#include <thread>

namespace leveret::core::sqlite {

namespace {

// SQLite's file format and wal-index format fix these bytes.
constexpr off_t kSharedFirst = 0x40000002;  // of the database: the range that readers lock
constexpr off_t kSharedSize = 510;
constexpr off_t kSomebodyHere = 128;  // of the wal-index: held as long as a process has it open
constexpr std::chrono::seconds kPatience{5};

/// A leaf: nothing else is locked while it is waited for, but SQLite's own.
class fork_gate {
 public:
  fork_gate() {
    initialize();
    // In the child a fresh one: the C library knows a writer by its thread's id, which is another there.
    ::pthread_atfork([] { ::pthread_rwlock_wrlock(&here().lock_); }, [] { ::pthread_rwlock_unlock(&here().lock_); },
                     [] { here().initialize(); });
  }

  /// Never destroyed: fork may come as late as it likes.
  static fork_gate& here() {
    static auto* gate = new fork_gate;
    return *gate;
  }

  void initialize() {
    pthread_rwlockattr_t attributes;
    ::pthread_rwlockattr_init(&attributes);
    // Else a busy process would never fork.
    ::pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    ::pthread_rwlock_init(&lock_, &attributes);
    ::pthread_rwlockattr_destroy(&attributes);
  }
  void enter() { ::pthread_rwlock_rdlock(&lock_); }
  void leave() { ::pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_{};
};

void take_for_life(const std::string& path, off_t first, off_t length) {
  // Never closed: that would drop the lock, and SQLite's own on the file with it.
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return;  // SQLite makes it anew, with locks that are this process'
    throw storage_failed("cannot open " + path + " after fork: " + std::strerror(errno));
  }
  struct flock lock{};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = first;
  lock.l_len = length;
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (::fcntl(fd, F_SETLK, &lock) != 0) {
    if (std::chrono::steady_clock::now() > give_up) {
      throw storage_failed("cannot open " + path + " after fork: another process holds its locks");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

inside_sqlite::inside_sqlite() { fork_gate::here().enter(); }
inside_sqlite::~inside_sqlite() { fork_gate::here().leave(); }
outside_sqlite::outside_sqlite() { fork_gate::here().leave(); }
outside_sqlite::~outside_sqlite() { fork_gate::here().enter(); }

void note_open(const std::string& path) {
  // The process that opened each file first, or took its locks after a fork. Called inside_sqlite, so that the mutex is
  // free in a child.
  static std::mutex mutex;
  static auto* opened = new std::map<std::string, pid_t>;
  const std::lock_guard lock(mutex);
  const auto [found, fresh] = opened->emplace(path, ::getpid());
  if (fresh || found->second == ::getpid()) return;
  take_for_life(path, kSharedFirst, kSharedSize);
  take_for_life(path + "-shm", kSomebodyHere, 1);
  found->second = ::getpid();
}

}  // namespace leveret::core::sqlite
