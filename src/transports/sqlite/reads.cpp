// What needs no write transaction: subscriptions, deliveries, watched results, looking. See writer.hpp.
#include <algorithm>
#include <utility>

#include "transports/sqlite/writer.hpp"

namespace leveret::core::sqlite {

namespace {

// Bodies of a delivery batch. The pool begins with the first while the next is read: a tenth more jobs a second than
// with 4 MiB, as it else has nothing to do after each commit.
constexpr std::size_t kReadBytes = 512u << 10;
constexpr std::size_t kResultRows = 256;        // of a watched address at once
constexpr std::size_t kResultBytes = 1u << 20;  // likewise

failure not_there(const std::string& doing, const std::string& queue, const std::string& path) {
  return {errc::not_found,
          "cannot " + doing + " \"" + queue + "\": there is no such queue in " + path + "; declare it first"};
}

}  // namespace

void writer::serve_others() {
  std::vector<other_op> taken;
  taken.swap(others_);
  for (other_op& op : taken) {
    try {
      std::visit([this](auto& one) { serve(one); }, op);
    } catch (const database_error& e) {
      on_database_error(e);
      refuse(op, describe(e, "look into the file"));
    }
  }
}

void writer::serve(subscribe_op& op) {
  auto events = std::make_shared<subscriber>(std::move(op.events));
  const auto queue = store_.find_queue(op.queue);
  if (!queue) {
    const failure why = not_there("consume", op.queue, at_.path);
    if (events->on_ended) post([events, why] { events->on_ended(why); });
    return;
  }
  subscription& s = subs_[op.id];
  s.queue = std::move(op.queue);
  s.key = *queue;
  if (is_ordered(s.queue)) s.base = unordered_queue(s.queue);
  s.w = op.w;
  s.events = std::move(events);
  ++consumers_[s.key];
  consumers_changed_ = true;
  ++active_subs_;
  update_interest();
  // Others' leases may wait for somebody to look.
  next_tick_ = {};
}

void writer::serve(resize_op& op) {
  if (const auto found = subs_.find(op.id); found != subs_.end()) {
    found->second.w = op.w;
    found->second.maybe_ready = true;
    return;
  }
  // Handed in together with its subscription, which is served after the round's writes.
  for (other_op& other : others_) {
    if (auto* subscribe = std::get_if<subscribe_op>(&other); subscribe != nullptr && subscribe->id == op.id) {
      subscribe->w = op.w;
    }
  }
}

void writer::serve(unsubscribe_op& op) {
  if (const auto found = subs_.find(op.id); found != subs_.end() && found->second.active) {
    --consumers_[found->second.key];
    consumers_changed_ = true;
    --active_subs_;
    found->second.active = false;
    if (found->second.messages == 0) subs_.erase(found);
    update_interest();
  }
  others_.erase(std::remove_if(others_.begin(), others_.end(),
                               [&](const other_op& other) {
                                 const auto* subscribe = std::get_if<subscribe_op>(&other);
                                 return subscribe != nullptr && subscribe->id == op.id;
                               }),
                others_.end());
  post([then = std::move(op.then)] { then(std::nullopt); });
}

void writer::serve(watch_op& op) {
  watcher& w = watchers_[op.reply];
  w = watcher{};
  if (const auto before = watched_.find(op.reply); before != watched_.end()) w.cursor = before->second;
  w.on_result = std::make_shared<std::function<void(result_chunk)>>(std::move(op.on_result));
  w.in_flight = std::make_shared<std::atomic<bool>>(false);
  update_interest();
  post([then = std::move(op.then)] { then(std::nullopt); });
}

void writer::serve(unwatch_op& op) {
  if (const auto found = watchers_.find(op.reply); found != watchers_.end()) {
    watched_[op.reply] = found->second.cursor;
    watchers_.erase(found);
  }
  update_interest();
  post([then = std::move(op.then)] { then(std::nullopt); });
}

void writer::serve(stats_op& op) {
  std::vector<queue_stats> found = store_.stats(op.queue, seat_);
  maybe_failure why;
  if (found.empty() && !op.queue.empty()) why = not_there("look at", op.queue, at_.path);
  post([then = std::move(op.then), found = std::move(found), why]() mutable { then(std::move(found), why); });
}

void writer::serve(browse_op& op) {
  const std::string suffix = kDeadSuffix;
  std::string name = op.queue;
  if (name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0) {
    name.resize(name.size() - suffix.size());
  }
  browse_page page;
  maybe_failure why;
  std::int64_t after = 0;
  try {
    std::size_t used = 0;
    if (!op.cursor.empty()) after = std::stoll(op.cursor, &used);
    if (used != op.cursor.size()) after = -1;
  } catch (const std::exception&) {
    after = -1;
  }
  const auto queue = store_.find_queue(name);
  if (!queue) {
    why = not_there("list the dead jobs of", name, at_.path);
  } else if (after < 0) {
    why = failure{errc::invalid_argument, "cannot list the dead jobs of \"" + name + "\": \"" + op.cursor +
                                              "\" is no cursor; pass one that an earlier page gave"};
  } else {
    page = store_.dead_page(*queue, name, after, op.limit);
  }
  post([then = std::move(op.then), page = std::move(page), why]() mutable { then(std::move(page), why); });
}

void writer::serve(fetch_op& op) {
  std::vector<result_chunk> found;
  for (const std::string& id : op.ids) {
    for (result_chunk& c : store_.results_of(id)) found.push_back(std::move(c));
  }
  post([then = std::move(op.then), found = std::move(found)]() mutable { then(std::move(found), std::nullopt); });
}

void writer::refuse(other_op& op, const failure& why) {
  if (auto* subscribe = std::get_if<subscribe_op>(&op)) {
    if (subscribe->events.on_ended) {
      post([ended = std::move(subscribe->events.on_ended), why] { ended(why); });
    }
  } else if (auto* unsubscribe = std::get_if<unsubscribe_op>(&op)) {
    post([then = std::move(unsubscribe->then), why] { then(why); });
  } else if (auto* watch = std::get_if<watch_op>(&op)) {
    post([then = std::move(watch->then), why] { then(why); });
  } else if (auto* unwatch = std::get_if<unwatch_op>(&op)) {
    post([then = std::move(unwatch->then), why] { then(why); });
  } else if (auto* stats = std::get_if<stats_op>(&op)) {
    post([then = std::move(stats->then), why] { then({}, why); });
  } else if (auto* browse = std::get_if<browse_op>(&op)) {
    post([then = std::move(browse->then), why] { then({}, why); });
  } else if (auto* fetch = std::get_if<fetch_op>(&op)) {
    post([then = std::move(fetch->then), why] { then({}, why); });
  } else if (auto* messages = std::get_if<browse_messages_op>(&op)) {
    post([then = std::move(messages->then), why] { then({}, why); });
  } else if (auto* cancelled = std::get_if<watch_cancelled_op>(&op)) {
    post([then = std::move(cancelled->then), why] { then(why); });
  } else if (auto* known = std::get_if<known_op>(&op)) {
    post([then = std::move(known->then), why] { then({}, why); });
  }
}

void writer::deliver() {
  while (!unread_.empty() && steady::now() >= retry_at_) {
    std::vector<claimed> batch;
    std::vector<lease> leases;
    std::size_t bytes = 0;
    while (!unread_.empty() && (batch.empty() || bytes < kReadBytes)) {
      const claimed c = unread_.front();
      unread_.pop_front();
      if (!subs_.at(c.sub).active) {  // unsubscribed meanwhile: nobody will settle it
        give_back_later(c.token);
        continue;
      }
      bytes += static_cast<std::size_t>(c.l.bytes);
      leases.push_back(c.l);
      batch.push_back(c);
    }
    std::vector<message> bodies;
    try {
      store_.begin_read();
      bodies = store_.read_bodies(leases);
      store_.end_read();
    } catch (const database_error& e) {
      store_.end_read();
      on_database_error(e);
      unread_.insert(unread_.begin(), batch.begin(), batch.end());
      return;
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const subscription& s = subs_.at(batch[i].sub);
      delivery d;
      d.token = batch[i].token;
      d.msg = std::move(bodies[i]);
      d.msg.queue = s.queue;
      d.returns = static_cast<std::int32_t>(batch[i].l.returns);
      d.redelivered = batch[i].l.returns > 0;
      post([events = s.events, d = std::move(d)]() mutable { events->on_delivery(std::move(d)); });
    }
    flush();
  }
}

void writer::lose_everything() {
  std::map<subscription_id, std::vector<delivery_token>> lost;
  for (const auto& [token, h] : held_) lost[h.sub].push_back(token);
  for (const claimed& c : unread_) {  // not handed out: nobody to tell
    auto& tokens = lost[c.sub];
    tokens.erase(std::remove(tokens.begin(), tokens.end(), c.token), tokens.end());
  }
  held_.clear();
  unread_.clear();
  give_backs_.clear();
  owner_ = 0;
  owner_moved_ = false;
  consumers_changed_ = true;
  for (auto i = subs_.begin(); i != subs_.end();) {
    subscription& s = i->second;
    s.messages = s.bytes = 0;
    s.maybe_ready = true;
    std::vector<delivery_token>& tokens = lost[i->first];
    std::sort(tokens.begin(), tokens.end());
    if (!tokens.empty() && s.events->on_lost) {
      post([events = s.events, tokens = std::move(tokens)]() mutable { events->on_lost(std::move(tokens)); });
    }
    i = s.active ? std::next(i) : subs_.erase(i);
  }
}

void writer::serve_watchers() {
  if (watchers_.empty() || steady::now() < retry_at_) return;
  for (auto& [reply, w] : watchers_) {
    // One batch at a time: a backlog of results must not pile up at the loop.
    if (!w.maybe || w.in_flight->load()) continue;
    std::vector<result_chunk> found;
    try {
      found = store_.results_for(reply, w.cursor, kResultRows, kResultBytes);
    } catch (const database_error& e) {
      on_database_error(e);
      return;
    }
    if (found.empty()) {
      w.maybe = false;
      continue;
    }
    w.in_flight->store(true);
    post([on_result = w.on_result, in_flight = w.in_flight, kick = kick_, found = std::move(found)]() mutable {
      for (result_chunk& r : found) (*on_result)(std::move(r));
      in_flight->store(false);
      kick->ring();
    });
  }
}

void writer::update_interest() {
  std::uint64_t mask = 0;
  for (const auto& [id, s] : subs_) {
    if (s.active) mask |= queue_interest(s.key);
  }
  for (const auto& [reply, w] : watchers_) mask |= reply_interest(reply);
  if (on_cancelled_) mask |= reply_interest(kCancelledBell);
  seat_.set_interest(mask);
}

}  // namespace leveret::core::sqlite
