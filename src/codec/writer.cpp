/// Writing one JSON value piece by piece: results of handlers. Misuse (a value where a key must be, a bracket that
/// closes another) breaks the text for good; `complete` then says false, and the job is dead with `bad_result`.
#include <algorithm>
#include <cmath>

#include "codec/scanner.hpp"

namespace leveret::core {

namespace {

/// A result stands in a result line, which is one level itself.
constexpr std::size_t kMaxResultDepth = kMaxDepth - 1;

}  // namespace

void json_writer::clear() noexcept {
  out_.clear();
  open_.clear();
  need_comma_ = false;
  after_key_ = false;
  started_ = false;
  broken_ = false;
  ignored_ = 0;
}

bool json_writer::enter_value() {
  if (ignored_ > 0) return false;
  if (open_.empty()) {
    if (started_) return false;  // a second top-level value is ignored
    started_ = true;
    return true;
  }
  if (open_.back() == '{' && !after_key_) {
    broken_ = true;
    return false;
  }
  if (need_comma_ && !after_key_) out_.push_back(',');
  after_key_ = false;
  need_comma_ = true;
  return true;
}

void json_writer::null() {
  if (enter_value()) out_.append("null");
}

void json_writer::boolean(bool value) {
  if (enter_value()) out_.append(value ? "true" : "false");
}

void json_writer::integer(std::int64_t value) {
  if (enter_value()) json::append_integer(out_, value);
}

void json_writer::uinteger(std::uint64_t value) {
  if (enter_value()) json::append_unsigned(out_, value);
}

bool json_writer::real(double value) {
  if (!std::isfinite(value)) return false;
  if (enter_value()) json::append_double(out_, value);
  return true;
}

bool json_writer::string(std::string_view utf8) {
  if (!json::is_utf8(utf8)) return false;
  if (enter_value()) json::append_string(out_, utf8);
  return true;
}

void json_writer::string_lossy(std::string_view bytes) {
  if (enter_value()) json::append_string_lossy(out_, bytes);
}

bool json_writer::raw(std::string_view json) {
  if (json::check_value(json, kMaxResultDepth - std::min(open_.size(), kMaxResultDepth)) != refusal::none) return false;
  if (enter_value()) json::append_compact(out_, json);
  return true;
}

void json_writer::raw_trusted(std::string_view json) {
  if (enter_value()) out_.append(json);
}

void json_writer::begin(char bracket) {
  // Ignored at the top too (`ignored_` counts the brackets of a second value), so that its inside is ignored as well.
  if (!enter_value()) {
    ++ignored_;
    return;
  }
  if (open_.size() == kMaxResultDepth) broken_ = true;
  out_.push_back(bracket);
  open_.push_back(bracket);
  need_comma_ = false;
}

void json_writer::end(char open, char close) {
  if (ignored_ > 0) {
    --ignored_;
    return;
  }
  if (open_.empty() || open_.back() != open || after_key_) {
    broken_ = true;
    return;
  }
  out_.push_back(close);
  open_.pop_back();
  need_comma_ = true;
}

void json_writer::begin_array() { begin('['); }
void json_writer::end_array() { end('[', ']'); }
void json_writer::begin_object() { begin('{'); }
void json_writer::end_object() { end('{', '}'); }

bool json_writer::key(std::string_view utf8) {
  if (!json::is_utf8(utf8)) return false;
  if (ignored_ > 0) return true;
  if (open_.empty() || open_.back() != '{' || after_key_) {
    broken_ = true;
    return true;
  }
  if (need_comma_) out_.push_back(',');
  json::append_string(out_, utf8);
  out_.push_back(':');
  after_key_ = true;
  return true;
}

bool json_writer::complete() const noexcept { return started_ && open_.empty() && !broken_; }

}  // namespace leveret::core
