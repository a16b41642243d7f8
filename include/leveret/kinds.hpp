/// Which C++ types can be arguments and results, and what they are called in messages and in `--describe`.
///
/// | C++                                              | JSON                                                          |
/// | ------------------------------------------------ | ------------------------------------------------------------- |
/// | integers of every width and sign                 | an integer in range; 3.0 is a number, not an integer          |
/// | float, double                                    | a number                                                      |
/// | bool                                             | true, false                                                   |
/// | std::string; std::string_view, const char*       | a string (as argument: string_view, not const char*)          |
/// | std::vector<T>, std::array<T, N>                 | an array                                                      |
/// | std::pair, std::tuple                            | an array of just that many                                    |
/// | std::map<std::string, T>, std::unordered_map     | an object                                                     |
/// | std::optional<T>                                 | null or T; may be left out as argument and as struct member   |
/// | std::variant<T…>                                 | the first T that fits; std::monostate is null                 |
/// | enums                                            | an integer, or a name (leveret::names)                        |
/// | structs with leveret::fields                     | an object                                                     |
/// | leveret::json                                    | anything, as text                                             |
#pragma once

#include <array>
#include <cstddef>
#include <leveret/fields.hpp>
#include <leveret/json.hpp>
#include <leveret/version.hpp>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

template <class T>
struct always_false : std::false_type {};

/// Integers that mean numbers: neither bool nor a character type.
template <class T>
inline constexpr bool kIsInteger =
    std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char> && !std::is_same_v<T, wchar_t> &&
    !std::is_same_v<T, char16_t> && !std::is_same_v<T, char32_t>;
template <class T>
inline constexpr bool kIsReal = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <class T>
struct is_list : std::false_type {};
template <class T, class A>
struct is_list<std::vector<T, A>> : std::true_type {};

template <class T>
struct is_std_array : std::false_type {};
template <class T, std::size_t N>
struct is_std_array<std::array<T, N>> : std::true_type {};

template <class T>
struct is_dictionary : std::false_type {};
template <class T, class C, class A>
struct is_dictionary<std::map<std::string, T, C, A>> : std::true_type {};
template <class T, class H, class E, class A>
struct is_dictionary<std::unordered_map<std::string, T, H, E, A>> : std::true_type {};

template <class T>
struct is_tuple : std::false_type {};
template <class... T>
struct is_tuple<std::tuple<T...>> : std::true_type {};
template <class A, class B>
struct is_tuple<std::pair<A, B>> : std::true_type {};

template <class T>
struct is_pair : std::false_type {};
template <class A, class B>
struct is_pair<std::pair<A, B>> : std::true_type {};

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

/// Calls `f` with each element of the tuple `list` until one call gives true; whether one did.
template <class List, class F>
constexpr bool any_of(const List& list, F&& f) {
  return std::apply([&f](const auto&... each) { return (f(each) || ...); }, list);
}
template <class List, class F>
constexpr bool all_of(const List& list, F&& f) {
  return std::apply([&f](const auto&... each) { return (f(each) && ...); }, list);
}

template <class T>
[[nodiscard]] std::string range_name() {
  return "integer " + std::to_string(std::numeric_limits<T>::min()) + " to " +
         std::to_string(std::numeric_limits<T>::max());
}

