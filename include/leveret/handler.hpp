/// From a handler (function, lambda, function object) to the C function that the host calls: its signature, the binding
/// of positional and keyword arguments to its parameters, its call, and what becomes of its result or exception.
#pragma once

#include <leveret/abi.h>

#include <exception>
#include <leveret/arg.hpp>
#include <leveret/context.hpp>
#include <leveret/decode.hpp>
#include <leveret/encode.hpp>
#include <leveret/outcome.hpp>
#include <stdexcept>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

template <class... P>
struct parameters {};

/// What a handler takes, apart from the context, and gives.
template <class R, class... P>
struct signature {
  using result = std::decay_t<R>;
  using takes = parameters<P...>;
  static constexpr bool kContext = false;
};
template <class R, class... P>
struct signature<R, context&, P...> : signature<R, P...> {
  static constexpr bool kContext = true;
};
template <class R, class... P>
struct signature<R, const context&, P...> : signature<R, context&, P...> {};

template <class F>
struct member_signature;
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...)> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) const> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) &> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) const&> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) noexcept> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) const noexcept> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) & noexcept> : signature<R, P...> {};
template <class C, class R, class... P>
struct member_signature<R (C::*)(P...) const & noexcept> : signature<R, P...> {};

template <class F, class = void>
struct signature_of {
  static_assert(always_false<F>::value,
                "leveret: cannot tell what this handler takes. Give a function, a lambda, or an object with one "
                "operator(); pick one of several overloads by a cast, write the types of a generic lambda, and wrap a "
                "member function in a lambda");
  using takes = parameters<>;
  using result = void;
  static constexpr bool kContext = false;
};
template <class R, class... P>
struct signature_of<R (*)(P...), void> : signature<R, P...> {};
template <class R, class... P>
struct signature_of<R (*)(P...) noexcept, void> : signature<R, P...> {};
template <class F>
struct signature_of<F, std::void_t<decltype(&F::operator())>> : member_signature<decltype(&F::operator())> {};

/// A parameter: its name, if the registration gives names, and its default, if any.
template <class P>
struct parameter {
  using value = std::decay_t<P>;
  /// A default outlives its registration, so a view is kept as a string.
  using kept = std::conditional_t<std::is_same_v<value, std::string_view>, std::string, value>;
  static constexpr bool kOptional = is_optional<value>::value;

  const char* name = nullptr;
  std::optional<kept> fallback;

  [[nodiscard]] bool required() const noexcept { return !kOptional && !fallback.has_value(); }
};

template <class P>
void describe_parameter(parameter<P>& into, const arg& said) {
  into.name = said.name();
}
template <class P, class T>
void describe_parameter(parameter<P>& into, const named_value<T>& said) {
  using kept = typename parameter<P>::kept;
  into.name = said.name;
  if constexpr (kIsInteger<kept> && kIsInteger<T>) {
    const bool negative = std::is_signed_v<T> && said.value < T{};
    const bool fits =
        negative
            ? std::is_signed_v<kept> &&
                  static_cast<std::int64_t>(said.value) >= static_cast<std::int64_t>(std::numeric_limits<kept>::min())
            : static_cast<std::uint64_t>(said.value) <= static_cast<std::uint64_t>(std::numeric_limits<kept>::max());
    if (!fits) {
      throw std::invalid_argument("the default of \"" + std::string(said.name) + "\" must be " + range_name<kept>() +
                                  ", not " + std::to_string(said.value));
    }
    into.fallback.emplace(static_cast<kept>(said.value));
  } else if constexpr (std::is_arithmetic_v<kept> && std::is_arithmetic_v<T>) {
    static_assert(
        std::is_same_v<kept, bool> == std::is_same_v<T, bool> && (kIsReal<kept> || !std::is_floating_point_v<T>),
        "leveret: the default has another type than the argument");
    into.fallback.emplace(static_cast<kept>(said.value));
  } else {
    static_assert(std::is_constructible_v<kept, const T&>,
                  "leveret: the default does not convert to the argument's type");
    into.fallback.emplace(said.value);
  }
}

/// Binds a job's arguments to a handler's parameters. Made at registration, then only read: by all threads at once.
template <class Takes>
class binding;

template <class... P>
class binding<parameters<P...>> {
 public:
  static constexpr std::size_t kCount = sizeof...(P);
  using values = std::tuple<typename parameter<P>::value...>;

