/// One side of a conversation with a broker, for tests: a loop, a transport on it, and calls that wait for their
/// answers. It also holds every transport to three rules all the time: each callback is called exactly once, on the
/// loop's thread, and not after the loop was drained.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

namespace leveret::conformance {

/// Generous: only a failing test waits as long.
inline constexpr std::chrono::seconds kPatience{60};

/// How often a callback was called, and whether always on the loop.
struct call_record {
  explicit call_record(std::string its_what) : what(std::move(its_what)) {}
  const std::string what;
  std::atomic<int> calls{0};
  std::atomic<int> off_loop{0};
};

template <class... T>
class answer {
 public:
  explicit answer(const std::shared_ptr<call_record>& record)
      : what_(record->what), future_(promise_->get_future().share()) {}

  /// Waits. Throws std::runtime_error (the test fails) when nothing comes.
  [[nodiscard]] std::tuple<T...> get() const {
    if (future_.wait_for(kPatience) != std::future_status::ready) {
      throw std::runtime_error(what_ + ": not called back within " + std::to_string(kPatience.count()) + " s");
    }
    return future_.get();
  }
  [[nodiscard]] bool called() const { return future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

 private:
  friend class side;
  std::string what_;
  std::shared_ptr<std::promise<std::tuple<T...>>> promise_ = std::make_shared<std::promise<std::tuple<T...>>>();
  std::shared_future<std::tuple<T...>> future_;
};

class side {
 public:
  explicit side(harness& h) : side(h, h.test_limits()) {}
  side(harness& h, const core::limits& lim);
  /// Closes; adds failures to the test for callbacks that were called never, twice or on a wrong thread.
  ~side();
  side(const side&) = delete;
  side& operator=(const side&) = delete;

  [[nodiscard]] core::transport& transport() { return *transport_; }
  [[nodiscard]] core::thread_loop& loop() { return loop_; }
  [[nodiscard]] core::loop::clock::time_point soon() const { return loop_.now() + kPatience; }

  /// A callback that must be called exactly once, on the loop, and the answer that it gets.
  template <class... T>
  std::pair<std::function<void(T...)>, answer<T...>> once(const std::string& what) {
    const auto record = std::make_shared<call_record>(what);
    records_.push_back(record);
    answer<T...> a(record);
    auto callback = [this, record, promise = a.promise_](T... values) {
      if (!loop_.on_loop()) ++record->off_loop;
      if (++record->calls == 1) promise->set_value(std::tuple<T...>(std::move(values)...));
    };
    return {std::move(callback), std::move(a)};
  }
  /// For callbacks that may be called any number of times: only the thread is checked.
  std::shared_ptr<call_record> many(const std::string& what);

  // Calls that wait for the answer. The `must_` ones add a failure to the test unless the answer is good.
  std::vector<core::publish_outcome> publish(std::vector<core::message> messages);
  void must_publish(std::vector<core::message> messages);
  void must_declare(const std::string& queue);
  core::queue_stats must_stats(const std::string& queue);
  /// Asks for stats until `good` (RabbitMQ counts late). False: it never was.
  bool stats_become(const std::string& queue, const std::function<bool(const core::queue_stats&)>& good);
  std::vector<core::settle_outcome> settle(std::vector<core::settlement> settlements);
  void must_settle(core::settlement s);
  void must_settle(core::delivery_token token);
  void must_release(std::vector<core::delivery_token> tokens);
  std::string must_make_reply();
  std::pair<core::browse_page, core::maybe_failure> browse_dead(const std::string& queue, const std::string& cursor,
                                                                std::size_t limit);
  std::pair<std::uint64_t, core::maybe_failure> purge(const std::string& queue);
  void close();

  /// Ends the loop when all that was posted has run: no callback can come any more.
  void drain_and_stop() { loop_.stop(); }

 private:
  core::thread_loop loop_;
  std::unique_ptr<core::transport> transport_;
  std::vector<std::shared_ptr<call_record>> records_;  // called exactly once
  std::vector<std::shared_ptr<call_record>> many_records_;
};

/// A subscription whose events are kept, in the order they came.
class consumer {
 public:
  consumer(side& s, const std::string& queue, core::window w);

  /// The next delivery not given yet; waits.
  core::delivery next();
  std::vector<core::delivery> next(std::size_t count);
  /// Settles each delivery as it comes, without anything; from now on.
  void settle_all_by_itself();
  /// Settles, and counts it as no longer held.
  void settle(const core::delivery& d);
  void release(const std::vector<core::delivery>& ds);
  void resize(core::window w) { side_.transport().resize(id_, w); }
  void unsubscribe();
  [[nodiscard]] core::subscription_id id() const { return id_; }

  [[nodiscard]] std::size_t delivered() const;
  [[nodiscard]] std::size_t most_held() const;
  [[nodiscard]] std::uint64_t most_bytes_held() const;
  /// Waits until `count` deliveries have come in all.
  void wait_delivered(std::size_t count);
  core::failure wait_ended();
  /// Waits until `on_lost` has named `count` deliveries in all; gives them sorted.
  std::vector<core::delivery_token> wait_lost(std::size_t count);
  [[nodiscard]] int ended() const;
  [[nodiscard]] std::vector<std::string> ids() const;

 private:
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<core::delivery> got;
    std::size_t read = 0;
    std::size_t held = 0;
    std::uint64_t bytes = 0;
    std::size_t most_held = 0;
    std::uint64_t most_bytes = 0;
    bool settling = false;
    std::vector<core::delivery_token> lost;
    std::vector<core::failure> ended;
  };
  void no_longer_held(const core::delivery& d);

  side& side_;
  std::shared_ptr<state> state_ = std::make_shared<state>();
  core::subscription_id id_ = 0;
};

/// Collects result chunks of one address.
class result_reader {
 public:
  result_reader(side& s, const std::string& reply);
  /// Waits until `count` have come; gives all of them in the order they came.
  std::vector<core::result_chunk> wait(std::size_t count);
  [[nodiscard]] std::size_t count() const;

 private:
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<core::result_chunk> got;
  };
  std::shared_ptr<state> state_ = std::make_shared<state>();
};

/// A message with a fresh id and one job per line of `lines`.
core::message make_message(const std::string& queue, const std::string& lines);
/// `count` messages with bodies "0\n", "1\n", …
std::vector<core::message> make_messages(const std::string& queue, std::size_t count, std::size_t first = 0);
std::vector<std::string> ids_of(const std::vector<core::message>& messages);
std::vector<std::string> ids_of(const std::vector<core::delivery>& deliveries);
core::result_chunk make_chunk(const std::string& id, const std::string& reply, std::uint32_t line,
                              const std::string& result);

}  // namespace leveret::conformance
