/// The sidecar `<file>-bell`: a mapped file through which the processes of one database order their writes, ring each
/// other awake, and see who is alive. Nothing in it is needed for correctness: SQLite's own lock is the truth for
/// writes, the fencing token for deliveries. A lost sidecar is made again.
///
/// Layout (native byte order; a sidecar never leaves its machine):
///
///     0     magic "lvrtbell", version u32, slots u32, id u64 (random, names this sidecar)
///     64    next u32: the next ticket to be drawn
///     128   serving u32: the ticket whose turn it is (futex); holder u32: the pid that took the latest turn;
///           top u32: slots from there on were never taken
///     4096  slots of 64 bytes: word u32 (futex), sleeping u32, beats u32, pid u32, nonce u64, interest u64, rung u64
///
/// - **Turns.** SQLite starves writers, so a writer draws a ticket and waits for `serving` to reach it. A turn that
/// moves
///   on within 50 ms is the normal case; else whoever waits skips it (its holder died, was stopped, or is slow).
/// - **Doorbell.** After a commit, `ring(mask)` marks and wakes every slot whose `interest` meets the mask.
/// - **Liveness.** A transport that holds deliveries takes a slot: a POSIX write lock on the byte kLockBase + slot of
/// the
///   sidecar. The kernel frees it within a millisecond of the process' end. POSIX locks belong to the process, and
///   closing any descriptor of the file drops them all, so all transports of a process share one descriptor (the
///   registry in bell.cpp). `beats` grows at every renewal: a process that is alive but stopped is seen by it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace leveret::core::sqlite {

/// What the database keeps of a transport, so that others can ask after it.
struct seat_identity {
  std::int64_t bell = 0;  ///< the sidecar's id
  std::int64_t slot = 0;
  std::int64_t nonce = 0;  ///< of this use of the slot
};

enum class life {
  alive,  ///< its process holds the lock; see the beats for whether it runs
  dead,
  unknown  ///< it used another sidecar; only time tells
};

/// Interests: which queue, which reply address. Bits are shared by hash: a ring is a hint.
[[nodiscard]] std::uint64_t queue_interest(std::int64_t queue) noexcept;
[[nodiscard]] std::uint64_t reply_interest(const std::string& reply) noexcept;

struct sidecar;
struct bell_slot;

/// One transport's place at the sidecar. Functions belong to the transport's thread, but for `ring_self`.
class seat {
 public:
  static constexpr std::uint32_t kSlots = 1024;

  /// Maps the sidecar of the database at `database`, making it if needed, and takes a slot. Throws storage_failed.
  explicit seat(const std::string& database);
  ~seat();
  seat(const seat&) = delete;
  seat& operator=(const seat&) = delete;

  [[nodiscard]] seat_identity identity() const;

  // Doorbell.
  /// To be read before looking for work, and given to `wait` after finding none.
  [[nodiscard]] std::uint32_t word() const;
  /// The interests rung since the last call.
  [[nodiscard]] std::uint64_t take_rung();
  void set_interest(std::uint64_t mask);
  /// Sleeps until rung, `ring_self`, or the time has passed; at once if the word is no longer `seen`.
  void wait(std::uint32_t seen, std::chrono::nanoseconds time);
  /// As `wait` without sleeping, for so short a time that falling asleep and being woken would take longer. False: the
  /// time passed.
  [[nodiscard]] bool linger(std::uint32_t seen, std::chrono::nanoseconds time) const;
  /// Any thread.
  void ring_self();
  /// Rings everybody else.
  void ring(std::uint64_t mask);

  // Turns.
  /// Waits for this writer's turn, at most about `patience` in all.
  void take_turn(std::chrono::milliseconds patience);
  /// Lets the next one go. Without a turn: nothing.
  void end_turn();
  /// The process that took the latest turn; 0: none known.
  [[nodiscard]] std::uint32_t turn_holder() const;

  // Liveness.
  void beat();
  [[nodiscard]] life judge(const seat_identity& other, std::uint32_t& beats) const;

  /// Whether the sidecar's file was removed or replaced. Then `rebind` takes a slot of the one there is now (made again
  /// if need be); false: it could not.
  [[nodiscard]] bool lost() const;
  [[nodiscard]] bool rebind() noexcept;

 private:
  void sit(sidecar* at);
  void leave();

  std::string path_;
  sidecar* at_ = nullptr;  // shared with the process' other transports; counted in the registry
  std::atomic<bell_slot*> slot_{nullptr};
  std::uint32_t index_ = 0;
  std::uint64_t nonce_ = 0;
  std::uint32_t ticket_ = 0;
  bool has_ticket_ = false;
  sidecar* ticket_of_ = nullptr;  // where the ticket was drawn
  struct old_seat;
  old_seat* old_ = nullptr;  // replaced sidecars: `ring_self` may still be at one of their slots
};

/// What /proc/locks says of who holds SQLite's write lock on `database`, for messages: "process 4711 (python3,
/// stopped)"; `hint` is a pid to name when it says nothing. Empty: unknown.
[[nodiscard]] std::string describe_lock_holder(const std::string& database, std::uint32_t hint);

}  // namespace leveret::core::sqlite