  template <class... Said>
  explicit binding(const Said&... said) {
    static_assert(sizeof...(Said) == 0 || sizeof...(Said) == kCount,
                  "leveret: name every argument of the handler, or none (leveret::context& is not counted)");
    if constexpr (sizeof...(Said) != 0) describe(std::index_sequence_for<P...>(), said...);
  }

  /// False: the arguments do not fit, and `in.why` says so.
  [[nodiscard]] bool read(reader& in, values& out) const { return read(in, out, std::index_sequence_for<P...>()); }

  /// `[{"name":…,"type":…,"required":…}…]`.
  [[nodiscard]] std::string describe_json() const {
    std::string text = "[";
    std::size_t i = 0;
    (void)all_of(parameters_, [&](const auto& each) {
      using value = typename std::decay_t<decltype(each)>::value;
      if (i++ > 0) text += ',';
      text += "{\"name\":";
      if (each.name != nullptr) {
        append_quoted(text, each.name);
      } else {
        text += "null";
      }
      text += ",\"type\":";
      append_quoted(text, type_name<value>());
      text += each.required() ? ",\"required\":true}" : ",\"required\":false}";
      return true;
    });
    return text + "]";
  }

 private:
  template <std::size_t... I, class... Said>
  void describe(std::index_sequence<I...>, const Said&... said) {
    (describe_parameter(std::get<I>(parameters_), said), ...);
    named_ = true;
    const std::array<std::string_view, kCount> all{std::get<I>(parameters_).name...};
    for (std::size_t i = 0; i < kCount; ++i) {
      if (all[i].empty()) throw std::invalid_argument("argument " + std::to_string(i) + " has an empty name");
      for (std::size_t j = 0; j < i; ++j) {
        if (all[i] == all[j]) throw std::invalid_argument("two arguments are named \"" + std::string(all[i]) + "\"");
      }
    }
  }

  template <std::size_t... I>
  [[nodiscard]] bool read(reader& in, values& out, std::index_sequence<I...>) const {
    std::array<bool, kCount + 1> given{};
    std::array<leveret_value, kCount> args;
    std::size_t keywords = 0;
    const std::size_t count = in.host->arguments(in.call, args.data(), kCount, &keywords);
    if (count == LEVERET_FOREIGN) {
      return read_whole(in, given, out) && fill(in, given, out, std::index_sequence<I...>());
    }
    [[maybe_unused]] const auto position = [&](auto& slot, std::size_t i) {
      if (i >= count) return true;
      given[i] = true;
      if (leveret::detail::read(in, args[i], slot)) return true;
      in.why.in_index(i);
      return in.why.in_root("args");
    };
    if (!(position(std::get<I>(out), I) && ...)) return false;
    if (count > kCount) return too_many(in, count);
    if (keywords != 0 && !read_keywords(in, given, out, std::index_sequence<I...>())) return false;
    return count == kCount || fill(in, given, out, std::index_sequence<I...>());
  }

  template <std::size_t... I>
  [[nodiscard]] bool read_keywords(reader& in, std::array<bool, kCount + 1>& given, values& out,
                                   std::index_sequence<I...>) const {
    bool fits = true;
    leveret_iterator at;
    in.host->begin(in.host->kwargs(in.call), &at);
    leveret_string key;
    leveret_value value;
    while (in.host->next(&at, &key, &value) != 0) {
      const std::string_view name(key.data, key.size);
      [[maybe_unused]] const auto keyword = [&](auto& slot, const auto& described, std::size_t i) {
        if (described.name == nullptr || name != described.name) return false;
        if (given[i]) {
          fits = in.why.set("given twice, also as args[" + std::to_string(i) + "]");
        } else {
          given[i] = true;
          fits = leveret::detail::read(in, value, slot);
        }
        return true;
      };
      const bool known = (keyword(std::get<I>(out), std::get<I>(parameters_), I) || ...);
      if (!known) fits = unknown(in);
      if (!fits) {
        in.why.in_member(name);
        return in.why.in_root("kwargs");
      }
    }
    return true;
  }

  /// Gives what was not given its default.
  template <std::size_t... I>
  [[nodiscard]] bool fill(reader& in, const std::array<bool, kCount + 1>& given, values& out,
                          std::index_sequence<I...>) const {
    [[maybe_unused]] const auto left_out = [&](auto& slot, const auto& described, std::size_t i) {
      if (given[i]) return true;
      if (described.fallback.has_value()) {
        slot = *described.fallback;
        return true;
      }
      return !described.required() || missing(in, described.name, i);
    };
    return (left_out(std::get<I>(out), std::get<I>(parameters_), I) && ...);
  }

