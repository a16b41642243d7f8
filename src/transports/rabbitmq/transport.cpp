// The RabbitMQ transport: every call is posted to its one I/O thread, every answer to the loop.
//
// Parts, all on the I/O thread (so there are no locks but the one around `health_`):
//   reactor    the thread: poll, timers, posts
//   link       a connection that comes back; one to publish, one to consume (a broker short of memory or disk stops
//              reading the publishing one, acknowledgements must not wait behind that)
//   publisher  confirm window      consumers  streams, windows, acknowledgements      replies  results coming back
//   control    streams: cancelled jobs, what workers report
//   sender     messages and settlements into publishes      operations  declare, count, purge, list
#include "../../transport.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "consumer.hpp"
#include "control.hpp"
#include "link.hpp"
#include "operations.hpp"
#include "publisher.hpp"
#include "replies.hpp"
#include "sender.hpp"
#include "url.hpp"

namespace leveret::core {
namespace rabbitmq {
namespace {

// After the last work is done: for the broker's answer to the goodbye.
constexpr std::chrono::milliseconds kGoodbye{1'000};

failure closed_failure(const std::string& what) {
  return {errc::closed, "cannot " + what + ": the transport is closed"};
}

// The url's heartbeat goes before the program's.
limits with_heartbeat(limits lim, const std::vector<endpoint>& servers) {
  if (servers.front().heartbeat) lim.heartbeat = *servers.front().heartbeat;
  return lim;
}

class rabbitmq_transport final : public transport {
 public:
  rabbitmq_transport(const std::string& url, loop& l, const limits& lim)
      : servers_(parse_url(url)),
        where_(rabbitmq::where(servers_)),
        limits_(with_heartbeat(lim, servers_)),
        loop_(l),
        random_(lim.seed != 0 ? seeded_random(lim.seed) : system_random()),
        publishing_(reactor_, servers_, limits_, random_, "publish"),
        consuming_(reactor_, servers_, limits_, random_, "consume"),
        operations_(reactor_, consuming_),
        consumers_operations_(reactor_, consuming_),
        publisher_(std::make_shared<publisher>(reactor_, publishing_, limits_, random_)),
        consumers_(reactor_, consuming_, l, consumers_operations_, limits_, random_),
        replies_(reactor_, consuming_, l, operations_, limits_, random_),
        sender_(reactor_, publishing_, consuming_, l, *publisher_, consumers_, operations_, limits_, random_),
        control_(reactor_, consuming_, l, operations_, sender_, limits_, random_) {
    publisher_->start();
    publishing_.on_change([this] {
      update_health();
      publisher_->pump();  // perhaps unblocked
    });
    consuming_.on_change([this] { update_health(); });
    consumers_.on_problem([this] { update_health(); });
    reactor_.set_round_hook([this] { close_when_done(); });
  }

  ~rabbitmq_transport() override { close(loop_.now()); }

  /// Connects, or throws.
  void open() {
    struct first {
      std::mutex mutex;
      std::condition_variable told;
      bool done = false;
      maybe_failure why;
    };
    const auto shared = std::make_shared<first>();
    publishing_.on_first([shared](maybe_failure why) {
      const std::lock_guard lock(shared->mutex);
      shared->done = true;
      shared->why = std::move(why);
      shared->told.notify_one();
    });
    reactor_.start("leveret-amqp");
    reactor_.post([this] { publishing_.need(); });
    maybe_failure why;
    {
      std::unique_lock lock(shared->mutex);
      shared->told.wait(lock, [&] { return shared->done; });  // the attempt has a timeout itself
      why = shared->why;
    }
    if (!why) return;
    close(loop_.now());
    throw broker_unavailable("cannot connect to RabbitMQ at " + why->text);
  }

  [[nodiscard]] capabilities what_it_can() const override { return {}; }
  [[nodiscard]] std::string where() const override { return where_; }
  [[nodiscard]] health how_it_is() const override {
    const std::lock_guard lock(health_mutex_);
    return health_;
  }

  void declare(const std::string& queue, reply<declared> then) override {
    run([this, queue, then](bool open) {
      if (!open) return answer(then, declared{}, closed_failure("declare queue \"" + queue + "\""));
      if (queue.empty() || queue.size() > 200 || is_dead_queue(queue)) {
        return answer(
            then, declared{},
            failure{errc::invalid_argument,
                    "cannot declare queue \"" + queue + "\": " +
                        (is_dead_queue(queue) ? "names that end in '.dead' are Leveret's own; take another ending"
                                              : "a queue's name has 1 to 200 bytes")});
      }
      consumers_.make_members(queue, [this, queue, then] {
        declare_queue(operations_, queue, expires(), true, [this, queue, then](found_queue found, maybe_failure why) {
          if (!why) consumers_.note(queue, found);
          answer(then, declared{found.ours}, std::move(why));
        });
      });
    });
  }

  void stats(const std::string& queue, reply<std::vector<queue_stats>> then) override {
    run([this, queue, then](bool open) {
      if (!open) return answer(then, std::vector<queue_stats>{}, closed_failure("count queues"));
      if (queue.empty()) {
        return answer(
            then, std::vector<queue_stats>{},
            failure{errc::unsupported, "RabbitMQ cannot list its queues over AMQP: name the queues you want to see"});
      }
      count_queue(operations_, queue, [this, then](queue_stats s, maybe_failure why) {
        std::vector<queue_stats> all;
        if (!why) all.push_back(std::move(s));
        answer(then, std::move(all), std::move(why));
      });
    });
  }

  void browse_dead(const std::string& queue, const std::string& cursor, std::size_t limit,
                   reply<browse_page> then) override {
    run([this, queue, cursor, limit, then](bool open) {
      if (!open) return answer(then, browse_page{}, closed_failure("list dead jobs"));
      browse_dead_queue(operations_, queue, cursor, limit, [this, then](browse_page page, maybe_failure why) {
        answer(then, std::move(page), std::move(why));
      });
    });
  }

  void purge(const std::string& queue, reply<std::uint64_t> then) override {
    run([this, queue, then](bool open) {
      if (!open) return answer(then, std::uint64_t{0}, closed_failure("purge queue \"" + queue + "\""));
      purge_queue(operations_, queue,
                  [this, then](std::uint64_t count, maybe_failure why) { answer(then, count, std::move(why)); });
    });
  }

  void check_access(const std::string& queue, done then) override {
    run([this, queue, then](bool open) {
      const auto tell = [this, then](const maybe_failure& why) { loop_.post([then, why] { then(why); }); };
      if (!open) return tell(closed_failure("try what this user may do"));
      check_queue_access(operations_, queue, ".leveret-doctor-" + std::to_string(random_()), tell);
    });
  }

  void publish(std::vector<message> messages, loop::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then) override {
    // The loop's clock may be a test's; the I/O thread has a real one.
    const auto until = reactor::clock::now() + (deadline - loop_.now());
    const auto shared = std::make_shared<std::vector<message>>(std::move(messages));
    run([this, shared, until, then = std::move(then)](bool open) {
      const auto tell = [this, then](std::vector<publish_outcome> outcomes) {
        loop_.post([then, outcomes = std::move(outcomes)] { then(outcomes); });
      };
      if (open) return sender_.publish(std::move(*shared), until, tell);
      publish_outcome never{publish_status::refused, closed_failure("publish"), {}};
      tell(std::vector<publish_outcome>(shared->size(), never));
    });
  }

  subscription_id subscribe(const std::string& queue, window w, subscriber events) override {
    const subscription_id id = ++last_subscription_;
    const auto shared = std::make_shared<subscriber>(std::move(events));
    run([this, id, queue, w, shared](bool open) {
      if (open) return consumers_.subscribe(id, queue, w, std::move(*shared));
      loop_.post([shared, queue] {
        if (shared->on_ended) shared->on_ended(closed_failure("consume queue \"" + queue + "\""));
      });
    });
    return id;
  }

  void resize(subscription_id id, window w) override {
    run([this, id, w](bool open) {
      if (open) consumers_.resize(id, w);
    });
  }

  void unsubscribe(subscription_id id, done then) override {
    run([this, id, then](bool open) {
      const auto tell = [this, then] { loop_.post([then] { then({}); }); };
      if (open) {
        consumers_.unsubscribe(id, tell);
      } else {
        tell();  // there are no subscriptions any more
      }
    });
  }

  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    const auto shared = std::make_shared<std::vector<settlement>>(std::move(settlements));
    run([this, shared, then = std::move(then)](bool open) {
      const auto tell = [this, then](std::vector<settle_outcome> outcomes) {
        loop_.post([then, outcomes = std::move(outcomes)] { then(outcomes); });
      };
      if (open) return sender_.settle(std::move(*shared), tell);
      settle_outcome never{settle_status::failed, closed_failure("settle a delivery").text};
      tell(std::vector<settle_outcome>(shared->size(), never));
    });
  }

  void release(std::vector<delivery_token> tokens, done then) override {
    run([this, tokens = std::move(tokens), then](bool open) {
      const auto tell = [this, then] { loop_.post([then] { then({}); }); };
      if (open) {
        consumers_.release(tokens, tell);
      } else {
        tell();  // they are back already
      }
    });
  }

  void watch(const std::string& reply_address, std::function<void(result_chunk)> on_result, done then) override {
    run([this, reply_address, on_result = std::move(on_result), then](bool open) {
      const auto tell = [this, then](const maybe_failure& why) { loop_.post([then, why] { then(why); }); };
      if (!open) return tell(closed_failure("watch results"));
      replies_.watch(reply_address, on_result, tell);
    });
  }

  void unwatch(const std::string& reply_address, done then) override {
    run([this, reply_address, then](bool open) {
      const auto tell = [this, then](const maybe_failure& why) { loop_.post([then, why] { then(why); }); };
      if (!open) return tell({});
      replies_.unwatch(reply_address, tell);
    });
  }

  void make_reply(reply<std::string> then) override {
    run([this, then](bool open) {
      if (!open) return answer(then, std::string(), closed_failure("make a reply address"));
      const std::string name = kReplyPrefix + make_message_id(loop_.wall(), random_);
      declare_queue(operations_, name, expires(), true, [this, name, then](found_queue, maybe_failure why) {
        answer(then, why ? std::string() : name, std::move(why));
      });
    });
  }

  void fetch(std::vector<std::string>, reply<std::vector<result_chunk>> then) override {
    loop_.post([then] {
      then({},
           failure{errc::unsupported,
                   "RabbitMQ keeps no results that can be looked up by job id; results reach the process that sent the "
                   "job, or name a store with results=\"redis://…\" or results=\"sqlite:///…\""});
    });
  }

  void keep_results(std::vector<result_chunk>, done then) override {
    loop_.post(
        [then] { then(failure{errc::unsupported, "RabbitMQ keeps no results that can be looked up by job id"}); });
  }

  void browse(browse_query query, reply<message_page> then) override {
    loop_.post([then, queue = std::move(query.queue)] {
      then({},
           failure{errc::unsupported,
                   "cannot list the jobs of \"" + queue +
                       "\": RabbitMQ hands messages out and does not show them; count them with leveret queues, see "
                       "the dead ones with leveret dead list, or look with the broker's own management page"});
    });
  }

  void revise_dead(const std::string& queue, dead_decision decide, reply<std::uint64_t> then) override {
    run([this, queue, decide = std::move(decide), then](bool open) {
      if (!open) return answer(then, std::uint64_t{0}, closed_failure("change dead jobs"));
      const auto replace = [this](std::vector<message> messages, std::vector<dead_job> stay,
                                  std::function<void(maybe_failure)> done) {
        sender_.replace_dead(std::move(messages), std::move(stay), std::move(done));
      };
      revise_dead_queue(operations_, queue, decide, replace,
                        [this, then](std::uint64_t left, maybe_failure why) { answer(then, left, std::move(why)); });
    });
  }

  void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) override {
    const auto shared = std::make_shared<std::vector<cancellation>>(std::move(jobs));
    run([this, shared, then](bool open) {
      if (!open) return answer(then, std::vector<cancel_outcome>{}, closed_failure("cancel jobs"));
      const std::size_t count = shared->size();
      control_.cancel(std::move(*shared), [this, then, count](maybe_failure why) {
        answer(then, std::vector<cancel_outcome>(why ? 0 : count, cancel_outcome::asked), std::move(why));
      });
    });
  }

