/// How a handler ends an attempt other than by returning.
///
/// Returning is success. An exception is a failure: the job is retried up to its `max_retries` with a growing delay,
/// then dead with `what()`. The two functions here say it differently.
#pragma once

#include <chrono>
#include <cstdint>
#include <leveret/version.hpp>
#include <string>
#include <utility>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// What `reject` throws. No std::exception, so that a handler's own `catch (const std::exception&)` lets it pass.
struct rejected {
  std::string why;
};

/// What `retry_after` throws; no std::exception either.
struct retry_requested {
  std::string why;
  std::chrono::milliseconds delay;
};

namespace detail {

/// Whole milliseconds, rounded up; nothing negative, no more than a century, also of floating-point durations.
template <class Rep, class Period>
[[nodiscard]] std::chrono::milliseconds to_milliseconds(std::chrono::duration<Rep, Period> duration) {
  constexpr std::int64_t kCentury = 3'155'760'000'000;
  const auto exact = std::chrono::duration<long double, std::milli>(duration).count();
  if (!(exact > 0)) return std::chrono::milliseconds(0);
  if (exact >= static_cast<long double>(kCentury)) return std::chrono::milliseconds(kCentury);
  const auto whole = static_cast<std::int64_t>(exact);
  return std::chrono::milliseconds(static_cast<long double>(whole) < exact ? whole + 1 : whole);
}

}  // namespace detail

/// Ends the job for good: it is dead at once, with `why`, and kept for inspection. Call it from a handler, on its
/// thread.
[[noreturn]] inline void reject(std::string why) {
  throw rejected{std::move(why)};  // NOLINT(bugprone-std-exception-baseclass): said at the type
}

/// Ends this attempt and asks for another one after `delay` (rounded up to milliseconds). It counts as a retry: past
/// `max_retries` the job is dead, with `why`. Call it from a handler, on its thread.
template <class Rep, class Period>
[[noreturn]] void retry_after(std::chrono::duration<Rep, Period> delay,
                              std::string why = "the handler asked for a retry") {
  // NOLINTNEXTLINE(bugprone-std-exception-baseclass): said at the type
  throw retry_requested{std::move(why), detail::to_milliseconds(delay)};
}

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
