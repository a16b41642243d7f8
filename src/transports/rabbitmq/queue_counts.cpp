#include "queue_counts.hpp"

#include <memory>
#include <utility>

#include "topology.hpp"

namespace leveret::core::rabbitmq {
namespace {

// The broker waits for 250 ms.
constexpr std::chrono::milliseconds kMadeUp{200};

struct question {
  ask_broker ask;
  std::string queue;
  on_counts then;
  reactor::clock::time_point since;
};

void ask_once(const std::shared_ptr<question>& q, on_reply then) {
  declaration d = declaration::passive(q->queue);
  q->ask(AMQP_QUEUE_DECLARE_METHOD, d.method(), std::move(then));
}

void answered(const std::shared_ptr<question>& q, const call_result& r) {
  if (!r.done()) {
    q->then(r, {});
    return;
  }
  const auto& ok = *static_cast<const amqp_queue_declare_ok_t*>(r.method->decoded);
  if (ok.message_count != 0 || ok.consumer_count != 0 || reactor::clock::now() - q->since < kMadeUp) {
    q->then(r, {ok.message_count, ok.consumer_count});
    return;
  }
  // The end of the channel is told to both: the second one passes it on.
  ask_once(q, [q](const call_result&) { q->since = reactor::clock::now(); });
  ask_once(q, [q](const call_result& second) { answered(q, second); });
}

}  // namespace

void ask_counts(const ask_broker& ask, const std::string& queue, on_counts then) {
  const auto q = std::make_shared<question>(question{ask, queue, std::move(then), reactor::clock::now()});
  ask_once(q, [q](const call_result& r) { answered(q, r); });
}

}  // namespace leveret::core::rabbitmq
