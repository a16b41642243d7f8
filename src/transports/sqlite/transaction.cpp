// A round's transaction: see writer.hpp.
#include <algorithm>
#include <iterator>
#include <utility>

#include "faults.hpp"
#include "transports/sqlite/fork.hpp"
#include "transports/sqlite/writer.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kTransactionBytes = 8u << 20;  // bodies in one transaction, a single operation aside
constexpr std::chrono::milliseconds kTurnPatience{1000};
constexpr std::chrono::milliseconds kSayLocked{50};
constexpr std::chrono::milliseconds kSayAgain{200};
constexpr std::size_t kDueAtOnce = 1000;
constexpr std::uint64_t kClaimAtOnce = 1024;

std::size_t bytes_of(const write_op& op) {
  const auto* publish = std::get_if<publish_op>(&op);
  return publish == nullptr ? 0 : publish->bytes;
}

/// A commit whose loss in a power cut does no harm: the messages are where they were.
bool may_be_lost(const write_op& op) {
  return std::holds_alternative<release_op>(op) || std::holds_alternative<report_op>(op);
}

failure no_queue(const std::string& doing, const std::string& queue, const std::string& path) {
  return {errc::not_found,
          "cannot " + doing + " \"" + queue + "\": there is no such queue in " + path + "; declare it first"};
}

std::string ends_with_dead(const std::string& name) {
  const std::string suffix = kDeadSuffix;
  if (name.size() <= suffix.size() || name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) return {};
  return name.substr(0, name.size() - suffix.size());
}

}  // namespace

bool writer::has_room(const subscription& s) const {
  const std::uint64_t out = s.messages - s.freed_messages;
  return s.active && out < s.w.messages && (out == 0 || s.bytes - s.freed_bytes < s.w.bytes) && !has_its_share(s);
}

bool writer::has_its_share(const subscription& s) const {
  if (s.base.empty() || s.overdue) return false;
  const auto holds = std::count_if(subs_.begin(), subs_.end(), [&](const auto& each) {
    return each.second.base == s.base && each.second.messages > each.second.freed_messages;
  });
  const auto claims =
      std::count_if(claimed_.begin(), claimed_.end(), [&](const claimed& c) { return subs_.at(c.sub).base == s.base; });
  return static_cast<std::uint64_t>(holds + claims) >= s.share;
}

// Who settles a message of an ordered queue could always take the next one at once, and the consumers of other
// processes none. So nobody takes from more than its share of them, unless a message still waits at the next tick:
// those for whom it was left are busy or stopped.
void writer::share_out() {
  const auto ordered = [](const auto& each) { return each.second.active && !each.second.base.empty(); };
  if (std::none_of(subs_.begin(), subs_.end(), ordered)) return;
  const std::map<queue_key, std::uint64_t> consumers = store_.live_consumers(seat_);
  for (auto& [id, s] : subs_) {
    if (s.base.empty()) continue;
    const auto found = consumers.find(s.key);
    const std::uint64_t all = found == consumers.end() ? 1 : std::max<std::uint64_t>(found->second, 1);
    s.share = (kOrderedShards + all - 1) / all;
    s.overdue = true;
  }
}

bool writer::may_wait(const write_op& op) const {
  const auto* settle = std::get_if<settle_op>(&op);
  return settle != nullptr && limits_.ack_flush.count() > 0 && !blocked_ &&
         std::all_of(settle->settlements.begin(), settle->settlements.end(), [](const settlement& s) {
           return s.final && s.results.empty() && s.publish.empty() && s.dead.empty() && s.let_go.empty();
         });
}

std::chrono::nanoseconds writer::ack_patience() const {
  const std::chrono::nanoseconds most = limits_.ack_flush;
  if (limits_.ack_flush_commits == 0) return most;
  return std::min(most, limits_.ack_flush_commits * commit_took_);
}

