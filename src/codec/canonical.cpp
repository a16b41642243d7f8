/// Values in one form, whatever the order of keys and the writing of numbers in their line: what `json.dumps` of Python
/// writes with `sort_keys=True, separators=(",", ":"), ensure_ascii=False`.
#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "codec.hpp"
#include "codec/scanner.hpp"
#include "codec/values.hpp"

namespace leveret::core {
namespace {

/// As Python's `repr`: an exponent from 1e+16 on and below 1e-04, of two digits at least.
void append_python_double(std::string& out, double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
  const std::string_view shortest(text, static_cast<std::size_t>(end - text));  // [-]d[.ddd]e±dd
  const std::size_t e = shortest.find('e');
  int exponent = 0;
  std::from_chars(text + e + (shortest[e + 1] == '+' ? 2 : 1), end, exponent);
  if (exponent >= 16 || exponent < -4) {
    out.append(shortest);
    return;
  }
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c >= '0' && c <= '9') digits.push_back(c);
  }
  if (shortest.front() == '-') out.push_back('-');
  if (exponent < 0) {
    out.append("0.").append(static_cast<std::size_t>(-exponent - 1), '0').append(digits);
    return;
  }
  const std::size_t whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) digits.append(whole + 1 - digits.size(), '0');
  out.append(digits, 0, whole).append(".").append(digits, whole);
}

/// Recursive; a line's depth bounds it.
void append(std::string& out, const tape& nodes, std::size_t at);

void append_members(std::string& out, const tape& nodes, std::size_t at) {
  std::vector<std::pair<std::string_view, std::size_t>> members;
  for (std::size_t child = at + 1; child < nodes.behind(at) - 1; child = nodes.after(child + 1)) {
    members.emplace_back(nodes.string(child), child + 1);
  }
  std::sort(members.begin(), members.end());  // bytes of UTF-8 sort as code points do
  out.push_back('{');
  for (const auto& [key, value] : members) {
    if (out.back() != '{') out.push_back(',');
    json::append_string(out, key);
    out.push_back(':');
    append(out, nodes, value);
  }
  out.push_back('}');
}

void append(std::string& out, const tape& nodes, std::size_t at) {
  switch (nodes.type(at)) {
    case '{':
      append_members(out, nodes, at);
      break;
    case '[':
      out.push_back('[');
      for (std::size_t child = at + 1; child < nodes.behind(at) - 1; child = nodes.after(child)) {
        if (child != at + 1) out.push_back(',');
        append(out, nodes, child);
      }
      out.push_back(']');
      break;
    case 'd':
      append_python_double(out, nodes.real(at));
      break;
    default:
      append_scalar(out, nodes, at);
  }
}

}  // namespace

std::string to_canonical_json(leveret_value value) {
  std::string out;
  if (value.document == nullptr) return "null";
  append(out, tape(*static_cast<const simdjson::dom::document*>(value.document)), value.index);
  return out;
}

}  // namespace leveret::core
