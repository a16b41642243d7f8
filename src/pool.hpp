/// The seam between the worker's loop and what runs handlers. A pool starts lines in the order of the deliveries given
/// to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "work.hpp"

namespace leveret::core {

class pool {
 public:
  pool() = default;
  pool(const pool&) = delete;
  pool& operator=(const pool&) = delete;
  virtual ~pool() = default;

  /// How many lines can run at once.
  [[nodiscard]] virtual std::uint32_t threads() const = 0;
  /// Starts the delivery's lines behind those of earlier ones; `on_ended` is posted to the loop when all have ended. On
  /// the loop; does not block.
  virtual std::shared_ptr<work> run(delivery d, work::ended on_ended) = 0;
  /// As `run`, before all that was not started yet, where the pool can: it continues something that runs already.
  virtual std::shared_ptr<work> run_next(delivery d, work::ended on_ended) {
    return run(std::move(d), std::move(on_ended));
  }
  /// A job is to end as cancelled. On the loop.
  virtual void cancel(std::string_view) {}
  /// What runs the job is to be killed for it, which ends it as cancelled; nothing happens if it doesn't run. False:
  /// the pool can't. On the loop.
  [[nodiscard]] virtual bool kill_job(std::string_view) { return false; }
  /// What handlers are told of a stop.
  [[nodiscard]] virtual std::atomic<bool>& stopping() = 0;
  /// Ends the running lines by force, after all works were abandoned. True: nothing runs any more; false: it can't. Not
  /// on the loop.
  [[nodiscard]] virtual bool abandon() = 0;
  /// Takes no more work and waits for the running lines. Not on the loop.
  virtual void stop() = 0;
};

}  // namespace leveret::core
