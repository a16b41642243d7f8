#include <memory>
#include <string>
#include <utility>

#include "conformance/side.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/program.hpp"
#include "results_store.hpp"

namespace leveret::conformance {
namespace {

class stored_harness final : public harness {
 public:
  stored_harness(std::unique_ptr<harness> broker, std::string store)
      : broker_(std::move(broker)), store_(std::move(store)) {}

  std::unique_ptr<core::transport> open(core::loop& l, const core::limits& lim) override {
    return core::with_results(broker_->open(l, lim), core::open_results_store(store_, l, lim), l, lim);
  }
  std::string unique(const std::string& name) override { return broker_->unique(name); }
  std::unique_ptr<other_consumer> consume(const std::string& queue, core::window w) override {
    return broker_->consume(queue, w);
  }
  [[nodiscard]] core::limits test_limits() const override { return broker_->test_limits(); }

 private:
  const std::unique_ptr<harness> broker_;
  const std::string store_;
};

}  // namespace

kind rabbitmq_with_sqlite_kind() {
  kind k = rabbitmq_kind();
  k.name = "rabbitmq_with_sqlite";
  k.promises.replay_claims = false;
  k.make = [make = k.make] {
    static const test::folder files;
    return std::make_unique<stored_harness>(make(), files.url("store.db"));
  };
  return k;
}

kind rabbitmq_with_redis_kind() {
  kind k = rabbitmq_kind();
  k.name = "rabbitmq_with_redis";
  k.promises.windows_by_loop = false;
  k.promises.replay_claims = false;
  k.make = [make = k.make] {
    static const testing_support::redis_server server;
    return std::make_unique<stored_harness>(make(), server.url());
  };
  return k;
}

}  // namespace leveret::conformance
