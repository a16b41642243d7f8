/// What to do with a message that came back: a crash must cost the culprit, not its neighbours. Pure.
///
/// In its queue a returned message runs in place twice, since two deployments look the same as two crashes (RabbitMQ
/// counts a clean return). At its third return it moves whole to `<queue>.suspects`, which every worker consumes with a
/// window of one message. If it takes a worker down there too, it is split into single jobs: from then on a crash
/// charges one job, and `max_crashes` of them make it dead.
#pragma once

#include <cstdint>

#include "message.hpp"

namespace leveret::core {

enum class redelivery_action { run, move_to_suspects, split_into_singles, dead_crashed };

inline constexpr std::int32_t kReturnsInPlace = 2;
inline constexpr const char* kSuspectBatch = "batch";
inline constexpr const char* kSuspectSingle = "single";
inline constexpr const char* kHeaderCrashes = "x-leveret-crashes";  ///< charged before the last clean return

/// Crashes charged to a delivery: what the broker counted, and what a clean return carried over. 0 where the broker
/// keeps no count.
[[nodiscard]] std::int32_t crashes_of(const delivery& d);

/// `suspects`: the delivery came from a suspects queue. `isolate`: the queue has one (Leveret declared it).
[[nodiscard]] redelivery_action on_return(const delivery& d, bool suspects, bool isolate, std::int32_t max_crashes);

}  // namespace leveret::core