  void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) override {
    run([this, on_cancelled = std::move(on_cancelled), then](bool open) {
      const auto tell = [this, then](const maybe_failure& why) { loop_.post([then, why] { then(why); }); };
      if (!open) return tell(closed_failure("watch for cancelled jobs"));
      control_.watch_cancelled(on_cancelled, tell);
    });
  }

  void make_known(report r, done then) override {
    const auto shared = std::make_shared<report>(std::move(r));
    run([this, shared, then](bool open) {
      const auto tell = [this, then](const maybe_failure& why) { loop_.post([then, why] { then(why); }); };
      if (!open) return tell(closed_failure("make a report known"));
      control_.make_known(std::move(*shared), tell);
    });
  }

  void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) override {
    run([this, kind, id, then](bool open) {
      if (!open) return answer(then, std::vector<report>{}, closed_failure("read reports"));
      if (kind != kReportWorker) {
        return answer(then, std::vector<report>{},
                      failure{errc::unsupported,
                              "RabbitMQ keeps no reports of jobs: their progress reaches the process that sent them"});
      }
      control_.known(id, [this, then](std::vector<report> found, maybe_failure why) {
        answer(then, std::move(found), std::move(why));
      });
    });
  }

  void close(loop::clock::time_point deadline) override {
    const std::lock_guard lock(close_mutex_);
    if (ended_) return;
    ended_ = true;
    const auto until = reactor::clock::now() + std::max(loop::clock::duration::zero(), deadline - loop_.now());
    reactor_.post([this, until] { begin_close(until); });
    {
      std::unique_lock closed_lock(closed_mutex_);
      closed_told_.wait(closed_lock, [this] { return closed_; });
    }
    reactor_.stop();
    drop_late_calls();
  }

