/// The memory that a process pool shares with its children, and who may write what.
///
/// One region (a memfd), mapped by the I/O process and by every child, at any address: positions in it are offsets.
///
///   header     written by the I/O process before the first child starts; flags later
///   children   one a child: state and flags
///   writers    one for each thread of each child, and one more per child for attempts that go on without a thread
///   parked     one for each attempt of a child that may go on without a thread
///   rings      one a writer: a stream of outcomes, child to I/O process
///   arena      blocks: one for each message in work, allocated and freed by the I/O process alone
///
/// A *lane* is a queue of blocks in the order given. Lane 0 is everybody's; lane 1 is the quarantine child's; lane 2 is
/// everybody's too, and looked at first, after every line. Threads look at blocks from the lane's `head` on, and take
/// lines from a block's cursor: one by one, or in runs while they are quick (line_pace).
///
/// What must hold at any instant, since a child may be killed at any instruction:
/// - A line that was taken is in the rest of its writer's run, noted as running there (or in a parked slot), ended (its
///   bit is set in the writer's bitmap of the block), or, for a few instructions, none of these: then its writer says
///   `kClaiming`, or is dead. The I/O process finds the last kind by what is missing. On its way a line is in the next
///   of these places before it leaves the last. Of a dead writer's rest all run again, uncharged.
/// - The I/O process may take a rest away: from a writer whose line is slow, or when nothing is to be started any more.
/// - What a line led to is in the ring before its bit is set. So a bit that is seen means that its outcome can be read;
///   and the I/O process sets a bit of its own for each outcome that it reads, whose writer may have died in between.
/// - Every bitmap, ring and `running` has one writer. Nothing is locked across processes: a dead child holds nothing.
/// - A block is freed when all its lines are accounted for and no writer says that it looks at it (`at`): a writer
///   says so first and then checks that the block is still there; the I/O process takes it away first and then checks
///   that nobody says so.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace leveret::core {

inline constexpr std::uint32_t kAllLane = 0;
inline constexpr std::uint32_t kQuarantineLane = 1;
inline constexpr std::uint32_t kFirstLane = 2;  // its bell is lane 0's
inline constexpr std::uint32_t kLanes = 3;
inline constexpr std::uint64_t kLaneEntries = 1024;
inline constexpr std::size_t kRingBytes = 256u << 10;
inline constexpr std::uint64_t kCancelledIds = 16'384;
/// Address space, not memory: pages that nobody wrote to cost nothing.
inline constexpr std::size_t kArenaBytes = 512u << 20;

/// Names a block for ever: its place in its lane, and the lane. Never 0.
using block_key = std::uint64_t;
[[nodiscard]] constexpr block_key make_key(std::uint32_t lane, std::uint64_t number) noexcept {
  return number * kLanes + lane;
}
[[nodiscard]] constexpr std::uint32_t lane_of(block_key key) noexcept {
  return static_cast<std::uint32_t>(key % kLanes);
}

/// A line of a block, in one word: what a writer runs. 0: nothing.
using packed_line = std::uint64_t;
inline constexpr unsigned kLineBits = 22;                          // a message of 1 MiB has at most 2^20 lines
inline constexpr std::uint32_t kClaiming = (1u << kLineBits) - 1;  // in place of the line's number
[[nodiscard]] constexpr packed_line pack(block_key key, std::uint32_t line) noexcept { return key << kLineBits | line; }
[[nodiscard]] constexpr block_key key_of(packed_line packed) noexcept { return packed >> kLineBits; }
[[nodiscard]] constexpr std::uint32_t line_of(packed_line packed) noexcept {
  return static_cast<std::uint32_t>(packed & kClaiming);
}

/// Lines that a writer took and has not started, in one word: they follow the one that runs. 0: none.
using packed_rest = std::uint64_t;
[[nodiscard]] constexpr packed_rest pack_rest(block_key key, std::uint32_t next, std::uint32_t end) noexcept {
  return next < end ? key << (2 * kLineBits) | std::uint64_t{next} << kLineBits | end : 0;
}
/// Whether they are of this block: what is kept of its key tells it from all others that can be there at a time.
[[nodiscard]] constexpr bool is_rest_of(packed_rest rest, block_key key) noexcept {
  return rest != 0 && rest >> (2 * kLineBits) == (key << (2 * kLineBits)) >> (2 * kLineBits);
}
[[nodiscard]] constexpr std::uint32_t next_of(packed_rest rest) noexcept {
  return static_cast<std::uint32_t>(rest >> kLineBits) & kClaiming;
}
[[nodiscard]] constexpr std::uint32_t end_of(packed_rest rest) noexcept {
  return static_cast<std::uint32_t>(rest) & kClaiming;
}

