#include "encode.hpp"

#include <nanobind/stl/string.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "codec.hpp"

namespace leveret::bindings {
namespace {

/// For each byte: 0 if it stands for itself in a JSON string, else what follows the backslash ('u': \u00XX).
constexpr std::array<char, 256> make_escapes() {
  std::array<char, 256> escapes{};
  for (std::size_t i = 0; i < 0x20; ++i) escapes[i] = 'u';
  escapes['\b'] = 'b';
  escapes['\t'] = 't';
  escapes['\n'] = 'n';
  escapes['\f'] = 'f';
  escapes['\r'] = 'r';
  escapes['"'] = '"';
  escapes['\\'] = '\\';
  return escapes;
}
constexpr std::array<char, 256> kEscapes = make_escapes();

char* put_escaped(char* to, std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const char escape = kEscapes[byte];
    if (escape == 0) {
      *to++ = c;
      continue;
    }
    *to++ = '\\';
    *to++ = escape;
    if (escape == 'u') {
      *to++ = '0';
      *to++ = '0';
      *to++ = kHex[byte >> 4];
      *to++ = kHex[byte & 15];
    }
  }
  return to;
}

std::string type_name(PyObject* value) {
  const nb::object type = nb::borrow(reinterpret_cast<PyObject*>(Py_TYPE(value)));
  const auto module = nb::cast<std::string>(nb::str(type.attr("__module__")));
  const auto name = nb::cast<std::string>(nb::str(type.attr("__qualname__")));
  return module == "builtins" || module == "__main__" ? name : module + "." + name;
}

std::string repr_of(PyObject* value) {
  PyObject* text = PyObject_ASCII(value);
  if (text == nullptr) {
    PyErr_Clear();
    return "?";
  }
  std::string out = nb::cast<std::string>(nb::steal<nb::str>(text));
  if (out.size() > 60) out = out.substr(0, 57) + "...";
  return out;
}

/// The text of the Python error that is set; clears it.
std::string take_error_text() {
  nb::python_error error;
  return nb::cast<std::string>(nb::str(error.value()));
}

}  // namespace

bool encoder::fail(encode_failure::kind what, std::string text) {
  failure_ = {what, {}, std::move(text)};
  return false;
}

bool encoder::too_deep() {
  return fail(encode_failure::kind::value,
              "nested deeper than " + std::to_string(core::kMaxDepth) +
                  " levels (the job itself is level 1), or it contains itself; send a flatter value");
}

bool encoder::write_integer(PyObject* value) {
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
  char* to = out_.reserve(24);
  if (overflow == 0) {
    out_.commit(std::to_chars(to, to + 24, number).ptr);
    return true;
  }
  if (overflow > 0) {
    const unsigned long long large = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() == nullptr) {
      out_.commit(std::to_chars(to, to + 24, large).ptr);
      return true;
    }
    PyErr_Clear();
  }
  return fail(encode_failure::kind::value, "an integer outside -2^63 to 2^64-1; send it as a str");
}

bool encoder::write_real(PyObject* value) {
  const double number = PyFloat_AS_DOUBLE(value);
  if (!std::isfinite(number)) {
    return fail(encode_failure::kind::value, std::string(std::isnan(number) ? "NaN" : "infinity") +
                                                 " has no form in JSON; send None or a str instead");
  }
  char* const to = out_.reserve(40);
  char* end = std::to_chars(to, to + 32, number).ptr;
  // "3" would come back as an int: a float keeps its point.
  bool integral = true;
  for (const char* c = to; c != end; ++c) integral = integral && *c != '.' && *c != 'e';
  if (integral) {
    *end++ = '.';
    *end++ = '0';
  }
  out_.commit(end);
  return true;
}

bool encoder::write_string(PyObject* value) {
  const char* data = nullptr;
  std::size_t size = 0;
  if (PyUnicode_IS_COMPACT_ASCII(value)) {
    data = reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(value));
    size = static_cast<std::size_t>(PyUnicode_GET_LENGTH(value));
  } else {
    Py_ssize_t length = 0;
    data = PyUnicode_AsUTF8AndSize(value, &length);
    if (data == nullptr) {
      PyErr_Clear();
      return fail(encode_failure::kind::value,
                  "a str with a lone surrogate is not Unicode text; send bytes, or decode with errors='replace'");
    }
    size = static_cast<std::size_t>(length);
  }
  char* to = out_.reserve(size * 6 + 2);
  *to++ = '"';
  to = put_escaped(to, {data, size});
  *to++ = '"';
  out_.commit(to);
  return true;
}

