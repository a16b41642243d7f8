/// Keys that jobs hold, so that a second send of the same finds the first: see docs/adr/0023-idempotent-sends.md.
///
/// A message of one job makes a claim by a header. Publishing it takes the key, in the step that stores the message;
/// the header goes on with whatever is published in the message's place, so that whoever ends the job knows what to let
/// go. A key is let go by the job that holds it alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "message.hpp"

namespace leveret::core {

/// `<until> <expires> <job id> <key>`, until being one of `window`, `start`, `end`.
inline constexpr const char* kHeaderClaim = "x-leveret-once";

/// Task and key in one: more than a name of 255 bytes, a key of 255 and what stands between them.
inline constexpr std::size_t kMostClaimKey = 600;

enum class held_until : std::uint8_t {
  window,  ///< until `expires`, whatever becomes of the job
  start,   ///< or until its handler is about to begin
  end      ///< or until it has ended
};

struct claim {
  held_until until = held_until::window;
  unix_ms expires = 0;
  std::string job;  ///< its id, without a space
  std::string key;  ///< within the broker: it names the task too
};

[[nodiscard]] std::string claim_text(const claim& c);
/// Nothing: the text is no claim's.
[[nodiscard]] std::optional<claim> read_claim(const std::string& text);

/// What a message claims. Nothing: it has no such header, or a malformed one, which is ignored.
[[nodiscard]] std::optional<claim> claim_of(const message& m);

}  // namespace leveret::core
