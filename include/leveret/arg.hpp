/// Names and defaults of arguments.
#pragma once

#include <leveret/version.hpp>
#include <type_traits>
#include <utility>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// An argument with a value: a default where tasks are registered, a keyword argument where jobs are sent.
template <class T>
struct named_value {
  const char* name;
  T value;
};

/// Names an argument: `tasks.add("resize", resize, arg("path"), arg("width") = 80)`. The name must outlive the
/// program's use of it, as a literal does.
class arg {
 public:
  constexpr explicit arg(const char* name) noexcept : name_(name) {}
  template <class T>
  [[nodiscard]] constexpr named_value<std::decay_t<T>> operator=(
      T&& value) const {  // NOLINT: gives a value, on purpose
    return {name_, std::forward<T>(value)};
  }
  [[nodiscard]] constexpr const char* name() const noexcept { return name_; }

 private:
  const char* name_;
};

namespace detail {

template <class T>
struct is_named_value : std::false_type {};
template <class T>
struct is_named_value<named_value<T>> : std::true_type {};

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
