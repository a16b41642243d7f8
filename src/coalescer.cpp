#include "coalescer.hpp"

#include <algorithm>
#include <utility>

#include "ordered.hpp"

namespace leveret::core {
namespace {

// What is held is held for senders that were just woken: no longer than waking them can take.
constexpr std::chrono::milliseconds kLongestHold{2};
constexpr std::chrono::microseconds kShortestQuiet{100};  // a timer costs some 10

}  // namespace

coalescer::coalescer(loop& l, std::size_t batch_bytes, std::chrono::microseconds linger, publisher to)
    : loop_(l), batch_bytes_(batch_bytes), linger_(linger), to_(std::move(to)) {}

bool coalescer::send(const envelope& e, std::string_view group, std::string_view line, on_sent then) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return false;
  const bool ordered = is_ordered(e.queue);
  const bool alone = e.due != 0 || e.priority != 0 || (!e.once.key.empty() && !ordered);
  key_ = e.queue;
  if (!ordered) {
    key_ += e.want_results ? '\x01' : '\x02';
    key_ += group;
  }
  if (alone) key_ += '\x01' + std::to_string(++alone_);
  const lanes::iterator at = lanes_.try_emplace(key_).first;
  lane& l = at->second;
  l.ordered = ordered;
  add(l, e, group, line, std::move(then));
  if (l.holding && l.jobs >= l.enough) {
    l.same_again = true;
    publish_waiting(at);
  } else if (has_full(l)) {
    publish_waiting(at, l.on_their_way == 0 && !l.holding);
  } else if (!l.holding && l.on_their_way == 0) {
    if (linger_.count() > 0 && !alone) {
      hold(at, linger_, linger_, SIZE_MAX);
    } else {
      publish_waiting(at);
    }
  }
  return true;
}

void coalescer::add(lane& l, const envelope& e, std::string_view group, std::string_view line, on_sent then) {
  const auto fits = [&](const batch& b) {
    return b.lines.size() + line.size() <= batch_bytes_ && b.group == group && b.to.want_results == e.want_results &&
           b.to.shards == e.shards &&
           (!l.ordered || (b.senders.size() < kOrderedJobs && b.to.once.key.empty() && e.once.key.empty()));
  };
  if (l.waiting.empty() || !fits(l.waiting.back())) {
    batch& made = l.waiting.emplace_back();
    made.to = e;
    made.group = group;
    made.since = loop_.now();
  }
  l.waiting.back().lines += line;
  l.waiting.back().senders.push_back(std::move(then));
  ++l.jobs;
  if (l.holding) l.came = loop_.now();
}

bool coalescer::has_full(const lane& l) const noexcept {
  return l.waiting.size() > 1 || (!l.waiting.empty() && l.waiting.front().lines.size() >= batch_bytes_);
}

void coalescer::publish_waiting(lanes::iterator at, bool all) {
  lane& l = at->second;
  l.holding = false;
  if (l.preparing || l.jobs == 0) return;
  if (to_.prepare(l.waiting.front().to, [this, key = at->first](const maybe_failure& why) { prepared(key, why); })) {
    publish_prepared(at, all);
  } else {
    l.preparing = true;
    ++l.on_their_way;  // what comes meanwhile waits
  }
}

void coalescer::publish_prepared(lanes::iterator at, bool all) {
  lane& l = at->second;
  l.since = loop_.now();
  while (all ? l.jobs > 0 : has_full(l)) {
    if (l.ordered && l.on_their_way > 0) return;
    const auto sent = std::make_shared<batch>(std::move(l.waiting.front()));
    l.waiting.pop_front();
    l.jobs -= sent->senders.size();
    ++l.on_their_way;
    to_.publish(sent->to, sent->lines, static_cast<std::uint32_t>(sent->senders.size()), sent->since,
                [this, key = at->first, sent](const published& message, const publish_outcome& outcome) {
                  answered(key, *sent, message, outcome);
                });
  }
}

void coalescer::hold(lanes::iterator at, loop::clock::duration quiet, loop::clock::duration longest,
                     std::size_t enough) {
  lane& l = at->second;
  l.holding = true;
  l.enough = enough;
  l.quiet = quiet;
  l.came = loop_.now();
  l.until = l.came + longest;
  if (const loop::clock::time_point end = l.end_of_hold(); l.looks_at > end) look(at, end);
}

// One timer a lane, which may have been made for the hold before: it looks what there is to do.
void coalescer::look(lanes::iterator at, loop::clock::time_point when) {
  lane& l = at->second;
  l.looks_at = when;
  l.look_number = ++looks_;
  loop_.at(when, [this, key = at->first, number = l.look_number] {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = lanes_.find(key);
    if (found == lanes_.end() || found->second.look_number != number) return;
    lane& here = found->second;
    here.looks_at = loop::clock::time_point::max();
    const loop::clock::time_point now = loop_.now();
    if (!here.holding) return;
    if (const loop::clock::time_point end = here.end_of_hold(); end > now) {
      look(found, end);
    } else {
      here.same_again = false;
      publish_waiting(found);
      if (here.on_their_way == 0) lanes_.erase(found);
    }
  });
}

void coalescer::prepared(const std::string& key, const maybe_failure& why) {
  std::deque<batch> failed;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = lanes_.find(key);
    lane& l = at->second;
    l.preparing = false;
    --l.on_their_way;
    if (!why) {
      publish_prepared(at, true);
      return;
    }
    failed = std::exchange(l.waiting, {});
    l.jobs = 0;
    if (l.on_their_way == 0) lanes_.erase(at);
  }
  const publish_outcome outcome{publish_status::unknown, *why, {}};
  for (const batch& each : failed) {
    for (const on_sent& then : each.senders) then({}, 0, outcome);
  }
}

void coalescer::answered(const std::string& key, const batch& sent, const published& message,
                         const publish_outcome& outcome) {
  const loop::clock::time_point now = loop_.now();
  std::size_t waited = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waited = lanes_.find(key)->second.jobs;
  }
  // The lane counts as busy meanwhile: who sends again at once waits for the others.
  std::uint32_t line = 0;
  for (const on_sent& then : sent.senders) then(message, ++line, outcome);

  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = lanes_.find(key);
  lane& l = at->second;
  if (--l.on_their_way > 0) return;
  const std::size_t enough = waited + sent.senders.size();
  if (!closed_ && enough > 1 && l.jobs < enough && !has_full(l)) {
    const auto took = std::min<loop::clock::duration>(now - l.since, kLongestHold);
    if (l.same_again) {
      hold(at, std::max<loop::clock::duration>(took, kShortestQuiet), kLongestHold, enough);
    } else {
      hold(at, took / 2, took / 2, enough);
    }
  } else if (l.jobs > 0) {
    publish_waiting(at);
  } else {
    lanes_.erase(at);
  }
}

void coalescer::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  for (auto at = lanes_.begin(); at != lanes_.end(); ++at) publish_waiting(at);
}

}  // namespace leveret::core
