// Results in Redis: every call is posted to the one I/O thread, every answer to the loop.
//
// A call becomes commands, one for each chunk or message id, sent behind one another without waiting (pipelined).
// Commands may be given twice without harm, so what a lost connection left unanswered is sent again on the next one,
// until the call's deadline; then its caller hears why, and tries again or gives up.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <leveret/error.hpp>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "../../ids.hpp"
#include "../../results_store.hpp"
#include "../../retry.hpp"
#include "connection.hpp"
#include "operation.hpp"

namespace leveret::core {
namespace redis {
namespace {

constexpr std::size_t kWriteAhead = 1u << 20;  // bytes handed to a connection that it has not written yet

class redis_store final : public results_store {
 public:
  redis_store(const std::string& url, loop& l, const limits& lim)
      : endpoint_(parse_url(url)),
        where_(endpoint_.where()),
        limits_(lim),
        ttl_seconds_(std::to_string(std::max<std::int64_t>(1, lim.result_ttl.count()))),
        loop_(l),
        random_(lim.seed != 0 ? seeded_random(lim.seed) : system_random()) {
    reactor_.set_round_hook([this] { close_when_done(); });
  }
  ~redis_store() override { close(loop_.now()); }

  /// Connects, or throws.
  void open() {
    reactor_.start("leveret-redis");
    reactor_.post([this] {
      connect();
      tick();
    });
    std::string why;
    {
      std::unique_lock lock(first_mutex_);
      first_told_.wait(lock, [this] { return first_done_; });  // the attempt has a timeout itself
      why = first_why_;
    }
    if (why.empty()) return;
    close(loop_.now());
    throw broker_unavailable("cannot connect to the results store " + where_ + ": " + why);
  }

  [[nodiscard]] std::string where() const override { return where_; }
  [[nodiscard]] health how_it_is() const override {
    const std::lock_guard lock(health_mutex_);
    return health_;
  }

  void keep(std::vector<result_chunk> results, kept then) override {
    hand_in(std::make_shared<operation>(std::move(results), std::move(then)));
  }
  void fetch(std::vector<std::string> message_ids, transport::reply<std::vector<result_chunk>> then) override {
    hand_in(std::make_shared<operation>(std::move(message_ids), std::move(then)));
  }

  void exchange(exchanged_value what, transport::reply<std::string> then) override {
    hand_in(std::make_shared<operation>(std::move(what), std::move(then)));
  }

  void close(loop::clock::time_point deadline) override {
    const std::lock_guard lock(close_mutex_);
    if (ended_) return;
    ended_ = true;
    // The loop's clock may be a test's; the I/O thread has a real one.
    const auto until = net::reactor::clock::now() + std::max(loop::clock::duration::zero(), deadline - loop_.now());
    reactor_.post([this, until] { begin_close(until); });
    {
      std::unique_lock closed_lock(first_mutex_);
      closed_told_.wait(closed_lock, [this] { return closed_; });
    }
    reactor_.stop();
    std::vector<operation_ptr> late;
    {
      const std::lock_guard calls(calls_mutex_);
      thread_ended_ = true;
      late.swap(calls_);
    }
    for (const operation_ptr& op : late) refuse_closed(*op);
  }

 private:
  using operation_ptr = std::shared_ptr<operation>;
  enum class phase { open, draining, closed };
  struct sent_command {
    operation_ptr op;  // null: a PING
    std::size_t index = 0;
  };

  void hand_in(operation_ptr op) {
    {
      const std::lock_guard lock(calls_mutex_);
      if (!thread_ended_) {
        calls_.push_back(std::move(op));
        if (calls_.size() == 1) reactor_.post([this] { take_calls(); });
        return;
      }
    }
    refuse_closed(*op);
  }

  void refuse_closed(operation& op) {
    op.fail(errc::closed, "the store is closed; open it again", where_);
    op.tell(loop_);
  }

  void take_calls() {
    std::vector<operation_ptr> calls;
    {
      const std::lock_guard lock(calls_mutex_);
      calls.swap(calls_);
    }
    for (const operation_ptr& op : calls) {
      if (phase_ != phase::open) {
        refuse_closed(*op);
      } else if (op->all_answered()) {
        op->tell(loop_);  // asked for nothing
      } else {
        op->deadline = reactor_.after(limits_.connect_timeout, [this, op] { too_late(op); });
        open_.insert(op);
        waiting_.push_back(op);
      }
    }
    pump();
  }

  // Hands commands to the connection, as many as it may hold.
  void pump() {
    while (up_ && !waiting_.empty() && connection_->unsent() < kWriteAhead) {
      const operation_ptr op = waiting_.front();
      if (op->ended || op->all_sent()) {
        waiting_.pop_front();
        continue;
      }
      const std::size_t index = op->take_next();
      op->encode(index, ttl_seconds_, [this](const command& words) { connection_->send(words); });
      sent_.push_back({op, index});
    }
  }

  void answered(const reply& got) {
    const sent_command oldest = std::move(sent_.front());
    sent_.pop_front();
    if (got.is_error() && (got.text.find("READONLY") != std::string::npos)) {
      // After a failover the name may lead to another server; this connection stays with the replica.
      reactor_.at_round_end([lost = connection_] { lost->cut("the server has become a replica"); });
    }
    if (!oldest.op || oldest.op->ended) return;
    oldest.op->answer(oldest.index, got, where_);
    if (oldest.op->all_answered()) end(oldest.op);
  }

  void end(const operation_ptr& op) {
    op->ended = true;
    reactor_.cancel(op->deadline);
    open_.erase(op);
    op->tell(loop_);
  }

