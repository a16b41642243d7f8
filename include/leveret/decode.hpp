/// From JSON values to C++ values, through the value functions of the C ABI. kinds.hpp lists the types.
#pragma once

#include <leveret/abi.h>

#include <cstdint>
#include <cstring>
#include <leveret/kinds.hpp>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

/// Reads the arguments of one attempt. A read that fails leaves its `why`.
struct reader {
  const leveret_host* host;
  leveret_call* call;
  problem why{};

  [[nodiscard]] std::string_view kind_name(leveret_value value) const {
    switch (host->kind(value)) {
      case LEVERET_NULL:
        return "null";
      case LEVERET_BOOLEAN:
        return "boolean";
      case LEVERET_INTEGER:
      case LEVERET_UNSIGNED:
        return "integer";
      case LEVERET_DOUBLE:
        return "number";
      case LEVERET_STRING:
        return "string";
      case LEVERET_ARRAY:
        return "array";
      case LEVERET_OBJECT:
        return "object";
    }
    return "something else";
  }
  bool mismatch(std::string_view expected, leveret_value value) {
    std::string text = "expected ";
    text += expected;
    text += ", got ";
    text += kind_name(value);
    return why.set(std::move(text));
  }
  bool out_of_range(const std::string& range, const std::string& got) {
    return why.set("expected " + range + ", got " + got);
  }
};

/// Reads `value` into `out`. False: it does not fit, and `in.why` says so; `out` is then unspecified.
template <class T>
[[nodiscard]] bool read(reader& in, leveret_value value, T& out);

template <class T>
[[nodiscard]] bool read_integer(reader& in, leveret_value value, T& out) {
  std::int64_t narrow = 0;
  if (in.host->get_integer(value, &narrow) != 0) {
    bool fits = false;
    if constexpr (std::is_signed_v<T>) {
      fits = narrow >= std::numeric_limits<T>::min() && narrow <= std::numeric_limits<T>::max();
    } else {
      fits = narrow >= 0 && static_cast<std::uint64_t>(narrow) <= std::numeric_limits<T>::max();
    }
    if (!fits) return in.out_of_range(range_name<T>(), std::to_string(narrow));
    out = static_cast<T>(narrow);
    return true;
  }
  std::uint64_t wide = 0;
  if (in.host->get_unsigned(value, &wide) != 0) {
    if (wide > static_cast<std::uint64_t>(std::numeric_limits<T>::max())) {
      return in.out_of_range(range_name<T>(), std::to_string(wide));
    }
    out = static_cast<T>(wide);
    return true;
  }
  return in.mismatch("integer", value);
}

template <class T>
[[nodiscard]] bool read_real(reader& in, leveret_value value, T& out) {
  double real = 0;
  if (in.host->get_double(value, &real) == 0) return in.mismatch("number", value);
  if constexpr (std::is_same_v<T, float>) {
    if (real > static_cast<double>(std::numeric_limits<float>::max()) ||
        real < static_cast<double>(std::numeric_limits<float>::lowest())) {
      return in.out_of_range("number -3.4e38 to 3.4e38", std::to_string(real));
    }
  }
  out = static_cast<T>(real);
  return true;
}

template <class T>
[[nodiscard]] bool read_list(reader& in, leveret_value value, T& out) {
  if (in.host->kind(value) != LEVERET_ARRAY) return in.mismatch("array", value);
  out.clear();
  out.reserve(in.host->size_of(value));
  leveret_iterator at;
  in.host->begin(value, &at);
  leveret_value element;
  for (std::size_t i = 0; in.host->next(&at, nullptr, &element) != 0; ++i) {
    typename T::value_type one{};
    if (!read(in, element, one)) return in.why.in_index(i);
    out.push_back(std::move(one));
  }
  return true;
}

template <class T>
[[nodiscard]] bool read_dictionary(reader& in, leveret_value value, T& out) {
  if (in.host->kind(value) != LEVERET_OBJECT) return in.mismatch("object", value);
  out.clear();
  leveret_iterator at;
  in.host->begin(value, &at);
  leveret_string key;
  leveret_value element;
  while (in.host->next(&at, &key, &element) != 0) {
    typename T::mapped_type one{};
    if (!read(in, element, one)) return in.why.in_member({key.data, key.size});
    out.insert_or_assign(std::string(key.data, key.size), std::move(one));
  }
  return true;
}

/// Arrays of a fixed size: tuples, pairs, std::array.
template <class T, std::size_t... I>
[[nodiscard]] bool read_tuple(reader& in, leveret_value value, T& out, std::index_sequence<I...>) {
  if (in.host->kind(value) != LEVERET_ARRAY) return in.mismatch("array", value);
  const std::size_t size = in.host->size_of(value);
  if (size != sizeof...(I)) {
    return in.why.set("expected array of " + std::to_string(sizeof...(I)) + ", got array of " + std::to_string(size));
  }
  leveret_iterator at;
  in.host->begin(value, &at);
  [[maybe_unused]] leveret_value element;
  [[maybe_unused]] const auto one = [&](auto& slot, std::size_t i) {
    return in.host->next(&at, nullptr, &element) != 0 && (read(in, element, slot) || in.why.in_index(i));
  };
  return (one(std::get<I>(out), I) && ...);
}

