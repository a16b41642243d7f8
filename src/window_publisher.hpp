/// The batch_publisher of a client: fills messages and keeps at most a window of them unanswered.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "client.hpp"

namespace leveret::core {

/// Throws what a publish that was not accepted throws.
[[noreturn]] void throw_outcome(const publish_outcome& outcome);

/// Publishes lines as one message; its answer comes on another thread. Throws closed.
using publish_lines = std::function<published(std::string_view lines, std::uint32_t jobs,
                                              std::function<void(const publish_outcome&)> then)>;

/// `options` must outlive it.
[[nodiscard]] std::unique_ptr<batch_publisher> make_window_publisher(const client_options& options,
                                                                     publish_lines publish);

}  // namespace leveret::core
