/// Turns what a delivery's lines led to into one settlement: results, retries, dead jobs and lines given back. Pure:
/// time and random numbers are passed in.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "attempt.hpp"
#include "ids.hpp"
#include "retry.hpp"
#include "work.hpp"

namespace leveret::core {

/// Counts of jobs. `retried` counts attempts that were followed by another.
struct tally {
  std::uint64_t succeeded = 0;
  std::uint64_t retried = 0;
  std::uint64_t dead = 0;
  std::uint64_t expired = 0;    ///< not run: too late
  std::uint64_t cancelled = 0;  ///< ended unrun, as somebody wished
  std::uint64_t returned = 0;   ///< given back unrun: unknown task, stopped, split

  tally& operator+=(const tally& other) noexcept {
    succeeded += other.succeeded;
    retried += other.retried;
    dead += other.dead;
    expired += other.expired;
    cancelled += other.cancelled;
    returned += other.returned;
    return *this;
  }
};

struct settling_settings {
  retry_policy retries;
  std::chrono::milliseconds put_back_delay{5'000};  ///< for a task that no worker here knows
  std::chrono::milliseconds due_bucket{50};         ///< retries due within one bucket share a message
};

/// What a settlement will have done once it is settled.
struct planned {
  settlement what;
  tally counts;
  std::vector<failed_line> dead;  ///< for the log; `text` moved away
  unix_ms last_retry_due = 0;     ///< of this settlement's backoff retries; 0: none
};

/// Makes `w`'s settlement after its end. Lines in `w.unstarted()` go back to the queue in messages of at most
/// `jobs_per_part` jobs. `results` are those not stored yet.
[[nodiscard]] planned plan_settlement(work& w, const settling_settings& settings, unix_ms now,
                                      const random_source& random, line_returner& returner,
                                      std::uint32_t jobs_per_part = UINT32_MAX);

/// Moves a whole returned delivery to `queue` under explicit ids, one job a message if `singles`.
[[nodiscard]] planned plan_move(const delivery& d, const std::string& queue, bool singles, unix_ms now,
                                const random_source& random, line_returner& returner);

/// Gives a suspect back on a clean stop with its crashes carried over, since a release may be counted as one more.
[[nodiscard]] planned plan_suspect_return(const delivery& d, unix_ms now, const random_source& random,
                                          line_returner& returner);

/// Makes a returned delivery's jobs dead: each took its worker down `crashes` times.
[[nodiscard]] planned plan_crashed(const delivery& d, std::int32_t crashes, line_returner& returner);

/// Makes the jobs of a refused delivery dead, unrun.
[[nodiscard]] planned plan_refused(const delivery& d, const refused_delivery& why, line_returner& returner);

/// More lines than a worker counts (a body without a limit of its own may have them): one dead record, with the begin
/// of the body.
inline constexpr std::size_t kMostLines = 1u << 20;
[[nodiscard]] bool has_too_many_lines(const message& m);
[[nodiscard]] planned plan_too_many_lines(const delivery& d);

}  // namespace leveret::core
