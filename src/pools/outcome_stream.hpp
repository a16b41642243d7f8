/// What a child says to the I/O process: outcomes of lines and, once, its tasks. Records in the writers' rings, each a
/// length (32 bits), then its fields; texts as a length and bytes; numbers as the machine has them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "../attempt.hpp"
#include "shared_state.hpp"

namespace leveret::core {

struct outcome_record {
  enum class kind : std::uint8_t { result = 1, failure = 2, task = 3, fact = 4, progress = 5 };

  kind what = kind::result;
  packed_line line = 0;        ///< where it belongs
  std::string_view result_id;  ///< progress: the job's id; result: empty for the line's own message's
  std::uint32_t result_line = 0;
  std::string_view json;  ///< result, or progress
  failed_line failure;
  std::string_view dead_reason;  ///< progress: the reply address
  std::uint32_t attempts = 0;
};

/// A task as a child describes it.
struct described_task {
  std::string name;
  std::string queue;
  std::int32_t max_retries = -1;
  std::int64_t hard_limit_ms = 0;
  std::string signature;
  std::string source;
};

/// What a child says of itself before it is ready.
struct child_description {
  std::vector<described_task> tasks;
  std::map<std::string, std::string> facts;
};

/// Puts records into a ring. One thread at a time.
class outcome_writer {
 public:
  /// `news`: an eventfd that wakes the I/O process.
  outcome_writer(const shared_state& state, std::uint32_t writer, int news)
      : state_(state), writer_(writer), news_(news) {}

  void result(packed_line line, const job_identity& who, std::string_view json);
  void failure(packed_line line, const job_identity& who, const failed_line& failed, std::string_view dead_reason,
               std::uint32_t attempts);
  void progress(std::string_view job_id, std::string_view reply, std::string_view body);
  void task(const described_task& t);
  void fact(std::string_view name, std::string_view value);
  /// Has the I/O process look.
  void notify() const noexcept;

 private:
  void begin(outcome_record::kind what);
  template <class T>
  void number(T value) {
    buffer_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view bytes);
  /// Blocks while the ring is full, until the I/O process has read from it.
  void send();

  const shared_state& state_;
  std::uint32_t writer_;
  int news_;
  std::string buffer_;
};

/// Takes records out of a ring. The I/O process's.
class outcome_reader {
 public:
  /// Calls `then` with each whole outcome, whose views live until `then` returns; adds the rest to `said`.
  template <class Then>
  void read(const shared_state& state, std::uint32_t writer, Then&& then, child_description& said) {
    take(state, writer);
    std::size_t at = 0;
    std::string_view bytes;
    while (next(at, bytes)) {
      outcome_record r;
      if (parse(bytes, r, said)) then(r);
    }
    kept_.erase(0, at);
  }
  /// The writer's process ended: what it had not finished writing is dropped.
  void reset(const shared_state& state, std::uint32_t writer) noexcept;

 private:
  void take(const shared_state& state, std::uint32_t writer);
  [[nodiscard]] bool next(std::size_t& at, std::string_view& record) const noexcept;
  /// True: an outcome; false: something else, added to `said`.
  static bool parse(std::string_view record, outcome_record& out, child_description& said);

  std::string kept_;  // the beginning of a record whose end is not there yet
};

}  // namespace leveret::core
