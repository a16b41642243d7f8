/// What travels between producer, transport and worker. Words as in ARCHITECTURE.md: a *message* carries one *job* or
/// many, one JSON object on a line each; a *delivery* is one receipt of a message.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "body.hpp"

namespace leveret::core {

/// Wall-clock time, milliseconds since 1970-01-01 UTC. 0 where it means "now" or "none".
using unix_ms = std::int64_t;

/// Headers that Leveret itself writes.
inline constexpr const char* kHeaderUnknownSince = "x-leveret-unknown-since";  ///< unix_ms: no worker knew the task
inline constexpr const char* kHeaderReason = "x-leveret-reason";               ///< why a raw dead body is dead
inline constexpr const char* kHeaderError = "x-leveret-error";                 ///< its error text
inline constexpr const char* kHeaderSuspect = "x-leveret-suspect";             ///< "batch" or "single", see tracker.hpp

inline constexpr const char* kSuspectsSuffix = ".suspects";
inline constexpr const char* kDeadSuffix = ".dead";

struct header {
  std::string name;
  std::string value;
};

struct message {
  std::string id;  ///< a UUIDv7 in text; another producer's own id as it came; never empty once accepted
  std::string queue;
  body data;                  ///< NDJSON, one job a line
  std::uint32_t jobs = 0;     ///< lines in `data`; 0: not known (a foreign message, not split yet)
  unix_ms due = 0;            ///< not handed out before; 0: at once
  bool rough_due = false;     ///< `due` is a guess (backoff): up to twice the delay will do where that is cheaper
  std::uint8_t priority = 0;  ///< reserved
  std::string reply;          ///< where its results go; empty: nobody wants them
  std::vector<header> headers;

  [[nodiscard]] const std::string* find_header(std::string_view name) const {
    for (const header& h : headers) {
      if (h.name == name) return &h.value;
    }
    return nullptr;
  }
};

/// Names one delivery at the transport that made it. Never reused by that transport object.
using delivery_token = std::uint64_t;

/// Why a message's jobs may not run at all.
struct refused_delivery {
  std::string reason;  ///< of its dead jobs
  std::string text;
};

struct delivery {
  delivery_token token = 0;
  message msg;
  std::optional<refused_delivery> refused;  ///< nothing of it is to be believed; see signing.hpp
  /// How often this message was handed out before without being settled or released; -1: the broker keeps no count.
  /// On RabbitMQ a clean return counts too.
  std::int32_t returns = 0;
  bool redelivered = false;
};

/// Results of some lines of one message, as they are stored and as they travel to the sender. `id` is the job's first
/// message's: the id that the sender holds. The lines of `data` are results in the contract's form
/// (`{"line":7,"result":…}`, `{"line":8,"results":[…]}`), in any order, all between `first_line` and `last_line` (from
/// 1).
struct result_chunk {
  std::string id;
  std::string reply;
  std::uint32_t first_line = 0;
  std::uint32_t last_line = 0;
  std::string data;
};

/// A job that ended dead, kept until purged or replayed. `record` is the contract's dead record, one JSON object:
/// id, task, queue, reason, error, attempts, body.
struct dead_job {
  std::string queue;  ///< the queue it was consumed from (not the dead queue)
  std::string id;
  std::string record;
};

/// A key that a job has no more claim to (claim.hpp); nothing happens if it is another job's.
struct claimed_key {
  std::string key;
  std::string job;
};

/// Everything that one delivery's lines led to. Done in one transaction, or confirmed and then acknowledged.
struct settlement {
  delivery_token token = 0;
  /// false: the message goes on; only `results` are stored and `let_go` is done, if the token still holds.
  bool final = true;
  std::vector<message> publish;  ///< retries, returned lines, parts of a split message
  std::vector<dead_job> dead;
  std::vector<result_chunk> results;
  std::vector<claimed_key> let_go;  ///< also of one that is not final
};

}  // namespace leveret::core
