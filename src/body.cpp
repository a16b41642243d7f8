#include "body.hpp"

#include <array>
#include <cstdint>

namespace leveret::core {
namespace {

/// Memory of bodies between these sizes goes from one to the next. The C library would give most of it back to the
/// system whenever a few are freed, and get it anew, zeroed page by page: a tenth of what a worker spends.
constexpr std::size_t kLeastBlock = std::size_t{16} << 10;
constexpr std::size_t kBlockBytes = (std::size_t{64} << 10) + 256;  // a full batch, and what a body adds to it

constexpr std::size_t kMostSpare = 64;  // 4 MiB of a process: what a worker holds of a queue by default

// It is to see who reads a body that is gone.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kUsedAgain = false;
#elif defined(__has_feature)
constexpr bool kUsedAgain = !__has_feature(address_sanitizer);
#else
constexpr bool kUsedAgain = true;
#endif

/// Never waited for: who finds it taken uses the C library, a process included that was forked meanwhile.
class spare_blocks {
 public:
  [[nodiscard]] void* take() noexcept {
    if (taken_.exchange(true, std::memory_order_acquire)) return nullptr;
    void* const block = count_ != 0 ? blocks_[--count_] : nullptr;
    taken_.store(false, std::memory_order_release);
    return block;
  }
  /// False: there is no room.
  [[nodiscard]] bool give(void* block) noexcept {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    const bool room = count_ < kMostSpare;
    if (room) blocks_[count_++] = block;
    taken_.store(false, std::memory_order_release);
    return room;
  }

 private:
  std::atomic<bool> taken_{false};
  std::size_t count_ = 0;
  std::array<void*, kMostSpare> blocks_{};
};

spare_blocks spares;

constexpr bool is_block(std::size_t bytes) noexcept {
  return kUsedAgain && bytes >= kLeastBlock && bytes <= kBlockBytes;
}

}  // namespace

void* body::allocate(std::size_t bytes) {
  if (!is_block(bytes)) return ::operator new(bytes);
  void* const spare = spares.take();
  return spare != nullptr ? spare : ::operator new(kBlockBytes);
}

void body::give_back(void* memory, std::size_t bytes) noexcept {
  if (!is_block(bytes) || !spares.give(memory)) ::operator delete(memory);
}

}  // namespace leveret::core
