/// Raw JSON: for handlers that read or write JSON with a library of their own.
#pragma once

#include <leveret/version.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// One JSON value as text. As an argument it is a view of the text without white space, which lives until the handler
/// returns: copy `text()` to keep it longer. As a result it must be one value of valid JSON, else the job is dead.
class LEVERET_VISIBLE_TYPE json {
 public:
  LEVERET_HIDDEN json() = default;
  /// Owns the text.
  LEVERET_HIDDEN explicit json(std::string text) : owned_(std::move(text)) {}
  /// Refers to text that someone else keeps alive.
  [[nodiscard]] LEVERET_HIDDEN static json view(std::string_view text) {
    json made;
    made.viewed_ = text;
    return made;
  }
  [[nodiscard]] LEVERET_HIDDEN std::string_view text() const noexcept {
    return viewed_.data() != nullptr ? viewed_ : std::string_view(owned_);
  }

 private:
  std::string owned_ = "null";
  std::string_view viewed_;  // its data is null when the text is owned
};

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
