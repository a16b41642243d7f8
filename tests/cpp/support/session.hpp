/// A transport on a SQLite file with a loop of its own and calls that wait for their answers. Throws
/// std::runtime_error (which fails a test) when an answer does not come.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ids.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

namespace leveret::test {

/// Generous: only a failing test waits as long.
inline constexpr std::chrono::seconds kPatience{60};

class session {
 public:
  explicit session(const std::string& url, const core::limits& lim = {})
      : transport_(core::open_transport(url, loop_, lim)) {}
  ~session() {
    if (transport_) close();
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  core::transport& transport() { return *transport_; }
  core::thread_loop& loop() { return loop_; }

  /// Calls `start` with a callback, waits until it is called, gives what it was called with.
  template <class... T, class F>
  std::tuple<T...> wait(F start) {
    auto promise = std::make_shared<std::promise<std::tuple<T...>>>();
    auto future = promise->get_future();
    start(std::function<void(T...)>(
        [promise](T... values) { promise->set_value(std::tuple<T...>(std::move(values)...)); }));
    if (future.wait_for(kPatience) != std::future_status::ready) throw std::runtime_error("no answer of the transport");
    return future.get();
  }

  core::maybe_failure try_declare(const std::string& queue) {
    return std::get<1>(
        wait<core::transport::declared, core::maybe_failure>([&](auto then) { transport_->declare(queue, then); }));
  }
  void declare(const std::string& queue) { must(try_declare(queue)); }
  std::vector<core::publish_outcome> publish(std::vector<core::message> messages,
                                             std::chrono::milliseconds deadline = kPatience) {
    return std::get<0>(wait<std::vector<core::publish_outcome>>(
        [&](auto then) { transport_->publish(std::move(messages), loop_.now() + deadline, then); }));
  }
  core::publish_outcome publish(core::message m, std::chrono::milliseconds deadline = kPatience) {
    std::vector<core::message> one;
    one.push_back(std::move(m));
    return publish(std::move(one), deadline).at(0);
  }
  void must_publish(std::vector<core::message> messages) {
    for (const core::publish_outcome& o : publish(std::move(messages))) {
      if (o.status != core::publish_status::accepted) throw std::runtime_error(o.why.text);
    }
  }
  std::vector<core::settle_outcome> settle(std::vector<core::settlement> settlements) {
    return std::get<0>(
        wait<std::vector<core::settle_outcome>>([&](auto then) { transport_->settle(std::move(settlements), then); }));
  }
  core::settle_outcome settle(core::settlement s) {
    std::vector<core::settlement> one;
    one.push_back(std::move(s));
    return settle(std::move(one)).at(0);
  }
  core::settle_outcome settle(const core::delivery& d) {
    core::settlement s;
    s.token = d.token;
    return settle(std::move(s));
  }
  core::maybe_failure release(std::vector<core::delivery_token> tokens) {
    return std::get<0>(wait<core::maybe_failure>([&](auto then) { transport_->release(std::move(tokens), then); }));
  }
  std::vector<core::queue_stats> stats(const std::string& queue) {
    auto [found, why] =
        wait<std::vector<core::queue_stats>, core::maybe_failure>([&](auto then) { transport_->stats(queue, then); });
    must(why);
    return found;
  }
  core::queue_stats queue(const std::string& name) { return stats(name).at(0); }
  std::pair<core::browse_page, core::maybe_failure> dead(const std::string& queue, const std::string& cursor,
                                                         std::size_t limit) {
    auto [page, why] = wait<core::browse_page, core::maybe_failure>(
        [&](auto then) { transport_->browse_dead(queue, cursor, limit, then); });
    return {page, why};
  }
  std::pair<std::uint64_t, core::maybe_failure> purge(const std::string& queue) {
    auto [removed, why] = wait<std::uint64_t, core::maybe_failure>([&](auto then) { transport_->purge(queue, then); });
    return {removed, why};
  }
  std::vector<core::result_chunk> fetch(std::vector<std::string> ids) {
    auto [found, why] = wait<std::vector<core::result_chunk>, core::maybe_failure>(
        [&](auto then) { transport_->fetch(std::move(ids), then); });
    must(why);
    return found;
  }
  void close(std::chrono::milliseconds grace = kPatience) { transport_->close(loop_.now() + grace); }
  /// Ends it without a close; callbacks have run when it returns.
  void destroy() {
    transport_.reset();
    loop_.stop();
  }

  static void must(const core::maybe_failure& why) {
    if (why) throw std::runtime_error(why->text);
  }

 private:
  core::thread_loop loop_;
  std::unique_ptr<core::transport> transport_;
};

/// A subscription whose events are kept.
class subscription {
 public:
  subscription(session& s, const std::string& queue, core::window w = {}) : session_(s) {
    core::subscriber events;
    events.on_delivery = [kept = kept_](core::delivery d) {
      const std::lock_guard lock(kept->mutex);
      kept->waiting.push_back(std::move(d));
      ++kept->delivered;
      kept->changed.notify_all();
    };
    events.on_lost = [kept = kept_](std::vector<core::delivery_token> tokens) {
      const std::lock_guard lock(kept->mutex);
      kept->lost.insert(tokens.begin(), tokens.end());
      kept->changed.notify_all();
    };
    events.on_ended = [kept = kept_](core::failure why) {
      const std::lock_guard lock(kept->mutex);
      kept->ended.push_back(std::move(why));
      kept->changed.notify_all();
    };
    id_ = s.transport().subscribe(queue, w, std::move(events));
  }

