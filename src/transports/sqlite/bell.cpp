#include "transports/sqlite/bell.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <leveret/error.hpp>
#include <map>
#include <mutex>
#include <new>
#include <sstream>
#include <thread>
#include <utility>

#include "transports/sqlite/location.hpp"

namespace leveret::core::sqlite {

struct bell_slot {
  std::atomic<std::uint32_t> word;
  std::atomic<std::uint32_t> sleeping;
  std::atomic<std::uint32_t> beats;
  std::atomic<std::uint32_t> pid;
  std::atomic<std::uint64_t> nonce;
  std::atomic<std::uint64_t> interest;
  std::atomic<std::uint64_t> rung;
  char unused[24];
};
static_assert(sizeof(bell_slot) == 64);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

namespace {

// Tells the core that this is a loop which waits.
void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr char kMagic[8] = {'l', 'v', 'r', 't', 'b', 'e', 'l', 'l'};
constexpr std::uint32_t kVersion = 1;
constexpr off_t kInitLock = 1 << 20;  // both beyond the file's end: only names
constexpr off_t kLockBase = 1 << 21;
constexpr auto kSkipAfter = std::chrono::milliseconds(50);
constexpr auto kInitPatience = std::chrono::seconds(5);

struct bell_header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t slots;
  std::uint64_t id;
  alignas(64) std::atomic<std::uint32_t> next;
  alignas(64) std::atomic<std::uint32_t> serving;
  std::atomic<std::uint32_t> holder;
  std::atomic<std::uint32_t> top;  // slots from here on were never taken
};
static_assert(sizeof(bell_header) <= 4096);
constexpr std::size_t kBytes = 4096 + seat::kSlots * sizeof(bell_slot);

int futex(std::atomic<std::uint32_t>* word, int operation, std::uint32_t value, const timespec* time,
          std::uint32_t bits) {
  return static_cast<int>(::syscall(SYS_futex, word, operation, value, time, nullptr, bits));
}

void futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t seen, std::chrono::nanoseconds time,
                std::uint32_t bits) {
  // WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC.
  timespec until{};
  ::clock_gettime(CLOCK_MONOTONIC, &until);
  const std::int64_t total = until.tv_nsec + std::max<std::int64_t>(0, time.count());
  until.tv_sec += static_cast<time_t>(total / 1'000'000'000);
  until.tv_nsec = static_cast<long>(total % 1'000'000'000);
  futex(word, FUTEX_WAIT_BITSET, seen, &until, bits);
}

void futex_wake(std::atomic<std::uint32_t>* word, std::uint32_t bits) {
  futex(word, FUTEX_WAKE_BITSET, static_cast<std::uint32_t>(INT_MAX), nullptr, bits);
}

std::uint32_t ticket_bit(std::uint32_t ticket) { return 1u << (ticket & 31u); }

std::uint64_t random_bits() {
  std::uint64_t out = 0;
  while (::getrandom(&out, sizeof out, 0) != static_cast<ssize_t>(sizeof out)) {
  }
  return out;
}

bool set_lock(int fd, short type, off_t at) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return ::fcntl(fd, F_SETLK, &lock) == 0;
}

/// Whether another process holds a lock within. Locks of this process don't count.
bool locked_elsewhere(int fd, off_t at, off_t length) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = length;
  return ::fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw storage_failed("cannot open the sidecar " + path + ": " + why);
}

}  // namespace

/// One mapped sidecar file of this process. Guarded by the registry's mutex, but for the mapping's atomics.
struct sidecar {
  int fd = -1;
  file_identity file;
  bell_header* header = nullptr;
  bell_slot* slots = nullptr;
  std::bitset<seat::kSlots> used;  // by transports of this process
  std::size_t users = 0;
};

namespace {

/// All sidecars of this process. A forked child gets a fresh one: the parent's locks are not its own, and the parent's
/// mutex may be held for ever in the child. What the parent had is left alone there.
struct registry {
  std::mutex mutex;
  std::map<std::pair<std::uint64_t, std::uint64_t>, sidecar*> open;
  pid_t process = ::getpid();

  static registry& here() {
    static std::atomic<registry*> current{nullptr};
    registry* found = current.load();
    while (found == nullptr || found->process != ::getpid()) {
      auto* fresh = new registry;
      if (current.compare_exchange_strong(found, fresh)) return *fresh;
      delete fresh;
    }
    return *found;
  }