  /// A foreign job's object is the first argument.
  [[nodiscard]] static bool read_whole(reader& in, std::array<bool, kCount + 1>& given, values& out) {
    if constexpr (kCount == 0) {
      (void)given;
      (void)out;
      in.why.set("the default task takes no argument");
    } else {
      given[0] = true;
      leveret_value whole;
      (void)in.host->foreign(in.call, &whole);
      if (leveret::detail::read(in, whole, std::get<0>(out))) return true;
    }
    return in.why.in_root("job");
  }

  static bool missing(reader& in, const char* name, std::size_t i) {
    in.why.set(name != nullptr ? "missing (" + std::string(name) + ")" : std::string("missing"));
    in.why.in_index(i);
    return in.why.in_root("args");
  }
  static bool too_many(reader& in, std::size_t got) {
    in.why.set("expected " + std::string(kCount == 0 ? "none" : "at most " + std::to_string(kCount)) + ", got " +
               std::to_string(got));
    return in.why.in_root("args");
  }
  [[nodiscard]] bool unknown(reader& in) const {
    if (kCount == 0) return in.why.set("unknown, the task takes no arguments");
    if (!named_) return in.why.set("unknown, the task's arguments have no names: send them by position");
    std::string known;
    (void)all_of(parameters_, [&](const auto& each) {
      known += known.empty() ? "" : ", ";
      known += each.name;
      return true;
    });
    return in.why.set("unknown, the arguments are: " + known);
  }

  std::tuple<parameter<P>...> parameters_;
  bool named_ = false;
};

inline leveret_outcome end(const leveret_host* host, leveret_call* call, leveret_outcome outcome, std::string_view text,
                           std::int64_t delay_ms = 0) {
  host->fail(call, text.data(), text.size(), delay_ms);
  return outcome;
}

/// What the exception being handled makes of the attempt.
inline leveret_outcome end_by_exception(const leveret_host* host, leveret_call* call) {
  try {
    throw;
  } catch (const rejected& thrown) {
    return end(host, call, LEVERET_REJECTED, thrown.why);
  } catch (const retry_requested& thrown) {
    return end(host, call, LEVERET_RETRY_AFTER, thrown.why, thrown.delay.count());
  } catch (const std::exception& thrown) {
    return end(host, call, LEVERET_FAILED, thrown.what());
  } catch (...) {
    return end(host, call, LEVERET_FAILED, "unknown exception");
  }
}

template <class Handler, bool Context, class Values, class... P, std::size_t... I>
decltype(auto) invoke(Handler& handler, context& about, Values& values, parameters<P...>, std::index_sequence<I...>) {
  // `P&&` moves what is taken by value and keeps what is taken by reference.
  if constexpr (Context) {
    return handler(about, static_cast<P&&>(std::get<I>(values))...);
  } else {
    (void)about;
    return handler(static_cast<P&&>(std::get<I>(values))...);
  }
}

/// One attempt: reads the arguments, runs the handler, writes the result. Lets nothing through: what it is called by is
/// C.
template <class Handler>
leveret_outcome run(const leveret_host* host, leveret_call* call, Handler& handler,
                    const binding<typename signature_of<Handler>::takes>& bound) noexcept {
  using takes = typename signature_of<Handler>::takes;
  using result = typename signature_of<Handler>::result;
  using bound_type = binding<takes>;
  constexpr bool kContext = signature_of<Handler>::kContext;
  constexpr auto kEach = std::make_index_sequence<bound_type::kCount>();
  try {
    typename bound_type::values values{};
    reader in{host, call};
    if (!bound.read(in, values)) return end(host, call, LEVERET_BAD_ARGUMENTS, in.why.text());
    context about(host, call);
    if constexpr (std::is_void_v<result>) {
      invoke<Handler, kContext>(handler, about, values, takes(), kEach);
    } else {
      writer out{host, call};
      if (!write<result>(out, invoke<Handler, kContext>(handler, about, values, takes(), kEach))) {
        out.why.in_root("result");
        return end(host, call, LEVERET_BAD_RESULT, out.why.text());
      }
    }
    return LEVERET_SUCCEEDED;
  } catch (...) {
    return end_by_exception(host, call);
  }
}

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