// Nothing may wait for what waits: no other write, no consumer whose window is full or who leaves, no close.
bool writer::acks_are_due() const {
  if (acks_.empty()) return false;
  if (!writes_.empty() || acked_ >= limits_.ack_flush_messages || closed()) return true;
  if (steady::now() >= acks_due_) return true;
  return std::any_of(subs_.begin(), subs_.end(), [](const auto& each) {
    const subscription& s = each.second;
    return s.messages > 0 && (!s.active || !s.base.empty() || s.messages >= s.w.messages || s.bytes >= s.w.bytes);
  });
}

void writer::join_acks() {
  writes_.insert(writes_.begin(), std::make_move_iterator(acks_.begin()), std::make_move_iterator(acks_.end()));
  acks_.clear();
  acked_ = 0;
}

bool writer::needs_transaction() {
  if (!writes_.empty()) return true;
  if (steady::now() < retry_at_) return false;
  if (!give_backs_.empty() || !gone_.empty() || trim_ || owner_moved_) return true;
  if (consumers_changed_ && owner_ == 0 && consumers_.empty()) consumers_changed_ = false;
  if (consumers_changed_) return true;
  if (active_subs_ == 0) return false;
  if (look_for_due_) {
    first_due_ = store_.first_due();
    look_for_due_ = false;
  }
  if (first_due_ && *first_due_ <= loop_.wall()) return true;
  for (auto& [id, s] : subs_) {
    if (!s.maybe_ready || !has_room(s)) continue;
    if (store_.has_ready(s.key)) return true;
    s.maybe_ready = false;
  }
  return false;
}

void writer::transact() {
  refuse_expired("its deadline had passed before it was begun");
  const auto attempt = [this]() -> std::optional<database_error> {
    try {
      {
        const outside_sqlite outside;
        seat_.take_turn(kTurnPatience);
      }
      if (!wait_for_lock()) {
        seat_.end_turn();
        return std::nullopt;
      }
      run_steps();
      faults::hit(faults::point::before_commit);
      const steady::time_point began = steady::now();
      store_.commit();
      if (store_.synced()) commit_took_ = steady::now() - began;
    } catch (const database_error& e) {
      return e;
    }
    faults::hit(faults::point::after_commit);
    committed();
    return std::nullopt;
  };
  std::optional<database_error> failed = attempt();
  if (!failed) return;
  rolled_back(*failed);
  if (!failed->disk_full()) return;
  // A full disk refuses new messages; what ends messages gets another try in the log's own space.
  store_.try_checkpoint();
  if (in_transaction_ == 0) return;
  in_transaction_ = 0;
  failed = attempt();
  if (!failed) return;
  rolled_back(*failed);
  for (std::size_t i = 0; i < in_transaction_; ++i) {
    refuse(writes_.front(), describe(*failed, "store it"), false);
    writes_.pop_front();
  }
  in_transaction_ = 0;
}

bool writer::wait_for_lock() {
  const auto full = [this] {
    // Asked at every try: what comes in meanwhile is done in this transaction too.
    return trim_ || std::any_of(writes_.begin(), writes_.end(), [](const write_op& op) { return !may_be_lost(op); });
  };
  const steady::time_point start = steady::now();
  steady::time_point say_at = start + kSayLocked;
  std::chrono::microseconds pause(200);
  std::string text;
  while (!store_.begin(full())) {
    const steady::time_point now = steady::now();
    if (now >= say_at) {
      say_at = now + kSayAgain;
      const std::string holder = describe_lock_holder(at_.path, seat_.turn_holder());
      const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(now - start).count();
      text = "the file " + at_.path + " has been locked for " + std::to_string(waited) + " ms by " +
             (holder.empty() ? "another program" : holder);
      set_health(health_state::blocked, text);
      blocked_ = true;
    }
    if (!text.empty()) {
      // Meanwhile it goes on with all that needs no lock.
      seat_.beat();
      take_inbox();
      serve_others();
      serve_watchers();
      refuse_expired(text + "; let that program go on (kill -CONT) or end it");
      flush();
      if (ending() || (writes_.empty() && !needs_transaction())) return false;
    }
    const outside_sqlite outside;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(5000));
  }
  return true;
}