 private:
  enum class phase { open, draining, goodbye, closed };

  // Runs `call(true)` on the I/O thread, or `call(false)` when the transport is closing: on the I/O thread, or here
  // when that has ended.
  void run(std::function<void(bool open)> call) {
    {
      const std::lock_guard lock(calls_mutex_);
      if (!thread_ended_) {
        calls_.push_back(std::move(call));
        if (calls_.size() == 1) reactor_.post([this] { run_calls(); });
        return;
      }
    }
    call(false);
  }

  void run_calls() {
    std::vector<std::function<void(bool)>> calls;
    {
      const std::lock_guard lock(calls_mutex_);
      calls.swap(calls_);
    }
    for (const auto& call : calls) call(phase_ == phase::open);
  }

  // What was called while the I/O thread ended.
  void drop_late_calls() {
    std::vector<std::function<void(bool)>> calls;
    {
      const std::lock_guard lock(calls_mutex_);
      thread_ended_ = true;
      calls.swap(calls_);
    }
    for (const auto& call : calls) call(false);
  }

  template <class T, class V>
  void answer(const reply<T>& then, V value, maybe_failure why) {
    loop_.post([then, value = T(std::move(value)), why = std::move(why)] { then(value, why); });
  }

  [[nodiscard]] std::int64_t expires() const { return std::chrono::milliseconds(limits_.result_ttl).count(); }

