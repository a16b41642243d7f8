/// What a transport brings to be accepted: a broker or namespace of its own for each test, and the faults that can be
/// done to its consumers. One harness_<transport>.cpp each; main.cpp lists them.
///
/// A transport may promise less where transport.hpp leaves it the choice: `traits` says so, and the tests then hold it
/// to what remains.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport.hpp"

namespace leveret::conformance {

struct traits {
  /// A release, an unsubscribe and a clean close leave `returns` as it was.
  bool release_is_uncharged = true;
  /// A window's bytes are kept exactly; else only its messages are.
  bool byte_window = true;
  /// A message published again with the same id is stored once.
  bool deduplicates = true;
  /// Also when the first one was settled lately.
  bool remembers_settled = true;
  /// Stats and purge count dead jobs; else the messages that hold them (several records of one settlement in one).
  bool counts_dead_jobs = true;
  /// Windows of claims go by the loop's wall clock; else by a server's.
  bool windows_by_loop = true;
  /// A job that is replayed claims its key again.
  bool replay_claims = true;
  /// How late a message with a due time may come, besides what the machine takes.
  std::chrono::milliseconds due_granularity{50};
};

enum class after_loss { takes_nothing, goes_on };

/// A consumer of another process, or as good as one, that faults can be done to. It takes and never settles by itself.
class other_consumer {
 public:
  other_consumer() = default;
  other_consumer(const other_consumer&) = delete;
  other_consumer& operator=(const other_consumer&) = delete;
  virtual ~other_consumer() = default;

  /// Waits until it holds `count` messages. Gives their ids in the order handed out.
  virtual std::vector<std::string> take(std::size_t count) = 0;
  /// Ends it as kill -9 would. Nothing is called after that.
  virtual void vanish() = 0;
  /// Lets its deliveries be taken away while it lives: its connection is cut, or it is stopped past its lease. Returns
  /// when the broker may hand the messages out again, or is about to.
  virtual void lose(after_loss then) = 0;
  /// After `lose`: lets it go on, and waits until `on_lost` has named `count` deliveries.
  virtual void wait_told(std::size_t count) = 0;
  /// After `lose`: settles all that it had taken, each with a result line `"late"` for `reply`; the outcomes' statuses.
  virtual std::vector<core::settle_status> settle_late(const std::string& reply) = 0;
};

class harness {
 public:
  harness() = default;
  harness(const harness&) = delete;
  harness& operator=(const harness&) = delete;
  virtual ~harness() = default;

  /// Transports opened by one harness share a broker, and with no other's.
  [[nodiscard]] virtual std::unique_ptr<core::transport> open(core::loop& l, const core::limits& lim) = 0;
  /// A name that no other test uses, where the broker is shared.
  [[nodiscard]] virtual std::string unique(const std::string& name) = 0;
  [[nodiscard]] virtual std::unique_ptr<other_consumer> consume(const std::string& queue, core::window w) = 0;
  /// Limits with times short enough for tests.
  [[nodiscard]] virtual core::limits test_limits() const { return {}; }
};

struct kind {
  std::string name;
  traits promises;
  std::function<std::unique_ptr<harness>()> make;
};

// One each, in its harness' source.
[[nodiscard]] kind memory_kind();
[[nodiscard]] kind sqlite_kind();
[[nodiscard]] kind rabbitmq_kind();
/// RabbitMQ with a store beside it, for what it can't do alone.
[[nodiscard]] kind rabbitmq_with_sqlite_kind();
[[nodiscard]] kind rabbitmq_with_redis_kind();

}  // namespace leveret::conformance
