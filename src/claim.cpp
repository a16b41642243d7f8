#include "claim.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

namespace leveret::core {
namespace {

constexpr std::array<std::string_view, 3> kUntil{"window", "start", "end"};

std::string_view take_word(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(std::min(text.size(), word.size() + 1));
  return word;
}

}  // namespace

std::string claim_text(const claim& c) {
  std::string text(kUntil.at(static_cast<std::size_t>(c.until)));
  text.append(" ").append(std::to_string(c.expires)).append(" ").append(c.job).append(" ").append(c.key);
  return text;
}

std::optional<claim> read_claim(const std::string& text) {
  claim out;
  std::string_view rest = text;
  const std::string_view until = take_word(rest);
  std::size_t index = 0;
  while (index < kUntil.size() && kUntil.at(index) != until) ++index;
  if (index == kUntil.size()) return std::nullopt;
  out.until = static_cast<held_until>(index);
  const std::string_view expires = take_word(rest);
  const auto parsed = std::from_chars(expires.data(), expires.data() + expires.size(), out.expires);
  if (parsed.ec != std::errc() || parsed.ptr != expires.data() + expires.size()) return std::nullopt;
  out.job = take_word(rest);
  out.key = rest;
  if (out.job.empty() || out.key.empty() || out.key.size() > kMostClaimKey) return std::nullopt;
  return out;
}

std::optional<claim> claim_of(const message& m) {
  if (m.headers.empty()) return std::nullopt;
  const std::string* text = m.find_header(kHeaderClaim);
  return text == nullptr ? std::nullopt : read_claim(*text);
}

}  // namespace leveret::core
