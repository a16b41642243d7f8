/// A transport in front of another: what a class derived from it does not do itself, the other does.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport.hpp"

namespace leveret::core {

class forwarding_transport : public transport {
 public:
  explicit forwarding_transport(std::unique_ptr<transport> broker) : broker_(std::move(broker)) {}

  [[nodiscard]] capabilities what_it_can() const override { return broker_->what_it_can(); }
  [[nodiscard]] health how_it_is() const override { return broker_->how_it_is(); }
  [[nodiscard]] std::string where() const override { return broker_->where(); }
  void declare(const std::string& queue, reply<declared> then) override { broker_->declare(queue, std::move(then)); }
  void stats(const std::string& queue, reply<std::vector<queue_stats>> then) override {
    broker_->stats(queue, std::move(then));
  }
  void browse_dead(const std::string& queue, const std::string& cursor, std::size_t limit,
                   reply<browse_page> then) override {
    broker_->browse_dead(queue, cursor, limit, std::move(then));
  }
  void purge(const std::string& queue, reply<std::uint64_t> then) override { broker_->purge(queue, std::move(then)); }
  void check_access(const std::string& queue, done then) override { broker_->check_access(queue, std::move(then)); }
  void publish(std::vector<message> messages, loop::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then) override {
    broker_->publish(std::move(messages), deadline, std::move(then));
  }
  void lend_thread(const std::function<void()>& hand_over) override { broker_->lend_thread(hand_over); }
  subscription_id subscribe(const std::string& queue, window w, subscriber events) override {
    return broker_->subscribe(queue, w, std::move(events));
  }
  void resize(subscription_id id, window w) override { broker_->resize(id, w); }
  void unsubscribe(subscription_id id, done then) override { broker_->unsubscribe(id, std::move(then)); }
  void release(std::vector<delivery_token> tokens, done then) override {
    broker_->release(std::move(tokens), std::move(then));
  }
  void watch(const std::string& reply, std::function<void(result_chunk)> on_result, done then) override {
    broker_->watch(reply, std::move(on_result), std::move(then));
  }
  void unwatch(const std::string& reply, done then) override { broker_->unwatch(reply, std::move(then)); }
  void make_reply(reply<std::string> then) override { broker_->make_reply(std::move(then)); }
  void browse(browse_query query, reply<message_page> then) override {
    broker_->browse(std::move(query), std::move(then));
  }
  void revise_dead(const std::string& queue, dead_decision decide, reply<std::uint64_t> then) override {
    broker_->revise_dead(queue, std::move(decide), std::move(then));
  }
  void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) override {
    broker_->cancel(std::move(jobs), std::move(then));
  }
  void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) override {
    broker_->watch_cancelled(std::move(on_cancelled), std::move(then));
  }
  void make_known(report r, done then) override { broker_->make_known(std::move(r), std::move(then)); }
  void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) override {
    broker_->known(kind, id, std::move(then));
  }
  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    broker_->settle(std::move(settlements), std::move(then));
  }
  void fetch(std::vector<std::string> message_ids, reply<std::vector<result_chunk>> then) override {
    broker_->fetch(std::move(message_ids), std::move(then));
  }
  void keep_results(std::vector<result_chunk> results, done then) override {
    broker_->keep_results(std::move(results), std::move(then));
  }
  void exchange(exchanged_value what, reply<std::string> then) override {
    broker_->exchange(std::move(what), std::move(then));
  }
  void close(loop::clock::time_point deadline) override { broker_->close(deadline); }

 protected:
  std::unique_ptr<transport> broker_;
};

}  // namespace leveret::core
