/// Decoding: simdjson's DOM validates a line fully, once, and its tape is what the values of the C ABI point into. The
/// only includers of simdjson are this file, values.cpp and canonical.cpp. Of short lines in plain form the tape is
/// written by plain.cpp.
///
/// The hot path is one parse, one pass over the members, and a pass over nested containers for duplicate keys and for
/// the one depth that simdjson does not count (an empty container). No allocation per line. Whatever is refused goes to
/// `explain`, which reads the text again by hand: so the reason does not depend on simdjson's version, nor on which of
/// several faults its algorithm meets first.
///
/// Order of reasons, of a line with several faults (contracts/README.md): empty_line, byte_order_mark, too_long,
/// not_utf8, too_deep, not_json, number_range, duplicate_key, not_object, unsupported_field, bad_field.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "codec/plain.hpp"
#include "codec/scanner.hpp"
#include "codec/values.hpp"

namespace leveret::core {

namespace {

namespace dom = simdjson::dom;

static_assert(kMostPlainBytes <= 4096, "its tape goes where a parser's initial capacity has room");
static_assert(simdjson::SIMDJSON_PADDING <= body::kPadding, "a body must have the room that simdjson reads");

constexpr std::size_t kInitialCapacity = 4096;
/// Objects with more keys than this are sorted to find duplicates; up to it, pairs are compared.
constexpr std::size_t kFewKeys = 12;

constexpr std::size_t kMaxIdBytes = 255;
constexpr std::int64_t kMaxDeadlineMs = (std::int64_t{1} << 53) - 1;  // exact in every JSON library's numbers

/// The contract's fields, in the order of their bits.
enum field : std::size_t {
  kTask,
  kId,
  kArgs,
  kKwargs,
  kRetryCount,
  kMaxRetries,
  kDeadlineMs,
  kErrors,
  kExpiresAt,
  kKey,
  kThen,
  kHeaders,
  kFieldCount,
  kUnknown = kFieldCount
};
constexpr std::string_view kFieldNames[kFieldCount] = {"task",        "id",          "args",        "kwargs",
                                                       "retry_count", "max_retries", "deadline_ms", "errors",
                                                       "expires_at",  "key",         "then",        "headers"};
constexpr std::uint32_t bit(field f) noexcept { return std::uint32_t{1} << f; }

field find_field(std::string_view key) noexcept {
  switch (key.size()) {
    case 2:
      return key == "id" ? kId : kUnknown;
    case 3:
      return key == "key" ? kKey : kUnknown;
    case 4:
      return key == "task" ? kTask : key == "args" ? kArgs : key == "then" ? kThen : kUnknown;
    case 6:
      return key == "kwargs" ? kKwargs : key == "errors" ? kErrors : kUnknown;
    case 7:
      return key == "headers" ? kHeaders : kUnknown;
    case 10:
      return key == "expires_at" ? kExpiresAt : kUnknown;
    case 11:
      return key == "retry_count"   ? kRetryCount
             : key == "max_retries" ? kMaxRetries
             : key == "deadline_ms" ? kDeadlineMs
                                    : kUnknown;
    default:
      return kUnknown;
  }
}

/// Equal for equal keys, and seldom for others.
std::uint64_t digest(std::string_view key) noexcept {
  constexpr std::uint64_t kFactor = 0x9e37'79b9'7f4a'7c15ULL;
  std::uint64_t sum = key.size();
  const char* at = key.data();
  std::size_t left = key.size();
  while (left > 0) {
    std::uint64_t word = 0;
    const std::size_t step = std::min(left, sizeof word);
    std::memcpy(&word, at, step);
    sum = (sum ^ word) * kFactor;
    sum ^= sum >> 32;
    at += step;
    left -= step;
  }
  return sum;
}

/// Buffers that the walk fills and empties; kept from line to line.
struct walk_buffers {
  std::vector<std::string_view> keys;
  std::vector<std::uint64_t> digests;
};

/// Looks for what simdjson lets pass: duplicate keys, and empty containers one level too deep.
class profile_walk {
 public:
  profile_walk(const tape& nodes, walk_buffers& scratch, std::size_t max_depth)
      : nodes_(nodes), scratch_(scratch), max_depth_(max_depth) {}

  /// One pass over the tape of the container at `at`, whose depth is `depth`. False: `found` and `name` say what.
  [[nodiscard]] bool container(std::size_t at, std::size_t depth) {
    const std::size_t end = nodes_.behind(at);
    --depth;
    while (at < end) {
      switch (nodes_.type(at)) {
        case '{':
          if (!keys_are_unique(at)) return false;
          [[fallthrough]];
        case '[':
          if (++depth > max_depth_) return fail(refusal::too_deep, {});
          ++at;
          break;
        case '}':
        case ']':
          --depth;
          ++at;
          break;
        case 'l':
        case 'u':
        case 'd':
          at += 2;
          break;
        default:
          ++at;
      }
    }
    return true;
  }

