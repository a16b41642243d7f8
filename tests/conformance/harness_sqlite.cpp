// A file per harness; the other consumers are processes of their own, killed and stopped for real.
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <sstream>

#include "conformance/side.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/puppet.hpp"

namespace leveret::conformance {
namespace {

// Of the other consumers, who are to lose what they hold. The tests' own sides have the usual one: a busy machine may
// keep their threads from running for a second.
constexpr std::chrono::milliseconds kLease{1000};

class sqlite_consumer final : public other_consumer {
 public:
  sqlite_consumer(harness& h, const std::string& url, const std::string& queue, core::window w)
      : harness_(h), queue_(queue) {
    puppet_.ask("open", url, std::to_string(kLease.count()));
    puppet_.ask("subscribe", queue, std::to_string(w.messages), std::to_string(w.bytes));
  }

  std::vector<std::string> take(std::size_t count) override {
    std::istringstream answer(puppet_.ask("take", std::to_string(count)));
    std::vector<std::string> ids;
    for (std::string id; answer >> id;) ids.push_back(id);
    return ids;
  }
  void vanish() override {
    puppet_.signal(SIGKILL);
    (void)puppet_.wait_ended();
  }
  void lose(after_loss then) override {
    if (then == after_loss::takes_nothing) puppet_.ask("unsubscribe");
    puppet_.signal(SIGSTOP);
    puppet_.wait_stopped();
    if (then == after_loss::takes_nothing) return;  // who consumes the queue next sees that it is stopped
    side observer(harness_);
    const std::string elsewhere = harness_.unique("elsewhere");
    observer.must_declare(elsewhere);
    const consumer c(observer, elsewhere, {});
    EXPECT_TRUE(observer.stats_become(queue_, [](const core::queue_stats& q) { return q.running == 0u; }));
  }
  void wait_told(std::size_t count) override {
    puppet_.signal(SIGCONT);
    puppet_.ask("lost", std::to_string(count));
  }
  std::vector<core::settle_status> settle_late(const std::string& reply) override {
    puppet_.signal(SIGCONT);
    std::istringstream answer(puppet_.ask("settle", reply));
    std::vector<core::settle_status> statuses;
    for (std::string status; answer >> status;) {
      statuses.push_back(status == "settled"  ? core::settle_status::settled
                         : status == "fenced" ? core::settle_status::fenced
                                              : core::settle_status::failed);
    }
    return statuses;
  }

 private:
  harness& harness_;
  const std::string queue_;
  test::puppet puppet_;
};

class sqlite_harness final : public harness {
 public:
  std::unique_ptr<core::transport> open(core::loop& l, const core::limits& lim) override {
    return core::open_sqlite(folder_.url(), l, lim);
  }
  std::string unique(const std::string& name) override { return name; }
  std::unique_ptr<other_consumer> consume(const std::string& queue, core::window w) override {
    return std::make_unique<sqlite_consumer>(*this, folder_.url(), queue, w);
  }

 private:
  const test::folder folder_;
};

traits promises() {
  traits t;
  t.remembers_settled = false;  // an id is free again when its message has ended; workers remember for longer
  return t;
}

}  // namespace

kind sqlite_kind() {
  return {"sqlite", promises(), [] { return std::make_unique<sqlite_harness>(); }};
}
}  // namespace leveret::conformance