void writer::refuse_expired(const std::string& why) {
  const loop::clock::time_point now = loop_.now();
  for (auto i = writes_.begin(); i != writes_.end();) {
    auto* publish = std::get_if<publish_op>(&*i);
    if (publish == nullptr || publish->deadline > now) {
      ++i;
      continue;
    }
    const std::string queue = publish->messages.empty() ? std::string() : publish->messages.front().queue;
    std::string text = "cannot publish to \"";
    text.append(queue).append("\": ").append(why);
    refuse(*i, {errc::broker_unavailable, std::move(text)}, false);
    i = writes_.erase(i);
  }
}

void writer::run_steps() {
  ended_.clear();
  claimed_.clear();
  exhausted_.clear();
  new_owner_ = 0;
  gone_done_ = false;
  for (auto& [id, s] : subs_) s.freed_messages = s.freed_bytes = 0;
  in_transaction_ = 0;
  if (file_replaced()) throw moved_error();
  std::size_t bytes = 0;
  for (write_op& op : writes_) {
    bytes += bytes_of(op);
    if (in_transaction_ > 0 && bytes > kTransactionBytes) break;
    ++in_transaction_;
    std::visit([this](auto& one) { step(one); }, op);
  }
  for (const lease& l : give_backs_) store_.give_back(owner_, l, false);
  if (trim_) trim_ = store_.trim_results(loop_.wall(), kTrimAtOnce);
  step_owners();
  if (active_subs_ > 0 && first_due_ && *first_due_ <= loop_.wall()) {
    store_.move_due(loop_.wall(), kDueAtOnce);
    first_due_ = store_.first_due();
  }
  note_rings(store_.rings());
  step_claims();
}

void writer::step(publish_op& op) {
  op.outcomes.assign(op.messages.size(), {publish_status::accepted, {}, {}});
  const unix_ms now = loop_.wall();
  for (std::size_t i = 0; i < op.messages.size(); ++i) {
    const message& m = op.messages[i];
    publish_outcome& out = op.outcomes[i];
    const auto queue = store_.find_queue(m.queue);
    if (m.id.empty()) {
      out = {publish_status::refused,
             {errc::invalid_argument, "cannot publish to \"" + m.queue + "\": the message has no id"},
             {}};
    } else if (m.data.size() > limits_.max_message_bytes) {
      out = {publish_status::refused,
             {errc::refused, "cannot publish to \"" + m.queue + "\": the message has " + std::to_string(m.data.size()) +
                                 " bytes, the limit is " + std::to_string(limits_.max_message_bytes) +
                                 "; send smaller batches or arguments"},
             {}};
    } else if (!queue) {
      out = {publish_status::refused, no_queue("publish to", m.queue, at_.path), {}};
    } else if (auto holder = store_.find_other_holder(m, now)) {
      out.existing = std::move(*holder);
    } else {
      store_.publish(m, *queue, now);
    }
  }
}

void writer::step(declare_op& op) { store_.declare(op.queue); }

void writer::step(settle_op& op) {
  op.outcomes.clear();
  for (settlement& s : op.settlements) op.outcomes.push_back(settle_one(s));
}

settle_outcome writer::settle_one(settlement& s) {
  const auto found = held_.find(s.token);
  if (found == held_.end() || ended_.count(s.token) != 0) {
    return {settle_status::fenced, "the delivery was settled, released or lost before"};
  }
  const held& h = found->second;
  const auto end = [&](settle_status status, const std::string& why) -> settle_outcome {
    free_room(h);
    ended_.insert(s.token);
    return {status, why};
  };
  for (const message& m : s.publish) {
    if (!s.final) break;  // only results are stored
    // The delivery stays its consumer's, who may settle it another way. A message that grew past the limit (a retry
    // with its errors) is stored: refused, its jobs would run again and again.
    if (m.id.empty()) return {settle_status::failed, "cannot settle: a message for \"" + m.queue + "\" has no id"};
    if (store_.find_queue(m.queue)) continue;
    return {settle_status::failed, no_queue("settle: cannot publish to", m.queue, at_.path).text};
  }
  const bool ours = s.final ? store_.end(owner_, h.l) : store_.holds(owner_, h.l);
  if (!ours) return end(settle_status::fenced, "the delivery was lost and is another consumer's");
  const unix_ms now = loop_.wall();
  for (const result_chunk& r : s.results) store_.add_result(r, now);
  if (!s.results.empty()) store_.trim_results(now, std::max(kTrimAtOnce, 2 * s.results.size()));
  for (const claimed_key& key : s.let_go) store_.let_go(key);
  if (!s.final) return {settle_status::settled, {}};
  // NOLINTNEXTLINE(bugprone-unchecked-optional-access): each queue was found above
  for (const message& m : s.publish) store_.publish(m, *store_.find_queue(m.queue), now);
  for (const dead_job& d : s.dead) store_.add_dead(d);
  return end(settle_status::settled, {});
}

