#include "sender.hpp"

#include <algorithm>

#include "faults.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr std::uint32_t kMostUnits = (1u << kDelayLevels) - 1;
// The binding of a queue to the delay levels is looked at again after this: the queue may have been deleted and made
// anew.
constexpr std::chrono::seconds kDelaysChecked{10};
constexpr const char* kNdjson = "application/x-ndjson";

std::string to_queue(const std::string& queue) { return "to \"" + queue + "\""; }

std::int64_t units_until(unix_ms due, unix_ms now) {
  return due <= now ? 0 : (due - now) / kDelayUnit + ((due - now) % kDelayUnit != 0 ? 1 : 0);
}

}  // namespace

struct sender::settle_call {
  std::vector<settle_outcome> outcomes;
  std::size_t left = 0;
  std::function<void(std::vector<settle_outcome>)> then;
};

struct sender::one_settlement {
  std::shared_ptr<settle_call> call;
  std::size_t index = 0;
  delivery_token token = 0;
  bool final = true;
  reactor::clock::time_point deadline;
  std::size_t messages = 0;      // the group's first members: publishes; then `others`
  std::vector<outgoing> others;  // dead records, then results; kept to be sent again
  std::size_t dead = 0;          // how many of `others` are dead records
  bool made_dead_queues = false;
};

sender::sender(reactor& r, link& publishing, link& consuming, loop& to, publisher& p, consumers& c, operations& ops,
               const limits& lim, random_source random)
    : reactor_(r),
      publishing_(publishing),
      loop_(to),
      publisher_(p),
      consumers_(c),
      operations_(ops),
      limits_(lim),
      random_(std::move(random)) {
  link::user u;
  u.on_down = [this](const failure&) {
    // Perhaps another broker answers next.
    for (auto& entry : delays_) entry.second.levels = 0;
  };
  consuming.add(std::move(u));
}

// ---- publishing ----

outgoing sender::from_message(message& m) {
  outgoing o;
  o.routing_key = m.queue;
  o.what = to_queue(m.queue);
  o.props.message_id = m.id.empty() ? make_message_id(loop_.wall(), random_) : std::move(m.id);
  o.props.content_type = m.jobs == 1 ? "application/json" : kNdjson;
  o.props.reply_to = std::move(m.reply);
  o.props.headers = std::move(m.headers);
  o.props.jobs = m.jobs;
  o.props.due = m.due;
  o.data = std::move(m.data);
  return o;
}

void sender::send(std::vector<message>& messages, const std::shared_ptr<publish_group>& group, std::size_t first,
                  bool settling) {
  std::vector<outgoing> now;
  now.reserve(messages.size());
  const unix_ms wall = loop_.wall();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    message& m = messages[i];
    const std::size_t index = first + i;
    if (!settling && m.data.size() > limits_.max_message_bytes) {
      group->end(index, refused(errc::refused, "cannot publish " + to_queue(m.queue) + ": the message has " +
                                                   std::to_string(m.data.size()) + " bytes, at most " +
                                                   std::to_string(limits_.max_message_bytes) +
                                                   " are allowed; send smaller batches"));
      continue;
    }
    if (m.queue.empty() || m.queue.size() > kMostQueueName) {
      group->end(index,
                 refused(errc::invalid_argument, "cannot publish " + to_queue(m.queue) + ": a queue's name has 1 to " +
                                                     std::to_string(kMostQueueName) + " bytes"));
      continue;
    }
    const std::int64_t units = m.due == 0 ? 0 : units_until(m.due, wall);
    if (units > kMostUnits) {
      group->end(index, refused(errc::unsupported,
                                "cannot publish " + to_queue(m.queue) +
                                    ": on RabbitMQ a message can be due in at most 198 days; send it later"));
      continue;
    }
    const unix_ms due = m.due;
    const bool rough = m.rough_due;
    std::string queue = m.queue;
    outgoing o = from_message(m);
    o.group = group;
    o.index = index;
    if (units > 0) {
      send_delayed(std::move(o), due, queue, rough);
    } else {
      now.push_back(std::move(o));
    }
  }
  if (!now.empty()) publisher_.publish(std::move(now));
}

void sender::send_delayed(outgoing item, unix_ms due, const std::string& queue, bool rough) {
  // Levels for the delay as it is now; it can only become shorter.
  const auto units_now = static_cast<std::uint32_t>(units_until(due, loop_.wall()));
  const std::uint32_t level = std::min(highest_level(std::max(units_now, 1u)) + (rough ? 1 : 0), kDelayLevels - 1);
  const auto held = std::make_shared<outgoing>(std::move(item));
  when_delays_ready(queue, level, [this, held, due, queue, rough](maybe_failure why) {
    if (held->group->ended(held->index)) return;
    if (why) {
      publish_end e = refused(why->code, "cannot publish " + held->what + ": " + why->text);
      e.missing = why->code == errc::not_found;
      if (why->code == errc::broker_unavailable || why->code == errc::closed) {
        e.outcome.status = publish_status::unknown;
      }
      held->group->end(held->index, std::move(e));
      return;
    }
    auto units = static_cast<std::uint32_t>(units_until(due, loop_.wall()));
    if (units > 0) {
      // A retry's delay is a guess anyway: one hop instead of one for each bit.
      if (rough && highest_level(units) + 1 < kDelayLevels && (units & (units - 1)) != 0) {
        units = 2u << highest_level(units);
      }
      held->exchange = delay_name(highest_level(units));
      held->routing_key = delay_key(units, queue);
    }
    std::vector<outgoing> one;
    one.push_back(std::move(*held));
    publisher_.publish(std::move(one));
  });
}

