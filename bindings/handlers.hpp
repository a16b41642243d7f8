/// Python functions as handlers: each becomes a task of the core's registry, called on pool threads inside the
/// interpreter's lock.
#pragma once

#include "bindings.hpp"
#include "registry.hpp"

namespace leveret::bindings {

/// Registers `handlers`, an iterable of leveret.handler.Handler, whose compiled form the registry keeps until it ends.
/// Needs the GIL. Throws std::invalid_argument for a task that the registry refuses, or what a bad object raises.
void add_handlers(nb::handle handlers, core::registry& into);

}  // namespace leveret::bindings
