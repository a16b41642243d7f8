/// Jobs that many threads or coroutines send one by one, together in few messages.
///
/// A job that comes while nothing is on its way goes at once, alone. One that comes while a message of its kind waits
/// for the broker's answer waits for that answer too, and goes with all others that did: a broker's cost is per
/// message, and a disk's per commit. So nobody waits who would not wait anyway, and a program with one thread never
/// shares a message.
///
/// Jobs of an ordered queue have one message on its way at a time, so that no answer, and nothing sent again, can
/// change their order: whatever group they are of, they wait for each other.
///
/// After an answer to several, their senders are about to send again, one after the other. The next message waits for
/// as many as there were, at most for half of the last answer's time: leaving with the first of them would make two
/// groups that wait for each other by turns. Where as many did come the last time, it waits while they come: until
/// nobody has come for as long as the answer took, and for two milliseconds at most.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "claim.hpp"
#include "loop.hpp"
#include "transport.hpp"

namespace leveret::core {

/// What a job that is sent claims: see claim.hpp.
struct wanted_claim {
  std::string key;  ///< empty: nothing
  held_until until = held_until::window;
  std::chrono::milliseconds window{0};  ///< from the sending
};

/// What all messages of one batch of jobs share.
struct envelope {
  std::string queue;
  unix_ms due = 0;
  std::uint8_t priority = 0;
  bool want_results = true;
  wanted_claim once{};       ///< of messages of one job
  std::uint32_t shards = 1;  ///< over how many queues its messages are spread (shards.hpp)
};

/// What was published: one message's id and how many jobs it carries.
struct published {
  std::string id;
  std::uint32_t jobs = 0;
};

/// Thread-safe. It must outlive its loop's tasks.
class coalescer {
 public:
  /// Called on the loop with where the job is, or would have been: the message, and the line in it, from 1.
  using on_sent = std::function<void(const published&, std::uint32_t line, const publish_outcome&)>;
  using on_answer = std::function<void(const published&, const publish_outcome&)>;

  /// What stands behind it. Calls answer on the loop, never from within.
  struct publisher {
    /// Makes ready for jobs of an envelope; true: it is ready, and `then` is dropped.
    std::function<bool(const envelope&, const std::function<void(maybe_failure)>& then)> prepare;
    /// `since`: when the first of the jobs was sent.
    std::function<void(const envelope&, std::string_view lines, std::uint32_t jobs, loop::clock::time_point since,
                       const on_answer& then)>
        publish;
  };

  /// `batch_bytes`: a message that has as many lines waits for nothing. `linger`: how long a job may wait for others
  /// although nothing is on its way.
  coalescer(loop& l, std::size_t batch_bytes, std::chrono::microseconds linger, publisher to);

  /// Sends `line` (ended by a newline). Only jobs of one `group` and queue share messages, and none that has a due
  /// time, a priority or a claim. Of one thread's jobs in one group an earlier one is never behind a later one. False:
  /// closed; `then` is dropped.
  [[nodiscard]] bool send(const envelope& e, std::string_view group, std::string_view line, on_sent then);
  /// Publishes what waits, now. Nothing is taken afterwards.
  void close();

 private:
  struct batch {
    envelope to;
    std::string group;
    std::string lines;
    std::vector<on_sent> senders;
    loop::clock::time_point since;
  };
  struct lane {
    bool ordered = false;
    std::deque<batch> waiting;
    std::size_t jobs = 0;            // in it
    std::uint32_t on_their_way = 0;  // messages
    bool preparing = false;
    bool holding = false;           // until enough have come, or nobody comes any more
    std::size_t enough = 0;         // jobs
    loop::clock::duration quiet{};  // a hold ends when nobody has come for as long
    loop::clock::time_point came;   // when the last one did, since the hold began
    loop::clock::time_point until;  // it ends then at the latest
    bool same_again = false;        // the last hold ended since enough had come
    std::uint64_t look_number = 0;  // of the timer that ends holds
    loop::clock::time_point looks_at = loop::clock::time_point::max();  // its time
    loop::clock::time_point since;                                      // of the message published last

    [[nodiscard]] loop::clock::time_point end_of_hold() const { return std::min(came + quiet, until); }
  };
  using lanes = std::map<std::string, lane, std::less<>>;

  // These with the lock.
  void add(lane& l, const envelope& e, std::string_view group, std::string_view line, on_sent then);
  void publish_waiting(lanes::iterator at, bool all = true);
  void publish_prepared(lanes::iterator at, bool all);
  [[nodiscard]] bool has_full(const lane& l) const noexcept;
  void hold(lanes::iterator at, loop::clock::duration quiet, loop::clock::duration longest, std::size_t enough);
  void look(lanes::iterator at, loop::clock::time_point when);
  // These on the loop, without it.
  void prepared(const std::string& key, const maybe_failure& why);
  void answered(const std::string& key, const batch& sent, const published& message, const publish_outcome& outcome);

  loop& loop_;
  const std::size_t batch_bytes_;
  const std::chrono::microseconds linger_;
  const publisher to_;
  std::mutex mutex_;  // held while calling `publish` and `prepare`, so that no message overtakes another
  lanes lanes_;
  std::string key_;  // of the lane that `send` looks for; kept for its memory
  std::uint64_t alone_ = 0;
  std::uint64_t looks_ = 0;
  bool closed_ = false;
};

}  // namespace leveret::core
