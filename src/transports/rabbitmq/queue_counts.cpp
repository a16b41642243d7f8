#include "queue_counts.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "topology.hpp"

namespace leveret::core::rabbitmq {
namespace {

// The broker waits for 250 ms.
constexpr std::chrono::milliseconds kMadeUp{200};
// Less behind the measured way, which may have been measured too long by a busy machine.
constexpr std::chrono::milliseconds kBehindWay{100};
constexpr int kWays = 5;

struct question {
  ask_broker ask;
  std::string queue;
  on_counts then;
  reactor::clock::time_point asked;
  /// What an answer takes on its way at least, as far as it was measured.
  reactor::clock::duration way = reactor::clock::duration::max();
};
using question_ptr = std::shared_ptr<question>;

void ask_queue(const question_ptr& q);

/// Measures the way by what the broker answers without the queue's leader, some times over: the shortest counts.
void measure_way(const question_ptr& q, int times) {
  if (times == 0) {
    ask_queue(q);
    return;
  }
  amqp_exchange_declare_t e{};
  e.exchange = amqp_cstring_bytes("amq.direct");
  e.type = amqp_cstring_bytes("direct");
  e.passive = 1;
  q->asked = reactor::clock::now();
  q->ask(AMQP_EXCHANGE_DECLARE_METHOD, &e, [q, times](const call_result& r) {
    if (!r.done()) {
      q->then(r, {});
      return;
    }
    q->way = std::min(q->way, reactor::clock::now() - q->asked);
    measure_way(q, times - 1);
  });
}

void ask_queue(const question_ptr& q) {
  declaration d = declaration::passive(q->queue);
  q->asked = reactor::clock::now();
  q->ask(AMQP_QUEUE_DECLARE_METHOD, d.method(), [q](const call_result& r) {
    if (!r.done()) {
      q->then(r, {});
      return;
    }
    const auto& ok = *static_cast<const amqp_queue_declare_ok_t*>(r.method->decoded);
    const auto took = reactor::clock::now() - q->asked;
    const bool measured = q->way != reactor::clock::duration::max();
    const bool soon = took < kMadeUp || (measured && took < q->way + kBehindWay);
    if (ok.message_count != 0 || ok.consumer_count != 0 || soon) {
      q->then(r, {ok.message_count, ok.consumer_count});
      return;
    }
    measure_way(q, measured ? 1 : kWays);
  });
}

}  // namespace

void ask_counts(const ask_broker& ask, const std::string& queue, on_counts then) {
  ask_queue(std::make_shared<question>(question{ask, queue, std::move(then), {}, reactor::clock::duration::max()}));
}

}  // namespace leveret::core::rabbitmq
