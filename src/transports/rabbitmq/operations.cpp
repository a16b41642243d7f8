#include "operations.hpp"

namespace leveret::core::rabbitmq {

// ---- the machinery ----

void operation::call(amqp_method_number_t id, void* method, step then) {
  if (ended_ || !channel_) return;
  channel_->call(id, method,
                 [self = shared_from_this(), attempt = attempt_, then = std::move(then)](const call_result& r) {
                   if (self->ended_ || self->attempt_ != attempt || r.how == call_result::kind::lost) return;
                   then(r);
                 });
}

void operation::count(const std::string& queue, on_counts then) {
  ask_counts([self = shared_from_this()](amqp_method_number_t id, void* method,
                                         on_reply reply) { self->call(id, method, std::move(reply)); },
             queue, std::move(then));
}

void operation::publish(const std::string& queue) {
  if (!ended_ && channel_) (void)channel_->publish("", queue, {}, body(""));
}

void operation::fresh_channel() {
  ++attempt_;  // answers that the old channel still owes are of no interest
  if (channel_) channel_->close();
  connection* const c = owner_->link_.up();
  channel_ = c != nullptr ? c->open_channel() : nullptr;
  if (c != nullptr && !channel_) {
    fail({errc::broker_unavailable, "cannot " + what_ + ": no channel of the connection is free"});
  }
}

void operation::refuse(errc code, const call_result& answer, const std::string& remedy) {
  const std::string allow = access_remedy(answer.code, answer.text, permission_);
  const std::string& advice = allow.empty() ? remedy : allow;
  fail({code, "cannot " + what_ + ": " + answer.text + " (" + std::to_string(answer.code) + ")" +
                  (advice.empty() ? "" : "; " + advice)});
}

void operation::fail(failure why) {
  if (ended_) return;
  const auto then = std::move(on_fail_);
  finish();
  if (then) then(std::move(why));
}

void operation::progressed() {
  if (ended_) return;
  owner_->reactor_.cancel(timer_);
  owner_->start_timer(shared_from_this());
}

void operation::later(std::chrono::milliseconds delay, std::function<void(operation&)> then) {
  owner_->reactor_.after(delay, [self = shared_from_this(), attempt = attempt_, then = std::move(then)] {
    if (!self->ended_ && self->attempt_ == attempt) then(*self);
  });
}

void operation::finish() {
  if (ended_) return;
  const auto self = shared_from_this();
  ended_ = true;
  owner_->reactor_.cancel(timer_);
  if (channel_) channel_->close();
  channel_ = nullptr;
  // `begin_` owns what the caller runs in right now.
  owner_->reactor_.at_round_end([self] {
    self->begin_ = nullptr;
    self->on_fail_ = nullptr;
  });
  owner_->running_.erase(self);
}

operations::operations(reactor& r, link& l) : reactor_(r), link_(l) {
  link::user u;
  u.on_up = [this] {
    const auto running = running_;
    for (const auto& op : running) begin(op);
  };
  link_.add(std::move(u));
}

void operations::run(std::string what, std::function<void(operation&)> begin_op, std::function<void(failure)> on_fail) {
  const auto op = std::make_shared<operation>();
  op->owner_ = this;
  op->what_ = std::move(what);
  op->begin_ = std::move(begin_op);
  op->on_fail_ = std::move(on_fail);
  if (closed_) {
    op->on_fail_({errc::closed, "cannot " + op->what_ + ": closed"});
    return;
  }
  running_.insert(op);
  start_timer(op);
  link_.need();
  if (link_.up() != nullptr) begin(op);
}

void operations::start_timer(const std::shared_ptr<operation>& op) {
  op->timer_ = reactor_.after(kOperationTimeout, [this, op] {
    const std::string why = link_.up() == nullptr ? "there is no connection (" + link_.detail() + ")"
                                                  : std::string("the broker did not answer");
    op->fail({errc::broker_unavailable,
              "cannot " + op->what_ + " within " + std::to_string(kOperationTimeout.count()) + " s: " + why});
  });
}

void operations::begin(const std::shared_ptr<operation>& op) {
  if (op->ended_) return;
  op->channel_ = nullptr;
  op->fresh_channel();
  if (!op->ended_) op->begin_(*op);
}

void operations::close() {
  closed_ = true;
  const auto running = running_;
  for (const auto& op : running) op->fail({errc::closed, "cannot " + op->what_ + ": closed"});
}

// ---- declare ----

namespace {

struct declare_state {
  std::string queue;
  std::int64_t expires;
  bool create;
  found_queue found;
  std::function<void(found_queue, maybe_failure)> then;
};
using declaring = std::shared_ptr<declare_state>;

void declare_done(operation& op, const declaring& s) {
  op.finish();
  s->then(s->found, {});
}

// A dead queue that exists with other arguments is used as it is, like every queue.
void declare_dead(operation& op, const declaring& s, std::function<void(operation&)> next) {
  if (!has_dead_queue(s->queue)) {
    next(op);
    return;
  }
  declaration d = declaration::full(dead_queue_of(s->queue), s->expires);
  op.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), [&op, next = std::move(next)](const call_result& r) {
    if (!r.done() && r.code != AMQP_PRECONDITION_FAILED) {
      op.refuse(errc::refused, r, "the user of the url needs permission to configure queues");
      return;
    }
    if (!r.done()) op.fresh_channel();
    next(op);
  });
}

