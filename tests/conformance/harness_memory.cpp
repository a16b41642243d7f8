#include <atomic>

#include "conformance/side.hpp"
#include "transports/memory/faults.hpp"

namespace leveret::conformance {
namespace {

class memory_consumer final : public other_consumer {
 public:
  memory_consumer(harness& h, const std::string& queue, core::window w) : side_(h), consumer_(side_, queue, w) {}

  std::vector<std::string> take(std::size_t count) override {
    consumer_.wait_delivered(count);
    return consumer_.ids();
  }
  void vanish() override { core::kill_memory_transport(side_.transport()); }
  void lose(after_loss then) override {
    if (then == after_loss::takes_nothing) consumer_.unsubscribe();
    core::lose_memory_deliveries(side_.transport());
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
  side side_;
  consumer consumer_;
};

class memory_harness final : public harness {
 public:
  std::unique_ptr<core::transport> open(core::loop& l, const core::limits& lim) override {
    return core::open_memory(url_, l, lim);
  }
  std::string unique(const std::string& name) override { return name; }
  std::unique_ptr<other_consumer> consume(const std::string& queue, core::window w) override {
    return std::make_unique<memory_consumer>(*this, queue, w);
  }

 private:
  static std::string fresh_url() {
    static std::atomic<int> last{0};
    return "memory://conformance-" + std::to_string(++last);
  }
  const std::string url_ = fresh_url();
  // A broker in memory is gone when its last transport is closed: this one stays as long as the test.
  core::thread_loop loop_;
  const std::unique_ptr<core::transport> keeper_ = core::open_memory(url_, loop_, {});
};

traits promises() {
  traits t;
  t.due_granularity = std::chrono::milliseconds(5);
  return t;
}

}  // namespace

kind memory_kind() {
  return {"memory", promises(), [] { return std::make_unique<memory_harness>(); }};
}
}  // namespace leveret::conformance