void writer::step(release_op& op) {
  for (const delivery_token token : op.tokens) {
    const auto found = held_.find(token);
    if (found == held_.end() || ended_.count(token) != 0) continue;
    store_.give_back(owner_, found->second.l, false);
    free_room(found->second);
    ended_.insert(token);
  }
}

void writer::step(purge_op& op) {
  op.before = op.state;
  if (!op.found) {
    std::string name = op.queue;
    if (const std::string of = ends_with_dead(op.queue); !of.empty()) {
      name = of;
      op.state.dead = op.before.dead = true;
    }
    const auto queue = store_.find_queue(name);
    if (!queue) {
      op.finished = true;
      return;
    }
    op.found = true;
    op.state.queue = op.before.queue = *queue;
  }
  op.finished = !store_.purge_step(op.state);
}

void writer::free_room(const held& h) {
  const auto found = subs_.find(h.sub);
  if (found == subs_.end()) return;
  found->second.freed_messages += 1;
  found->second.freed_bytes += static_cast<std::uint64_t>(h.l.bytes);
  found->second.maybe_ready = true;
}

void writer::step_owners() {
  if (!gone_.empty()) {
    for (const owner_row& row : store_.owners()) {
      if (std::find(gone_.begin(), gone_.end(), row.owner) == gone_.end() || row.owner == owner_) continue;
      if (observer_.still_gone(row, store_, seat_)) store_.remove_owner(row.owner, true);
    }
    gone_done_ = true;
  }
  // Its row gone: this process was taken for dead (it was stopped for longer than its lease), and what it held is
  // somebody else's now.
  const bool had = owner_ != 0 && store_.has_owner(owner_);
  if (!had && !consumers_.empty()) {
    new_owner_ = store_.add_owner(seat_.identity());
    for (const auto& [queue, count] : consumers_) store_.set_consumers(new_owner_, queue, count);
    return;
  }
  if (!had) return;
  if (owner_moved_) store_.move_owner(owner_, seat_.identity());
  if (consumers_changed_) {
    for (const auto& [queue, count] : consumers_) store_.set_consumers(owner_, queue, count);
  }
}

void writer::step_claims() {
  const owner_key owner = new_owner_ != 0 ? new_owner_ : owner_;
  bool closing = false;
  {
    const std::lock_guard lock(inbox_mutex_);
    closing = closing_;
  }
  if (closing || owner == 0) return;
  for (auto& [id, s] : subs_) {
    if (!s.maybe_ready) continue;
    if (new_owner_ != 0) {  // all it held is lost
      s.freed_messages = s.messages;
      s.freed_bytes = s.bytes;
    }
    if (!has_room(s)) continue;
    const std::uint64_t out = s.messages - s.freed_messages;
    const std::uint64_t out_bytes = s.bytes - s.freed_bytes;
    bool more = false;
    const std::vector<lease> leases =
        store_.claim(owner, s.key, static_cast<std::size_t>(std::min(s.w.messages - out, kClaimAtOnce)),
                     s.w.bytes > out_bytes ? s.w.bytes - out_bytes : 0, out == 0, more);
    // No more there, or the next one does not fit until something is freed.
    if (!more || leases.empty()) exhausted_.push_back(id);
    for (const lease& l : leases) claimed_.push_back({l, id, 0});
  }
  for (auto& [id, s] : subs_) s.overdue = false;
}