  /// Reorders `keys`, which may be as many as a line holds. Their digests are sorted, and the keys themselves only if
  /// two digests are equal: n log n at the worst, whatever keys somebody chooses.
  [[nodiscard]] bool unique(std::vector<std::string_view>& keys) {
    if (keys.size() <= kFewKeys) return few_unique(keys.data(), keys.size());
    scratch_.digests.clear();
    for (const std::string_view key : keys) scratch_.digests.push_back(digest(key));
    std::sort(scratch_.digests.begin(), scratch_.digests.end());
    if (std::adjacent_find(scratch_.digests.begin(), scratch_.digests.end()) == scratch_.digests.end()) return true;
    std::sort(keys.begin(), keys.end());
    const auto twin = std::adjacent_find(keys.begin(), keys.end());
    return twin == keys.end() || fail(refusal::duplicate_key, *twin);
  }

  bool fail(refusal code, std::string_view key) {
    found = code;
    name = key;
    return false;
  }

  refusal found = refusal::none;
  std::string_view name;

 private:
  [[nodiscard]] bool few_unique(const std::string_view* keys, std::size_t count) {
    for (std::size_t i = 1; i < count; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (keys[i] == keys[j]) return fail(refusal::duplicate_key, keys[i]);
      }
    }
    return true;
  }

  [[nodiscard]] bool keys_are_unique(std::size_t at) {
    if (nodes_.count(at) < 2) return true;
    const std::size_t end = nodes_.behind(at) - 1;
    if (nodes_.count(at) <= kFewKeys) {
      std::string_view keys[kFewKeys];
      std::size_t count = 0;
      for (++at; at < end; at = nodes_.after(at + 1)) keys[count++] = nodes_.string(at);
      return few_unique(keys, count);
    }
    scratch_.keys.clear();
    for (++at; at < end; at = nodes_.after(at + 1)) scratch_.keys.push_back(nodes_.string(at));
    return unique(scratch_.keys);
  }

  const tape& nodes_;
  walk_buffers& scratch_;
  std::size_t max_depth_;
};

/// A parser with buffers for `size` bytes; grows by doubling, so that lines of growing length cost no allocation each.
void reserve(dom::parser& parser, std::size_t size) {
  if (size <= parser.capacity()) return;
  std::size_t capacity = kInitialCapacity;
  while (capacity < size) capacity *= 2;
  // One level more than the profile has: the walk and `explain` decide, alike on every version.
  if (parser.allocate(capacity, kMaxDepth + 1) != simdjson::SUCCESS ||
      parser.doc.allocate(capacity) != simdjson::SUCCESS) {
    throw std::bad_alloc();
  }
}

/// A duplicate at the top is reported with the name as it reads.
std::string quoted(std::string_view name) {
  std::string text;
  json::append_string_lossy(text, name.substr(0, 64));
  return text;
}

bool refuse(refused_line& why, refusal code, std::string text) {
  why.code = code;
  why.text = std::move(text);
  return false;
}

/// What can be told about a line that is no good: its task and id, if they were readable before the fault.
void identify(std::string_view line, refused_line& why) {
  why.task.clear();
  why.id.clear();
  const auto read = [](std::string_view literal, std::string& out) {
    if (!json::unescape(literal, out) || out.size() > kMaxIdBytes || !json::is_utf8(out)) out.clear();
  };
  bool task = false;
  bool id = false;
  json::member_scanner members(line);
  while ((!task || !id) && members.next()) {
    if (!task && members.key() == "task") {
      task = true;
      read(members.raw_value(), why.task);
    } else if (!id && members.key() == "id") {
      id = true;
      read(members.raw_value(), why.id);
    }
  }
}

/// Names the fault of a line that the parser or the walk refused; `found` is what the walk found, if it was the walk.
bool explain(std::string_view line, refusal found, std::string_view name, const char* parser_error, refused_line& why) {
  identify(line, why);
  if (!json::is_utf8(line)) {
    return refuse(why, refusal::not_utf8, "the line is not valid UTF-8; encode it as UTF-8");
  }
  if (json::nesting(line, kMaxDepth + 1) > kMaxDepth) {
    return refuse(why, refusal::too_deep,
                  "nested deeper than " + std::to_string(kMaxDepth) + " levels; flatten the arguments");
  }
  if (const std::size_t feed = line.find('\n'); feed != std::string_view::npos) {
    return refuse(why, refusal::not_json,
                  "a line feed at byte " + std::to_string(feed) + " of the line; write a job without line breaks");
  }
  if (found == refusal::none) {
    const json::fault fault = json::check_grammar(line);
    if (fault.code == refusal::number_range) {
      return refuse(why, fault.code,
                    "at byte " + std::to_string(fault.offset) + ": " + fault.what + "; send it as a string");
    }
    if (fault.code != refusal::none) {
      return refuse(why, fault.code, "not valid JSON at byte " + std::to_string(fault.offset) + ": " + fault.what);
    }
    // The two readers disagree: refused all the same, and said, so that the fuzzers and users can report it.
    return refuse(why, refusal::not_json, std::string("not valid JSON: ") + parser_error);
  }
  return refuse(why, found, "the key " + quoted(name) + " stands twice in one object; keep one of them");
}

/// All but what every line sets. Each for itself: compilers clear the whole by a `rep stos`, which takes longer than
/// reading a plain line.
void clear(decoded_job& out) noexcept {
  out.foreign = false;
  out.task_number = 0;
  out.id = {};
  out.max_retries.reset();
  out.deadline_ms.reset();
  out.expires_at.reset();
  out.whole = {};
}

/// The value of a field that must be an integer in [low, high].
bool read_integer(const tape& nodes, std::size_t at, std::int64_t low, std::int64_t high, std::int64_t& out) noexcept {
  if (nodes.type(at) != 'l') return false;
  out = nodes.integer(at);
  return out >= low && out <= high;
}

}  // namespace