void create_queue(operation& op, const declaring& s) {
  declare_dead(op, s, [s](operation& same) {
    declaration d = declaration::full(s->queue, s->expires);
    same.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), [&same, s](const call_result& r) {
      if (r.done()) {
        declare_done(same, s);
      } else if (r.code == AMQP_PRECONDITION_FAILED) {
        // Somebody made another one meanwhile.
        s->found.ours = false;
        declare_done(same, s);
      } else {
        same.refuse(errc::refused, r, "the user of the url needs permission to configure queues");
      }
    });
  });
}

// Is this foreign queue a classic one, which keeps no delivery count? The broker names the first argument that differs:
// "inequivalent arg 'x-queue-type' for queue …: received 'classic' but current is 'quorum'", or "but current is none"
// where the type was left out. Where another argument comes first it is not known; see consumers::make_delivery.
void look_for_classic(operation& op, const declaring& s) {
  table arguments;
  arguments.text("x-queue-type", "classic");
  amqp_queue_declare_t method{};
  method.queue = as_bytes(s->queue);
  method.durable = 1;
  method.arguments = arguments.raw();
  op.call(AMQP_QUEUE_DECLARE_METHOD, &method, [&op, s](const call_result& r) {
    const std::string_view text = r.text;
    const bool of_type = text.find("'x-queue-type'") != std::string_view::npos;
    const bool of_durability =
        text.find("'durable'") != std::string_view::npos || text.find("'exclusive'") != std::string_view::npos ||
        text.find("'auto_delete'") != std::string_view::npos;  // a quorum queue is always durable and shared
    s->found.classic =
        r.done() || of_durability ||
        (of_type && text.find("'quorum'") == std::string_view::npos && text.find("'stream'") == std::string_view::npos);
    declare_done(op, s);
  });
}

// It exists: is it what we would declare? The broker compares; a difference closes the channel and changes nothing.
void compare_queue(operation& op, const declaring& s) {
  declaration d = declaration::full(s->queue, s->expires);
  op.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), [&op, s](const call_result& r) {
    if (r.done()) {
      declare_dead(op, s, [s](operation& same) { declare_done(same, s); });
      return;
    }
    s->found.ours = false;
    if (r.code == AMQP_NOT_FOUND) {  // deleted meanwhile
      op.fresh_channel();
      create_queue(op, s);
      return;
    }
    op.fresh_channel();
    look_for_classic(op, s);
  });
}

}  // namespace

void declare_queue(operations& ops, const std::string& queue, std::int64_t reply_expires_ms, bool create,
                   std::function<void(found_queue, maybe_failure)> then) {
  const auto s = std::make_shared<declare_state>(declare_state{queue, reply_expires_ms, create, {}, std::move(then)});
  ops.run(
      std::string(create ? "declare" : "consume") + " queue \"" + queue + "\"",
      [s](operation& op) {
        s->found = {};
        declaration d = declaration::passive(s->queue);
        op.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), [&op, s](const call_result& r) {
          if (r.done()) {
            compare_queue(op, s);
          } else if (r.code != AMQP_NOT_FOUND) {
            op.refuse(errc::refused, r);
          } else if (!s->create) {
            op.refuse(errc::not_found, r, "declare the queue first");
          } else {
            op.fresh_channel();
            create_queue(op, s);
          }
        });
      },
      [s](failure why) { s->then({}, std::move(why)); });
}

// ---- count and purge ----

