/// A growing text: what std::string does, but room is made once for a whole value and then filled by a bare pointer.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>

namespace leveret::bindings {

class text_buffer {
 public:
  [[nodiscard]] const char* data() const noexcept { return data_.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::string_view view() const noexcept { return {data_.get(), size_}; }
  void clear() noexcept { size_ = 0; }
  /// Forgets everything behind `size` (at most the present one).
  void truncate(std::size_t size) noexcept { size_ = size; }

  /// A pointer to at least `room` writable bytes behind the text; `commit` says how many were filled.
  [[nodiscard]] char* reserve(std::size_t room) {
    if (capacity_ - size_ < room) grow(room);
    return data_.get() + size_;
  }
  void commit(const char* end) noexcept { size_ = static_cast<std::size_t>(end - data_.get()); }

  void push(char c) {
    *reserve(1) = c;
    ++size_;
  }
  void append(std::string_view text) {
    char* to = reserve(text.size());
    if (!text.empty()) std::memcpy(to, text.data(), text.size());
    size_ += text.size();
  }

 private:
  void grow(std::size_t room) {
    std::size_t capacity = capacity_ < 512 ? 1024 : capacity_ * 2;
    if (capacity < size_ + room) capacity = size_ + room;
    std::unique_ptr<char[]> data(new char[capacity]);
    if (size_ != 0) std::memcpy(data.get(), data_.get(), size_);
    data_ = std::move(data);
    capacity_ = capacity;
  }

  std::unique_ptr<char[]> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace leveret::bindings