struct line_codec::state {
  dom::parser parser;
  std::vector<std::string_view> keys;  // scratch: unknown top-level keys
  walk_buffers deeper;                 // scratch: of one nested object
  std::string padded;                  // check
  std::string label;                   // the text of a foreign object's id
  plain_reader plainly;
  const leveret_value no_args = empty_array();
  const leveret_value no_kwargs = empty_object();
  std::size_t values[kFieldCount];  // of the line being decoded, where `seen` has the bit
  std::uint32_t seen = 0;

  [[nodiscard]] bool decode(std::string_view line, decoded_job& out, refused_line& why);
  [[nodiscard]] bool decode_any(std::string_view line, decoded_job& out, refused_line& why);
  [[nodiscard]] bool read_members(const tape& nodes, profile_walk& walk);
  [[nodiscard]] bool read_job(const tape& nodes, decoded_job& out, refused_line& why);
  [[nodiscard]] bool read_rare_fields(const tape& nodes, decoded_job& out, refused_line& why);
  [[nodiscard]] bool read_foreign(const tape& nodes, decoded_job& out, refused_line& why);
  bool bad(field f, const char* expected, refused_line& why) const;

  [[nodiscard]] bool has(field f) const noexcept { return (seen & bit(f)) != 0; }
};

line_codec::line_codec() : state_(std::make_unique<state>()) { reserve(state_->parser, kInitialCapacity); }
line_codec::~line_codec() = default;
line_codec::line_codec(line_codec&&) noexcept = default;
line_codec& line_codec::operator=(line_codec&&) noexcept = default;

bool line_codec::decode(std::string_view line, decoded_job& out, refused_line& why) {
  return state_->decode(line, out, why);
}

bool line_codec::check(std::string_view line, refused_line& why) {
  if (line.size() > kMaxLineBytes + 2) line = line.substr(0, kMaxLineBytes + 2);  // too long, whatever follows
  state_->padded.reserve(line.size() + body::kPadding);
  state_->padded.assign(line);
  state_->padded.append(body::kPadding, '\0');
  decoded_job ignored;
  return state_->decode({state_->padded.data(), line.size()}, ignored, why);
}

bool line_codec::state::decode(std::string_view line, decoded_job& out, refused_line& why) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  plain_job plain;
  if (!plainly.read(line, parser.doc.tape.get(), parser.doc.string_buf.get(), plain)) return decode_any(line, out, why);
  clear(out);
  out.task = plainly.task();  // as simdjson's, it outlives the line
  out.task_number = plainly.task_number();
  out.retry_count = plain.retry_count;
  out.args = plain.args ? to_value(parser.doc, tape::kRoot) : no_args;
  out.kwargs = no_kwargs;
  return true;
}

