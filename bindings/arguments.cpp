#include "arguments.hpp"

#include <utility>

#include "plugin.hpp"

namespace leveret::bindings {

nb::object text(std::string_view utf8) {
  nb::object out = nb::steal(PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace"));
  if (!out.is_valid()) throw nb::python_error();
  return out;
}

std::string utf8(nb::handle str) {
  const nb::bytes bytes = nb::steal<nb::bytes>(PyUnicode_AsEncodedString(str.ptr(), "utf-8", "replace"));
  if (!bytes.is_valid()) throw nb::python_error();
  return {bytes.c_str(), bytes.size()};
}

nb::object take_raised() {
  const nb::python_error error;
  return nb::borrow(error.value());
}

binder::binder(const python_handler& handler, const core::decoded_job& job, argument_list& out)
    : host_(core::host_functions()), handler_(handler), job_(job), out_(out) {}

bool binder::bind() { return job_.foreign ? take_foreign() : take_positional() && take_named(); }

bool binder::refuse(std::string why) {
  why_ = std::move(why);
  return false;
}

bool binder::take_foreign() {
  const parameter_in* p = !handler_.positional.empty() ? &handler_.positional[0]
                          : handler_.var_positional    ? &*handler_.var_positional
                                                       : nullptr;
  if (p == nullptr) return refuse("args: a default task gets the whole object, but this one takes no argument");
  PyObject* value = make(*p, job_.whole);
  if (value == nullptr) return mismatched("the object");
  out_.push(value);
  positional_ = 1;
  return complete();
}

bool binder::take_positional() {
  leveret_iterator each;
  host_.begin(job_.args, &each);
  leveret_value value;
  const std::size_t known = handler_.positional.size();
  while (host_.next(&each, nullptr, &value) != 0) {
    const parameter_in* p = nullptr;
    if (positional_ < known) {
      p = &handler_.positional[positional_];
    } else if (handler_.var_positional) {
      p = &*handler_.var_positional;
    } else {
      const std::size_t given = host_.size_of(job_.args);
      return refuse("args: expected at most " + std::to_string(known) + ", got " + std::to_string(given));
    }
    PyObject* made = make(*p, value);
    if (made == nullptr) return mismatched("args[" + std::to_string(positional_) + "]");
    out_.push(made);
    ++positional_;
  }
  return true;
}

bool binder::take_named() {
  const std::size_t count = host_.size_of(job_.kwargs);
  if (count != 0) {
    leveret_iterator each;
    host_.begin(job_.kwargs, &each);
    leveret_string key;
    leveret_value value;
    std::vector<nb::object> names;
    names.reserve(count);
    while (host_.next(&each, &key, &value) != 0) {
      const std::string_view name(key.data, key.size);
      std::size_t position = 0;
      const parameter_in* p = find(name, position);
      if (p == nullptr) return refuse("kwargs." + std::string(name) + ": there is no such argument");
      if (position < positional_) {
        return refuse("kwargs." + std::string(name) + ": given in args[" + std::to_string(position) + "] already");
      }
      PyObject* made = make(*p, value);
      if (made == nullptr) return mismatched("kwargs." + std::string(name));
      out_.push(made);
      names.push_back(p->name == name ? p->name_object : text(name));
    }
    names_ = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(names.size())));
    if (!names_.is_valid()) throw nb::python_error();
    for (std::size_t i = 0; i < names.size(); ++i) {
      PyTuple_SET_ITEM(names_.ptr(), static_cast<Py_ssize_t>(i), names[i].release().ptr());
    }
  }
  return complete();
}

bool binder::complete() {
  for (std::size_t i = positional_; i < handler_.positional.size(); ++i) {
    const parameter_in& p = handler_.positional[i];
    if (p.required && (i < handler_.positional_only || !named(p))) {
      return refuse("args[" + std::to_string(i) + "] (\"" + p.name + "\"): missing, and it has no default");
    }
  }
  for (const parameter_in& p : handler_.keyword_only) {
    if (p.required && !named(p)) return refuse("kwargs." + p.name + ": missing, and it has no default");
  }
  return true;
}

bool binder::named(const parameter_in& p) const {
  if (!names_.is_valid()) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names_.ptr()); ++i) {
    if (PyTuple_GET_ITEM(names_.ptr(), i) == p.name_object.ptr()) return true;
  }
  return false;
}

const parameter_in* binder::find(std::string_view name, std::size_t& position) const {
  for (position = handler_.positional_only; position < handler_.positional.size(); ++position) {
    if (handler_.positional[position].name == name) return &handler_.positional[position];
  }
  position = SIZE_MAX;
  for (const parameter_in& p : handler_.keyword_only) {
    if (p.name == name) return &p;
  }
  return handler_.var_keyword ? &*handler_.var_keyword : nullptr;
}

PyObject* binder::make(const parameter_in& p, leveret_value value) {
  const std::uint8_t mask = p.mask;
  const bool any = (mask & taken::is_any) != 0;
  switch (host_.kind(value)) {
    case LEVERET_INTEGER: {
      std::int64_t number = 0;
      host_.get_integer(value, &number);
      if (any || (mask & taken::is_int) != 0) return PyLong_FromLongLong(number);
      if ((mask & taken::is_float) != 0) return PyFloat_FromDouble(static_cast<double>(number));
      break;
    }
    case LEVERET_UNSIGNED: {
      std::uint64_t number = 0;
      host_.get_unsigned(value, &number);
      if (any || (mask & taken::is_int) != 0) return PyLong_FromUnsignedLongLong(number);
      if ((mask & taken::is_float) != 0) return PyFloat_FromDouble(static_cast<double>(number));
      break;
    }
    case LEVERET_DOUBLE: {
      double number = 0;
      host_.get_double(value, &number);
      if (any || (mask & taken::is_float) != 0) return PyFloat_FromDouble(number);
      break;
    }
    case LEVERET_STRING: {
      if (!any && (mask & taken::is_str) == 0) break;
      leveret_string chars{};
      host_.get_string(value, &chars);
      return PyUnicode_DecodeUTF8(chars.data, static_cast<Py_ssize_t>(chars.size), nullptr);
    }
    case LEVERET_BOOLEAN: {
      if (!any && (mask & taken::is_bool) == 0) break;
      int truth = 0;
      host_.get_boolean(value, &truth);
      return PyBool_FromLong(truth);
    }
    case LEVERET_NULL:
      if (any || (mask & taken::is_none) != 0) return Py_NewRef(Py_None);
      break;
    case LEVERET_ARRAY:
    case LEVERET_OBJECT:
      break;
  }
  const std::string json = core::to_json(value);
  const nb::object bytes = nb::steal(PyBytes_FromStringAndSize(json.data(), static_cast<Py_ssize_t>(json.size())));
  if (!bytes.is_valid()) return nullptr;
  return PyObject_CallOneArg(p.decode.ptr(), bytes.ptr());
}

bool binder::mismatched(const std::string& place) {
  const nb::object raised = take_raised();
  const nb::object said = handler_.mismatch(raised);
  return refuse(place + utf8(said[0]) + ": " + utf8(said[1]));
}

}  // namespace leveret::bindings
