#include "shared_state.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>
#include <stdexcept>
#include <system_error>

#include "../body.hpp"

namespace leveret::core {
namespace {

// The layout's version: both sides are the same library, but a child may be of another one by mistake.
constexpr std::uint64_t kMagic = 0x4c65767265740004ULL;

constexpr std::size_t round_up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }

std::runtime_error failed(const char* what) {
  return std::runtime_error(std::string("cannot share memory with the pool's processes: ") + what + ": " +
                            std::generic_category().message(errno));
}

}  // namespace

// ---- blocks ----

std::size_t block_view::bytes_for(std::uint32_t lines, std::uint32_t bitmaps, std::size_t id, std::size_t queue,
                                  std::size_t reply, std::size_t body, bool renumbered) noexcept {
  const std::size_t stride = round_up((lines + 63u) / 64u, 8) * 8;
  const std::size_t numbers = (std::size_t{lines} + 1) * 4 + (renumbered ? std::size_t{lines} * 4 : 0);
  return round_up(
      round_up(sizeof(shared_block) + numbers, 64) + stride * bitmaps + id + queue + reply + body + body::kPadding, 64);
}

std::uint32_t* block_view::indexes() const noexcept {
  return reinterpret_cast<std::uint32_t*>(at(sizeof(shared_block)));
}
std::size_t block_view::offsets_at() const noexcept {
  return sizeof(shared_block) + (block_->renumbered != 0 ? std::size_t{block_->lines} * 4 : 0);
}
std::uint32_t* block_view::offsets() const noexcept { return reinterpret_cast<std::uint32_t*>(at(offsets_at())); }
std::size_t block_view::bitmaps_at() const noexcept {
  return round_up(offsets_at() + (std::size_t{block_->lines} + 1) * 4, 64);
}
std::atomic<std::uint64_t>* block_view::bitmap(std::uint32_t writer) const noexcept {
  return reinterpret_cast<std::atomic<std::uint64_t>*>(at(bitmaps_at() + writer * bitmap_stride() * 8));
}
std::size_t block_view::id_at() const noexcept { return bitmaps_at() + block_->bitmaps * bitmap_stride() * 8; }
char* block_view::id() const noexcept { return at(id_at()); }
char* block_view::queue() const noexcept { return at(id_at() + block_->id_size); }
char* block_view::reply() const noexcept { return at(id_at() + block_->id_size + block_->queue_size); }
char* block_view::body() const noexcept {
  return at(id_at() + block_->id_size + block_->queue_size + block_->reply_size);
}

bool block_view::has_ended(std::uint32_t line) const noexcept {
  const std::uint64_t mask = std::uint64_t{1} << line % 64;
  for (std::uint32_t w = 0; w < block_->bitmaps; ++w) {
    if ((bitmap(w)[line / 64].load(std::memory_order_acquire) & mask) != 0) return true;
  }
  return false;
}

bool block_view::all_ended() const noexcept {
  // From the back: what has not ended is mostly there, and nothing else need be looked at then.
  for (std::uint32_t i = block_->words; i-- > 0;) {
    std::uint64_t ended = 0;
    for (std::uint32_t w = 0; w < block_->bitmaps; ++w) ended |= bitmap(w)[i].load(std::memory_order_acquire);
    const std::uint32_t in_word = i + 1 < block_->words ? 64 : block_->lines - i * 64;
    const std::uint64_t all = in_word == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << in_word) - 1;
    if ((ended & all) != all) return false;
  }
  return true;
}

// ---- the region ----

shared_state::shared_state(shape s) {
  lay_out(s);
  memory_ = memfd_create("leveret-pool", MFD_CLOEXEC);
  if (memory_ < 0) throw failed("memfd_create");
  if (ftruncate(memory_, static_cast<off_t>(bytes_)) != 0) throw failed("ftruncate");
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_, 0);
  if (mapped == MAP_FAILED) throw failed("mmap");
  base_ = static_cast<char*>(mapped);
  // Zeros are what every field begins as; only what is not zero is written.
  auto* h = new (base_) shared_header;
  h->magic = kMagic;
  h->bytes = bytes_;
  h->children = s.children;
  h->threads = s.threads;
  h->parked = s.parked;
  h->parent = getpid();
  for (shared_lane& lane : h->lanes) {
    lane.tail.store(1, std::memory_order_relaxed);
    lane.head.store(1, std::memory_order_relaxed);
  }
}

shared_state::shared_state(int memory) : memory_(memory) {
  shared_header head{};
  if (pread(memory_, static_cast<void*>(&head), offsetof(shared_header, max_retries), 0) <
          static_cast<ssize_t>(offsetof(shared_header, max_retries)) ||
      head.magic != kMagic) {
    memory_ = -1;
    throw std::runtime_error("cannot join the pool: its memory is not of this version of Leveret");
  }
  lay_out({head.children, head.threads, head.parked});
  if (bytes_ != head.bytes) throw std::runtime_error("cannot join the pool: its memory has another layout");
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_, 0);
  if (mapped == MAP_FAILED) throw failed("mmap");
  base_ = static_cast<char*>(mapped);
}

shared_state::~shared_state() {
  if (base_ != nullptr) munmap(base_, bytes_);
  if (memory_ >= 0) close(memory_);
}

void shared_state::lay_out(shape s) noexcept {
  const std::size_t writers = std::size_t{s.children} * (s.threads + 1);
  children_at_ = round_up(sizeof(shared_header), 4096);
  writers_at_ = round_up(children_at_ + s.children * sizeof(shared_child), 4096);
  parked_at_ = round_up(writers_at_ + writers * sizeof(shared_writer), 4096);
  rings_at_ = round_up(parked_at_ + std::size_t{s.children} * s.parked * sizeof(shared_parked), 4096);
  arena_at_ = round_up(rings_at_ + writers * kRingBytes, 4096);
  bytes_ = arena_at_ + kArenaBytes;
}

shared_child& shared_state::child(std::uint32_t i) const noexcept {
  return reinterpret_cast<shared_child*>(base_ + children_at_)[i];
}
shared_writer& shared_state::writer(std::uint32_t i) const noexcept {
  return reinterpret_cast<shared_writer*>(base_ + writers_at_)[i];
}
shared_parked& shared_state::parked(std::uint32_t child, std::uint32_t i) const noexcept {
  return reinterpret_cast<shared_parked*>(base_ + parked_at_)[std::size_t{child} * header().parked + i];
}
char* shared_state::ring(std::uint32_t writer) const noexcept { return base_ + rings_at_ + writer * kRingBytes; }

void shared_state::discard(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  const std::uint64_t from = round_up(offset, 4096);
  const std::uint64_t to = (offset + bytes) / 4096 * 4096;
  if (from < to) (void)madvise(base_ + from, to - from, MADV_REMOVE);
}

// ---- futexes: between processes, so not the private kind ----

void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::uint32_t milliseconds) noexcept {
  timespec limit{};
  limit.tv_sec = milliseconds / 1000;
  limit.tv_nsec = static_cast<long>(milliseconds % 1000) * 1'000'000;
  syscall(SYS_futex, &word, FUTEX_WAIT, value, milliseconds != 0 ? &limit : nullptr, nullptr, 0);
}

void futex_wake(const std::atomic<std::uint32_t>& word, int sleepers) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE, sleepers, nullptr, nullptr, 0);
}

}  // namespace leveret::core