  /// Counted; under the mutex. The init lock is held when it returns a file mapped just now, so that nobody starts it
  /// afresh before a slot of it is taken: `sit` lets it go.
  sidecar* join(const std::string& path);
  void leave(sidecar* at);
};

bool known(const registry& r, const file_identity& file) { return r.open.count({file.device, file.inode}) != 0; }

/// Makes or checks the content, under the file's init lock. False: it is not a sidecar.
bool initialize(int fd, const std::string& path) {
  struct stat about{};
  if (::fstat(fd, &about) != 0) fail(path, std::strerror(errno));
  if (about.st_size == 0) {
    // Blocks must be there before they are mapped: a full disk would else be a SIGBUS later.
    if (const int code = ::posix_fallocate(fd, 0, static_cast<off_t>(kBytes)); code != 0) {
      if (::ftruncate(fd, 0) != 0) fail(path, std::strerror(errno));
      fail(path, std::string(std::strerror(code)) + "; free some space on its disk");
    }
    return true;
  }
  bell_header header{};
  const ssize_t got = ::pread(fd, static_cast<void*>(&header), 24, 0);
  if (got != 24 || about.st_size != static_cast<off_t>(kBytes)) return false;
  const char zero[8] = {};
  if (std::memcmp(header.magic, zero, sizeof zero) == 0) return true;  // its maker died between size and content
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return false;
  if (header.version != kVersion || header.slots != seat::kSlots) {
    fail(path, "it was made by another version of Leveret that may be running; end its programs, then remove it");
  }
  return true;
}

sidecar* map(int fd, const file_identity& file, const std::string& path) {
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail(path, std::strerror(errno));
  auto* made = new sidecar;
  made->fd = fd;
  made->file = file;
  made->header = static_cast<bell_header*>(memory);
  made->slots = reinterpret_cast<bell_slot*>(static_cast<char*>(memory) + 4096);
  // The first to come starts afresh: after a crash or a reboot there are tickets that nobody holds.
  if (!locked_elsewhere(fd, kLockBase, static_cast<off_t>(seat::kSlots))) {
    const std::uint64_t id =
        std::memcmp(made->header->magic, kMagic, sizeof kMagic) == 0 ? made->header->id : random_bits() >> 1;
    std::memset(memory, 0, kBytes);
    made->header->version = kVersion;
    made->header->slots = seat::kSlots;
    made->header->id = id;
    std::memcpy(made->header->magic, kMagic, sizeof kMagic);
  }
  return made;
}

sidecar* registry::join(const std::string& path) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    file_identity file;
    if (identify(path, file)) {
      if (const auto found = open.find({file.device, file.inode}); found != open.end()) {
        ++found->second->users;
        return found->second;
      }
    }
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) fail(path, std::strerror(errno));
    struct stat about{};
    if (::fstat(fd, &about) != 0) fail(path, std::strerror(errno));
    file = {static_cast<std::uint64_t>(about.st_dev), static_cast<std::uint64_t>(about.st_ino)};
    // Renamed into place just now: closing a second descriptor would drop the locks. It stays open, once in a lifetime.
    if (known(*this, file)) continue;
    const auto give_up = std::chrono::steady_clock::now() + kInitPatience;
    while (!set_lock(fd, F_WRLCK, kInitLock)) {
      if (std::chrono::steady_clock::now() > give_up) {
        ::close(fd);
        fail(path, "another process has been making it for 5 s; is it stopped?");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    try {
      file_identity now;
      const bool current = identify(path, now) && now == file;
      if (current && initialize(fd, path)) {
        sidecar* made = map(fd, file, path);
        made->users = 1;
        open[{file.device, file.inode}] = made;
        return made;
      }
      if (current && ::unlink(path.c_str()) != 0 && errno != ENOENT) fail(path, std::strerror(errno));
    } catch (...) {
      ::close(fd);
      throw;
    }
    ::close(fd);
  }
  fail(path, "it is replaced again and again; what removes it?");
}

void registry::leave(sidecar* at) {
  if (--at->users > 0) return;
  open.erase({at->file.device, at->file.inode});
  ::munmap(at->header, kBytes);
  ::close(at->fd);
  delete at;
}

}  // namespace

std::uint64_t queue_interest(std::int64_t queue) noexcept { return 1ull << (static_cast<std::uint64_t>(queue) & 31u); }
std::uint64_t reply_interest(const std::string& reply) noexcept {
  std::uint32_t hash = 2166136261u;  // FNV-1a: the same in every process
  for (const char c : reply) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return 1ull << (32 + ((hash ^ (hash >> 16)) & 31u));
}

struct seat::old_seat {
  sidecar* at;
  std::uint32_t index;
  old_seat* next;
};