void count_queue(operations& ops, const std::string& queue, std::function<void(queue_stats, maybe_failure)> then) {
  const auto stats = std::make_shared<queue_stats>();
  const auto answer = std::make_shared<decltype(then)>(std::move(then));
  ops.run(
      "count queue \"" + queue + "\"",
      [queue, stats, answer](operation& op) {
        *stats = {};
        stats->queue = queue;
        op.count(queue, [&op, queue, stats, answer](const call_result& r, const queue_counts& found) {
          if (!r.done()) {
            op.refuse(r.code == AMQP_NOT_FOUND ? errc::not_found : errc::refused, r);
            return;
          }
          stats->ready = found.messages;
          stats->consumers = found.consumers;
          if (is_dead_queue(queue)) {
            op.finish();
            (*answer)(*stats, {});
            return;
          }
          op.count(dead_queue_of(queue), [&op, stats, answer](const call_result& d2, const queue_counts& dead) {
            if (d2.done()) stats->dead = dead.messages;
            op.finish();
            (*answer)(*stats, {});
          });
        });
      },
      [answer](failure why) { (*answer)({}, std::move(why)); });
}

void purge_queue(operations& ops, const std::string& queue, std::function<void(std::uint64_t, maybe_failure)> then) {
  const auto answer = std::make_shared<decltype(then)>(std::move(then));
  ops.run(
      "purge queue \"" + queue + "\"",
      [queue, answer](operation& op) {
        op.needs("read");
        amqp_queue_purge_t method{};
        method.queue = as_bytes(queue);
        op.call(AMQP_QUEUE_PURGE_METHOD, &method, [&op, answer](const call_result& r) {
          if (!r.done()) {
            op.refuse(r.code == AMQP_NOT_FOUND ? errc::not_found : errc::refused, r);
            return;
          }
          const std::uint64_t count = static_cast<const amqp_queue_purge_ok_t*>(r.method->decoded)->message_count;
          op.finish();
          (*answer)(count, {});
        });
      },
      [answer](failure why) { (*answer)(0, std::move(why)); });
}

// ---- delay levels ----

void declare_delay(operations& ops, const std::string& queue, std::uint32_t from, std::uint32_t level,
                   std::function<void(maybe_failure)> then) {
  const auto answer = std::make_shared<decltype(then)>(std::move(then));
  ops.run(
      "delay messages for queue \"" + queue + "\"",
      [queue, from, level, answer](operation& op) {
        op.needs("configure, the write and the read");
        const auto declared = [&op](const call_result& r) {
          if (!r.done()) op.refuse(errc::refused, r, "the exchanges and queues leveret.delay.* are Leveret's own");
        };
        const auto declare_exchange = [&](const std::string& name) {
          amqp_exchange_declare_t method{};
          method.exchange = as_bytes(name);
          method.type = as_bytes("topic");
          method.durable = 1;
          op.call(AMQP_EXCHANGE_DECLARE_METHOD, &method, declared);
        };
        // Pipelined; from below, so that a level's target is there before it.
        if (from == 0) declare_exchange(kDelayOut);
        for (std::uint32_t k = from; k <= level; ++k) {
          const std::string name = delay_name(k);
          const std::string below = k == 0 ? kDelayOut : delay_name(k - 1);
          declare_exchange(name);
          declaration d = declaration::level(k);
          op.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), declared);
          const std::string set = level_pattern(k, true);
          amqp_queue_bind_t in{};
          in.queue = as_bytes(name);
          in.exchange = as_bytes(name);
          in.routing_key = as_bytes(set);
          op.call(AMQP_QUEUE_BIND_METHOD, &in, declared);
          const std::string unset = level_pattern(k, false);
          amqp_exchange_bind_t past{};
          past.destination = as_bytes(below);
          past.source = as_bytes(name);
          past.routing_key = as_bytes(unset);
          op.call(AMQP_EXCHANGE_BIND_METHOD, &past, declared);
        }
        const std::string pattern = destination_pattern(queue);
        amqp_queue_bind_t out{};
        out.queue = as_bytes(queue);
        out.exchange = as_bytes(kDelayOut);
        out.routing_key = as_bytes(pattern);
        op.call(AMQP_QUEUE_BIND_METHOD, &out, [&op, answer](const call_result& r) {
          if (!r.done()) {
            op.refuse(r.code == AMQP_NOT_FOUND ? errc::not_found : errc::refused, r, "declare the queue first");
            return;
          }
          op.finish();
          (*answer)({});
        });
      },
      [answer](failure why) { (*answer)(std::move(why)); });
}

}  // namespace leveret::core::rabbitmq
