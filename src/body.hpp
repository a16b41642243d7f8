/// A message's body: immutable bytes, shared, with room behind them so that the codec can read them in place.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace leveret::core {

/// Shared immutable bytes. Copying is cheap; the bytes are copied once, when made. Behind the last byte at least
/// `kPadding` readable zero bytes follow, which is what simdjson needs to read without bounds checks.
///
/// A count of users and the bytes lie in one allocation, since a message is often freed on another thread than it was
/// made on, where each piece is dear. The memory of those of half a full batch or more is used again
/// (body.cpp).
class body {
 public:
  static constexpr std::size_t kPadding = 64;

  body() noexcept = default;
  explicit body(std::string_view bytes) : body(bytes.size()) {
    if (!bytes.empty()) std::memcpy(bytes_, bytes.data(), bytes.size());
  }
  body(const body& other) noexcept : bytes_(other.bytes_), size_(other.size_) {
    if (bytes_ != nullptr) users().fetch_add(1, std::memory_order_relaxed);
  }
  body(body&& other) noexcept
      : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, std::size_t{0})) {}
  body& operator=(body other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~body() {
    if (bytes_ != nullptr && users().fetch_sub(1, std::memory_order_acq_rel) == 1) {
      give_back(bytes_ - kHead, kHead + size_ + kPadding);
    }
  }

  /// A body of `size` bytes that the caller fills through `writable()` before sharing it.
  [[nodiscard]] static body uninitialized(std::size_t size) { return body(size); }
  [[nodiscard]] char* writable() noexcept { return bytes_; }

  [[nodiscard]] const char* data() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::string_view view() const noexcept { return {bytes_, size_}; }

 private:
  using count = std::atomic<std::size_t>;
  static constexpr std::size_t kHead = alignof(std::max_align_t);  // room for the count, and the bytes stay aligned
  static_assert(sizeof(count) <= kHead);

  explicit body(std::size_t size) : bytes_(static_cast<char*>(allocate(kHead + size + kPadding)) + kHead), size_(size) {
    new (bytes_ - kHead) count(1);
    std::memset(bytes_ + size, 0, kPadding);
  }

  [[nodiscard]] static void* allocate(std::size_t bytes);
  static void give_back(void* memory, std::size_t bytes) noexcept;

  [[nodiscard]] count& users() const noexcept { return *std::launder(reinterpret_cast<count*>(bytes_ - kHead)); }

  char* bytes_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace leveret::core
