/// The error tree of include/leveret/error.hpp as the classes of leveret/errors.py.
#include <array>
#include <exception>
#include <leveret/error.hpp>
#include <new>
#include <stdexcept>

#include "bindings.hpp"

namespace leveret::bindings {
namespace {

/// Class objects of leveret.errors, by errc. Never released: they must outlive every exception, also at shutdown.
std::array<PyObject*, 16> g_classes{};

PyObject* class_of(errc code) noexcept {
  const auto index = static_cast<std::size_t>(code);
  if (index < g_classes.size() && g_classes[index] != nullptr) return g_classes[index];
  return g_classes[0];
}

void raise(std::exception_ptr caught) {
  try {
    std::rethrow_exception(caught);
  } catch (const error& e) {
    PyErr_SetString(class_of(e.code()), e.what());
  }
}

}  // namespace

void set_python_error() noexcept {
  try {
    throw;
  } catch (nb::python_error& e) {
    e.restore();
  } catch (const error& e) {
    PyErr_SetString(class_of(e.code()), e.what());
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(g_classes[0], e.what());
  } catch (...) {
    PyErr_SetString(g_classes[0], "leveret's core failed for an unknown reason; please report it");
  }
}

void init_errors(nb::module_&) {
  const nb::object errors = nb::module_::import_("leveret.errors");
  const auto set = [&errors](std::size_t index, const char* name) {
    g_classes[index] = errors.attr(name).inc_ref().ptr();
  };
  set(0, "Error");
  set(static_cast<std::size_t>(errc::broker_unavailable), "BrokerUnavailable");
  set(static_cast<std::size_t>(errc::refused), "PublishRefused");
  set(static_cast<std::size_t>(errc::unknown_outcome), "PublishUnknown");
  set(static_cast<std::size_t>(errc::unsupported), "Unsupported");
  set(static_cast<std::size_t>(errc::not_found), "NotFound");
  set(static_cast<std::size_t>(errc::timed_out), "TimedOut");
  set(static_cast<std::size_t>(errc::closed), "Closed");
  set(static_cast<std::size_t>(errc::storage), "StorageFailed");
  g_classes[static_cast<std::size_t>(errc::invalid_argument)] = PyExc_ValueError;
  nb::register_exception_translator([](const std::exception_ptr& caught, void*) { raise(caught); });
}

}  // namespace leveret::bindings
