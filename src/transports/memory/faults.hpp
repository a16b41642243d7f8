/// Faults of the memory transport, for tests and simulation: what happens to a transport from outside. All throw
/// std::invalid_argument for a transport that open_memory did not make.
#pragma once

#include "transport.hpp"

namespace leveret::core {

/// The process of `t` is killed: its deliveries go back charged, nothing more is called back, not even what was posted.
/// Later calls are ignored and answer nothing. Any thread; a callback that runs just now ends.
void kill_memory_transport(transport& t);

/// The broker takes away all deliveries of `t`, as after a lost connection or a lease that ran out: they go back
/// charged, `on_lost` names those that the consumer has seen, subscriptions go on. Any thread.
void lose_memory_deliveries(transport& t);

}  // namespace leveret::core