void writer::committed() {
  retry_at_ = {};
  if (blocked_) {
    blocked_ = false;
    set_health(health_state::connected, {});
  }
  const std::uint64_t rings = store_.take_rings();
  seat_.ring(rings);
  note_rings(rings);
  for (const delivery_token token : ended_) forget(token);
  ended_.clear();
  for (auto& [id, s] : subs_) s.freed_messages = s.freed_bytes = 0;
  give_backs_.clear();
  if (gone_done_) gone_.clear();
  owner_moved_ = false;
  consumers_changed_ = false;
  for (auto i = consumers_.begin(); i != consumers_.end();) i = i->second == 0 ? consumers_.erase(i) : std::next(i);
  if (new_owner_ != 0) {
    if (owner_ != 0) lose_everything();
    owner_ = new_owner_;
    consumers_changed_ = false;
  }
  for (const subscription_id id : exhausted_) {
    if (const auto found = subs_.find(id); found != subs_.end()) found->second.maybe_ready = false;
  }
  // Whoever was cancelled before the claim is to be known before the delivery.
  if (!claimed_.empty()) maybe_cancelled_ = true;
  for (claimed& c : claimed_) {
    c.token = ++last_token_;
    held_.emplace(c.token, held{c.l, c.sub});
    subscription& s = subs_.at(c.sub);
    ++s.messages;
    s.bytes += static_cast<std::uint64_t>(c.l.bytes);
    unread_.push_back(c);
  }
  claimed_.clear();
  for (; in_transaction_ > 0; --in_transaction_) {
    const auto* purge = std::get_if<purge_op>(&writes_.front());
    const auto* revise = std::get_if<revise_op>(&writes_.front());
    if ((purge != nullptr && !purge->finished) || (revise != nullptr && !revise->finished)) {
      // Its next step waits behind what came meanwhile.
      writes_.push_back(std::move(writes_.front()));
    } else {
      answer(writes_.front());
    }
    writes_.pop_front();
  }
  flush();
  store_.checkpoint_if_needed();
  seat_.end_turn();
}

void writer::forget(delivery_token token) {
  const auto found = held_.find(token);
  if (found == held_.end()) return;
  if (const auto sub = subs_.find(found->second.sub); sub != subs_.end()) {
    --sub->second.messages;
    sub->second.bytes -= static_cast<std::uint64_t>(found->second.l.bytes);
    sub->second.maybe_ready = true;
    if (!sub->second.active && sub->second.messages == 0) subs_.erase(sub);
  }
  held_.erase(found);
}

void writer::give_back_later(delivery_token token) {
  const auto found = held_.find(token);
  if (found == held_.end()) return;
  give_backs_.push_back(found->second.l);
  forget(token);
}

void writer::rolled_back(const database_error& e) {
  const bool unknown = store_.failed_in_commit() && !e.disk_full();
  store_.rollback();
  seat_.end_turn();
  on_database_error(e);
  claimed_.clear();
  for (auto& [id, s] : subs_) s.freed_messages = s.freed_bytes = 0;
  look_for_due_ = true;
  for (write_op& op : writes_) {
    if (auto* purge = std::get_if<purge_op>(&op)) purge->state = purge->before;
    if (auto* revise = std::get_if<revise_op>(&op)) revise->state = revise->before;
  }
  // The failure may have come before anything was chosen.
  if (in_transaction_ == 0) in_transaction_ = writes_.size();
  // On a full disk settles and releases are tried once more by the caller.
  std::size_t kept = 0;
  for (std::size_t i = 0; i < in_transaction_; ++i) {
    write_op op = std::move(writes_[i]);
    const bool again =
        e.disk_full() && (std::holds_alternative<settle_op>(op) || std::holds_alternative<release_op>(op));
    if (again) {
      writes_[kept++] = std::move(op);
    } else {
      refuse(op, describe(e, "store it"), unknown);
    }
  }
  writes_.erase(writes_.begin() + static_cast<std::ptrdiff_t>(kept),
                writes_.begin() + static_cast<std::ptrdiff_t>(in_transaction_));
  in_transaction_ = kept;
}