seat::seat(const std::string& database) : path_(database + "-bell") {
  registry& r = registry::here();
  const std::lock_guard lock(r.mutex);
  sidecar* at = r.join(path_);
  try {
    sit(at);
  } catch (...) {
    r.leave(at);
    throw;
  }
}

seat::~seat() {
  end_turn();
  leave();
}

void seat::sit(sidecar* at) {
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    if (at->used[i] || !set_lock(at->fd, F_WRLCK, kLockBase + static_cast<off_t>(i))) continue;
    bell_slot& slot = at->slots[i];
    slot.nonce.store(0);
    slot.interest.store(0);
    slot.rung.store(0);
    slot.sleeping.store(0);
    slot.beats.store(0);
    slot.pid.store(static_cast<std::uint32_t>(::getpid()));
    nonce_ = random_bits() >> 1;
    slot.nonce.store(nonce_);
    at->used[i] = true;
    std::uint32_t top = at->header->top.load();
    while (top <= i && !at->header->top.compare_exchange_weak(top, i + 1)) {
    }
    at_ = at;
    index_ = i;
    slot_.store(&slot);
    set_lock(at->fd, F_UNLCK, kInitLock);
    return;
  }
  set_lock(at->fd, F_UNLCK, kInitLock);
  throw broker_unavailable("cannot open the sidecar " + path_ + ": " + std::to_string(kSlots) +
                           " transports have this file open already; end some of them");
}

void seat::leave() {
  registry& r = registry::here();
  const std::lock_guard lock(r.mutex);
  const auto give_up = [&r](sidecar* at, std::uint32_t index) {
    at->slots[index].interest.store(0);
    at->slots[index].nonce.store(0);
    set_lock(at->fd, F_UNLCK, kLockBase + static_cast<off_t>(index));
    at->used[index] = false;
    r.leave(at);
  };
  while (old_ != nullptr) {
    old_seat* gone = std::exchange(old_, old_->next);
    give_up(gone->at, gone->index);
    delete gone;
  }
  if (at_ != nullptr) give_up(std::exchange(at_, nullptr), index_);
}

seat_identity seat::identity() const {
  return {static_cast<std::int64_t>(at_->header->id), static_cast<std::int64_t>(index_),
          static_cast<std::int64_t>(nonce_)};
}

std::uint32_t seat::word() const { return slot_.load()->word.load(); }

std::uint64_t seat::take_rung() { return slot_.load()->rung.exchange(0); }

void seat::set_interest(std::uint64_t mask) {
  bell_slot* slot = slot_.load();
  if (slot->interest.load() != mask) slot->interest.store(mask);
}

void seat::wait(std::uint32_t seen, std::chrono::nanoseconds time) {
  bell_slot* slot = slot_.load();
  // Set before the kernel compares the word: who rings after that sees it, who rang before changed the word.
  slot->sleeping.store(1);
  futex_wait(&slot->word, seen, time, FUTEX_BITSET_MATCH_ANY);
  slot->sleeping.store(0);
}

