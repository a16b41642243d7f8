/// The extension module `leveret._core`: only a list. Each concept has a file of its own name.
#include "bindings.hpp"

NB_MODULE(_core, m) {
  using namespace leveret::bindings;
  // An app lives in its module as long as the program: the interpreter's end may take it down in any order, or not at
  // all, and that is nothing to warn a user of.
  nanobind::set_leak_warnings(false);
  m.doc() = "The native half of leveret: private, use the names of the package `leveret`.";
  init_errors(m);
  init_signature(m);
  init_codec(m);
  init_sent_queue(m);
  init_client(m);
  init_handlers(m);
  init_worker(m);
  init_testing(m);
  init_pool_child(m);
  init_upkeep(m);
  init_host(m);
}
