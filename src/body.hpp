/// A message's body: immutable bytes, shared, with room behind them so that the codec can read them in place.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace leveret::core {

/// Shared immutable bytes. Copying is cheap; the bytes are copied once, when made. Behind the last byte at least
/// `kPadding` readable zero bytes follow, which is what simdjson needs to read without bounds checks.
class body {
 public:
  static constexpr std::size_t kPadding = 64;

  body() = default;
  explicit body(std::string_view bytes) : body(bytes.size()) {
    if (!bytes.empty()) std::memcpy(bytes_.get(), bytes.data(), bytes.size());
  }

  /// A body of `size` bytes that the caller fills through `writable()` before sharing it.
  [[nodiscard]] static body uninitialized(std::size_t size) { return body(size); }
  [[nodiscard]] char* writable() noexcept { return bytes_.get(); }

  [[nodiscard]] const char* data() const noexcept { return bytes_.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::string_view view() const noexcept { return {bytes_.get(), size_}; }

 private:
  // `new char[]` and not make_shared: the latter would zero every byte first.
  explicit body(std::size_t size) : bytes_(new char[size + kPadding], std::default_delete<char[]>()), size_(size) {
    std::memset(bytes_.get() + size, 0, kPadding);
  }

  std::shared_ptr<char> bytes_;
  std::size_t size_ = 0;
};

}  // namespace leveret::core