bool seat::linger(std::uint32_t seen, std::chrono::nanoseconds time) const {
  const bell_slot* slot = slot_.load();
  const auto until = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 32; ++i) {
      if (slot->word.load(std::memory_order_relaxed) != seen) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

void seat::ring_self() {
  bell_slot* slot = slot_.load();
  slot->word.fetch_add(1);
  if (slot->sleeping.load() != 0) futex_wake(&slot->word, FUTEX_BITSET_MATCH_ANY);
}

void seat::ring(std::uint64_t mask) {
  if (mask == 0) return;
  const std::uint32_t top = std::min(at_->header->top.load(), kSlots);
  for (std::uint32_t i = 0; i < top; ++i) {
    bell_slot& slot = at_->slots[i];
    if (i == index_ || (slot.interest.load(std::memory_order_relaxed) & mask) == 0) continue;
    slot.rung.fetch_or(mask);
    slot.word.fetch_add(1);
    if (slot.sleeping.load() != 0) futex_wake(&slot.word, FUTEX_BITSET_MATCH_ANY);
  }
}

void seat::take_turn(std::chrono::milliseconds patience) {
  using clock = std::chrono::steady_clock;
  bell_header& h = *at_->header;
  const std::uint32_t mine = h.next.fetch_add(1);
  ticket_ = mine;
  has_ticket_ = true;
  ticket_of_ = at_;
  const clock::time_point start = clock::now();
  clock::time_point moved = start;
  std::uint32_t seen = h.serving.load();
  while (static_cast<std::int32_t>(seen - mine) < 0) {
    const clock::time_point now = clock::now();
    if (now - start > patience) break;  // a scrambled sidecar must not stop anyone
    if (now - moved >= kSkipAfter) {
      if (h.serving.compare_exchange_strong(seen, seen + 1)) {
        futex_wake(&h.serving, ticket_bit(seen + 1));
        ++seen;
      }
      moved = now;
      continue;
    }
    futex_wait(&h.serving, seen, kSkipAfter - (now - moved), ticket_bit(mine));
    const std::uint32_t current = h.serving.load();
    if (current != seen) {
      seen = current;
      moved = clock::now();
    }
  }
  h.holder.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
}

void seat::end_turn() {
  if (!std::exchange(has_ticket_, false)) return;
  bell_header& h = *ticket_of_->header;
  const std::uint32_t after = ticket_ + 1;
  std::uint32_t seen = h.serving.load();
  while (static_cast<std::int32_t>(seen - after) < 0) {
    if (h.serving.compare_exchange_weak(seen, after)) {
      if (h.next.load() != after) futex_wake(&h.serving, ticket_bit(after));
      return;
    }
  }
}

std::uint32_t seat::turn_holder() const { return at_->header->holder.load(); }

void seat::beat() { slot_.load()->beats.fetch_add(1); }

life seat::judge(const seat_identity& other, std::uint32_t& beats) const {
  beats = 0;
  if (other.bell != static_cast<std::int64_t>(at_->header->id)) return life::unknown;
  if (other.slot < 0 || other.slot >= static_cast<std::int64_t>(kSlots)) return life::dead;
  const auto index = static_cast<std::uint32_t>(other.slot);
  const bell_slot& slot = at_->slots[index];
  if (slot.nonce.load() != static_cast<std::uint64_t>(other.nonce)) return life::dead;
  beats = slot.beats.load();
  registry& r = registry::here();
  const std::lock_guard lock(r.mutex);
  // A lock of this process is invisible to it.
  if (at_->used[index]) return life::alive;
  return locked_elsewhere(at_->fd, kLockBase + static_cast<off_t>(index), 1) ? life::alive : life::dead;
}

bool seat::lost() const {
  file_identity now;
  return !identify(path_, now) || !(now == at_->file);
}

bool seat::rebind() noexcept {
  try {
    registry& r = registry::here();
    const std::lock_guard lock(r.mutex);
    sidecar* fresh = r.join(path_);
    if (fresh == at_) {
      r.leave(fresh);
      return true;
    }
    auto* before = new old_seat{at_, index_, old_};
    try {
      sit(fresh);
    } catch (...) {
      delete before;
      r.leave(fresh);
      throw;
    }
    old_ = before;
    return true;
  } catch (const std::exception&) {
    return false;  // no space, no permission: the old one goes on to serve those who have it mapped
  }
}

std::string describe_lock_holder(const std::string& database, std::uint32_t hint) {
  std::uint32_t pid = 0;
  struct stat about{};
  if (::stat((database + "-shm").c_str(), &about) == 0) {
    // "1: POSIX  ADVISORY  WRITE 4711 fe:00:12345 120 120": byte 120 is SQLite's WAL write lock.
    std::ifstream locks("/proc/locks");
    for (std::string line; pid == 0 && std::getline(locks, line);) {
      std::istringstream fields(line);
      std::string number, kind, mode, type, owner, file, first, last;
      fields >> number >> kind >> mode >> type >> owner >> file >> first >> last;
      const std::size_t colon = file.rfind(':');
      if (kind != "POSIX" || type != "WRITE" || colon == std::string::npos) continue;
      char device[32];
      std::snprintf(device, sizeof device, "%02x:%02x", major(about.st_dev), minor(about.st_dev));
      if (file.substr(0, colon) != device || file.substr(colon + 1) != std::to_string(about.st_ino)) continue;
      if (std::strtoll(first.c_str(), nullptr, 10) > 120) continue;
      if (last != "EOF" && std::strtoll(last.c_str(), nullptr, 10) < 120) continue;
      pid = static_cast<std::uint32_t>(std::strtoul(owner.c_str(), nullptr, 10));
    }
  }
  if (pid == 0) pid = hint;
  if (pid == 0) return {};
  std::string name;
  std::string state;
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "Name:\t") == 0) name = line.substr(6);
    if (line.compare(0, 8, "State:\tT") == 0) state = "stopped";
  }
  std::string out = "process " + std::to_string(pid);
  if (!name.empty()) out += " (" + name + (state.empty() ? "" : ", " + state) + ")";
  return out;
}

}  // namespace leveret::core::sqlite