  core::delivery next() {
    std::unique_lock lock(kept_->mutex);
    until(lock, "a delivery", [&] { return !kept_->waiting.empty(); });
    core::delivery d = std::move(kept_->waiting.front());
    kept_->waiting.pop_front();
    return d;
  }
  std::vector<core::delivery> next(std::size_t count) {
    std::vector<core::delivery> out;
    while (out.size() < count) out.push_back(next());
    return out;
  }
  std::size_t delivered() const {
    const std::lock_guard lock(kept_->mutex);
    return kept_->delivered;
  }
  std::set<core::delivery_token> lost(std::size_t count) {
    std::unique_lock lock(kept_->mutex);
    until(lock, "lost deliveries", [&] { return kept_->lost.size() >= count; });
    return kept_->lost;
  }
  core::failure ended() {
    std::unique_lock lock(kept_->mutex);
    until(lock, "the subscription's end", [&] { return !kept_->ended.empty(); });
    return kept_->ended.front();
  }
  void resize(core::window w) { session_.transport().resize(id_, w); }
  void unsubscribe() {
    session::must(std::get<0>(
        session_.wait<core::maybe_failure>([&](auto then) { session_.transport().unsubscribe(id_, then); })));
  }

 private:
  struct events_kept {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<core::delivery> waiting;
    std::size_t delivered = 0;
    std::set<core::delivery_token> lost;
    std::vector<core::failure> ended;
  };
  template <class P>
  void until(std::unique_lock<std::mutex>& lock, const char* what, P done) {
    if (!kept_->changed.wait_for(lock, kPatience, done)) throw std::runtime_error(std::string(what) + " did not come");
  }

  session& session_;
  std::shared_ptr<events_kept> kept_ = std::make_shared<events_kept>();
  core::subscription_id id_ = 0;
};

/// Collects the result chunks of one address.
class results {
 public:
  results(session& s, const std::string& reply) {
    session::must(std::get<0>(s.wait<core::maybe_failure>([&](auto then) {
      s.transport().watch(
          reply,
          [kept = kept_](core::result_chunk r) {
            const std::lock_guard lock(kept->mutex);
            kept->got.push_back(std::move(r));
            kept->changed.notify_all();
          },
          then);
    })));
  }
  std::vector<core::result_chunk> wait(std::size_t count) {
    std::unique_lock lock(kept_->mutex);
    if (!kept_->changed.wait_for(lock, kPatience, [&] { return kept_->got.size() >= count; })) {
      throw std::runtime_error("results did not come");
    }
    return kept_->got;
  }

 private:
  struct chunks {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<core::result_chunk> got;
  };
  std::shared_ptr<chunks> kept_ = std::make_shared<chunks>();
};

inline core::message make_message(const std::string& queue, const std::string& body, const std::string& id = {}) {
  static const core::random_source random = core::system_random();
  core::message m;
  m.id = id.empty() ? core::make_message_id(1'700'000'000'000, random) : id;
  m.queue = queue;
  m.data = core::body(body);
  m.jobs = static_cast<std::uint32_t>(std::count(body.begin(), body.end(), '\n'));
  return m;
}

/// Bodies "0\n", "1\n", …
inline std::vector<core::message> make_messages(const std::string& queue, std::size_t count, std::size_t first = 0) {
  std::vector<core::message> out;
  for (std::size_t i = first; i < first + count; ++i) out.push_back(make_message(queue, std::to_string(i) + "\n"));
  return out;
}

inline std::string body_of(const core::delivery& d) { return std::string(d.msg.data.view()); }

}  // namespace leveret::test