void writer::answer(write_op& op) {
  if (auto* publish = std::get_if<publish_op>(&op)) {
    published_ = true;
    post_short([then = std::move(publish->then), outcomes = std::move(publish->outcomes)]() mutable {
      then(std::move(outcomes));
    });
  } else if (auto* declare = std::get_if<declare_op>(&op)) {
    post([then = std::move(declare->then)] { then({true}, std::nullopt); });
  } else if (auto* settle = std::get_if<settle_op>(&op)) {
    post([then = std::move(settle->then), outcomes = std::move(settle->outcomes)]() mutable {
      then(std::move(outcomes));
    });
  } else if (auto* release = std::get_if<release_op>(&op)) {
    post([then = std::move(release->then)] { then(std::nullopt); });
  } else if (auto* revise = std::get_if<revise_op>(&op)) {
    maybe_failure why;
    if (!revise->found) why = no_queue("change the dead jobs of", revise->queue, at_.path);
    post([then = std::move(revise->then), left = revise->state.left, why] { then(left, why); });
  } else if (auto* cancel = std::get_if<cancel_op>(&op)) {
    post([then = std::move(cancel->then), outcomes = std::move(cancel->outcomes)]() mutable {
      then(std::move(outcomes), std::nullopt);
    });
  } else if (auto* keep = std::get_if<keep_op>(&op)) {
    post([then = std::move(keep->then)] { then(std::nullopt); });
  } else if (auto* made = std::get_if<report_op>(&op)) {
    post([then = std::move(made->then)] { then(std::nullopt); });
  } else if (auto* exchange = std::get_if<exchange_op>(&op)) {
    post([then = std::move(exchange->then), found = std::move(exchange->found)] { then(found, std::nullopt); });
  } else {
    auto& purge = std::get<purge_op>(op);
    maybe_failure why;
    if (!purge.found) why = no_queue("purge", purge.queue, at_.path);
    post([then = std::move(purge.then), removed = purge.state.removed, why] { then(removed, why); });
  }
}

void writer::refuse(write_op& op, const failure& why, bool unknown) {
  if (auto* publish = std::get_if<publish_op>(&op)) {
    std::vector<publish_outcome> outcomes(publish->messages.size(),
                                          {unknown ? publish_status::unknown : publish_status::refused, why, {}});
    post([then = std::move(publish->then), outcomes = std::move(outcomes)]() mutable { then(std::move(outcomes)); });
  } else if (auto* declare = std::get_if<declare_op>(&op)) {
    post([then = std::move(declare->then), why] { then({}, why); });
  } else if (auto* settle = std::get_if<settle_op>(&op)) {
    // The deliveries stay their consumer's, who may try again.
    std::vector<settle_outcome> outcomes(settle->settlements.size(), {settle_status::failed, why.text});
    post([then = std::move(settle->then), outcomes = std::move(outcomes)]() mutable { then(std::move(outcomes)); });
  } else if (auto* release = std::get_if<release_op>(&op)) {
    for (const delivery_token token : release->tokens) give_back_later(token);
    post([then = std::move(release->then), why] { then(why); });
  } else if (auto* revise = std::get_if<revise_op>(&op)) {
    post([then = std::move(revise->then), left = revise->state.left, why] { then(left, why); });
  } else if (auto* cancel = std::get_if<cancel_op>(&op)) {
    post([then = std::move(cancel->then), why] { then({}, why); });
  } else if (auto* keep = std::get_if<keep_op>(&op)) {
    post([then = std::move(keep->then), why] { then(why); });
  } else if (auto* made = std::get_if<report_op>(&op)) {
    post([then = std::move(made->then), why] { then(why); });
  } else if (auto* exchange = std::get_if<exchange_op>(&op)) {
    post([then = std::move(exchange->then), why] { then({}, why); });
  } else {
    auto& purge = std::get<purge_op>(op);
    post([then = std::move(purge.then), removed = purge.state.removed, why] { then(removed, why); });
  }
}

}  // namespace leveret::core::sqlite
