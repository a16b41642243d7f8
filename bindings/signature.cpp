#include "signature.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "codec.hpp"
#include "wall_clock.hpp"

namespace leveret::bindings {
namespace {

std::uint8_t mask_of(PyObject* value) noexcept {
  PyTypeObject* const type = Py_TYPE(value);
  if (type == &PyLong_Type) return parameter::is_int;
  if (type == &PyUnicode_Type) return parameter::is_str;
  if (type == &PyFloat_Type) return parameter::is_float;
  if (type == &PyBool_Type) return parameter::is_bool;
  if (value == Py_None) return parameter::is_none;
  return 0;
}

bool same_text(PyObject* a, PyObject* b) noexcept { return a == b || PyUnicode_Compare(a, b) == 0; }

}  // namespace

/// Where a value stands in the line, for messages: args[index], or kwargs.name.
struct line_writer::place {
  std::size_t index = 0;
  const char* name = nullptr;

  [[nodiscard]] std::string text() const {
    return name != nullptr ? "kwargs." + std::string(name) : "args[" + std::to_string(index) + "]";
  }
};

/// One call being written. The objects are borrowed.
struct line_writer::call {
  text_buffer& out;
  PyObject* args;
  PyObject* kwargs;       ///< null if there are none
  std::size_t given;      ///< positional arguments
  std::size_t taken = 0;  ///< of the keywords: written as positions
  encoder enc;

