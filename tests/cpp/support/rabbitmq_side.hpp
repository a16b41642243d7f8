/// One side of a conversation with a RabbitMQ node: a loop, a transport on it, and calls that wait.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp/support/program.hpp"
#include "ids.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

namespace leveret::testing_support {

using namespace std::chrono_literals;
using core::body;
using core::browse_page;
using core::delivery;
using core::delivery_token;
using core::failure;
using core::limits;
using core::maybe_failure;
using core::message;
using core::publish_outcome;
using core::publish_status;
using core::queue_stats;
using core::settle_outcome;
using core::settle_status;
using core::settlement;
using core::subscriber;
using core::subscription_id;
using core::thread_loop;
using core::transport;
using core::window;

inline constexpr auto kPatience = 120s;  // only a failing test waits as long

inline std::string unique(const std::string& name) {
  static const core::random_source random = core::system_random();
  return name + "-" + std::to_string(random());
}

template <class T>
T wait(std::future<T>&& f, const char* what) {
  if (f.wait_for(kPatience) != std::future_status::ready) throw std::runtime_error(std::string(what) + ": no answer");
  return f.get();
}

/// Soon connected again. A busy machine may keep a side or the broker silent for seconds, which is no loss.
inline limits quick() {
  limits lim;
  lim.reconnect_max = 300ms;
  lim.heartbeat = 30s;
  lim.connect_timeout = 60s;
  return lim;
}

/// Waits for what is no event; a pause keeps it from taking the core of those who make it come true.
inline bool becomes(const std::function<bool()>& good) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!good()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

// A loop and a transport on it, with calls that wait.
class peer {
 public:
  explicit peer(const std::string& url = rabbitmq_node::shared().url(), const limits& lim = quick())
      : transport_(core::open_rabbitmq(url, loop_, lim)) {}
  ~peer() {
    close();
    loop_.stop();  // what is posted still calls the transport
  }

  transport& operator*() { return *transport_; }
  transport* operator->() { return transport_.get(); }
  thread_loop& loop() { return loop_; }
  void close() {
    if (transport_) transport_->close(loop_.now() + 60s);
  }

  transport::declared declare(const std::string& queue) {
    std::promise<std::pair<transport::declared, maybe_failure>> p;
    transport_->declare(queue, [&](transport::declared d, maybe_failure why) { p.set_value({d, std::move(why)}); });
    const auto [d, why] = wait(p.get_future(), "declare");
    if (why) throw std::runtime_error(why->text);
    return d;
  }
  std::vector<publish_outcome> publish(std::vector<message> messages, std::chrono::milliseconds within = 60s) {
    std::promise<std::vector<publish_outcome>> p;
    transport_->publish(std::move(messages), loop_.now() + within,
                        [&](std::vector<publish_outcome> o) { p.set_value(std::move(o)); });
    return wait(p.get_future(), "publish");
  }
  void must_publish(std::vector<message> messages) {
    for (const publish_outcome& o : publish(std::move(messages))) {
      ASSERT_EQ(o.status, publish_status::accepted) << o.why.text;
    }
  }
  settle_outcome settle(settlement s) {
    std::promise<settle_outcome> p;
    std::vector<settlement> one;
    one.push_back(std::move(s));
    transport_->settle(std::move(one), [&](std::vector<settle_outcome> o) { p.set_value(o.at(0)); });
    return wait(p.get_future(), "settle");
  }
  settle_outcome settle(delivery_token token) {
    settlement s;
    s.token = token;
    return settle(std::move(s));
  }
  browse_page dead(const std::string& queue, const std::string& cursor = "", std::size_t limit = 100) {
    std::promise<std::pair<browse_page, maybe_failure>> p;
    transport_->browse_dead(queue, cursor, limit, [&](browse_page page, maybe_failure why) {
      p.set_value({std::move(page), std::move(why)});
    });
    auto [page, why] = wait(p.get_future(), "browse_dead");
    if (why) throw std::runtime_error(why->text);
    return page;
  }
  std::pair<std::vector<queue_stats>, maybe_failure> stats(const std::string& queue) {
    std::promise<std::pair<std::vector<queue_stats>, maybe_failure>> p;
    transport_->stats(queue, [&](std::vector<queue_stats> s, maybe_failure why) { p.set_value({std::move(s), why}); });
    return wait(p.get_future(), "stats");
  }
  std::string make_reply() {
    std::promise<std::string> p;
    transport_->make_reply([&](std::string name, const maybe_failure&) { p.set_value(std::move(name)); });
    return wait(p.get_future(), "make_reply");
  }