bool encoder::write_sequence(PyObject* value, std::size_t depth) {
  if (depth > core::kMaxDepth) return too_deep();
  out_.push('[');
  const bool is_list = PyList_Check(value);
  // The size is read anew each time: encoding an element can run Python code that changes a list.
  for (Py_ssize_t i = 0; i < Py_SIZE(value); ++i) {
    if (i != 0) out_.push(',');
    const nb::object element = nb::borrow(is_list ? PyList_GET_ITEM(value, i) : PyTuple_GET_ITEM(value, i));
    if (!write(element.ptr(), depth + 1)) return at("[" + std::to_string(i) + "]");
  }
  out_.push(']');
  return true;
}

bool encoder::write_key(PyObject* key, bool& converted) {
  if (Py_TYPE(key) == &PyUnicode_Type) return write_string(key);
  converted = true;
  nb::object plain = nb::borrow(key);
  if (Py_TYPE(key) != &PyLong_Type) {
    plain = nb::steal(PyObject_CallOneArg(to_builtins_, key));
    if (!plain.is_valid()) {
      if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) return fail(encode_failure::kind::python, {});
      PyErr_Clear();
      plain = nb::none();
    }
  }
  if (Py_TYPE(plain.ptr()) == &PyUnicode_Type) return write_string(plain.ptr());
  if (Py_TYPE(plain.ptr()) != &PyLong_Type) {
    return fail(encode_failure::kind::type,
                "a dict key of type " + type_name(key) + " has no form in JSON; use str or int keys");
  }
  out_.push('"');
  if (!write_integer(plain.ptr())) return false;
  out_.push('"');
  return true;
}

/// Keys of several types can become one name: {1: …, "1": …}. Only looked for when a key was converted.
bool encoder::refuse_colliding_keys(PyObject* dict) {
  std::unordered_map<std::string, nb::object> names;
  PyObject* key = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(dict, &position, &key, nullptr) != 0) {
    const nb::object held = nb::borrow(key);
    text_buffer name;
    bool converted = false;
    encoder sub(name, to_builtins_);
    if (!sub.write_key(key, converted)) {
      failure_ = sub.failure();
      return false;
    }
    const auto [found, inserted] = names.emplace(std::string(name.view()), held);
    if (!inserted) {
      return fail(encode_failure::kind::value, "the dict keys " + repr_of(found->second.ptr()) + " and " +
                                                   repr_of(key) + " are one name in JSON, " + std::string(name.view()) +
                                                   "; keep one");
    }
  }
  return true;
}

bool encoder::at_key(PyObject* key) {
  std::string step;
  if (PyUnicode_Check(key) && PyUnicode_IsIdentifier(key) == 1) {
    step = "." + nb::cast<std::string>(nb::str(nb::handle(key)));
  } else {
    step = "[" + repr_of(key) + "]";
  }
  return at(step);
}

bool encoder::write_object(PyObject* value, std::size_t depth) {
  if (depth > core::kMaxDepth) return too_deep();
  out_.push('{');
  bool converted = false;
  bool first = true;
  PyObject* borrowed_key = nullptr;
  PyObject* borrowed_member = nullptr;
  Py_ssize_t position = 0;
  while (PyDict_Next(value, &position, &borrowed_key, &borrowed_member) != 0) {
    // Held, because encoding a member can run Python code that changes the dict.
    const nb::object key = nb::borrow(borrowed_key);
    const nb::object member = nb::borrow(borrowed_member);
    if (!first) out_.push(',');
    first = false;
    if (!write_key(key.ptr(), converted)) return false;
    out_.push(':');
    if (!write(member.ptr(), depth + 1)) return at_key(key.ptr());
  }
  out_.push('}');
  return !converted || refuse_colliding_keys(value);
}

bool encoder::write_builtin(PyObject* value, std::size_t depth, bool& known) {
  known = true;
  PyTypeObject* const type = Py_TYPE(value);
  if (type == &PyLong_Type) return write_integer(value);
  if (type == &PyUnicode_Type) return write_string(value);
  if (type == &PyFloat_Type) return write_real(value);
  if (type == &PyBool_Type) {
    out_.append(value == Py_True ? "true" : "false");
    return true;
  }
  if (value == Py_None) {
    out_.append("null");
    return true;
  }
  if (type == &PyList_Type || type == &PyTuple_Type) return write_sequence(value, depth);
  if (type == &PyDict_Type) return write_object(value, depth);
  known = false;
  return false;
}

bool encoder::write_other(PyObject* value, std::size_t depth) {
  bool known = false;
  if (write_builtin(value, depth, known)) return true;
  if (known) return false;
  const nb::object plain = nb::steal(PyObject_CallOneArg(to_builtins_, value));
  if (!plain.is_valid()) {
    if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0) {
      PyErr_Clear();
      return too_deep();
    }
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) return fail(encode_failure::kind::python, {});
    // Its text names the innermost value that has no form.
    return fail(encode_failure::kind::type, take_error_text());
  }
  if (write_builtin(plain.ptr(), depth, known)) return true;
  if (known) return false;
  return fail(encode_failure::kind::type, "a value of type " + type_name(value) + " has no form in JSON");
}

}  // namespace leveret::bindings
