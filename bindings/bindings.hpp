/// What the files of the extension module share. Each `init_…` adds one concept's names to the module.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace leveret::bindings {

namespace nb = nanobind;

void init_errors(nb::module_& m);
void init_signature(nb::module_& m);
void init_codec(nb::module_& m);
void init_client(nb::module_& m);
void init_sent_queue(nb::module_& m);
void init_worker(nb::module_& m);
void init_handlers(nb::module_& m);
void init_testing(nb::module_& m);
void init_pool_child(nb::module_& m);
void init_upkeep(nb::module_& m);
void init_host(nb::module_& m);

/// Sets the Python error that matches the C++ exception being handled. Call it in a catch block, with the GIL held.
void set_python_error() noexcept;

}  // namespace leveret::bindings
