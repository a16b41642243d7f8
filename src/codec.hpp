/// The wire contract (contracts/README.md) in C++: one line of NDJSON is decoded and validated fully, once. The only
/// part that knows JSON; the folder codec/ implements it and is the single includer of simdjson.
///
/// The arguments stay opaque: handlers read them through the value functions of the C ABI (leveret/abi.h).
#pragma once

#include <leveret/abi.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "message.hpp"

namespace leveret::core {

inline constexpr std::size_t kMaxLineBytes = 1u << 20;
inline constexpr std::size_t kMaxTaskNameBytes = 255;
inline constexpr std::size_t kMaxDepth = 128;  ///< the job object is depth 1
inline constexpr std::uint32_t kMaxRetryCount = 1'000'000;

/// Why a line is refused. The names (`to_string`) are the contract's and stand in the golden vectors.
enum class refusal : std::uint8_t {
  none,
  empty_line,
  byte_order_mark,
  too_long,
  not_utf8,
  not_json,      ///< syntax, NaN, trailing bytes, control characters in strings, lone surrogates
  number_range,  ///< an integer outside -2^63 … 2^64-1, or a number too large for a double
  too_deep,
  duplicate_key,
  not_object,
  bad_field,         ///< a field of the contract with the wrong type or value; the text names it
  unsupported_field  ///< a reserved field that this worker does not implement
};
[[nodiscard]] const char* to_string(refusal code) noexcept;

struct refused_line {
  refusal code = refusal::none;
  std::string text;  ///< for people: what and where
  std::string task;  ///< as far as it could be read; may be empty
  std::string id;    ///< likewise
};

/// A decoded line. Views live until the next `decode` of the same codec, or the line's own bytes.
struct decoded_job {
  bool foreign = false;  ///< no `task`: `args` is an array of nothing, `whole` is what a default task gets
  std::string_view task;
  /// Of the lines that one codec decodes: those with the same number, if not 0, are of the same task.
  std::uint64_t task_number = 0;
  std::string_view id;  ///< explicit id; empty: `<message id>/<line>`. Foreign: the label, as text
  std::uint32_t retry_count = 0;
  std::optional<std::int32_t> max_retries;
  std::optional<std::int64_t> deadline_ms;  ///< relative: the attempt should end within
  std::optional<unix_ms> expires_at;        ///< not to be started from then on
  leveret_value whole{};                    ///< foreign only
  leveret_value args{};
  leveret_value kwargs{};
};

/// Decodes lines. One per thread: it owns the parser's buffers.
class line_codec {
 public:
  line_codec();
  ~line_codec();
  line_codec(line_codec&&) noexcept;
  line_codec& operator=(line_codec&&) noexcept;

  /// Decodes `line` (without its newline; a trailing CR is part of the line end and is ignored). At least
  /// body::kPadding readable bytes must follow its end. False: refused, and `why` says it; `out` is then unspecified.
  /// Reserved fields are refused (unsupported_field), of a foreign object only `retry_count` is looked at.
  [[nodiscard]] bool decode(std::string_view line, decoded_job& out, refused_line& why);

  /// The kind of checks a publisher does: as `decode`, on any bytes (copied to gain the padding).
  [[nodiscard]] bool check(std::string_view line, refused_line& why);

 private:
  struct state;
  std::unique_ptr<state> state_;
};

/// Splits a body into lines as the contract says: final newline optional. Gives offsets: line i is
/// [offsets[i], offsets[i+1] - 1), that is without its '\n'; offsets has one more entry than there are lines.
[[nodiscard]] std::vector<std::uint32_t> split_lines(std::string_view data);

/// As `leveret_host::arguments`.
[[nodiscard]] std::size_t read_arguments(const decoded_job& job, leveret_value* values, std::size_t most,
                                         std::size_t* keywords) noexcept;
/// Sets the value functions (kind … raw excluded) of a host's table.
void set_value_functions(leveret_host& host) noexcept;
/// The value as JSON text without white space.
[[nodiscard]] std::string to_json(leveret_value value);
/// As `to_json`, in the form that claims are made of (contracts/README.md): the keys of objects sorted, numbers as
/// Python writes them.
[[nodiscard]] std::string to_canonical_json(leveret_value value);

/// Writes one JSON value; commas and colons come by themselves. Reused by `clear`. A second top-level value is ignored;
/// misuse (a value without its key, a bracket that does not match, more than 127 levels) makes `complete` false. Two
/// equal keys in one object are the caller's fault and are not looked for.
class json_writer {
 public:
  void clear() noexcept;
  void null();
  void boolean(bool value);
  void integer(std::int64_t value);
  /// A number that nobody will read takes its place, without its digits: the text is none then.
  void unread_number() { (void)enter_value(); }
  void uinteger(std::uint64_t value);
  [[nodiscard]] bool real(double value);  ///< false: NaN or infinite; nothing written. Shortest round-trip form
  [[nodiscard]] bool string(std::string_view utf8);  ///< false: not UTF-8; nothing written
  void string_lossy(std::string_view bytes);         ///< invalid bytes become U+FFFD
  [[nodiscard]] bool raw(std::string_view json);     ///< false: not one JSON value within the contract's profile
  void raw_trusted(std::string_view json);
  void begin_array();
  void end_array();
  void begin_object();
  [[nodiscard]] bool key(std::string_view utf8);
  void end_object();
  /// Whether a value was written, rightly, and all brackets are closed.
  [[nodiscard]] bool complete() const noexcept;
  [[nodiscard]] const std::string& text() const noexcept { return out_; }

