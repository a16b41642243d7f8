#include "redelivery.hpp"

#include <algorithm>
#include <charconv>

namespace leveret::core {

std::int32_t crashes_of(const delivery& d) {
  std::int32_t carried = 0;
  if (const std::string* text = d.msg.find_header(kHeaderCrashes)) {
    std::from_chars(text->data(), text->data() + text->size(), carried);
  }
  const std::int64_t all = std::int64_t{std::max(d.returns, 0)} + std::max(carried, 0);
  return static_cast<std::int32_t>(std::min<std::int64_t>(all, INT32_MAX));  // anybody may have written the header
}

redelivery_action on_return(const delivery& d, bool suspects, bool isolate, std::int32_t max_crashes) {
  if (!suspects) {
    return isolate && d.returns > kReturnsInPlace ? redelivery_action::move_to_suspects : redelivery_action::run;
  }
  const std::string* kind = d.msg.find_header(kHeaderSuspect);
  const bool single = kind != nullptr && *kind == kSuspectSingle;
  const std::int32_t crashes = crashes_of(d);
  if (single) return crashes >= max_crashes ? redelivery_action::dead_crashed : redelivery_action::run;
  return crashes > 0 ? redelivery_action::split_into_singles : redelivery_action::run;
}

}  // namespace leveret::core
