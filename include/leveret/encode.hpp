/// From C++ values to JSON, through the writer functions of the C ABI. kinds.hpp lists the types.
#pragma once

#include <leveret/abi.h>

#include <cmath>
#include <cstdint>
#include <leveret/kinds.hpp>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

/// Writes one value. A write that fails leaves its `why`, and what was written is then worth nothing.
struct writer {
  const leveret_host* host;
  leveret_call* call;
  problem why{};
};

/// False: the value has no JSON form.
template <class T>
[[nodiscard]] bool write(writer& out, const T& value);

[[nodiscard]] inline bool write_text(writer& out, std::string_view text) {
  if (out.host->write_string(out.call, text.data(), text.size()) != 0) return true;
  return out.why.set("string is not UTF-8");
}

[[nodiscard]] inline bool write_real(writer& out, double value) {
  if (out.host->write_double(out.call, value) != 0) return true;
  return out.why.set(std::isnan(value) ? "NaN is not JSON" : "infinity is not JSON");
}

template <class T>
[[nodiscard]] bool write_list(writer& out, const T& value) {
  out.host->begin_array(out.call);
  std::size_t i = 0;
  for (const auto& element : value) {
    if (!write<typename T::value_type>(out, element)) return out.why.in_index(i);
    ++i;
  }
  out.host->end_array(out.call);
  return true;
}

[[nodiscard]] inline bool write_key(writer& out, std::string_view key) {
  if (out.host->write_key(out.call, key.data(), key.size()) != 0) return true;
  return out.why.set("a key is not UTF-8");
}

template <class T>
[[nodiscard]] bool write_dictionary(writer& out, const T& value) {
  out.host->begin_object(out.call);
  for (const auto& [key, element] : value) {
    if (!write_key(out, key)) return false;
    if (!write(out, element)) return out.why.in_member(key);
  }
  out.host->end_object(out.call);
  return true;
}

template <class T>
[[nodiscard]] bool write_tuple(writer& out, const T& value) {
  out.host->begin_array(out.call);
  std::size_t i = 0;
  const bool fits = all_of(value, [&](const auto& each) {
    if (!write(out, each)) return out.why.in_index(i);
    ++i;
    return true;
  });
  if (fits) out.host->end_array(out.call);
  return fits;
}

template <class T>
[[nodiscard]] bool write_struct(writer& out, const T& value) {
  out.host->begin_object(out.call);
  const bool fits = all_of(fields<T>::list, [&](const auto& each) {
    return write_key(out, each.name) && (write(out, value.*each.member) || out.why.in_member(each.name));
  });
  if (fits) out.host->end_object(out.call);
  return fits;
}

template <class E>
[[nodiscard]] bool write_name(writer& out, E value) {
  const char* name = nullptr;
  (void)any_of(names<E>::list, [&](const auto& each) {
    if (each.value != value) return false;
    name = each.name;
    return true;
  });
  if (name != nullptr) return write_text(out, name);
  return out.why.set(std::to_string(static_cast<std::underlying_type_t<E>>(value)) + " is none of " + names_of<E>());
}

template <class T>
bool write(writer& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out.host->write_boolean(out.call, value ? 1 : 0);
    return true;
  } else if constexpr (kIsInteger<T>) {
    if constexpr (std::is_signed_v<T>) {
      out.host->write_integer(out.call, static_cast<std::int64_t>(value));
    } else {
      out.host->write_unsigned(out.call, static_cast<std::uint64_t>(value));
    }
    return true;
  } else if constexpr (kIsReal<T>) {
    return write_real(out, static_cast<double>(value));
  } else if constexpr (std::is_same_v<T, const char*> || std::is_same_v<T, char*>) {
    return value == nullptr ? out.why.set("null pointer") : write_text(out, value);
  } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>) {
    return write_text(out, value);
  } else if constexpr (std::is_same_v<T, json>) {
    const std::string_view text = value.text();
    return out.host->write_raw(out.call, text.data(), text.size()) != 0 || out.why.set("not one value of JSON");
  } else if constexpr (std::is_same_v<T, std::monostate> || std::is_same_v<T, std::nullptr_t> ||
                       std::is_same_v<T, std::nullopt_t>) {
    out.host->write_null(out.call);
    return true;
  } else if constexpr (is_optional<T>::value) {
    if (value.has_value()) return write(out, *value);
    out.host->write_null(out.call);
    return true;
  } else if constexpr (is_list<T>::value || is_std_array<T>::value) {
    return write_list(out, value);
  } else if constexpr (is_dictionary<T>::value) {
    return write_dictionary(out, value);
  } else if constexpr (is_pair<T>::value) {
    return write_tuple(out, std::tie(value.first, value.second));
  } else if constexpr (is_tuple<T>::value) {
    return write_tuple(out, value);
  } else if constexpr (is_variant<T>::value) {
    return !value.valueless_by_exception() ? std::visit([&](const auto& held) { return write(out, held); }, value)
                                           : out.why.set("the variant holds no value");
  } else if constexpr (has_fields<T>::value) {
    return write_struct(out, value);
  } else if constexpr (has_names<T>::value) {
    return write_name(out, value);
  } else if constexpr (std::is_enum_v<T>) {
    using number = std::underlying_type_t<T>;
    if constexpr (std::is_signed_v<number>) {
      out.host->write_integer(out.call, static_cast<std::int64_t>(value));
    } else {
      out.host->write_unsigned(out.call, static_cast<std::uint64_t>(value));
    }
    return true;
  } else {
    static_assert(always_false<T>::value,
                  "leveret: no result can have this type. The types are listed in leveret/kinds.hpp; a struct needs a "
                  "leveret::fields<T>, and leveret::json gives any JSON text");
  }
}

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
