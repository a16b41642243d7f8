/// Places where tests stop or kill the process, compiled in only with LEVERET_FAULT_POINTS. The variable
/// LEVERET_FAULT_POINT names one and what happens there: `before_commit:STOP`, `after_commit:KILL`, `round:PAUSE` (50
/// ms, so that operations meet in one transaction), `checkpoint_lock:SKIP` (breaks the checkpoint rule).
#pragma once

#include <cstdint>

#ifdef LEVERET_FAULT_POINTS
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#endif

namespace leveret::core::sqlite::faults {

#ifdef LEVERET_FAULT_POINTS
inline void hit(const char* place) {
  const char* wanted = std::getenv("LEVERET_FAULT_POINT");
  if (wanted == nullptr) return;
  if (std::string(place) + ":STOP" == wanted) ::raise(SIGSTOP);
  if (std::string(place) + ":KILL" == wanted) ::raise(SIGKILL);
  if (std::string(place) + ":PAUSE" == wanted) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}
/// Whether a step is to be left out.
inline bool skips(const char* place) {
  const char* wanted = std::getenv("LEVERET_FAULT_POINT");
  return wanted != nullptr && std::string(place) + ":SKIP" == wanted;
}
/// A threshold, or what a test says by a variable, so that it need not write megabytes to get there.
inline std::int64_t threshold(const char* variable, std::int64_t usual) {
  const char* value = std::getenv(variable);
  return value == nullptr ? usual : std::atoll(value);
}
#else
inline void hit(const char* /*place*/) {}
inline bool skips(const char* /*place*/) { return false; }
inline std::int64_t threshold(const char* /*variable*/, std::int64_t usual) { return usual; }
#endif

}  // namespace leveret::core::sqlite::faults
