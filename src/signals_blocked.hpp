/// Blocks all signals of the current thread for a scope: signal handlers are for the program's own threads, and a
/// thread that is started meanwhile inherits it.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace leveret::core {

class signals_blocked {
 public:
  signals_blocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~signals_blocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace leveret::core
