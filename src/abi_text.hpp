/// Text as the C ABI has it.
#pragma once

#include <leveret/library.h>

#include <string_view>

namespace leveret::core {

[[nodiscard]] inline std::string_view view(leveret_string text) noexcept { return {text.data, text.size}; }
/// Valid as long as `text`.
[[nodiscard]] inline leveret_string string_of(std::string_view text) noexcept { return {text.data(), text.size()}; }

}  // namespace leveret::core
