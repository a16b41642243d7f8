/// How a program's own structs and enums become JSON objects and strings: by a trait, so that existing types need no
/// change.
#pragma once

#include <leveret/version.hpp>
#include <tuple>
#include <type_traits>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// One member of a struct, made by `leveret::field`.
template <class C, class M>
struct field_spec {
  const char* name;
  M C::* member;
  bool optional;

  /// The member may be left out of the JSON object: it then keeps the value that the struct's default constructor
  /// gives.
  [[nodiscard]] constexpr field_spec or_default() const { return {name, member, true}; }
};
template <class C, class M>
[[nodiscard]] constexpr field_spec<C, M> field(const char* name, M C::* member) {
  return {name, member, false};
}

/// Specialise it to use a default-constructible struct as argument and result:
///
///     template <>
///     struct leveret::fields<box> {
///       static constexpr auto list = std::make_tuple(leveret::field("x", &box::x), leveret::field("y", &box::y),
///                                                    leveret::field("label", &box::label).or_default());
///     };
///
/// Members of the JSON object that are not listed are ignored, so that producers can be newer than workers. Listed ones
/// must be there, unless `or_default()` was said or the member is a std::optional.
template <class T>
struct fields;

/// One value of an enum, made by `leveret::name`.
template <class E>
struct name_spec {
  const char* name;
  E value;
};
template <class E>
[[nodiscard]] constexpr name_spec<E> name(const char* text, E value) {
  return {text, value};
}

/// Specialise it to have an enum travel by name; without it an enum travels by its integer.
///
///     template <>
///     struct leveret::names<color> {
///       static constexpr auto list = std::make_tuple(leveret::name("red", color::red), leveret::name("green",
///       color::green));
///     };
template <class E>
struct names;

namespace detail {

template <class T, class = void>
struct has_fields : std::false_type {};
template <class T>
struct has_fields<T, std::void_t<decltype(fields<T>::list)>> : std::true_type {};

template <class T, class = void>
struct has_names : std::false_type {};
template <class T>
struct has_names<T, std::void_t<decltype(names<T>::list)>> : std::true_type {};

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