template <class T>
[[nodiscard]] bool read_struct(reader& in, leveret_value value, T& out) {
  static_assert(std::is_default_constructible_v<T>,
                "leveret: a struct with leveret::fields needs a default constructor");
  if (in.host->kind(value) != LEVERET_OBJECT) return in.mismatch("object", value);
  constexpr std::size_t kCount = std::tuple_size_v<std::decay_t<decltype(fields<T>::list)>>;
  std::array<bool, kCount + 1> seen{};
  leveret_iterator at;
  in.host->begin(value, &at);
  leveret_string key;
  leveret_value element;
  while (in.host->next(&at, &key, &element) != 0) {
    const std::string_view name(key.data, key.size);
    bool fits = true;
    std::size_t i = 0;
    (void)any_of(fields<T>::list, [&](const auto& each) {
      if (name != each.name) return ++i, false;
      seen[i] = true;
      fits = read(in, element, out.*each.member) || in.why.in_member(name);
      return true;
    });
    if (!fits) return false;
  }
  std::size_t i = 0;
  return all_of(fields<T>::list, [&](const auto& each) {
    using member = decltype(member_type(each.member));
    if (seen[i++] || each.optional || is_optional<member>::value) return true;
    in.why.set("missing");
    return in.why.in_member(each.name);
  });
}

template <class T, std::size_t I>
struct alternative {
  using type = T;
  static constexpr std::size_t kIndex = I;
};
template <class... T, class F, std::size_t... I>
[[nodiscard]] bool any_alternative(F& f, std::index_sequence<I...>) {
  return (f(alternative<T, I>{}) || ...);
}

/// The first alternative that fits. If none does, a problem inside an alternative whose own type was right says more
/// than the list of types.
template <class... T>
[[nodiscard]] bool read_variant(reader& in, leveret_value value, std::variant<T...>& out) {
  bool inside = false;
  problem closest;
  const auto one = [&](auto tag) {
    typename decltype(tag)::type candidate{};
    if (read(in, value, candidate)) {
      out.template emplace<decltype(tag)::kIndex>(std::move(candidate));
      return true;
    }
    if (in.why.inside() && !inside) {
      inside = true;
      closest = std::move(in.why);
    }
    return false;
  };
  if (any_alternative<T...>(one, std::index_sequence_for<T...>())) return true;
  if (inside) {
    in.why = std::move(closest);
    return false;
  }
  return in.mismatch(type_name<std::variant<T...>>(1), value);
}

template <class E>
[[nodiscard]] bool read_name(reader& in, leveret_value value, E& out) {
  leveret_string text{};
  if (in.host->get_string(value, &text) == 0) return in.mismatch(names_of<E>(), value);
  const std::string_view wanted(text.data, text.size);
  const bool found = any_of(names<E>::list, [&](const auto& each) {
    if (wanted != each.name) return false;
    out = each.value;
    return true;
  });
  if (found) return true;
  std::string got;
  append_quoted(got, wanted);
  return in.out_of_range(names_of<E>(), got);
}

template <class T>
bool read(reader& in, leveret_value value, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    int truth = 0;
    if (in.host->get_boolean(value, &truth) == 0) return in.mismatch("boolean", value);
    out = truth != 0;
    return true;
  } else if constexpr (kIsInteger<T>) {
    return read_integer(in, value, out);
  } else if constexpr (kIsReal<T>) {
    return read_real(in, value, out);
  } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>) {
    leveret_string text{};
    if (in.host->get_string(value, &text) == 0) return in.mismatch("string", value);
    out = T(text.data, text.size);
    return true;
  } else if constexpr (std::is_same_v<T, json>) {
    const leveret_string text = in.host->raw(in.call, value);
    out = json::view({text.data, text.size});
    return true;
  } else if constexpr (std::is_same_v<T, std::monostate>) {
    return in.host->kind(value) == LEVERET_NULL || in.mismatch("null", value);
  } else if constexpr (is_optional<T>::value) {
    if (in.host->kind(value) == LEVERET_NULL) {
      out.reset();
      return true;
    }
    return read(in, value, out.emplace());
  } else if constexpr (is_list<T>::value) {
    return read_list(in, value, out);
  } else if constexpr (is_dictionary<T>::value) {
    return read_dictionary(in, value, out);
  } else if constexpr (is_tuple<T>::value || is_std_array<T>::value) {
    return read_tuple(in, value, out, std::make_index_sequence<std::tuple_size_v<T>>());
  } else if constexpr (is_variant<T>::value) {
    return read_variant(in, value, out);
  } else if constexpr (has_fields<T>::value) {
    return read_struct(in, value, out);
  } else if constexpr (has_names<T>::value) {
    return read_name(in, value, out);
  } else if constexpr (std::is_enum_v<T>) {
    std::underlying_type_t<T> number{};
    if (!read_integer(in, value, number)) return false;
    out = static_cast<T>(number);
    return true;
  } else {
    static_assert(
        always_false<T>::value,
        "leveret: no argument can have this type. The types are listed in leveret/kinds.hpp; a struct needs a "
        "leveret::fields<T>, and leveret::json takes anything as text");
  }
}

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