/// Appends `text` as a JSON string. `text` is UTF-8.
inline void append_quoted(std::string& out, std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

/// The names of an enum, quoted: "red", "green" or "blue".
template <class E>
[[nodiscard]] std::string names_of() {
  std::string text;
  std::size_t left = std::tuple_size_v<std::decay_t<decltype(names<E>::list)>>;
  (void)all_of(names<E>::list, [&](const auto& each) {
    append_quoted(text, each.name);
    --left;
    text += left > 1 ? ", " : left == 1 ? " or " : "";
    return true;
  });
  return text;
}

template <class T>
[[nodiscard]] std::string type_name(int depth = 0);

template <class T>
struct variant_name;
template <class... T>
struct variant_name<std::variant<T...>> {
  static std::string text([[maybe_unused]] int depth) {
    std::string joined;
    std::size_t left = sizeof...(T);
    ((joined += type_name<T>(depth), --left, joined += left > 1 ? ", " : left == 1 ? " or " : ""), ...);
    return joined;
  }
};
template <class T>
struct is_variant : std::false_type {};
template <class... T>
struct is_variant<std::variant<T...>> : std::true_type {};

template <class T>
struct tuple_name;
template <class... T>
struct tuple_name<std::tuple<T...>> {
  static std::string text([[maybe_unused]] int depth) {
    std::string joined = "array [";
    std::size_t left = sizeof...(T);
    ((joined += type_name<T>(depth), --left, joined += left > 0 ? ", " : ""), ...);
    return joined + "]";
  }
};
template <class A, class B>
struct tuple_name<std::pair<A, B>> : tuple_name<std::tuple<A, B>> {};

template <class C, class M>
M member_type(M C::*);

/// The type as people read it, the same words as in error messages: "integer 0 to 255", "array of string". Structs are
/// written out two levels deep: they may contain themselves.
template <class T>
std::string type_name(int depth) {
  if constexpr (std::is_void_v<T> || std::is_same_v<T, std::monostate> || std::is_same_v<T, std::nullptr_t> ||
                std::is_same_v<T, std::nullopt_t>) {
    return "null";
  } else if constexpr (std::is_same_v<T, bool>) {
    return "boolean";
  } else if constexpr (kIsInteger<T>) {
    return std::is_signed_v<T> && sizeof(T) == 8 ? "integer" : range_name<T>();
  } else if constexpr (kIsReal<T>) {
    return "number";
  } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view> ||
                       std::is_same_v<T, const char*> || std::is_same_v<T, char*>) {
    return "string";
  } else if constexpr (std::is_same_v<T, json>) {
    return "anything";
  } else if constexpr (has_names<T>::value) {
    return names_of<T>();
  } else if constexpr (std::is_enum_v<T>) {
    return "integer";
  } else if constexpr (is_optional<T>::value) {
    return type_name<typename T::value_type>(depth) + " or null";
  } else if constexpr (is_variant<T>::value) {
    return variant_name<T>::text(depth);
  } else if constexpr (is_tuple<T>::value) {
    return tuple_name<T>::text(depth);
  } else if constexpr (is_dictionary<T>::value) {
    return "object of " + type_name<typename T::mapped_type>(depth);
  } else if constexpr (has_fields<T>::value) {
    if (depth >= 2) return "object";
    std::string text = "object {";
    (void)all_of(fields<T>::list, [&](const auto& each) {
      using member = decltype(member_type(each.member));
      if (text.back() != '{') text += ", ";
      text += each.name;
      if (each.optional || is_optional<member>::value) text += '?';
      text += ": " + type_name<member>(depth + 1);
      return true;
    });
    return text + "}";
  } else if constexpr (is_list<T>::value || is_std_array<T>::value) {
    return "array of " + type_name<typename T::value_type>(depth);
  } else {
    return "unknown";  // reading or writing such a type does not compile
  }
}

/// The type in one word, for messages: where a struct is wanted, "object".
template <class T>
[[nodiscard]] std::string short_name() {
  if constexpr (kIsInteger<T>) {
    return "integer";
  } else if constexpr (has_fields<T>::value || is_dictionary<T>::value) {
    return "object";
  } else if constexpr (is_list<T>::value || is_tuple<T>::value || is_std_array<T>::value) {
    return "array";
  } else {
    return type_name<T>();
  }
}

/// Where in the arguments or the result something is wrong, and what. The path is put together only when there is a
/// problem, from the inside out.
class problem {
 public:
  /// All of these return false, so that a reader can `return why.set(…)`.
  bool set(std::string what) {
    text_ = std::make_unique<parts>();
    text_->what = std::move(what);
    return false;
  }
  bool in_index(std::size_t index) { return inside("[" + std::to_string(index) + "]"); }
  bool in_member(std::string_view key) {
    bool plain = !key.empty() && !(key[0] >= '0' && key[0] <= '9');
    for (const char c : key) {
      plain = plain && (c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
    }
    std::string step;
    if (plain) {
      step = '.';
      step += key;
    } else {
      step = '[';
      append_quoted(step, key);
      step += ']';
    }
    return inside(step);
  }
  bool in_root(std::string_view root) { return inside(root); }

  /// Whether the problem is inside the value looked at, not the value's own type.
  [[nodiscard]] bool inside() const noexcept { return text_ != nullptr && !text_->path.empty(); }
  [[nodiscard]] std::string text() const {
    if (text_ == nullptr) return {};
    return text_->path.empty() ? text_->what : text_->path + ": " + text_->what;
  }

 private:
  struct parts {
    std::string path;
    std::string what;
  };

  bool inside(std::string_view step) {
    if (text_ != nullptr) text_->path.insert(0, step);
    return false;
  }

  std::unique_ptr<parts> text_;  // none: what each job would pay for making and ending two strings
};

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
