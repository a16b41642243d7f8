/// Named failpoints: moments at which tests stop, kill or hold up a process, or have it leave out a step. Compiled in
/// only with LEVERET_FAULT_POINTS, which the builds of tests define (CMakeLists.txt) for the sources that include this.
///
/// The variable LEVERET_FAULT_POINT names a point, what happens there and, if need be, which of this process's hits is
/// meant, counted from 1: `after_effect:KILL:5`. Children of a pool count theirs for themselves. A name that is not
/// listed here ends the process at its start, or at its next point: a test with a misspelt point could not fail.
///
///   point            the moment, in the order of a job's way
///   after_claim      a delivery has reached the tracker, and nothing of it has run
///   in_claim         a child of a process pool has taken a line, and has not said which
///   in_child         a child of a process pool has taken a line, and its handler has not begun
///   after_effect     a handler has returned, and what that means for its job is not worked out
///   after_result     it is, with the result, the retry's line or the dead record; nobody is told yet
///   in_io_process    a process pool has read a result or a failure that a child has written, and not used it yet
///   before_settle    a delivery's settlement is made, and not handed to the transport
///   before_commit    SQLite: all of a transaction is done but its commit
///   after_commit     SQLite: it is committed, and nobody knows
///   after_reserve    a key is taken in the store beside a broker, and its message is not published
///   before_mark      that message is confirmed, and the store does not know
///   before_ack       RabbitMQ: all that a settlement publishes, if anything, is confirmed; no acknowledgement is sent
///   after_settle     the tracker hears that a delivery is settled, and has noted nothing
///   round            SQLite: the writer's thread looks for something to do
///   checkpoint_lock  SQLite: the step that keeps writers out of a checkpoint
///
///   action   what happens                                                            without a number, at
///   STOP     the process says so on standard error, and gets SIGSTOP                 the first hit
///   KILL     the same with SIGKILL                                                   the first hit
///   PAUSE    the thread waits for 50 ms, so that operations meet in one transaction  every hit
///   SKIP     the step is left out: checkpoint_lock's only action, and no other's     every hit
#pragma once

#include <cstdint>

#ifdef LEVERET_FAULT_POINTS
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#endif

namespace leveret::core::faults {

enum class point : std::uint8_t {
  after_claim,
  in_claim,
  in_child,
  after_effect,
  after_result,
  in_io_process,
  before_settle,
  before_commit,
  after_commit,
  after_reserve,
  before_mark,
  before_ack,
  after_settle,
  round,
  checkpoint_lock
};

#ifdef LEVERET_FAULT_POINTS

inline constexpr std::string_view kNames[] = {"after_claim",  "in_claim",      "in_child",       "after_effect",
                                              "after_result", "in_io_process", "before_settle",  "before_commit",
                                              "after_commit", "after_reserve", "before_mark",    "before_ack",
                                              "after_settle", "round",         "checkpoint_lock"};
inline constexpr std::size_t kPoints = sizeof kNames / sizeof kNames[0];
static_assert(kPoints == static_cast<std::size_t>(point::checkpoint_lock) + 1);

enum class action : std::uint8_t { stop, kill, pause, skip };

/// What LEVERET_FAULT_POINT says.
struct wish {
  point where = point::after_claim;
  action what = action::stop;
  std::uint64_t hit = 0;  ///< 0: every one
};

[[noreturn]] inline void refuse(std::string_view text, const char* why) noexcept {
  std::fprintf(stderr, "leveret: LEVERET_FAULT_POINT=%.*s: %s (see src/faults.hpp)\n", static_cast<int>(text.size()),
               text.data(), why);
  std::abort();
}

/// Read anew each time: tests set the variable for a while.
inline std::optional<wish> read_wish() noexcept {
  const char* variable = std::getenv("LEVERET_FAULT_POINT");
  if (variable == nullptr || *variable == 0) return std::nullopt;
  const std::string_view text = variable;
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) refuse(text, "no action is named");
  wish w;
  std::size_t index = 0;
  while (index < kPoints && kNames[index] != text.substr(0, colon)) ++index;
  if (index == kPoints) refuse(text, "there is no such point");
  w.where = static_cast<point>(index);
  std::string_view rest = text.substr(colon + 1);
  const std::string_view what = rest.substr(0, rest.find(':'));
  rest.remove_prefix(what.size());
  if (what == "STOP") {
    w.what = action::stop;
  } else if (what == "KILL") {
    w.what = action::kill;
  } else if (what == "PAUSE") {
    w.what = action::pause;
  } else if (what == "SKIP") {
    w.what = action::skip;
  } else {
    refuse(text, "there is no such action");
  }
  if ((w.what == action::skip) != (w.where == point::checkpoint_lock)) {
    refuse(text, "this action does nothing at this point");
  }
  if (w.what == action::stop || w.what == action::kill) w.hit = 1;
  if (!rest.empty()) {
    rest.remove_prefix(1);
    const auto end = std::from_chars(rest.data(), rest.data() + rest.size(), w.hit);
    if (end.ec != std::errc() || end.ptr != rest.data() + rest.size() || w.hit == 0) {
      refuse(text, "which hit is meant is a number from 1");
    }
  }
  return w;
}

/// A misspelt name is refused also where its point is never reached.
inline const bool kReadAtStart = (static_cast<void>(read_wish()), true);

/// Counts a hit of `here`, if the variable names it; what happens now, if anything does.
inline std::optional<action> due(point here, std::uint64_t& number) noexcept {
  static std::atomic<std::uint64_t> hits[kPoints];
  const std::optional<wish> w = read_wish();
  if (!w || w->where != here) return std::nullopt;
  number = hits[static_cast<std::size_t>(here)].fetch_add(1, std::memory_order_relaxed) + 1;
  if (w->hit != 0 && w->hit != number) return std::nullopt;
  return w->what;
}

/// A moment is reached.
inline void hit(point here) noexcept {
  std::uint64_t number = 0;
  const std::optional<action> what = due(here, number);
  if (what == action::pause) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (what != action::stop && what != action::kill) return;
  const bool kill = what == action::kill;
  const std::string_view name = kNames[static_cast<std::size_t>(here)];
  std::fprintf(stderr, "leveret: %s at %.*s, hit %llu, process %d\n", kill ? "KILL" : "STOP",
               static_cast<int>(name.size()), name.data(), static_cast<unsigned long long>(number),
               static_cast<int>(::getpid()));
  ::raise(kill ? SIGKILL : SIGSTOP);
}

/// Whether a step is to be left out.
inline bool skips(point here) noexcept {
  std::uint64_t number = 0;
  return due(here, number) == action::skip;
}

/// A threshold, or what a test says by a variable, so that it need not write megabytes to get there.
inline std::int64_t threshold(const char* variable, std::int64_t usual) {
  const char* value = std::getenv(variable);
  return value == nullptr ? usual : std::strtoll(value, nullptr, 10);
}

#else
inline void hit(point /*here*/) noexcept {}
inline bool skips(point /*here*/) noexcept { return false; }
inline std::int64_t threshold(const char* /*variable*/, std::int64_t usual) { return usual; }
#endif

}  // namespace leveret::core::faults