  void update_health() {
    health h;
    if (phase_ == phase::closed) {
      h.state = health_state::closed;
    } else if (publishing_.up() == nullptr || (consuming_.needed() && consuming_.up() == nullptr)) {
      h.state = health_state::connecting;
      h.detail = where_ + ": " + (publishing_.up() == nullptr ? publishing_.detail() : consuming_.detail());
    } else if (std::string problem = consumers_.problem(); !problem.empty()) {
      h.state = health_state::connecting;
      h.detail = where_ + ": " + problem;
    } else if (publishing_.blocked()) {
      h.state = health_state::blocked;
      h.detail = where_ + ": " + publishing_.detail();
    } else {
      h.detail = publishing_.server();
    }
    const std::lock_guard lock(health_mutex_);
    health_ = std::move(h);
  }

  void begin_close(reactor::clock::time_point until) {
    run_calls();  // what was called before `close` counts as accepted
    phase_ = phase::draining;
    consumers_.drain();
    reactor_.at(until, [this] { drained(); });
  }

  // At the end of every round.
  void close_when_done() {
    if (phase_ == phase::draining && sender_.idle() && control_.idle() && publisher_->idle() && operations_.idle() &&
        consumers_.idle()) {
      drained();
    } else if (phase_ == phase::goodbye && publishing_.ended() && consuming_.ended()) {
      finish_close();
    }
  }

  void drained() {
    if (phase_ != phase::draining) return;
    // Answers first, while their parts are whole; then the goodbye, which gives unsettled deliveries back.
    operations_.close();
    consumers_operations_.close();
    publisher_->close();
    replies_.close();
    control_.close();
    consumers_.close();
    phase_ = phase::goodbye;
    reactor_.after(kGoodbye, [this] { finish_close(); });
    // At the round's end those answers have led to their callbacks.
    reactor_.at_round_end([this] {
      publishing_.close();
      consuming_.close();
    });
  }

  void finish_close() {
    if (phase_ == phase::closed) return;
    phase_ = phase::closed;
    publishing_.cut();
    consuming_.cut();
    update_health();
    const std::lock_guard lock(closed_mutex_);
    closed_ = true;
    closed_told_.notify_all();
  }

  const std::vector<endpoint> servers_;
  const std::string where_;
  const limits limits_;
  loop& loop_;
  const random_source random_;  // the I/O thread's

  reactor reactor_;
  link publishing_;
  link consuming_;
  operations operations_;
  operations consumers_operations_;  // which no caller waits for, so `close` does not either
  std::shared_ptr<publisher> publisher_;
  consumers consumers_;
  replies replies_;
  sender sender_;
  control control_;
  phase phase_ = phase::open;  // the I/O thread's

  mutable std::mutex health_mutex_;  // guards health_; a leaf
  health health_{health_state::connecting, {}};

  std::mutex calls_mutex_;  // guards the next two; a leaf but for the reactor's
  std::vector<std::function<void(bool)>> calls_;
  bool thread_ended_ = false;
  std::atomic<subscription_id> last_subscription_{0};

  std::mutex close_mutex_;  // one `close` at a time; guards ended_
  bool ended_ = false;
  std::mutex closed_mutex_;  // guards closed_
  std::condition_variable closed_told_;
  bool closed_ = false;
};

}  // namespace
}  // namespace rabbitmq

std::unique_ptr<transport> open_rabbitmq(const std::string& url, loop& l, const limits& lim) {
  auto t = std::make_unique<rabbitmq::rabbitmq_transport>(url, l, lim);
  t->open();
  return t;
}

}  // namespace leveret::core
