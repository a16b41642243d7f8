#include "body.hpp"

#include <sys/mman.h>

#include <cstdint>

namespace leveret::core {
namespace {

/// Memory of bodies between these sizes goes from one to the next. The C library would give most of it back to the
/// system whenever a few are freed, and get it anew, zeroed page by page: a tenth of what a worker spends.
constexpr std::size_t kLeastBlock = std::size_t{32} << 10;
constexpr std::size_t kBlockBytes = std::size_t{68} << 10;  // a full batch, what a body adds to it, whole pages
constexpr std::size_t kBlocks = 64;                         // what a worker holds of a queue by default

// It is to see who reads a body that is gone.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kUsedAgain = false;
#elif defined(__has_feature)
constexpr bool kUsedAgain = !__has_feature(address_sanitizer);
#else
constexpr bool kUsedAgain = true;
#endif

/// Blocks of one mapping: 4.25 MiB where all have been used, however many bodies there were at once. No lock: a process
/// may be forked at any time.
class block_pool {
 public:
  /// Null: there is none.
  [[nodiscard]] void* take() noexcept {
    char* const base = mapped();
    if (base == nullptr) return nullptr;
    std::uint64_t free = free_.load(std::memory_order_acquire);
    while (free != 0) {
      if (!free_.compare_exchange_weak(free, free & (free - 1), std::memory_order_acquire)) continue;
      return base + static_cast<std::size_t>(__builtin_ctzll(free)) * kBlockBytes;  // the lowest: used before, mostly
    }
    return nullptr;
  }
  /// False: it is none of these.
  [[nodiscard]] bool give_back(void* block) noexcept {
    const char* const base = base_.load(std::memory_order_acquire);
    const auto offset = reinterpret_cast<std::uintptr_t>(block) - reinterpret_cast<std::uintptr_t>(base);
    if (base == nullptr || offset >= kBlocks * kBlockBytes) return false;
    free_.fetch_or(std::uint64_t{1} << offset / kBlockBytes, std::memory_order_release);
    return true;
  }

 private:
  static_assert(kBlocks == 64, "a bit each");

  [[nodiscard]] char* mapped() noexcept {
    char* base = base_.load(std::memory_order_acquire);
    if (base != nullptr) return base;
    void* const fresh =
        ::mmap(nullptr, kBlocks * kBlockBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) return nullptr;
    if (base_.compare_exchange_strong(base, static_cast<char*>(fresh), std::memory_order_acq_rel)) return base_.load();
    ::munmap(fresh, kBlocks * kBlockBytes);  // another thread was first
    return base;
  }

  std::atomic<char*> base_{nullptr};
  std::atomic<std::uint64_t> free_{UINT64_MAX};
};

block_pool blocks;

constexpr bool is_block(std::size_t bytes) noexcept {
  return kUsedAgain && bytes >= kLeastBlock && bytes <= kBlockBytes;
}

}  // namespace

void* body::allocate(std::size_t bytes) {
  void* const block = is_block(bytes) ? blocks.take() : nullptr;
  return block != nullptr ? block : ::operator new(bytes);
}

void body::give_back(void* memory, std::size_t bytes) noexcept {
  if (!is_block(bytes) || !blocks.give_back(memory)) ::operator delete(memory);
}

}  // namespace leveret::core