// Apart, so that plain lines do not pay for its frame.
[[gnu::noinline]] bool line_codec::state::decode_any(std::string_view line, decoded_job& out, refused_line& why) {
  if (line.empty()) {
    why.task.clear();
    why.id.clear();
    return refuse(why, refusal::empty_line, "the line is empty; a line is one JSON object");
  }
  if (static_cast<unsigned char>(line.front()) == 0xef && line.substr(0, 3) == "\xef\xbb\xbf") {
    identify(line.substr(3), why);
    return refuse(why, refusal::byte_order_mark, "the line begins with a byte order mark; write UTF-8 without one");
  }
  if (line.size() > kMaxLineBytes) {
    identify(line, why);
    return refuse(
        why, refusal::too_long,
        "the line is longer than " + std::to_string(kMaxLineBytes) + " bytes; send a reference to the data instead");
  }
  reserve(parser, line.size());
  const simdjson::error_code error = parser.parse(line.data(), line.size(), false).error();
  if (error == simdjson::MEMALLOC) throw std::bad_alloc();
  // To JSON a line feed is white space; to NDJSON it ends the line.
  if (error != simdjson::SUCCESS || std::memchr(line.data(), '\n', line.size()) != nullptr) {
    return explain(line, refusal::none, {}, simdjson::error_message(error), why);
  }
  const tape nodes(parser.doc);
  profile_walk walk(nodes, deeper, kMaxDepth);
  if (nodes.type(tape::kRoot) != '{') {
    if (nodes.is_container(tape::kRoot) && !walk.container(tape::kRoot, 1)) {
      return explain(line, walk.found, walk.name, "", why);
    }
    why.task.clear();
    why.id.clear();
    return refuse(why, refusal::not_object, "the line is JSON, but not an object; a job is one JSON object");
  }
  if (!read_members(nodes, walk)) return explain(line, walk.found, walk.name, "", why);
  if (has(kTask) ? read_job(nodes, out, why) : read_foreign(nodes, out, why)) return true;
  identify(line, why);
  return false;
}

/// One pass over the top level: sorts the contract's fields into `values`, and checks what is nested.
bool line_codec::state::read_members(const tape& nodes, profile_walk& walk) {
  seen = 0;
  keys.clear();
  const std::size_t end = nodes.behind(tape::kRoot) - 1;
  for (std::size_t at = tape::kRoot + 1; at < end;) {
    const std::string_view key = nodes.string(at++);
    const field f = find_field(key);
    if (f == kUnknown) {
      keys.push_back(key);
    } else {
      if (has(f)) return walk.fail(refusal::duplicate_key, key);
      seen |= bit(f);
      values[f] = at;
    }
    if (nodes.is_container(at) && !walk.container(at, 2)) return false;
    at = nodes.after(at);
  }
  return keys.size() < 2 || walk.unique(keys);
}

bool line_codec::state::bad(field f, const char* expected, refused_line& why) const {
  std::string text = "the field \"";
  text += kFieldNames[f];
  text += "\" must be ";
  text += expected;
  return refuse(why, refusal::bad_field, std::move(text));
}

bool line_codec::state::read_job(const tape& nodes, decoded_job& out, refused_line& why) {
  constexpr std::uint32_t kCommon = bit(kTask) | bit(kRetryCount) | bit(kArgs) | bit(kKwargs);
  clear(out);
  if ((seen & ~kCommon) != 0 && !read_rare_fields(nodes, out, why)) return false;

  if (nodes.type(values[kTask]) != '"') return bad(kTask, "a string of 1 to 255 bytes", why);
  out.task = nodes.string(values[kTask]);
  if (out.task.empty() || out.task.size() > kMaxTaskNameBytes) return bad(kTask, "a string of 1 to 255 bytes", why);

  std::int64_t number = 0;
  if (!has(kRetryCount)) return bad(kRetryCount, "there: an integer from 0 to 1000000", why);
  if (!read_integer(nodes, values[kRetryCount], 0, kMaxRetryCount, number)) {
    return bad(kRetryCount, "an integer from 0 to 1000000", why);
  }
  out.retry_count = static_cast<std::uint32_t>(number);

  out.args = no_args;
  if (has(kArgs)) {
    const char type = nodes.type(values[kArgs]);
    if (type == '[') {
      out.args = to_value(parser.doc, values[kArgs]);
    } else if (type != 'n') {
      return bad(kArgs, "an array", why);
    }
  }
  out.kwargs = no_kwargs;
  if (has(kKwargs)) {
    const char type = nodes.type(values[kKwargs]);
    if (type == '{') {
      out.kwargs = to_value(parser.doc, values[kKwargs]);
    } else if (type != 'n') {
      return bad(kKwargs, "an object", why);
    }
  }
  return true;
}

