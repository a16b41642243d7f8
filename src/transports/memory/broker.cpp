#include "transports/memory/broker.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ordered.hpp"

namespace leveret::core::memory {
namespace {

constexpr std::chrono::milliseconds kLongestSleep{10'000};  // so a step of the wall clock is noticed within this time

std::string id_key(const message& m) { return m.queue + '\n' + m.id; }

void count_ready(queue& q, const stored& s, bool added) {
  std::uint64_t& count = s.msg.jobs == 0 ? q.ready_uncounted : q.ready_jobs;
  const std::uint64_t amount = s.msg.jobs == 0 ? 1 : s.msg.jobs;
  count = added ? count + amount : count - amount;
}

void put_ready(queue& q, stored_ptr s) {
  count_ready(q, *s, true);
  const std::uint64_t place = s->place;
  q.ready.emplace(place, std::move(s));
}

stored_ptr take_ready(queue& q) {
  const auto first = q.ready.begin();
  stored_ptr s = std::move(first->second);
  q.ready.erase(first);
  count_ready(q, *s, false);
  return s;
}

void store(broker& b, queue& q, message m, unix_ms now, bool note_id) {
  auto s = std::make_unique<stored>();
  s->msg = std::move(m);
  s->id_noted = note_id;
  if (s->msg.due > now) {
    const unix_ms due = s->msg.due;
    q.delayed.emplace(due, std::move(s));
  } else {
    s->place = ++b.last_place;
    put_ready(q, std::move(s));
  }
}

// A message that is due joins the end of its queue.
void promote(broker& b, queue& q, unix_ms now) {
  while (!q.delayed.empty() && q.delayed.begin()->first <= now) {
    stored_ptr s = std::move(q.delayed.begin()->second);
    q.delayed.erase(q.delayed.begin());
    s->place = ++b.last_place;
    put_ready(q, std::move(s));
  }
}

void forget(broker& b, const stored& s) {
  if (!s.id_noted) return;
  const auto found = b.ids.find(id_key(s.msg));
  if (found == b.ids.end()) return;
  b.ended_ids.push_back(&*found);
  if (b.ended_ids.size() <= kRememberedIds) return;
  b.ids.erase(b.ids.find(*b.ended_ids.front()));
  b.ended_ids.pop_front();
}

bool has_room(const subscription& s, std::uint64_t bytes) {
  if (s.held == 0) return true;
  return s.held < s.most.messages && s.held_bytes + bytes <= s.most.bytes;
}

subscription_ptr next_with_room(queue& q, std::uint64_t bytes) {
  for (std::size_t i = 0; i < q.consumers.size(); ++i) {
    const std::size_t index = (q.next + i) % q.consumers.size();
    if (!has_room(*q.consumers[index], bytes)) continue;
    q.next = index + 1;
    return q.consumers[index];
  }
  return nullptr;
}

void on_timer(connection& c, std::uint64_t number) {
  const std::lock_guard lock(c.at->mutex);
  if (!c.open || number != c.timer_number) return;
  c.timer_due = 0;
  const unix_ms now = c.l.wall();
  for (const auto& [id, s] : c.subscriptions) hand_out(*c.at, *s->from, now);
}

void wake_at(connection& c, unix_ms due, unix_ms now) {
  if (c.timer_due != 0 && c.timer_due <= due) return;
  if (c.timer_due != 0) c.l.cancel(c.timer);
  c.timer_due = due;
  const std::chrono::milliseconds left(std::max<unix_ms>(due - now, 0));
  c.timer = c.l.after(std::min(left, kLongestSleep), [weak = c.weak_from_this(), number = ++c.timer_number] {
    if (const auto self = weak.lock()) on_timer(*self, number);
  });
}

// Calls on_delivery, unless the message has left this consumer again before its turn came.
void deliver(connection& c, delivery_token token) {
  delivery d;
  subscription_ptr to;
  {
    const std::lock_guard lock(c.at->mutex);
    const auto found = c.leases.find(token);
    if (found == c.leases.end()) return;
    found->second.seen = true;
    const stored& s = *found->second.what;
    d.token = token;
    d.msg = s.msg;
    d.returns = s.returns;
    d.redelivered = s.handed_out;
    to = found->second.by;
  }
  to->events.on_delivery(std::move(d));
}

// Takes a delivery from its consumer; the message is the caller's.
stored_ptr end_lease(connection& c, lease_place which) {
  lease& held = which->second;
  --held.by->held;
  held.by->held_bytes -= held.what->msg.data.size();
  --held.by->from->running;
  stored_ptr s = std::move(held.what);
  c.leases.erase(which);
  return s;
}

}  // namespace

void connection::call(loop::task t) {
  outbox.push_back(std::move(t));
  if (killed || drain_posted) return;
  drain_posted = true;
  l.post([self = shared_from_this()] { self->drain(); });
}

void connection::drain() {
  std::vector<loop::task> tasks;
  {
    const std::lock_guard lock(at->mutex);
    tasks.swap(outbox);
    drain_posted = false;
  }
  for (loop::task& t : tasks) {
    if (!killed) t();
    t = nullptr;
  }
}

queue* find_queue(broker& b, const std::string& name) {
  const auto found = b.queues.find(name);
  return found == b.queues.end() ? nullptr : &found->second;
}

failure no_such_queue(const broker& b, const std::string& what, const std::string& name) {
  return {errc::not_found,
          "cannot " + what + " \"" + name + "\": " + b.url + " has no such queue; declare it first, or start a worker"};
}

failure is_closed(const broker& b, const std::string& what) {
  return {errc::closed, "cannot " + what + ": the transport to " + b.url + " is closed; open another"};
}

void hand_out(broker& b, queue& q, unix_ms now) {
  promote(b, q, now);
  const bool ordered = is_ordered(q.name);
  while (!q.ready.empty() && (!ordered || q.running == 0)) {
    const std::uint64_t bytes = q.ready.begin()->second->msg.data.size();
    const subscription_ptr to = next_with_room(q, bytes);
    if (to == nullptr) break;
    ++to->held;
    to->held_bytes += bytes;
    ++q.running;
    connection& c = *to->owner;
    const delivery_token token = ++b.last_token;
    c.leases.emplace(token, lease{take_ready(q), to, false});
    c.call([&c, token] { deliver(c, token); });  // the outbox keeps c
  }
  if (q.delayed.empty()) return;
  for (const subscription_ptr& s : q.consumers) wake_at(*s->owner, q.delayed.begin()->first, now);
}

void hand_out(broker& b, const touched_queues& queues, unix_ms now) {
  for (queue* q : queues.all()) hand_out(b, *q, now);
}

// Puts a delivery back to its old place.
queue& give_back(connection& c, lease_place which, bool charged) {
  queue& q = *which->second.by->from;
  const bool seen = which->second.seen;
  stored_ptr s = end_lease(c, which);
  if (charged) ++s->returns;
  if (charged || seen) s->handed_out = true;
  put_ready(q, std::move(s));
  return q;
}

void give_back_all(connection& c, bool charged, touched_queues& touched) {
  // By token, so that a run is repeatable.
  std::vector<delivery_token> tokens;
  tokens.reserve(c.leases.size());
  for (const auto& each : c.leases) tokens.push_back(each.first);
  std::sort(tokens.begin(), tokens.end());
  for (const delivery_token token : tokens) touched.add(give_back(c, c.leases.find(token), charged));
}

void remove_consumer(queue& q, const subscription& s) {
  const auto place =
      std::find_if(q.consumers.begin(), q.consumers.end(), [&s](const subscription_ptr& c) { return c.get() == &s; });
  if (place == q.consumers.end()) return;
  const auto index = static_cast<std::size_t>(place - q.consumers.begin());
  q.consumers.erase(place);
  if (index < q.next) --q.next;
}

publish_outcome accept(connection& c, message m, unix_ms now, touched_queues& touched, bool at_any_rate) {
  broker& b = *c.at;
  const auto refused = [](failure why) { return publish_outcome{publish_status::refused, std::move(why), {}}; };
  const auto what = [&m] { return "publish message " + m.id + " to"; };
  if (m.id.empty()) {
    return refused({errc::invalid_argument, "cannot publish a message to \"" + m.queue + "\": it has no id; make one"});
  }
  if (m.data.size() > c.lim.max_message_bytes) {
    return refused({errc::refused, "cannot " + what() + " \"" + m.queue + "\": it has " +
                                       std::to_string(m.data.size()) + " bytes, at most " +
                                       std::to_string(c.lim.max_message_bytes) +
                                       " are allowed; send less in one message"});
  }
  queue* q = find_queue(b, m.queue);
  if (q == nullptr) return refused(no_such_queue(b, what(), m.queue));
  if (const std::optional<claim> claims = claim_of(m)) {
    std::string holder = b.claimed.take(*claims, now);
    if (holder != claims->job && !at_any_rate) return {publish_status::accepted, {}, std::move(holder)};
  }
  if (b.ids.insert(id_key(m)).second) {
    store(b, *q, std::move(m), now, true);
    touched.add(*q);
  }
  return {publish_status::accepted, {}, {}};
}

settle_outcome settle_one(connection& c, settlement& s, unix_ms now, touched_queues& touched) {
  broker& b = *c.at;
  const auto found = c.leases.find(s.token);
  if (found == c.leases.end()) {
    return {settle_status::fenced, "the delivery is no longer this consumer's; nothing was stored"};
  }
  if (s.final) {
    for (const message& m : s.publish) {
      if (m.id.empty() || find_queue(b, m.queue) == nullptr) {
        return {settle_status::failed, m.id.empty()
                                           ? "cannot settle: a message in it has no id"
                                           : no_such_queue(b, "settle: publish message " + m.id + " to", m.queue).text};
      }
    }
    touched.add(*found->second.by->from);
    for (message& m : s.publish) {
      queue* q = find_queue(b, m.queue);
      touched.add(*q);
      store(b, *q, std::move(m), now, false);
    }
    for (dead_job& job : s.dead) {
      std::deque<dead_entry>& list = b.dead[job.queue];
      list.push_back({++b.last_dead, std::move(job)});
    }
    forget(b, *end_lease(c, found));
  }
  for (const claimed_key& key : s.let_go) b.claimed.let_go(key);
  for (result_chunk& chunk : s.results) store_result(c, std::move(chunk), now);
  return {settle_status::settled, {}};
}

void store_result(connection& c, result_chunk chunk, unix_ms now) {
  if (chunk.reply.empty()) return;  // nobody wants it
  broker& b = *c.at;
  const auto found = b.watchers.find(chunk.reply);
  const bool watched = found != b.watchers.end();
  if (watched) {
    found->second.owner->call([to = found->second.on_result, chunk] { (*to)(chunk); });
  }
  const unix_ms expires = now + std::chrono::duration_cast<std::chrono::milliseconds>(c.lim.result_ttl).count();
  b.results.add(std::move(chunk), watched, expires, c.lim.result_cap_bytes);
}

void take_away(broker& b, queue& q, std::map<std::uint64_t, stored_ptr>::iterator which) {
  count_ready(q, *which->second, false);
  b.claimed.let_go_of(which->second->msg);
  forget(b, *which->second);
  q.ready.erase(which);
}

void take_away(broker& b, queue& q, std::multimap<unix_ms, stored_ptr>::iterator which) {
  b.claimed.let_go_of(which->second->msg);
  forget(b, *which->second);
  q.delayed.erase(which);
}

queue_stats stats_of(broker& b, queue& q, unix_ms now) {
  promote(b, q, now);
  queue_stats s;
  s.queue = q.name;
  s.ready = q.ready.size();
  if (q.ready_uncounted == 0) s.ready_jobs = q.ready_jobs;
  s.delayed = q.delayed.size();
  s.running = q.running;
  const auto dead = b.dead.find(q.name);
  s.dead = dead == b.dead.end() ? 0 : dead->second.size();
  s.consumers = q.consumers.size();
  return s;
}

std::uint64_t purge(broker& b, queue& q) {
  const std::uint64_t removed = q.ready.size() + q.delayed.size();
  const auto leave = [&b](const auto& each) {
    b.claimed.let_go_of(each.second->msg);
    forget(b, *each.second);
  };
  for (const auto& each : q.ready) leave(each);
  for (const auto& each : q.delayed) leave(each);
  q.ready.clear();
  q.delayed.clear();
  q.ready_jobs = q.ready_uncounted = 0;
  return removed;
}

}  // namespace leveret::core::memory