 private:
  thread_loop loop_;
  std::unique_ptr<transport> transport_;
};

inline message make(const std::string& queue, const std::string& text) {
  static const core::random_source random = core::system_random();
  message m;
  m.id = core::make_message_id(1, random);
  m.queue = queue;
  m.data = body(text);
  m.jobs = 1;
  return m;
}

inline std::vector<message> many(const std::string& queue, std::size_t count, std::size_t size = 10) {
  std::vector<message> all;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = std::to_string(i);
    text.resize(std::max(size, text.size()), ' ');
    all.push_back(make(queue, text));
  }
  return all;
}

// A subscription whose events are kept.
class consumer {
 public:
  consumer(peer& p, const std::string& queue, window w = {}, bool settling = false) {
    subscriber events;
    events.on_delivery = [st = state_, &p, settling](delivery d) {
      const delivery_token token = d.token;
      {
        const std::lock_guard lock(st->mutex);
        st->got.push_back(std::move(d));
        st->changed.notify_all();
      }
      if (!settling) return;
      settlement s;
      s.token = token;
      std::vector<settlement> one;
      one.push_back(std::move(s));
      p->settle(std::move(one), [st](const std::vector<settle_outcome>& o) {
        const std::lock_guard lock(st->mutex);
        if (o[0].status == settle_status::settled) ++st->settled;
        st->changed.notify_all();
      });
    };
    events.on_lost = [st = state_](const std::vector<delivery_token>& tokens) {
      const std::lock_guard lock(st->mutex);
      st->lost.insert(tokens.begin(), tokens.end());
      st->changed.notify_all();
    };
    events.on_ended = [st = state_](failure why) {
      const std::lock_guard lock(st->mutex);
      st->ended.push_back(std::move(why));
      st->changed.notify_all();
    };
    id_ = p->subscribe(queue, w, std::move(events));
  }

  delivery next() {
    std::unique_lock lock(state_->mutex);
    wait_for(lock, [this] { return state_->got.size() > read_; }, "a delivery");
    return state_->got[read_++];
  }
  std::size_t wait_lost(std::size_t count) {
    std::unique_lock lock(state_->mutex);
    wait_for(lock, [&] { return state_->lost.size() >= count; }, "lost deliveries");
    return state_->lost.size();
  }
  void wait_settled(std::size_t count) {
    std::unique_lock lock(state_->mutex);
    wait_for(lock, [&] { return state_->settled >= count; }, "settlements");
  }
  /// As long as deliveries come, however many.
  void wait_ids(std::set<std::string> ids) {
    std::unique_lock lock(state_->mutex);
    std::size_t looked = 0;
    const auto all_came = [&] {
      for (; looked < state_->got.size(); ++looked) ids.erase(state_->got[looked].msg.id);
      return ids.empty();
    };
    for (std::size_t seen = SIZE_MAX; seen != looked;) {
      seen = looked;
      if (state_->changed.wait_for(lock, kPatience, all_came)) return;
    }
    throw std::runtime_error("no sign of " + std::to_string(ids.size()) + " ids");
  }
  failure wait_ended() {
    std::unique_lock lock(state_->mutex);
    wait_for(lock, [&] { return !state_->ended.empty(); }, "the end");
    return state_->ended.front();
  }
  bool is_lost(delivery_token token) {
    const std::lock_guard lock(state_->mutex);
    return state_->lost.count(token) != 0;
  }
  std::size_t count() {
    const std::lock_guard lock(state_->mutex);
    return state_->got.size();
  }
  std::vector<delivery> all() {
    const std::lock_guard lock(state_->mutex);
    return state_->got;
  }
  [[nodiscard]] subscription_id id() const { return id_; }

 private:
  void wait_for(std::unique_lock<std::mutex>& lock, const std::function<bool()>& good, const char* what) {
    if (!state_->changed.wait_for(lock, kPatience, good)) throw std::runtime_error(std::string("no sign of ") + what);
  }

  // Shared with the callbacks, which may outlive this object.
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<delivery> got;
    std::set<delivery_token> lost;
    std::size_t settled = 0;
    std::vector<failure> ended;
  };
  const std::shared_ptr<state> state_ = std::make_shared<state>();
  std::size_t read_ = 0;
  subscription_id id_ = 0;
};

}  // namespace leveret::testing_support