void sender::when_delays_ready(const std::string& queue, std::uint32_t level, std::function<void(maybe_failure)> then) {
  if (queue.find_first_of("*#") != std::string::npos) {
    then(failure{errc::unsupported, "on RabbitMQ a queue with '*' or '#' in its name takes no delayed messages"});
    return;
  }
  delays_of_queue& d = delays_[queue];
  const auto now = reactor::clock::now();
  if (d.levels > level && now - d.checked < kDelaysChecked) {
    then({});
    return;
  }
  d.waiting.emplace_back(level, std::move(then));
  if (d.asked > level) return;
  d.asked = level + 1;
  declare_delay(operations_, queue, 0, level, [this, queue, level](const maybe_failure& why) {
    delays_of_queue& found = delays_[queue];
    if (!why) {
      found.levels = std::max(found.levels, level + 1);
      found.checked = reactor::clock::now();
    }
    if (found.asked == level + 1) found.asked = 0;
    auto waiting = std::move(found.waiting);
    found.waiting.clear();
    for (auto& w : waiting) {
      if (w.first <= level) {
        w.second(why);
      } else {
        found.waiting.push_back(std::move(w));
      }
    }
  });
}

void sender::publish(std::vector<message> messages, reactor::clock::time_point deadline,
                     std::function<void(std::vector<publish_outcome>)> then) {
  const auto group = std::make_shared<publish_group>(reactor_, messages.size(),
                                                     [then = std::move(then)](std::vector<publish_end> ends) {
                                                       std::vector<publish_outcome> outcomes;
                                                       outcomes.reserve(ends.size());
                                                       for (publish_end& e : ends)
                                                         outcomes.push_back(std::move(e.outcome));
                                                       then(std::move(outcomes));
                                                     });
  if (messages.empty()) {
    group->nothing();
    return;
  }
  publisher_.set_deadline(group, deadline);
  send(messages, group, 0, false);
}

// ---- settling ----

void sender::add_dead(std::vector<outgoing>& out, std::vector<dead_job>& jobs) {
  std::map<std::string, std::string> packs;  // by dead queue
  const auto close_pack = [&](const std::string& queue, std::string& text) {
    outgoing o;
    o.routing_key = queue;
    o.what = to_queue(queue);
    o.props.message_id = make_message_id(loop_.wall(), random_);
    o.props.content_type = kNdjson;
    o.props.type = kDeadType;
    o.props.jobs = std::count(text.begin(), text.end(), '\n');
    o.data = body(text);
    out.push_back(std::move(o));
    text.clear();
  };
  for (const dead_job& job : jobs) {
    const std::string queue = dead_queue_of(job.queue);
    std::string& text = packs[queue];
    if (!text.empty() && text.size() + job.record.size() + 1 > kDeadPack) close_pack(queue, text);
    text += job.record;
    text += '\n';
  }
  for (auto& entry : packs) {
    if (!entry.second.empty()) close_pack(entry.first, entry.second);
  }
}

void sender::add_results(std::vector<outgoing>& out, std::vector<result_chunk>& chunks) {
  for (result_chunk& chunk : chunks) {
    if (chunk.reply.empty()) continue;  // nobody wants it
    outgoing o;
    o.routing_key = chunk.reply;
    o.what = "of results " + to_queue(chunk.reply);
    o.props.message_id = std::move(chunk.id);
    o.props.content_type = kNdjson;
    o.props.type = kResultsType;
    o.props.headers = {{"first_line", std::to_string(chunk.first_line)},
                       {"last_line", std::to_string(chunk.last_line)}};
    o.data = body(chunk.data);
    out.push_back(std::move(o));
  }
}

void sender::replace_dead(std::vector<message> messages, std::vector<dead_job> stay,
                          std::function<void(maybe_failure)> then) {
  std::vector<outgoing> records;
  add_dead(records, stay);
  const std::size_t total = messages.size() + records.size();
  ++settling_;
  const auto group =
      std::make_shared<publish_group>(reactor_, total, [this, then = std::move(then)](std::vector<publish_end> ends) {
        --settling_;
        for (publish_end& e : ends) {
          if (e.outcome.status == publish_status::accepted) continue;
          then(std::move(e.outcome.why));
          return;
        }
        then({});
      });
  if (total == 0) {
    group->nothing();
    return;
  }
  publisher_.set_deadline(group, reactor::clock::now() + kSettleTimeout);
  const std::size_t first = messages.size();
  send(messages, group, 0, true);
  for (std::size_t i = 0; i < records.size(); ++i) {
    records[i].group = group;
    records[i].index = first + i;
  }
  if (!records.empty()) publisher_.publish(std::move(records));
}