  void too_late(const operation_ptr& op) {
    op->fail(errc::broker_unavailable,
             up_ ? "no answer within " + std::to_string(limits_.connect_timeout.count()) + " ms" : detail_, where_);
    end(op);
  }

  // ---- the connection ----

  void connect() {
    detail_ = detail_.empty() ? "connecting" : detail_;
    // Half of what a call may take, so that a second connection can still answer it.
    const std::chrono::milliseconds patience =
        std::max(std::chrono::milliseconds(1), std::chrono::milliseconds(limits_.connect_timeout) / 2);
    connection_ = std::make_shared<connection>(reactor_, endpoint_, patience, "leveret-" + std::to_string(::getpid()));
    connection* const attempt = connection_.get();
    timer_ = reactor_.after(limits_.connect_timeout, [this, attempt] {
      attempt->cut("no answer within " + std::to_string(limits_.connect_timeout.count()) + " ms" +
                   (endpoint_.tls ? " (is it a TLS port?)" : ""));
    });
    connection::events e;
    e.on_open = [this] {
      reactor_.cancel(timer_);
      up_ = true;
      failures_ = 0;
      detail_.clear();
      update_health();
      tell_first({});
      pump();
    };
    e.on_lost = [this](const std::string& why) { lost(why); };
    e.on_reply = [this](const reply& got) { answered(got); };
    e.on_written = [this] { pump(); };
    connection_->open(std::move(e));
  }

  void lost(const std::string& why) {
    reactor_.cancel(timer_);
    up_ = false;
    detail_ = why;
    // Whoever called into it may still be inside.
    reactor_.at_round_end([old = std::move(connection_)] {});
    connection_ = nullptr;
    // In the order in which they were sent, before what waits.
    for (auto at = sent_.rbegin(); at != sent_.rend(); ++at) {
      if (!at->op || at->op->ended) continue;
      at->op->unsend();
      if (waiting_.empty() || waiting_.front() != at->op) waiting_.push_front(at->op);
    }
    sent_.clear();
    update_health();
    tell_first(why);
    if (phase_ == phase::closed) return;
    const retry_policy policy{0, limits_.reconnect_min, limits_.reconnect_max};
    timer_ = reactor_.after(backoff(policy, failures_++, random_), [this] { connect(); });
  }

  // An idle connection is asked now and then: one that is dead in silence shall not be found by a job's result.
  void tick() {
    if (up_ && sent_.empty()) {
      connection_->send(command{"PING"});
      sent_.push_back({});
    }
    reactor_.after(limits_.heartbeat, [this] { tick(); });
  }

  void tell_first(const std::string& why) {
    const std::lock_guard lock(first_mutex_);
    if (first_done_) return;
    first_done_ = true;
    first_why_ = why;
    first_told_.notify_all();
  }

  void update_health() {
    health h;
    if (phase_ == phase::closed) {
      h.state = health_state::closed;
    } else if (!up_) {
      h.state = health_state::connecting;
      h.detail = where_ + ": " + detail_;
    }
    const std::lock_guard lock(health_mutex_);
    health_ = std::move(h);
  }

  // ---- the end ----

  void begin_close(net::reactor::clock::time_point until) {
    take_calls();  // what was called before `close` counts as accepted
    phase_ = phase::draining;
    reactor_.at(until, [this] { finish_close(); });
  }

  // At the end of every round.
  void close_when_done() {
    if (phase_ == phase::draining && open_.empty()) finish_close();
  }

  void finish_close() {
    if (phase_ == phase::closed) return;
    phase_ = phase::closed;
    while (!open_.empty()) {
      const operation_ptr op = *open_.begin();
      op->fail(errc::closed, "the store was closed first" + (up_ ? std::string() : "; " + detail_), where_);
      end(op);
    }
    if (connection_) {
      connection_->cut("closed");
    } else {
      reactor_.cancel(timer_);
    }
    update_health();
    const std::lock_guard lock(first_mutex_);
    closed_ = true;
    closed_told_.notify_all();
  }

  const endpoint endpoint_;
  const std::string where_;
  const limits limits_;
  const std::string ttl_seconds_;
  loop& loop_;
  const random_source random_;  // the I/O thread's

  net::reactor reactor_;
  // The I/O thread's own.
  std::shared_ptr<connection> connection_;
  bool up_ = false;
  std::string detail_;  // why it is down
  std::uint32_t failures_ = 0;
  net::reactor::timer_id timer_ = 0;        // of the attempt's timeout, or of the next attempt
  std::unordered_set<operation_ptr> open_;  // without an answer
  std::deque<operation_ptr> waiting_;       // with commands to send
  std::deque<sent_command> sent_;           // commands without a reply, in order
  phase phase_ = phase::open;

  mutable std::mutex health_mutex_;  // guards health_; a leaf
  health health_{health_state::connecting, {}};

  std::mutex calls_mutex_;  // guards the next two; a leaf but for the reactor's
  std::vector<operation_ptr> calls_;
  bool thread_ended_ = false;

  std::mutex close_mutex_;  // one `close` at a time; guards ended_
  bool ended_ = false;
  std::mutex first_mutex_;  // guards what the I/O thread tells those who wait for it; a leaf
  std::condition_variable first_told_;
  std::condition_variable closed_told_;
  bool first_done_ = false;
  std::string first_why_;
  bool closed_ = false;
};

}  // namespace
}  // namespace redis

std::unique_ptr<results_store> open_redis(const std::string& url, loop& l, const limits& lim) {
  auto store = std::make_unique<redis::redis_store>(url, l, lim);
  store->open();
  return store;
}

}  // namespace leveret::core
