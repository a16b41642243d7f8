/// A task's signature, compiled once, so that binding, checking and writing a call needs no Python code in the usual
/// case; and the writer of its lines.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "encode.hpp"
#include "text_buffer.hpp"

namespace leveret::bindings {

/// What a parameter accepts. `mask` is a set of exact types that need no further look; 0 with `check` None: anything.
struct parameter {
  enum mask_bit : std::uint8_t { is_int = 1, is_float = 2, is_str = 4, is_bool = 8, is_none = 16 };

  std::string name;
  nb::object name_object;  ///< interned str
  std::uint8_t mask = 0;
  nb::object check;  ///< callable(bytes) -> None or why not (leveret.signature); None: anything goes
  bool required = true;
  std::string default_json;  ///< of a native task: written where a call leaves the argument out
};

struct signature {
  std::string task;
  bool native = false;  ///< bind to positions and fill defaults here, for handlers in C++
  std::vector<parameter> positional;
  std::size_t positional_only = 0;  ///< how many of them can't be given by name
  std::vector<parameter> keyword_only;
  std::optional<parameter> var_positional;
  std::optional<parameter> var_keyword;
  nb::object to_builtins;  ///< leveret.encoding.to_builtins
};

/// Writes one task's job lines. Not for two threads at once; the GIL sees to that, and each call has its own buffer.
class line_writer {
 public:
  line_writer(std::shared_ptr<const signature> sig, std::optional<std::int32_t> max_retries,
              std::optional<std::int64_t> deadline_ms, std::optional<std::int64_t> expires_ms);

  /// Appends the line of a call, with its newline, to `out`. `args` is a tuple, `kwargs` a dict or null. False: a
  /// Python error is set (TypeError or ValueError for what can't be sent) and `out` is as before.
  [[nodiscard]] bool write(text_buffer& out, PyObject* args, PyObject* kwargs) const;

  [[nodiscard]] const signature& sig() const noexcept { return *sig_; }

 private:
  struct call;
  struct place;
  bool write_arguments(call& c) const;
  bool write_positional(call& c) const;
  bool write_keywords(call& c) const;
  bool write_value(call& c, const parameter& p, PyObject* value, const place& where) const;
  const parameter* find(PyObject* name, std::size_t& position) const;
  bool refuse(const std::string& text) const;

  std::shared_ptr<const signature> sig_;
  std::string head_;  ///< {"task":"…"
  std::string tail_;  ///< ,"retry_count":0…}\n, or up to "expires_at":
  std::optional<std::int64_t> expires_ms_;
};

}  // namespace leveret::bindings