struct shared_lane {
  struct entry {
    std::atomic<block_key> key;  ///< 0: none
    std::atomic<std::uint64_t> block;
  };
  std::atomic<std::uint32_t> bell;              ///< a futex: changes when there may be something to do
  alignas(64) std::atomic<std::uint64_t> tail;  ///< the number of the next block
  alignas(64) std::atomic<std::uint64_t> head;  ///< no block below it has a line to start; a hint
  entry entries[kLaneEntries];
};

struct shared_header {
  std::uint64_t magic;
  std::uint64_t bytes;
  std::uint32_t children;  ///< the last one is the quarantine child
  std::uint32_t threads;   ///< of each child
  std::uint32_t parked;    ///< attempts of each child that may go on without a thread
  std::int32_t parent;     ///< the I/O process's id

  // The settings of attempts (run_settings).
  std::int32_t max_retries;
  std::int64_t backoff_base_ms;
  std::int64_t backoff_cap_ms;
  std::int64_t unknown_task_patience_ms;
  char worker[512];
  char default_task[256];

  std::atomic<bool> stopping;         ///< what handlers see
  std::atomic<std::uint32_t> closed;  ///< children end when nothing is left to start
  std::atomic<std::uint32_t> news;    ///< 1: the I/O process was told to look, and has not begun to
  shared_lane lanes[kLanes];

  // Ids of jobs that are to end as cancelled, the newest: a ring.
  alignas(64) std::atomic<std::uint64_t> cancelled;  ///< how many there were, ever
  struct cancelled_id {
    std::uint8_t size;
    char text[255];
  } cancelled_ids[kCancelledIds];
};

enum class child_state : std::uint32_t { starting, ready, ending };

struct alignas(64) shared_child {
  std::atomic<std::uint32_t> state;    ///< child_state; the child's
  std::atomic<std::uint32_t> retired;  ///< 1: starts no more lines and ends; the I/O process's
};

struct alignas(64) shared_writer {
  std::atomic<block_key> at;           ///< the block it looks at; 0: none
  std::atomic<packed_line> running;    ///< what it runs
  std::atomic<packed_rest> rest;       ///< what it runs next, unless the I/O process takes it away
  std::atomic<std::int64_t> limit;     ///< when its line must have ended, steady clock in ns; 0: no limit
  std::atomic<std::uint64_t> started;  ///< lines, ever
  std::atomic<std::int32_t> fault;     ///< the signal that its thread caused; 0: none

  alignas(64) std::atomic<std::uint64_t> written;  ///< bytes put into the ring, ever
  alignas(64) std::atomic<std::uint64_t> read;     ///< bytes taken out, ever; the I/O process's
  std::atomic<std::uint32_t> space;                ///< a futex: changes when bytes were taken out
  std::atomic<std::uint32_t> blocked;              ///< the writer waits for that, or is about to
};

struct alignas(16) shared_parked {
  std::atomic<packed_line> running;
  std::atomic<std::int64_t> limit;
};

/// A message, or some lines of one that run again. Followed by: the original index of each line if `renumbered`, the
/// lines' offsets (one more than there are lines), the bitmaps (one a writer, and the I/O process's own), message id,
/// queue, reply address, and the body with body::kPadding bytes behind it.
struct shared_block {
  block_key key;
  std::uint64_t bytes;
  std::uint32_t lines;
  std::uint32_t words;  ///< of a bitmap
  std::uint32_t id_size;
  std::uint32_t queue_size;
  std::uint32_t body_size;
  std::uint32_t bitmaps;
  std::int64_t unknown_since;
  std::uint32_t reply_size;  ///< 0: nobody wants results
  std::uint32_t renumbered;
  alignas(64) std::atomic<std::uint32_t> cursor;
  std::atomic<std::uint32_t> complete;  ///< 1: every line's bit is set
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free &&
                  std::atomic<bool>::is_always_lock_free,
              "shared between processes");

/// A view of a block's parts.
class block_view {
 public:
  block_view() = default;
  explicit block_view(shared_block* block) noexcept : block_(block) {}

  [[nodiscard]] static std::size_t bytes_for(std::uint32_t lines, std::uint32_t bitmaps, std::size_t id,
                                             std::size_t queue, std::size_t reply, std::size_t body,
                                             bool renumbered) noexcept;