  [[nodiscard]] PyObject* arg(std::size_t i) const { return PyTuple_GET_ITEM(args, static_cast<Py_ssize_t>(i)); }
  [[nodiscard]] PyObject* keyword(const parameter& p) const {
    return kwargs == nullptr ? nullptr : PyDict_GetItemWithError(kwargs, p.name_object.ptr());
  }
};

line_writer::line_writer(std::shared_ptr<const signature> sig, std::optional<std::int32_t> max_retries,
                         std::optional<std::int64_t> deadline_ms, std::optional<std::int64_t> expires_ms)
    : sig_(std::move(sig)), expires_ms_(expires_ms) {
  core::json_writer name;
  if (!name.string(sig_->task)) throw std::invalid_argument("cannot write job lines: the task's name is not UTF-8");
  head_ = "{\"task\":" + name.text();
  tail_ = ",\"retry_count\":0";
  if (max_retries) tail_ += ",\"max_retries\":" + std::to_string(*max_retries);
  if (deadline_ms) tail_ += ",\"deadline_ms\":" + std::to_string(*deadline_ms);
  tail_ += expires_ms_ ? ",\"expires_at\":" : "}\n";
}

bool line_writer::refuse(const std::string& text) const {
  PyErr_SetString(PyExc_TypeError, ("cannot send \"" + sig_->task + "\": " + text).c_str());
  return false;
}

bool line_writer::write(text_buffer& out, PyObject* args, PyObject* kwargs) const {
  const std::size_t start = out.size();
  if (kwargs != nullptr && PyDict_GET_SIZE(kwargs) == 0) kwargs = nullptr;
  call c{out, args, kwargs, static_cast<std::size_t>(PyTuple_GET_SIZE(args)), 0, encoder(out, sig_->to_builtins.ptr())};
  out.append(head_);
  if (!write_arguments(c)) {
    out.truncate(start);
    return false;
  }
  out.append(tail_);
  if (expires_ms_) {
    char* to = out.reserve(24);
    to = std::to_chars(to, to + 20, core::wall_clock_now() + *expires_ms_).ptr;
    out.commit(to);
    out.append("}\n");
  }
  const std::size_t size = out.size() - start - 1;
  if (size > core::kMaxLineBytes) {
    out.truncate(start);
    PyErr_SetString(PyExc_ValueError, ("cannot send \"" + sig_->task + "\": the job is " + std::to_string(size) +
                                       " bytes of JSON, more than the " + std::to_string(core::kMaxLineBytes) +
                                       " that a job may have; store the data and send where it is")
                                          .c_str());
    return false;
  }
  return true;
}

bool line_writer::write_arguments(call& c) const { return write_positional(c) && write_keywords(c); }

bool line_writer::write_value(call& c, const parameter& p, PyObject* value, const place& where) const {
  const std::size_t start = c.out.size();
  if (!c.enc.write(value, 3)) {
    const encode_failure& failure = c.enc.failure();
    if (failure.what == encode_failure::kind::python) return false;
    PyErr_SetString(
        failure.what == encode_failure::kind::type ? PyExc_TypeError : PyExc_ValueError,
        ("cannot send \"" + sig_->task + "\": " + where.text() + failure.path + ": " + failure.text).c_str());
    return false;
  }
  if (p.check.is_none() || (p.mask & mask_of(value)) != 0) return true;
  // Not one of the exact types: what a worker would read is compared with the annotation.
  const nb::object text =
      nb::steal(PyBytes_FromStringAndSize(c.out.data() + start, static_cast<Py_ssize_t>(c.out.size() - start)));
  if (!text.is_valid()) return false;
  const nb::object why = nb::steal(PyObject_CallOneArg(p.check.ptr(), text.ptr()));
  if (!why.is_valid()) return false;
  if (why.is_none()) return true;
  return refuse(where.text() + nb::cast<std::string>(why[0]) + ": " + nb::cast<std::string>(why[1]));
}

bool line_writer::write_positional(call& c) const {
  const std::size_t known = sig_->positional.size();
  // Python handlers get the arguments as the caller wrote them; C++ handlers have positions only, so names and defaults
  // are resolved here.
  const std::size_t count = sig_->native ? known : std::min(known, c.given);
  const bool any = count != 0 || c.given > known;
  if (any) c.out.append(",\"args\":[");
  for (std::size_t i = 0; i < count; ++i) {
    const parameter& p = sig_->positional[i];
    if (i != 0) c.out.push(',');
    PyObject* value = i < c.given ? c.arg(i) : nullptr;
    if (value == nullptr && i >= sig_->positional_only) {
      value = c.keyword(p);
      if (value != nullptr) ++c.taken;
    }
    if (value != nullptr) {
      if (!write_value(c, p, value, {i, nullptr})) return false;
    } else if (p.required) {
      return refuse("argument \"" + p.name + "\" is missing and has no default");
    } else {
      c.out.append(p.default_json);
    }
  }
  if (c.given > known && !sig_->var_positional) {
    return refuse("it takes " + std::to_string(known) + " positional argument" + (known == 1 ? "" : "s") + ", but " +
                  std::to_string(c.given) + " were given");
  }
  for (std::size_t i = known; i < c.given; ++i) {
    if (i != 0) c.out.push(',');
    if (!write_value(c, *sig_->var_positional, c.arg(i), {i, nullptr})) return false;
  }
  if (any) c.out.push(']');
  return true;
}

const parameter* line_writer::find(PyObject* name, std::size_t& position) const {
  for (position = 0; position < sig_->positional.size(); ++position) {
    const parameter& p = sig_->positional[position];
    if (position >= sig_->positional_only && same_text(name, p.name_object.ptr())) return &p;
  }
  for (const parameter& p : sig_->keyword_only) {
    if (same_text(name, p.name_object.ptr())) return &p;
  }
  return sig_->var_keyword ? &*sig_->var_keyword : nullptr;
}

bool line_writer::write_keywords(call& c) const {
  const std::size_t known = sig_->positional.size();
  for (std::size_t i = c.given; i < known && !sig_->native; ++i) {
    const parameter& p = sig_->positional[i];
    if (p.required && (i < sig_->positional_only || c.keyword(p) == nullptr)) {
      return refuse("argument \"" + p.name + "\" is missing and has no default");
    }
  }
  bool open = false;
  const auto next = [&c, &open] {
    c.out.append(open ? "," : ",\"kwargs\":{");
    open = true;
  };
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t at = 0;
  while (c.kwargs != nullptr && PyDict_Next(c.kwargs, &at, &name, &value) != 0) {
    if (!PyUnicode_Check(name)) return refuse("the names of keyword arguments must be str");
    const char* text = PyUnicode_AsUTF8(name);
    if (text == nullptr) return false;
    std::size_t position = 0;
    const parameter* p = find(name, position);
    if (p == nullptr) return refuse("it has no argument \"" + std::string(text) + "\"");
    if (position < known) {
      if (position < c.given) return refuse("argument \"" + p->name + "\" is given twice, by position and by name");
      if (sig_->native) continue;
    }
    next();
    if (!c.enc.write_string(name)) return false;
    c.out.push(':');
    const nb::object held = nb::borrow(value);
    if (!write_value(c, *p, held.ptr(), {0, text})) return false;
  }
  for (const parameter& p : sig_->keyword_only) {
    if (c.keyword(p) != nullptr) continue;
    if (p.required) return refuse("argument \"" + p.name + "\" is missing and has no default");
    if (!sig_->native) continue;
    next();
    if (!c.enc.write_string(p.name_object.ptr())) return false;
    c.out.push(':');
    c.out.append(p.default_json);
  }
  if (open) c.out.push('}');
  return true;
}

void init_signature(nb::module_& m) {
  nb::class_<signature>(m, "Signature", "A task's signature, compiled by leveret.signature.")
      .def(
          "__init__",
          [](signature* self, const std::string& task, bool native, const nb::object& to_builtins) {
            new (self) signature();
            self->task = task;
            self->native = native;
            self->to_builtins = to_builtins;
          },
          nb::arg("task"), nb::arg("native"), nb::arg("to_builtins"))
      .def(
          "add",
          [](signature& self, const std::string& kind, const std::string& name, int mask, const nb::object& check,
             bool required, const nb::object& fallback) {
            parameter p;
            p.name = name;
            p.name_object = nb::steal(PyUnicode_InternFromString(name.c_str()));
            p.mask = static_cast<std::uint8_t>(mask);
            p.check = check;
            p.required = required;
            if (self.native && !required) {
              text_buffer out;
              encoder enc(out, self.to_builtins.ptr());
              if (!enc.write(fallback.ptr(), 3)) {
                const encode_failure& failure = enc.failure();
                if (failure.what == encode_failure::kind::python) throw nb::python_error();
                throw std::invalid_argument("the default of \"" + name + "\"" + failure.path + ": " + failure.text);
              }
              p.default_json.assign(out.view());
            }
            if (kind == "positional_only" || kind == "positional") {
              if (kind == "positional_only") ++self.positional_only;
              self.positional.push_back(std::move(p));
            } else if (kind == "keyword_only") {
              self.keyword_only.push_back(std::move(p));
            } else if (kind == "var_positional") {
              self.var_positional = std::move(p);
            } else {
              self.var_keyword = std::move(p);
            }
          },
          nb::arg("kind"), nb::arg("name"), nb::arg("mask"), nb::arg("check").none(), nb::arg("required"),
          nb::arg("default").none(),
          "Adds a parameter. `mask`: exact types that fit (1 int, 2 float, 4 str, 8 bool, 16 None); `check`: called "
          "with "
          "the JSON of other values, gives None or (path, why not); None: anything fits.");
  nb::class_<line_writer>(m, "LineWriter", "Writes a task's job lines.")
      .def(
          "__init__",
          [](line_writer* self, const signature& sig, std::optional<std::int32_t> max_retries,
             std::optional<std::int64_t> deadline_ms, std::optional<std::int64_t> expires_ms) {
            new (self) line_writer(std::make_shared<const signature>(sig), max_retries, deadline_ms, expires_ms);
          },
          nb::arg("signature"), nb::arg("max_retries") = nb::none(), nb::arg("deadline_ms") = nb::none(),
          nb::arg("expires_ms") = nb::none())
      .def(
          "line",
          [](const line_writer& self, const nb::tuple& args, const nb::dict& kwargs) {
            text_buffer out;
            if (!self.write(out, args.ptr(), kwargs.ptr())) throw nb::python_error();
            return nb::bytes(out.data(), out.size());
          },
          nb::arg("args"), nb::arg("kwargs"),
          nb::sig("def line(self, args: tuple[typing.Any, ...], kwargs: dict[str, typing.Any]) -> bytes"),
          "The line of one call, with its newline.");
}

}  // namespace leveret::bindings