/// Everything but task, retry_count, args, kwargs.
bool line_codec::state::read_rare_fields(const tape& nodes, decoded_job& out, refused_line& why) {
  // Null says the same as leaving an optional field out: many languages' encoders write absent values so.
  for (const field f : {kId, kMaxRetries, kDeadlineMs, kErrors, kExpiresAt, kKey, kThen, kHeaders}) {
    if (has(f) && nodes.type(values[f]) == 'n') seen &= ~bit(f);
  }
  for (const field f : {kKey, kThen, kHeaders}) {
    if (!has(f)) continue;
    std::string text = "the field \"";
    text += kFieldNames[f];
    text += "\" is reserved and this worker does not implement it; leave it out or use a newer worker";
    return refuse(why, refusal::unsupported_field, std::move(text));
  }
  if (has(kId)) {
    if (nodes.type(values[kId]) != '"') return bad(kId, "a string of 1 to 255 bytes", why);
    out.id = nodes.string(values[kId]);
    if (out.id.empty() || out.id.size() > kMaxIdBytes) return bad(kId, "a string of 1 to 255 bytes", why);
  }
  std::int64_t number = 0;
  if (has(kMaxRetries)) {
    if (!read_integer(nodes, values[kMaxRetries], 0, std::numeric_limits<std::int32_t>::max(), number)) {
      return bad(kMaxRetries, "an integer from 0 to 2147483647", why);
    }
    out.max_retries = static_cast<std::int32_t>(number);
  }
  if (has(kDeadlineMs)) {
    if (!read_integer(nodes, values[kDeadlineMs], 1, kMaxDeadlineMs, number)) {
      return bad(kDeadlineMs, "an integer from 1 to 9007199254740991 (milliseconds)", why);
    }
    out.deadline_ms = number;
  }
  if (has(kExpiresAt)) {
    if (!read_integer(nodes, values[kExpiresAt], 0, kMaxDeadlineMs, number)) {
      return bad(kExpiresAt, "an integer from 0 to 9007199254740991 (milliseconds since 1970)", why);
    }
    out.expires_at = number;
  }
  return !has(kErrors) || nodes.type(values[kErrors]) == '[' || bad(kErrors, "an array", why);
}

bool line_codec::state::read_foreign(const tape& nodes, decoded_job& out, refused_line& why) {
  clear(out);
  out.foreign = true;
  out.task = {};
  out.retry_count = 0;
  out.whole = to_value(parser.doc, tape::kRoot);
  out.args = no_args;
  out.kwargs = no_kwargs;
  if (has(kRetryCount) && nodes.type(values[kRetryCount]) != 'n') {
    std::int64_t number = 0;
    if (!read_integer(nodes, values[kRetryCount], 0, kMaxRetryCount, number)) {
      return bad(kRetryCount, "an integer from 0 to 1000000", why);
    }
    out.retry_count = static_cast<std::uint32_t>(number);
  }
  if (!has(kId)) return true;
  // A label for people: a string or an integer; anything else, or too long, is no label, and no fault.
  const std::size_t at = values[kId];
  if (nodes.type(at) == '"') {
    out.id = nodes.string(at);
    if (out.id.size() > kMaxIdBytes) out.id = {};
  } else if (nodes.type(at) == 'l' || nodes.type(at) == 'u') {
    label = nodes.type(at) == 'l' ? std::to_string(nodes.integer(at)) : std::to_string(nodes.uinteger(at));
    out.id = label;
  }
  return true;
}

namespace json {

bool is_utf8(std::string_view text) noexcept { return simdjson::validate_utf8(text.data(), text.size()); }

refusal check_value(std::string_view text, std::size_t max_depth) {
  // One parser a thread, for results that handlers write as raw JSON.
  thread_local dom::parser parser;
  thread_local walk_buffers scratch;
  thread_local std::string padded;
  if (!is_utf8(text)) return refusal::not_utf8;
  if (nesting(text, max_depth + 1) > max_depth) return refusal::too_deep;
  reserve(parser, text.size());
  padded.reserve(text.size() + body::kPadding);
  padded.assign(text);
  padded.append(body::kPadding, '\0');
  if (parser.parse(padded.data(), text.size(), false).error() != simdjson::SUCCESS) {
    const fault why = check_grammar(text);
    return why.code == refusal::none ? refusal::not_json : why.code;
  }
  const tape nodes(parser.doc);
  profile_walk walk(nodes, scratch, max_depth);
  return !nodes.is_container(tape::kRoot) || walk.container(tape::kRoot, 1) ? refusal::none : walk.found;
}

}  // namespace json

}  // namespace leveret::core
