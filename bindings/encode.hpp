/// Python values as JSON of the wire contract's profile (I-JSON): what can't be sent exactly is refused, with its path.
///
/// Exact int, float, str, bool, None, list, tuple and dict are written here. Anything else (subclasses, dataclasses,
/// msgspec and attrs structures, datetime, UUID, Decimal, Enum, bytes, sets, numpy scalars) goes through
/// leveret.encoding.to_builtins first and is then written, and checked, the same way.
#pragma once

#include <string>
#include <vector>

#include "bindings.hpp"
#include "text_buffer.hpp"

namespace leveret::bindings {

/// Why a value is not encodable. `path` is relative to the value: "" or ".x[3]".
struct encode_failure {
  enum class kind { value, type, python } what = kind::value;  ///< ValueError, TypeError, or a Python error that is set
  std::string path;
  std::string text;
};

class encoder {
 public:
  /// `to_builtins` is leveret.encoding's; borrowed for the life of the encoder.
  explicit encoder(text_buffer& out, PyObject* to_builtins) : out_(out), to_builtins_(to_builtins) {}

  /// Writes `value`; `depth` is the depth of `value` if it is a container (the job object is 1). False: `failure()`
  /// says why, and what was written so far is to be thrown away.
  [[nodiscard]] bool write(PyObject* value, std::size_t depth) {
    PyTypeObject* const type = Py_TYPE(value);
    if (type == &PyLong_Type) return write_integer(value);
    if (type == &PyUnicode_Type) return write_string(value);
    return write_other(value, depth);
  }
  /// A str with its quotes.
  [[nodiscard]] bool write_string(PyObject* value);

  [[nodiscard]] const encode_failure& failure() const noexcept { return failure_; }

 private:
  bool write_integer(PyObject* value);
  bool write_real(PyObject* value);
  bool write_sequence(PyObject* value, std::size_t depth);
  bool write_object(PyObject* value, std::size_t depth);
  bool write_key(PyObject* key, bool& converted);
  bool refuse_colliding_keys(PyObject* dict);
  bool write_other(PyObject* value, std::size_t depth);
  bool write_builtin(PyObject* value, std::size_t depth, bool& known);
  bool fail(encode_failure::kind what, std::string text);
  bool too_deep();
  /// Puts a path step in front: failures travel outwards.
  bool at(const std::string& step) {
    failure_.path.insert(0, step);
    return false;
  }
  bool at_key(PyObject* key);

  text_buffer& out_;
  PyObject* to_builtins_;
  encode_failure failure_;
};

}  // namespace leveret::bindings