  [[nodiscard]] shared_block& head() const noexcept { return *block_; }
  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }
  /// The line's index in its message.
  [[nodiscard]] std::uint32_t index(std::uint32_t line) const noexcept {
    return block_->renumbered != 0 ? indexes()[line] : line;
  }
  [[nodiscard]] std::uint32_t* indexes() const noexcept;
  [[nodiscard]] std::uint32_t* offsets() const noexcept;
  /// A line of `words` per writer, aligned so that no two writers share a cache line.
  [[nodiscard]] std::atomic<std::uint64_t>* bitmap(std::uint32_t writer) const noexcept;
  [[nodiscard]] char* id() const noexcept;
  [[nodiscard]] char* queue() const noexcept;
  [[nodiscard]] char* reply() const noexcept;
  [[nodiscard]] char* body() const noexcept;

  void set_ended(std::uint32_t writer, std::uint32_t line) const noexcept { set_bit(bitmap(writer), line); }
  static void set_bit(std::atomic<std::uint64_t>* bitmap, std::uint32_t line) noexcept {
    std::atomic<std::uint64_t>& word = bitmap[line / 64];
    word.store(word.load(std::memory_order_relaxed) | std::uint64_t{1} << line % 64, std::memory_order_release);
  }
  [[nodiscard]] bool has_ended(std::uint32_t line) const noexcept;
  /// Whether every line has ended, as far as it can be seen from here.
  [[nodiscard]] bool all_ended() const noexcept;

 private:
  [[nodiscard]] std::size_t bitmap_stride() const noexcept { return (std::size_t{block_->words} + 7u) / 8u * 8u; }
  [[nodiscard]] char* at(std::size_t offset) const noexcept { return reinterpret_cast<char*>(block_) + offset; }
  [[nodiscard]] std::size_t offsets_at() const noexcept;
  [[nodiscard]] std::size_t bitmaps_at() const noexcept;
  [[nodiscard]] std::size_t id_at() const noexcept;

  shared_block* block_ = nullptr;
};

/// The mapped region.
class shared_state {
 public:
  struct shape {
    std::uint32_t children = 2;  ///< with the quarantine child
    std::uint32_t threads = 1;
    std::uint32_t parked = 0;
  };
  /// Makes the region. Throws std::runtime_error.
  explicit shared_state(shape s);
  /// Maps the region of another process. Throws std::runtime_error: it is none, or of another version.
  explicit shared_state(int memory);
  ~shared_state();
  shared_state(const shared_state&) = delete;
  shared_state& operator=(const shared_state&) = delete;

  [[nodiscard]] int memory() const noexcept { return memory_; }
  [[nodiscard]] shared_header& header() const noexcept { return *reinterpret_cast<shared_header*>(base_); }
  [[nodiscard]] std::uint32_t writers_per_child() const noexcept { return header().threads + 1; }
  [[nodiscard]] std::uint32_t writers() const noexcept { return header().children * writers_per_child(); }
  [[nodiscard]] std::uint32_t first_writer(std::uint32_t child) const noexcept { return child * writers_per_child(); }
  [[nodiscard]] shared_child& child(std::uint32_t i) const noexcept;
  [[nodiscard]] shared_writer& writer(std::uint32_t i) const noexcept;
  [[nodiscard]] shared_parked& parked(std::uint32_t child, std::uint32_t i) const noexcept;
  [[nodiscard]] char* ring(std::uint32_t writer) const noexcept;
  [[nodiscard]] std::uint64_t arena() const noexcept { return arena_at_; }
  [[nodiscard]] block_view block(std::uint64_t offset) const noexcept {
    return block_view(reinterpret_cast<shared_block*>(base_ + offset));
  }
  /// Gives a range of whole pages back to the system; it reads as zeros afterwards.
  void discard(std::uint64_t offset, std::uint64_t bytes) const noexcept;

 private:
  void lay_out(shape s) noexcept;

  int memory_ = -1;
  char* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint64_t children_at_ = 0;
  std::uint64_t writers_at_ = 0;
  std::uint64_t parked_at_ = 0;
  std::uint64_t rings_at_ = 0;
  std::uint64_t arena_at_ = 0;
};

/// Sleeps while `word` is `value`, for at most `milliseconds` (0: for ever). May return early.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::uint32_t milliseconds = 0) noexcept;
void futex_wake(const std::atomic<std::uint32_t>& word, int sleepers) noexcept;

}  // namespace leveret::core