 private:
  [[nodiscard]] bool enter_value();
  void begin(char bracket);
  void end(char open, char close);

  std::string out_;
  std::vector<char> open_;   // '[' or '{' of each level
  std::size_t ignored_ = 0;  // open brackets of a second top-level value
  bool need_comma_ = false;
  bool after_key_ = false;
  bool started_ = false;
  bool broken_ = false;  // misused: never complete
};

/// One attempt that failed, as it stands in a job's `errors` and a dead record's `attempts`.
struct failed_attempt {
  unix_ms time = 0;
  std::string worker;
  std::string error;
};

/// What the error of an attempt begins with that took its process down.
inline constexpr std::string_view kCrashError = "crashed: ";
/// How many of a job's earlier attempts (those in `errors`) took their process down. `line` is a valid job.
[[nodiscard]] std::int32_t count_crashes(std::string_view line);

/// The line of the job's next publication: the same fields (unknown ones kept, byte for byte), `id` explicit,
/// `retry_count` as given, and `attempt`, if any, appended to `errors` (the newest 16 are kept, fewer where the line
/// would get longer than kMaxLineBytes; an error's text is cut at 1 KiB). `line` must have been accepted by `decode`.
/// No newline. In a foreign object only `retry_count` changes: the object is its handler's argument. A line that had no
/// room left for its id gets longer than kMaxLineBytes.
[[nodiscard]] std::string rewrite_line(std::string_view line, std::string_view id, std::uint32_t retry_count,
                                       const failed_attempt* attempt);

/// Names of reasons in dead records.
inline constexpr const char* kReasonMalformed = "malformed";
inline constexpr const char* kReasonUnknownTask = "unknown_task";
inline constexpr const char* kReasonBadArguments = "bad_arguments";
inline constexpr const char* kReasonRejected = "rejected";
inline constexpr const char* kReasonException = "exception";  ///< retries used up
inline constexpr const char* kReasonBadResult = "bad_result";
inline constexpr const char* kReasonCrashed = "crashed";
inline constexpr const char* kReasonTimeLimit = "time_limit";
inline constexpr const char* kReasonUnsupported = "unsupported_field";
inline constexpr const char* kReasonTooLong = "too_long";
inline constexpr const char* kReasonUnsigned = "unsigned";           ///< signing.hpp
inline constexpr const char* kReasonBadSignature = "bad_signature";  ///< likewise
inline constexpr const char* kReasonDelivery = "delivery_limit";     ///< the broker dead-lettered it

/// A dead record: {"id","task","queue","reason","error","attempts":[{"time","worker","error"}…],"body"} where time is
/// RFC 3339 in UTC. `line` is the job's line as it came; earlier attempts are taken from its `errors`. A line that is
/// not UTF-8 stands as "body_base64" instead of "body".
[[nodiscard]] std::string dead_record(std::string_view id, std::string_view task, std::string_view queue,
                                      std::string_view reason, std::string_view error, const failed_attempt* last,
                                      std::string_view line);

/// Adds the claim of the job's message (claim.hpp) to a dead record, as `once`.
void add_claim_to_record(std::string& record, std::string_view claim);

/// Appends `{"line":n,"result":json}\n` to a result chunk. An empty `json` is null.
void append_result(std::string& chunk, std::uint32_t line, std::string_view json);
/// Appends `{"line":n,"results":[…]}\n`, the results of `count` lines from `line` on; of one as `append_result` does.
/// `json` is all of them, a comma behind each.
void append_results(std::string& chunk, std::uint32_t line, std::string_view json, std::size_t count);
/// Appends `{"line":n,"state":"dead","reason":…,"error":…,"attempts":n}\n`.
void append_dead_result(std::string& chunk, std::uint32_t line, std::string_view reason, std::string_view error,
                        std::uint32_t attempts);
/// Appends `{"line":n,"state":"cancelled"}\n`.
void append_cancelled_result(std::string& chunk, std::uint32_t line);

/// The line of a dead job's new publication, made of its record: explicit id, retry_count 0, its errors kept.
/// Nothing: the record has no line that a worker would take.
struct replayed_job {
  std::string id;
  std::string line;
  std::string claim;  ///< the record's `once`; empty: it has none
};
[[nodiscard]] std::optional<replayed_job> replay_record(std::string_view record);

/// Appends `{"line":n,"state":"expired"}\n`.
void append_expired_result(std::string& chunk, std::uint32_t line);

/// A job to be written by a producer. `args` and `kwargs` are JSON texts (an array, an object) or empty.
struct new_job {
  std::string_view task;
  std::string_view args;
  std::string_view kwargs;
  std::optional<std::int32_t> max_retries;
  std::optional<std::int64_t> deadline_ms;
};
/// Appends the job's line and a newline. The texts are trusted to be JSON; nothing else is checked.
void append_job(std::string& out, const new_job& job);

}  // namespace leveret::core
