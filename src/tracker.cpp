#include "tracker.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "claim.hpp"
#include "claimed_work.hpp"
#include "faults.hpp"
#include "ordered.hpp"
#include "ordered_work.hpp"

namespace leveret::core {

tracker::tracker(transport& t, loop& l, pool& p, tracker_settings settings, random_source random, log_sink& log,
                 std::atomic<bool>& stopping)
    : transport_(t),
      loop_(l),
      pool_(p),
      settings_(std::move(settings)),
      random_(std::move(random)),
      log_(log),
      stopping_flag_(stopping),
      settled_ids_(settings_.deduplication) {}

std::vector<running_job> tracker::running(std::size_t most) {
  std::vector<delivery_token> tokens;
  tokens.reserve(active_.size());
  for (const auto& each : active_) tokens.push_back(each.first);
  std::sort(tokens.begin(), tokens.end());
  std::vector<running_job> jobs;
  for (const delivery_token token : tokens) {
    if (jobs.size() >= most) break;
    const active& a = active_.at(token);
    const unix_ms since =
        loop_.wall() - std::chrono::duration_cast<std::chrono::milliseconds>(loop_.now() - a.since).count();
    for (const std::uint32_t line : a.running->running_lines(most - jobs.size())) {
      jobs.push_back(reader_.read(a.running->what().msg.id, a.running->line(line), line));
      jobs.back().since = since;
    }
  }
  return jobs;
}

// ---- receiving ----

void tracker::on_delivery(consumed_queue& queue, delivery&& d) {
  faults::hit(faults::point::after_claim);
  if (deliveries_++ == 0) first_delivery_ = loop_.now();
  if (stopping_) {
    release(d.token);
    return;
  }
  // Before all else: of a message that anybody may have written nothing is believed, its id and its counts no more than
  // its jobs. So its id is not remembered either: it may be that of one that is good.
  if (d.refused || has_too_many_lines(d.msg)) {
    pending p;
    p.queue = &queue;
    p.plan = d.refused ? plan_refused(d, *d.refused, returner_) : plan_too_many_lines(d);
    log_.log(LEVERET_WARNING, "message_refused", d.msg.id, d.refused ? d.refused->text : "it has too many lines");
    settle(std::move(p));
    return;
  }
  if (settled_ids_.contains(d.msg.id)) {
    log_.log(LEVERET_INFO, "duplicate_message", d.msg.id, "its jobs have ended here already; acknowledged");
    pending p;
    p.plan.what.token = d.token;
    p.queue = &queue;
    settle(std::move(p));
    return;
  }
  if (!d.msg.headers.empty()) hear_of_shards(queue, d.msg);
  if (d.returns > 0 || (d.returns < 0 && d.redelivered)) unclean(queue);

  const redelivery_action action = on_return(d, queue.suspects, queue.isolate, settings_.max_crashes);
  if (action == redelivery_action::run) {
    run(queue, std::move(d));
    return;
  }
  pending p;
  p.queue = &queue;
  p.message_id = d.msg.id;
  // One for all shards: workers that hear of shards make no queue, for RabbitMQ closes the connection of who consumes
  // one that another is just making.
  const std::string base = queue.shard_of == nullptr ? base_queue(queue.name) : queue.shard_of->name;
  switch (action) {
    case redelivery_action::run:
      break;
    case redelivery_action::move_to_suspects:
      log_.log(LEVERET_WARNING, "moved_to_suspects", d.msg.id,
               "returned " + std::to_string(d.returns) + " times; goes on in " + base + kSuspectsSuffix);
      p.plan = plan_move(d, base + kSuspectsSuffix, false, loop_.wall(), random_, returner_);
      break;
    case redelivery_action::split_into_singles:
      log_.log(LEVERET_WARNING, "split_suspect", d.msg.id, "took its worker down again; its jobs go on one by one");
      p.plan = plan_move(d, base + kSuspectsSuffix, true, loop_.wall(), random_, returner_);
      break;
    case redelivery_action::dead_crashed:
      p.plan = plan_crashed(d, crashes_of(d), returner_);
      break;
  }
  settle(std::move(p));
}

bool tracker::runs_of(const consumed_queue& queue) const {
  return std::any_of(active_.begin(), active_.end(), [&](const auto& each) { return each.second.queue == &queue; });
}

void tracker::run_behind(consumed_queue& queue) {
  if (queue.behind.empty() || runs_of(queue)) return;
  delivery d = std::move(queue.behind.front());
  queue.behind.pop_front();
  stopping_ ? release(d.token) : run(queue, std::move(d));
}

void tracker::run(consumed_queue& queue, delivery&& d) {
  if (queue.ordered && runs_of(queue)) {
    queue.behind.push_back(std::move(d));
    return;
  }
  const delivery_token token = d.token;
  std::shared_ptr<work> w = start(queue, std::move(d));
  active& a = active_[token];
  a.running = std::move(w);
  a.queue = &queue;
  a.since = loop_.now();
  if (a.running->wants_results() && !results_timer_) {
    results_timer_ = true;
    loop_.after(settings_.result_flush, [this] { tick_results(); });
  }
  if (!slow_timer_) {
    slow_timer_ = true;
    loop_.after(settings_.slow_after, [this] { tick_slow(); });
  }
}

std::shared_ptr<work> tracker::start(consumed_queue& queue, delivery&& d) {
  const auto then = [this](const std::shared_ptr<work>& ended) { on_ended(ended); };
  if (const std::optional<claim> held = claim_of(d.msg); held && held->until != held_until::window) {
    if (!transport_.what_it_can().claims) {
      if (!std::exchange(keys_stay_logged_, true)) {
        log_.log(
            LEVERET_WARNING, "keys_stay", held->job,
            "a job that is unique until it starts or ends came from a sender with a store, and this worker has none: "
            "keys stay until their windows end; give the worker the sender's results= too");
      }
    } else if (held->until == held_until::start && split_lines(d.msg.data.view()).size() == 2) {
      const auto key = [this, token = d.token, key = claimed_key{held->key, held->job}](
                           const std::function<void(bool)>& let) { let_go(token, key, let); };
      return claimed_work::run(std::move(d), pool_, loop_, key, then);
    }
  }
  if (queue.ordered) return ordered_work::run(std::move(d), pool_, loop_, returner_, then);
  return pool_.run(std::move(d), then);
}

// Not by `settle`: what runs is not settled by it.
void tracker::let_go(delivery_token token, const claimed_key& key, const std::function<void(bool)>& then) {
  settlement s;
  s.token = token;
  s.final = false;
  s.let_go = {key};
  transport_.settle({std::move(s)}, [this, token, key, then](const std::vector<settle_outcome>& outcomes) {
    const settle_outcome& outcome = outcomes.front();
    const auto found = active_.find(token);
    if (outcome.status != settle_status::failed || found == active_.end() || found->second.lost || stopping_) {
      then(outcome.status == settle_status::settled);
      return;
    }
    log_.log(LEVERET_ERROR, "key_not_let_go", key.job, outcome.why + "; tried again");
    loop_.after(settings_.settle_retry, [this, token, key, then] { let_go(token, key, then); });
  });
}

void tracker::unclean(consumed_queue& queue) {
  if (queue.size.unclean() && !queue.suspects && !queue.ordered && queue.subscription != 0) {
    transport_.resize(queue.subscription, window_of(queue));
  }
}

void tracker::on_lost(consumed_queue& queue, const std::vector<delivery_token>& tokens) {
  if (tokens.empty()) return;
  log_.log(LEVERET_WARNING, "deliveries_lost", {},
           std::to_string(tokens.size()) + " of " + queue.name + "; they will be handed out again");
  unclean(queue);
  for (const delivery_token token : tokens) {
    queue.behind.erase(
        std::remove_if(queue.behind.begin(), queue.behind.end(), [&](const delivery& d) { return d.token == token; }),
        queue.behind.end());
    const auto found = active_.find(token);
    if (found == active_.end()) {
      if (settling_ > 0) lost_.insert(token);
      continue;
    }
    found->second.lost = true;
    found->second.running->stop_starting();
  }
}

// ---- settling ----

void tracker::on_ended(const std::shared_ptr<work>& w) {
  const delivery_token token = w->what().token;
  const auto found = active_.find(token);
  if (found == active_.end()) return;
  if (found->second.flushing) {
    found->second.ended = true;
    return;
  }
  active a = std::move(found->second);
  active_.erase(found);
  if (a.lost) {
    run_behind(*a.queue);
    check_drained();
    schedule_burst_check();
    return;
  }
  // Nothing ran: it is given back as it came. So is an ordered message of which some lines ran: its place is before
  // all others, and nothing can be published there. Those lines run again.
  if (w->unstarted().size() == w->lines() || (a.queue->ordered && !w->unstarted().empty())) {
    if (!a.queue->suspects || crashes_of(w->what()) == 0) {
      release(token);
      return;
    }
    pending back;
    back.queue = a.queue;
    back.plan = plan_suspect_return(w->what(), loop_.wall(), random_, returner_);
    settle(std::move(back));
    return;
  }
  std::uint32_t part = UINT32_MAX;
  if (a.splitting) {
    // As many jobs a message as this worker ran in half a second, so that every part is shared out soon.
    const std::uint64_t ran = w->lines() - w->unstarted().size();
    const auto elapsed = std::max<std::int64_t>(1, (loop_.now() - a.since) / std::chrono::milliseconds(1));
    part = std::max<std::uint32_t>(1, static_cast<std::uint32_t>(ran * 500 / static_cast<std::uint64_t>(elapsed)));
  }
  pending p;
  p.queue = a.queue;
  p.message_id = w->what().msg.id;
  p.lines = w->lines() - static_cast<std::uint32_t>(w->unstarted().size());
  p.since = std::max(a.since, a.queue->last_end);
  a.queue->last_end = loop_.now();
  p.plan = plan_settlement(*w, settings_.settling, loop_.wall(), random_, returner_, part);
  std::move(a.unstored.begin(), a.unstored.end(), std::back_inserter(p.plan.what.results));
  settle(std::move(p));
}

void tracker::settle(pending&& p) {
  ++settling_;
  ready_to_settle_.push_back(std::move(p));
  if (flush_posted_) return;
  flush_posted_ = true;
  loop_.post([this] { flush_settlements(); });  // behind what has ended by now: one transaction for all of it
}

void tracker::flush_settlements() {
  flush_posted_ = false;
  auto batch = std::make_shared<std::vector<pending>>(std::exchange(ready_to_settle_, {}));
  ready_to_settle_.reserve(batch->size());
  std::vector<settlement> what;
  what.reserve(batch->size());
  for (pending& p : *batch) {
    if (p.last) faults::hit(faults::point::before_settle);
    what.push_back(p.plan.what);
  }
  transport_.settle(std::move(what), [this, batch](const std::vector<settle_outcome>& outcomes) {
    const loop::clock::time_point now = loop_.now();
    for (std::size_t i = 0; i < batch->size(); ++i) on_settled(std::move((*batch)[i]), outcomes[i], now);
    check_drained();
    schedule_burst_check();
  });
}

void tracker::on_settled(pending&& p, const settle_outcome& outcome, loop::clock::time_point now) {
  const delivery_token token = p.plan.what.token;
  --settling_;
  if (!p.last) {
    const auto found = active_.find(token);
    if (found == active_.end()) return;
    active& a = found->second;
    a.flushing = false;
    if (outcome.status == settle_status::failed) {
      log_.log(LEVERET_ERROR, "results_not_stored", p.plan.what.results.front().id, outcome.why + "; tried again");
      std::move(p.plan.what.results.begin(), p.plan.what.results.end(), std::back_inserter(a.unstored));
    }
    if (a.ended) on_ended(std::shared_ptr<work>(a.running));
    return;
  }
  if (outcome.status == settle_status::failed && lost_.count(token) == 0) {
    // The effects are done and only their record is missing: trying again is better than running the jobs again.
    log_.log(LEVERET_ERROR, "settle_failed", p.message_id, outcome.why + "; tried again");
    ++settling_;
    auto again = std::make_shared<pending>(std::move(p));
    loop_.after(settings_.settle_retry, [this, again] {
      --settling_;
      settle(std::move(*again));
    });
    return;
  }
  lost_.erase(token);
  if (outcome.status != settle_status::settled) {
    log_.log(LEVERET_WARNING, "settle_fenced", p.message_id,
             outcome.why.empty() ? "the delivery was lost meanwhile; its jobs run elsewhere" : outcome.why);
    return;
  }
  faults::hit(faults::point::after_settle);
  last_settled_ = now;
  counts_ += p.plan.counts;
  last_retry_due_ = std::max(last_retry_due_, p.plan.last_retry_due);
  log_dead(p.plan);
  if (!p.message_id.empty()) settled_ids_.add(p.message_id);
  if (p.lines == 0 || p.queue->suspects || p.queue->ordered || p.queue->subscription == 0) return;
  if (p.queue->size.settled(p.lines, last_settled_ - p.since)) {
    transport_.resize(p.queue->subscription, window_of(*p.queue));
  }
}

void tracker::log_dead(const planned& plan) {
  constexpr std::size_t kMostLines = 20;  // a batch of ten thousand bad lines is one event, not ten thousand
  for (std::size_t i = 0; i < plan.dead.size() && i < kMostLines; ++i) {
    const failed_line& line = plan.dead[i];
    log_.log(LEVERET_WARNING, "job_dead", line.id, line.reason.empty() ? line.error : line.reason + ": " + line.error);
  }
  if (plan.dead.size() > kMostLines) {
    log_.log(LEVERET_WARNING, "job_dead", {},
             "and " + std::to_string(plan.dead.size() - kMostLines) + " more of the same message");
  }
}

void tracker::release(delivery_token token) {
  ++releasing_;
  transport_.release({token}, [this](const maybe_failure& why) {
    --releasing_;
    if (why) log_.log(LEVERET_WARNING, "release_failed", {}, why->text);
    check_drained();
    schedule_burst_check();
  });
}

// ---- timers ----

void tracker::tick_results() {
  bool more = false;
  for (auto& [token, a] : active_) {
    if (a.lost || !a.running->wants_results()) continue;
    more = true;
    if (a.flushing || a.ended || loop_.now() - a.since < settings_.result_flush) continue;
    pending p;
    p.last = false;
    p.queue = a.queue;
    p.plan.what.token = token;
    p.plan.what.final = false;
    p.plan.what.results = a.running->take_results();
    std::move(a.unstored.begin(), a.unstored.end(), std::back_inserter(p.plan.what.results));
    a.unstored.clear();
    if (p.plan.what.results.empty()) continue;
    a.flushing = true;
    settle(std::move(p));
  }
  results_timer_ = more;
  if (more) loop_.after(settings_.result_flush, [this] { tick_results(); });
}

void tracker::tick_slow() {
  for (auto& [token, a] : active_) {
    if (stopping_ || a.lost || a.splitting || !a.running->started() || !a.running->has_unstarted()) continue;
    if (a.queue->ordered || a.running->lines() < 2 || loop_.now() - a.since < settings_.slow_after) continue;
    const std::shared_ptr<work> slow = a.running;
    transport_.stats(a.queue->name, [this, slow](const std::vector<queue_stats>& stats, const maybe_failure& why) {
      if (!why && !stats.empty() && stats.front().consumers.value_or(1) > 1) split(slow);
    });
  }
  slow_timer_ = !active_.empty();
  if (slow_timer_) loop_.after(settings_.slow_after, [this] { tick_slow(); });
}

void tracker::split(const std::shared_ptr<work>& w) {
  const auto found = active_.find(w->what().token);
  if (found == active_.end() || found->second.running != w || found->second.lost || stopping_) return;
  if (!w->has_unstarted()) return;
  log_.log(LEVERET_INFO, "split_slow_message", w->what().msg.id, "its unstarted jobs are shared with other consumers");
  found->second.splitting = true;
  w->stop_starting();
}

// ---- ending ----

void tracker::schedule_burst_check() {
  if (!settings_.burst || burst_timer_ || stopping_ || !idle()) return;
  burst_timer_ = true;
  loop_.after(settings_.burst_check, [this] {
    burst_timer_ = false;
    check_burst();
  });
}

void tracker::check_burst() {
  if (stopping_ || !idle()) return;
  // Its own retries are part of a burst; delay levels of the broker may hand them over a little late.
  if (last_retry_due_ != 0 && loop_.wall() < last_retry_due_ + 1'000) {
    schedule_burst_check();
    return;
  }
  struct round {
    std::size_t open;
    bool empty = true;
  };
  const auto state = std::make_shared<round>(round{queues_.size()});
  for (const auto& queue : queues_) {
    transport_.stats(queue->name, [this, state](const std::vector<queue_stats>& stats, const maybe_failure& why) {
      if (why || stats.empty() || stats.front().ready > 0) state->empty = false;
      if (--state->open > 0) return;
      // Twice empty with no delivery between: one that was on its way at the first look has arrived by the second.
      if (state->empty && idle() && deliveries_at_check_ == deliveries_) {
        if (!stopping_ && when_empty_) std::exchange(when_empty_, nullptr)();
        return;
      }
      deliveries_at_check_ = state->empty ? deliveries_ : UINT64_MAX;
      schedule_burst_check();
    });
  }
}

void tracker::stop(std::function<void()> drained) {
  stopping_ = true;
  drained_ = std::move(drained);
  for (const auto& queue : queues_) {
    if (queue->subscription == 0) continue;
    transport_.unsubscribe(queue->subscription, [this, &queue = *queue](const maybe_failure&) {
      if (queue.subscription == 0) return;  // it ended by itself meanwhile
      queue.subscription = 0;
      if (subscribed_ > 0) --subscribed_;
      check_drained();
    });
  }
  for (auto& [token, a] : active_) a.running->wind_down();
  // Told last: a handler that returns at this word must find no further job to start.
  stopping_flag_.store(true, std::memory_order_relaxed);
  for (const auto& queue : queues_) {
    while (!queue->behind.empty()) {
      release(queue->behind.front().token);
      queue->behind.pop_front();
    }
  }
  loop_.post([this] { check_drained(); });
  // A queue that does not answer (its leader gone) must not cost the grace: what is not ours any more needs no
  // farewell.
  loop_.after(settings_.unsubscribe_patience, [this] {
    subscribed_ = 0;
    check_drained();
  });
}

void tracker::abandon() {
  for (auto& [token, a] : active_) a.running->abandon_running();
}

void tracker::check_drained() {
  if (!stopping_ || !drained_ || subscribed_ > 0 || !idle()) return;
  std::exchange(drained_, nullptr)();
}

}  // namespace leveret::core