void sender::settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) {
  const auto call = std::make_shared<settle_call>();
  call->outcomes.resize(settlements.size());
  call->left = settlements.size();
  call->then = std::move(then);
  if (settlements.empty()) {
    call->then({});
    return;
  }
  for (std::size_t i = 0; i < settlements.size(); ++i) {
    ++settling_;
    settlement& s = settlements[i];
    if (s.final ? !consumers_.begin_settle(s.token) : !consumers_.holds(s.token)) {
      complete(*call, i, settle_status::fenced, "the delivery was lost meanwhile: it is somebody else's now");
    } else if (s.final && s.publish.empty() && s.dead.empty() && s.results.empty()) {
      acknowledge(call, i, s.token);
    } else {
      settle_one(call, i, std::move(s));
    }
  }
}

void sender::acknowledge(const std::shared_ptr<settle_call>& call, std::size_t index, delivery_token token) {
  faults::hit(faults::point::before_ack);
  consumers_.finish(token, [this, call, index](bool acked) {
    if (acked) {
      complete(*call, index, settle_status::settled, {});
    } else {
      complete(*call, index, settle_status::fenced,
               "the delivery was lost before it could be acknowledged: it will come again");
    }
  });
}

void sender::settle_one(const std::shared_ptr<settle_call>& call, std::size_t index, settlement s) {
  const auto one = std::make_shared<one_settlement>();
  one->call = call;
  one->index = index;
  one->token = s.token;
  one->final = s.final;
  add_dead(one->others, s.dead);
  one->dead = one->others.size();
  add_results(one->others, s.results);
  one->messages = s.publish.size();
  const std::size_t total = one->messages + one->others.size();
  if (total == 0) {
    published(one, {});
    return;
  }
  one->deadline = reactor::clock::now() + kSettleTimeout;
  const auto group = std::make_shared<publish_group>(
      reactor_, total, [this, one](std::vector<publish_end> ends) { published(one, std::move(ends)); });
  publisher_.set_deadline(group, one->deadline);
  send(s.publish, group, 0, true);
  std::vector<outgoing> now = one->others;
  for (std::size_t i = 0; i < now.size(); ++i) {
    now[i].group = group;
    now[i].index = one->messages + i;
  }
  if (!now.empty()) publisher_.publish(std::move(now));
}

void sender::published(const std::shared_ptr<one_settlement>& s, std::vector<publish_end> ends) {
  std::vector<std::size_t> missing_dead;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const publish_end& e = ends[i];
    if (e.outcome.status == publish_status::accepted) continue;
    const bool other = i >= s->messages;
    // A reply queue that is gone: nobody will ever ask for the result.
    if (e.missing && other && i - s->messages >= s->dead) continue;
    if (e.missing && other && !s->made_dead_queues) {
      missing_dead.push_back(i - s->messages);
      continue;
    }
    consumers_.give_up_settle(s->token);
    complete(*s->call, s->index, settle_status::failed, "cannot settle a delivery: " + e.outcome.why.text);
    return;
  }
  if (!missing_dead.empty()) {
    make_dead_queues(s, missing_dead);
    return;
  }
  if (s->final) {
    acknowledge(s->call, s->index, s->token);
  } else {
    complete(*s->call, s->index, settle_status::settled, {});
  }
}

void sender::make_dead_queues(const std::shared_ptr<one_settlement>& s, const std::vector<std::size_t>& missing) {
  s->made_dead_queues = true;
  std::vector<outgoing> again;
  again.reserve(missing.size());
  for (const std::size_t i : missing) again.push_back(s->others[i]);
  const auto group = std::make_shared<publish_group>(reactor_, again.size(), [this, s](std::vector<publish_end> ends) {
    // As the dead members of a first group.
    s->messages = 0;
    s->dead = ends.size();
    published(s, std::move(ends));
  });
  publisher_.set_deadline(group, s->deadline);
  for (std::size_t i = 0; i < again.size(); ++i) {
    again[i].group = group;
    again[i].index = i;
    const auto item = std::make_shared<outgoing>(std::move(again[i]));
    declare_queue(operations_, item->routing_key, 0, true, [this, item](found_queue, maybe_failure why) {
      if (why) {
        item->group->end(item->index, refused(why->code, why->text));
        return;
      }
      std::vector<outgoing> one;
      one.push_back(std::move(*item));
      publisher_.publish(std::move(one));
    });
  }
}

void sender::complete(settle_call& call, std::size_t index, settle_status status, std::string why) {
  --settling_;
  call.outcomes[index] = {status, std::move(why)};
  if (--call.left > 0) return;
  const auto then = std::move(call.then);
  then(std::move(call.outcomes));
}

}  // namespace leveret::core::rabbitmq
