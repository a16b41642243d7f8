#include <atomic>
#include <random>
#include <thread>

#include "conformance/side.hpp"
#include "cpp/support/program.hpp"
#include "ordered.hpp"

namespace leveret::conformance {
namespace {

using testing_support::proxy;
using testing_support::rabbitmq_node;

class direct_harness : public harness {
 public:
  explicit direct_harness(std::string url) : url_(std::move(url)) {}
  std::unique_ptr<core::transport> open(core::loop& l, const core::limits& lim) override {
    return core::open_rabbitmq(url_, l, lim);
  }
  std::string unique(const std::string& name) override {
    // All tests share a broker, and perhaps several runs.
    static const std::string run = std::to_string(std::random_device{}());
    static std::atomic<int> last{0};
    return name + "-" + run + "-" + std::to_string(++last);
  }
  std::unique_ptr<other_consumer> consume(const std::string&, core::window) override {
    throw std::logic_error("a consumer's harness makes no consumers");
  }
  [[nodiscard]] core::limits test_limits() const override {
    core::limits lim;
    lim.reconnect_max = std::chrono::milliseconds(500);
    lim.connect_timeout = kPatience;
    return lim;
  }

 private:
  const std::string url_;
};

// A consumer behind a proxy of its own, so that its connections can be cut while it lives on.
class proxied_consumer final : public other_consumer {
 public:
  proxied_consumer(const std::string& queue, core::window w)
      : proxy_(rabbitmq_node::shared().port()),
        harness_(rabbitmq_node::shared().url_at(proxy_.port())),
        side_(harness_),
        queue_(queue),
        consumer_(side_, queue, w) {}
  ~proxied_consumer() override {
    // Else what it asks by itself is waited for, for as long as it has no connection.
    if (vanished_) side_.transport().close(side_.loop().now());
  }

  std::vector<std::string> take(std::size_t count) override {
    consumer_.wait_delivered(count);
    return consumer_.ids();
  }
  // To the broker a killed process and a reset connection are the same; it notices a little later, and the test goes on
  // when it has.
  void vanish() override {
    vanished_ = true;
    // An ordered queue counts the active consumer alone: its number does not fall when the next one takes over.
    if (core::is_ordered(queue_)) {
      lose(after_loss::takes_nothing);
      return;
    }
    direct_harness direct(rabbitmq_node::shared().url());
    side broker(direct);
    const auto consumers = [&] { return broker.must_stats(queue_).consumers.value_or(0); };
    const auto before = consumers();
    lose(after_loss::takes_nothing);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (consumers() >= before && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  }
  void lose(after_loss then) override {
    proxy_.command("refuse");
    proxy_.command("reset");
    if (then == after_loss::goes_on) proxy_.command("accept");
  }
  void wait_told(std::size_t count) override { (void)consumer_.wait_lost(count); }
  std::vector<core::settle_status> settle_late(const std::string& reply) override {
    std::vector<core::settlement> late;
    for (const core::delivery& d : consumer_.next(consumer_.delivered())) {
      core::settlement s;
      s.token = d.token;
      s.results.push_back(make_chunk(d.msg.id, reply, 1, "\"late\""));
      late.push_back(std::move(s));
    }
    std::vector<core::settle_status> statuses;
    for (const core::settle_outcome& outcome : side_.settle(std::move(late))) statuses.push_back(outcome.status);
    return statuses;
  }

 private:
  proxy proxy_;
  direct_harness harness_;
  side side_;
  const std::string queue_;
  consumer consumer_;
  bool vanished_ = false;
};

class rabbitmq_harness final : public direct_harness {
 public:
  rabbitmq_harness() : direct_harness(rabbitmq_node::shared().url()) {}
  std::unique_ptr<other_consumer> consume(const std::string& queue, core::window w) override {
    return std::make_unique<proxied_consumer>(queue, w);
  }
};

traits promises() {
  traits t;
  t.release_is_uncharged = false;
  t.deduplicates = false;
  t.counts_dead_jobs = false;
  // The unit of the delay levels, and some milliseconds for each of at most a few levels.
  t.due_granularity = std::chrono::milliseconds(400);
  return t;
}

}  // namespace

kind rabbitmq_kind() {
  return {"rabbitmq", promises(), [] { return std::make_unique<rabbitmq_harness>(); }};
}
}  // namespace leveret::conformance
