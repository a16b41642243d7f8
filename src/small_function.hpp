/// A std::function that is moved and not copied: what it calls may own what can't be copied, and up to 48 bytes of it
/// need no allocation. For what is made once a message and called on another thread, where freeing is dear.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace leveret::core {

template <class Signature>
class small_function;

template <class Result, class... Arguments>
class small_function<Result(Arguments...)> {
 public:
  small_function() noexcept = default;
  small_function(std::nullptr_t) noexcept {}  // NOLINT(google-explicit-constructor): as std::function
  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, small_function> &&
                                              std::is_invocable_r_v<Result, std::decay_t<F>&, Arguments...>>>
  small_function(F&& f) {  // NOLINT(google-explicit-constructor,bugprone-forwarding-reference-overload): likewise
    using kept = std::decay_t<F>;
    if constexpr (kFits<kept>) {
      new (static_cast<void*>(room_)) kept(std::forward<F>(f));
      call_ = [](void* self, Arguments... arguments) -> Result {
        return (*static_cast<kept*>(self))(std::forward<Arguments>(arguments)...);
      };
      move_ = [](void* from, void* to) noexcept {
        auto* const old = static_cast<kept*>(from);
        if (to != nullptr) new (to) kept(std::move(*old));
        old->~kept();
      };
    } else {
      new (static_cast<void*>(room_)) kept*(new kept(std::forward<F>(f)));
      call_ = [](void* self, Arguments... arguments) -> Result {
        return (**static_cast<kept**>(self))(std::forward<Arguments>(arguments)...);
      };
      move_ = [](void* from, void* to) noexcept {
        kept* const self = *static_cast<kept**>(from);
        to != nullptr ? void(new (to) kept*(self)) : delete self;
      };
    }
  }
  small_function(small_function&& other) noexcept { take(other); }
  small_function& operator=(small_function&& other) noexcept {
    if (this != &other) {
      drop();
      take(other);
    }
    return *this;
  }
  small_function(const small_function&) = delete;
  small_function& operator=(const small_function&) = delete;
  ~small_function() { drop(); }

  Result operator()(Arguments... arguments) const { return call_(room_, std::forward<Arguments>(arguments)...); }
  explicit operator bool() const noexcept { return call_ != nullptr; }

 private:
  static constexpr std::size_t kRoom = 48;
  template <class F>
  static constexpr bool kFits =
      sizeof(F) <= kRoom && alignof(F) <= alignof(std::max_align_t) && std::is_nothrow_move_constructible_v<F>;

  void take(small_function& other) noexcept {
    if (other.call_ == nullptr) return;
    other.move_(other.room_, room_);
    move_ = other.move_;
    call_ = std::exchange(other.call_, nullptr);
  }
  // Empty before what was called is destroyed: that may come back here.
  void drop() noexcept {
    if (std::exchange(call_, nullptr) != nullptr) move_(room_, nullptr);
  }

  alignas(std::max_align_t) mutable unsigned char room_[kRoom];
  Result (*call_)(void*, Arguments...) = nullptr;
  void (*move_)(void* from, void* to) noexcept = nullptr;  // to another place, or to nowhere
};

}  // namespace leveret::core
