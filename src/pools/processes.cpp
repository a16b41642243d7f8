#include "processes.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "../faults.hpp"

namespace leveret::core {
namespace {

// Blocks of this size and more give their pages back when they are freed: large messages are rare.
constexpr std::uint64_t kDiscardBytes = 256u << 10;
// A line that was just taken when its job was cancelled is seen to run within instructions; a stopped child takes
// longer.
constexpr std::chrono::seconds kTerminationPatience{10};

void copy_name(char* to, std::size_t room, const std::string& from, const char* what) {
  if (from.size() >= room) {
    throw std::runtime_error("cannot start the pool: the " + std::string(what) + " is longer than " +
                             std::to_string(room - 1) + " bytes");
  }
  std::memcpy(to, from.c_str(), from.size() + 1);
}

}  // namespace

process_pool::process_pool(process_settings settings)
    : settings_(std::move(settings)),
      state_(shared_state::shape{settings_.processes + 1, settings_.threads, settings_.parked}),
      arena_(state_.arena(), kArenaBytes),
      readers_(state_.writers()),
      records_(settings_.processes + 1) {
  shared_header& h = state_.header();
  copy_name(h.worker, sizeof h.worker, settings_.worker, "worker's name");
  copy_name(h.default_task, sizeof h.default_task, settings_.default_task, "default task's name");
  h.max_retries = settings_.retries.max_retries;
  h.backoff_base_ms = settings_.retries.backoff_base.count();
  h.backoff_cap_ms = settings_.retries.backoff_cap.count();
  h.unknown_task_patience_ms = run_settings{}.unknown_task_patience.count();
  charging_.retries = settings_.retries;
  charging_.worker = settings_.worker;
  charging_.default_task = settings_.default_task;
  children::events on;
  on.news = [this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (attached_) {
      loop_->post([this] { look(); });
    } else {
      changed_.notify_all();
    }
  };
  on.ended = [this](const child_end& end) {
    const std::lock_guard<std::mutex> lock(mutex_);
    --alive_;
    changed_.notify_all();
    if (attached_) {
      loop_->post([this, end] { on_child_end(end); });
    } else {
      early_ends_.push_back(end);
    }
  };
  children_ = std::make_unique<children>(settings_.command, state_.memory(), std::move(on));
}

process_pool::~process_pool() { stop(); }

// ---- starting ----

child_description process_pool::start() {
  std::uint32_t started = 1;
  start_child(0);
  const auto deadline = clock::now() + settings_.start_patience;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (!early_ends_.empty()) {
      const child_end end = early_ends_.front();
      lock.unlock();
      if (end.error.empty() && WIFEXITED(end.status) && WEXITSTATUS(end.status) == 2) {
        throw child_refused("the worker's processes do not start");
      }
      if (!end.error.empty()) throw std::runtime_error("cannot start the worker's processes: one " + end.error);
      throw std::runtime_error("cannot start the worker's processes: process " + std::to_string(end.pid) + " " +
                               describe(end) + " before it was ready; what it printed says why");
    }
    state_.header().news.store(0, std::memory_order_seq_cst);
    std::uint32_t ready = 0;
    for (std::uint32_t i = 0; i < settings_.processes; ++i) {
      const auto state = static_cast<child_state>(state_.child(i).state.load(std::memory_order_acquire));
      if (state == child_state::ready && children_->pid(i) != 0) ++ready;
    }
    if (ready == settings_.processes) break;
    if (ready == started) {
      lock.unlock();
      for (; started < settings_.processes; ++started) start_child(started);
      lock.lock();
      continue;
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
      lock.unlock();
      throw std::runtime_error("cannot start the worker's processes: " + std::to_string(settings_.processes - ready) +
                               " of " + std::to_string(settings_.processes) + " were not ready within " +
                               std::to_string(settings_.start_patience.count() / 1000) + " s");
    }
  }
  lock.unlock();
  child_description first;
  for (std::uint32_t i = 0; i < settings_.processes; ++i) {
    const std::uint32_t writer = state_.first_writer(i);
    child_description others;  // the same
    readers_[writer].read(state_, writer, [](const outcome_record&) {}, i == 0 ? first : others);
  }
  defers_ = first.facts.count(kFactDefers) != 0;
  return first;
}

void process_pool::attach(loop& l, const registry& tasks, log_sink& log, job_control& control) {
  loop_ = &l;
  control_ = &control;
  tasks_ = &tasks;
  log_ = &log;
  charging_.tasks = &tasks;
  charging_.log = &log;
  l.post([this] {
    timer_ = loop_->after(settings_.tick, [this] { tick(); });
    std::vector<child_end> early;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      attached_ = true;
      early.swap(early_ends_);
    }
    for (const child_end& end : early) on_child_end(end);
    look();
  });
}

void process_pool::start_child(std::uint32_t child) {
  if (records_[child].running) return;
  records_[child] = {};
  records_[child].running = true;
  state_.child(child).state.store(static_cast<std::uint32_t>(child_state::starting), std::memory_order_relaxed);
  state_.child(child).retired.store(0, std::memory_order_seq_cst);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++alive_;
  }
  children_->start(child);
}

std::vector<pid_t> process_pool::pids() const {
  std::vector<pid_t> all;
  all.reserve(settings_.processes);
  for (std::uint32_t i = 0; i < settings_.processes; ++i) all.push_back(children_->pid(i));
  return all;
}

// ---- giving work ----

std::shared_ptr<work> process_pool::run(delivery d, work::ended on_ended) {
  return run_in(kAllLane, std::move(d), std::move(on_ended));
}

std::shared_ptr<work> process_pool::run_next(delivery d, work::ended on_ended) {
  return run_in(kFirstLane, std::move(d), std::move(on_ended));
}

std::shared_ptr<work> process_pool::run_in(std::uint32_t lane, delivery d, work::ended on_ended) {
  auto w = std::make_shared<process_work>(std::move(d), *this, std::move(on_ended));
  ++w->open_;
  waiting_[lane].push_back({w, {}});
  place(lane);
  return w;
}

void process_pool::cancel(std::string_view job_id) {
  shared_header& h = state_.header();
  const std::uint64_t number = h.cancelled.load(std::memory_order_relaxed);
  shared_header::cancelled_id& entry = h.cancelled_ids[number % kCancelledIds];
  entry.size = static_cast<std::uint8_t>(std::min(job_id.size(), sizeof entry.text));
  std::memcpy(entry.text, job_id.data(), entry.size);
  h.cancelled.store(number + 1, std::memory_order_release);
}

bool process_pool::kill_job(std::string_view job_id) {
  terminations_.push_back({std::string(job_id), clock::now() + kTerminationPatience});
  if (!closing_) check_limits();
  return true;
}

void process_pool::find_terminated() {
  if (terminations_.empty()) return;
  const auto now = clock::now();
  terminations_.erase(std::remove_if(terminations_.begin(), terminations_.end(),
                                     [now](const termination& t) { return t.until <= now; }),
                      terminations_.end());
  for (std::uint32_t child = 0; child < records_.size(); ++child) {
    child_record& record = records_[child];
    if (!record.running || record.killed) continue;
    for (const packed_line line : running_of(child)) {
      const placed_block& block = placed_.find(key_of(line))->second;
      if (!block.owner || record.is_killed_for(line)) continue;
      const std::uint32_t index = block.view.index(line_of(line));
      const std::string_view id = returner_.identify(block.owner->what().msg, block.owner->line(index), index).id;
      if (std::any_of(terminations_.begin(), terminations_.end(), [&](const termination& t) { return t.job == id; })) {
        record.terminated.push_back(line);
      }
    }
  }
}

bool process_pool::child_record::is_killed_for(packed_line line) const noexcept {
  return std::find(over_limit.begin(), over_limit.end(), line) != over_limit.end() ||
         std::find(terminated.begin(), terminated.end(), line) != terminated.end();
}

void process_pool::place(std::uint32_t lane) {
  auto& waiting = waiting_[lane];
  while (!waiting.empty()) {
    if (lane == kQuarantineLane) {
      // One suspect at a time, also where attempts go on without a thread.
      const auto in_lane = [](const auto& placed) { return lane_of(placed.first) == kQuarantineLane; };
      if (std::any_of(placed_.begin(), placed_.end(), in_lane)) return;
      quarantine_used_ = loop_->now();
      start_child(quarantine());
    }
    if (!place_one(lane, waiting.front())) return;  // placed when another one has ended
    waiting.pop_front();
  }
}

bool process_pool::place_one(std::uint32_t lane_number, const waiting_lines& what) {
  shared_lane& lane = state_.header().lanes[lane_number];
  const std::uint64_t number = lane.tail.load(std::memory_order_relaxed);
  shared_lane::entry& entry = lane.entries[number % kLaneEntries];
  if (entry.key.load(std::memory_order_relaxed) != 0) return false;

  const process_work& w = *what.owner;
  const message& m = w.what().msg;
  const bool some = !what.which.empty();
  const auto lines = some ? static_cast<std::uint32_t>(what.which.size()) : w.lines();
  std::size_t body_size = m.data.size();
  if (some) {
    body_size = 0;
    for (const std::uint32_t i : what.which) body_size += w.line(i).size() + 1;
  }
  const std::uint32_t bitmaps = state_.writers() + 1;
  const std::uint64_t bytes =
      block_view::bytes_for(lines, bitmaps, m.id.size(), m.queue.size(), m.reply.size(), body_size, some);
  const auto at = arena_.take(bytes);
  if (!at) return false;

  const block_key key = make_key(lane_number, number);
  const block_view view = state_.block(*at);
  shared_block& head = view.head();
  head.key = key;
  head.bytes = bytes;
  head.lines = lines;
  head.words = (lines + 63) / 64;
  head.id_size = static_cast<std::uint32_t>(m.id.size());
  head.queue_size = static_cast<std::uint32_t>(m.queue.size());
  head.body_size = static_cast<std::uint32_t>(body_size);
  head.bitmaps = bitmaps;
  head.unknown_since = view_of(m).unknown_since;
  head.reply_size = static_cast<std::uint32_t>(m.reply.size());
  head.renumbered = some ? 1 : 0;
  head.cursor.store(0, std::memory_order_relaxed);
  head.complete.store(0, std::memory_order_relaxed);
  for (std::uint32_t b = 0; b < bitmaps; ++b) {
    for (std::uint32_t i = 0; i < head.words; ++i) view.bitmap(b)[i].store(0, std::memory_order_relaxed);
  }
  std::memcpy(view.id(), m.id.data(), m.id.size());
  std::memcpy(view.queue(), m.queue.data(), m.queue.size());
  std::memcpy(view.reply(), m.reply.data(), m.reply.size());
  char* body = view.body();
  std::uint32_t* offsets = view.offsets();
  if (some) {
    std::uint32_t position = 0;
    for (std::uint32_t i = 0; i < lines; ++i) {
      const std::string_view line = w.line(what.which[i]);
      view.indexes()[i] = what.which[i];
      offsets[i] = position;
      std::memcpy(body + position, line.data(), line.size());
      position += static_cast<std::uint32_t>(line.size());
      body[position++] = '\n';
    }
    offsets[lines] = position;
  } else {
    std::memcpy(body, m.data.data(), body_size);
    const std::vector<std::uint32_t>& from = w.offsets();
    std::copy(from.begin(), from.end(), offsets);
  }
  std::memset(body + body_size, 0, body::kPadding);

  placed_.emplace(key, placed_block{what.owner, *at, bytes, view});
  entry.block.store(*at, std::memory_order_relaxed);
  entry.key.store(key, std::memory_order_seq_cst);
  lane.tail.store(number + 1, std::memory_order_release);
  ring(lane_number, 1);  // who wakes wakes the next, if there is more to start
  return true;
}

void process_pool::ring(std::uint32_t lane, int sleepers) noexcept {
  std::atomic<std::uint32_t>& bell = state_.header().lanes[lane == kFirstLane ? kAllLane : lane].bell;
  bell.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(bell, sleepers);
}

// ---- taking outcomes ----

void process_pool::look() {
  state_.header().news.store(0, std::memory_order_seq_cst);
  // First who has ended, then what was said: a bit is set after its outcome was written.
  std::vector<block_key> ended;
  for (const auto& [key, block] : placed_) {
    if (block.view.head().complete.load(std::memory_order_acquire) != 0) ended.push_back(key);
  }
  drain();
  for (const block_key key : ended) end_block(key);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) place(lane);
}

void process_pool::drain() {
  child_description said;  // by a child that was started again: the same as the first time
  for (std::uint32_t i = 0; i < readers_.size(); ++i) {
    readers_[i].read(
        state_, i,
        [this](outcome_record& r) {
          if (r.what == outcome_record::kind::progress) {
            control_->progress(r.result_id, r.dead_reason, r.json);
            return;
          }
          faults::hit(faults::point::in_io_process);
          const auto found = placed_.find(key_of(r.line));
          if (found == placed_.end()) return;
          // What is said has ended, also if the writer dies before it sets its own bit: else the line would run again.
          found->second.view.set_ended(state_.writers(), line_of(r.line));
          if (!found->second.owner) return;
          process_work& w = *found->second.owner;
          if (r.what == outcome_record::kind::result) {
            w.results_.add(r.result_id.empty() ? w.what().msg.id : r.result_id, r.result_line, r.json);
          } else {
            w.fail(std::move(r.failure), r.result_id, r.result_line, r.dead_reason, r.attempts);
          }
        },
        said);
  }
}

void process_pool::check_complete(block_key key, block_view view) {
  // As a child does it (pool_child::check_complete), so that one of two who set their bits at once sees both.
  if (view.head().complete.fetch_or(0, std::memory_order_acq_rel) != 0 || !view.all_ended()) return;
  if (view.head().complete.exchange(1, std::memory_order_acq_rel) != 0) return;  // a child has told us, or will
  drain();
  end_block(key);
}

void process_pool::end_block(block_key key) {
  const auto found = placed_.find(key);
  if (found == placed_.end()) return;
  const placed_block block = std::move(found->second);
  placed_.erase(found);
  const std::uint32_t lane = lane_of(key);
  state_.header().lanes[lane].entries[key / kLanes % kLaneEntries].key.store(0, std::memory_order_seq_cst);
  const leaving_block leaving{key, block.offset, block.bytes};
  if (looked_at(key)) {
    leaving_.push_back(leaving);
  } else {
    free_block(leaving);
  }
  if (block.owner) block.owner->close_block();
}

bool process_pool::looked_at(block_key key) const noexcept {
  for (std::uint32_t i = 0; i < state_.writers(); ++i) {
    if (state_.writer(i).at.load(std::memory_order_seq_cst) == key) return true;
  }
  return false;
}

void process_pool::free_block(const leaving_block& block) {
  if (block.bytes >= kDiscardBytes) state_.discard(block.offset, block.bytes);
  arena_.give_back(block.offset, block.bytes);
}

// ---- from time to time ----

void process_pool::tick() {
  timer_ = loop_->after(settings_.tick, [this] { tick(); });
  const auto still =
      std::partition(leaving_.begin(), leaving_.end(), [this](const leaving_block& b) { return looked_at(b.key); });
  for (auto it = still; it != leaving_.end(); ++it) free_block(*it);
  leaving_.erase(still, leaving_.end());
  // A child may have died, or been stopped, between an outcome and its notice, or with the one wake-up for a line.
  look();
  bool waits[kLanes] = {};
  for (const auto& [key, block] : placed_) {
    const shared_block& head = block.view.head();
    if (head.cursor.load(std::memory_order_relaxed) < head.lines) waits[lane_of(key)] = true;
  }
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    if (waits[lane]) ring(lane, INT_MAX);
  }
  if (closing_) return;
  pass_on_rests();
  check_limits();
  check_recycling();
}

packed_rest process_pool::take_rest(std::uint32_t writer, block_key key) noexcept {
  std::atomic<packed_rest>& held = state_.writer(writer).rest;
  packed_rest rest = held.load(std::memory_order_acquire);
  while (is_rest_of(rest, key)) {
    if (held.compare_exchange_weak(rest, 0, std::memory_order_acq_rel)) return rest;
  }
  return 0;
}

// A run is taken by who expects it to be over in microseconds. One that has not moved since the last tick stands behind
// a line that is slow after all, and goes to whoever is free.
void process_pool::pass_on_rests() {
  rests_seen_.resize(state_.writers());
  for (std::uint32_t w = 0; w < state_.writers(); ++w) {
    const packed_rest now = state_.writer(w).rest.load(std::memory_order_acquire);
    if (now == 0 || std::exchange(rests_seen_[w], now) != now) continue;
    const auto found =
        std::find_if(placed_.begin(), placed_.end(), [&](const auto& placed) { return is_rest_of(now, placed.first); });
    if (found == placed_.end()) continue;
    const auto [key, block] = *found;  // a copy: it may end here
    const packed_rest rest = take_rest(w, key);
    waiting_lines passed{block.owner, {}};
    for (std::uint32_t line = next_of(rest); line < end_of(rest); ++line) {
      if (block.owner) passed.which.push_back(block.view.index(line));
      block.view.set_ended(state_.writers(), line);
    }
    if (!passed.which.empty()) {
      ++block.owner->open_;
      waiting_[lane_of(key)].push_front(std::move(passed));
      place(lane_of(key));
    }
    check_complete(key, block.view);
  }
}

void process_pool::check_limits() {
  find_terminated();
  const std::int64_t now = std::chrono::nanoseconds(clock::now().time_since_epoch()).count();
  for (std::uint32_t child = 0; child < records_.size(); ++child) {
    child_record& record = records_[child];
    if (!record.running || record.killed) continue;
    const auto over = [&](const std::atomic<std::int64_t>& limit, const std::atomic<packed_line>& running) {
      const std::int64_t at = limit.load(std::memory_order_acquire);
      if (at == 0 || at > now) return;
      const packed_line line = running.load(std::memory_order_acquire);
      if (line != 0 && !record.is_killed_for(line)) record.over_limit.push_back(line);
    };
    for (std::uint32_t t = 0; t < settings_.threads; ++t) {
      const shared_writer& w = state_.writer(state_.first_writer(child) + t);
      over(w.limit, w.running);
    }
    for (std::uint32_t p = 0; p < settings_.parked; ++p) {
      const shared_parked& slot = state_.parked(child, p);
      over(slot.limit, slot.running);
    }
    if (record.over_limit.empty() && record.terminated.empty()) continue;
    if (!record.killed_since) {
      // Its other lines get a moment to end; nothing more starts.
      record.killed_since = clock::now();
      state_.child(child).retired.store(1, std::memory_order_seq_cst);
      ring(child == quarantine() ? kQuarantineLane : kAllLane, INT_MAX);
    }
    const std::vector<packed_line> running = running_of(child);
    const auto meant = std::count_if(running.begin(), running.end(),
                                     [&record](packed_line line) { return record.is_killed_for(line); });
    if (meant == 0) continue;  // ended after all: the child retires by itself
    const bool others = static_cast<std::size_t>(meant) < running.size();
    if (others && clock::now() - *record.killed_since < settings_.drain_patience) continue;
    record.killed = true;
    children_->kill(child, SIGKILL);
  }
}

void process_pool::check_recycling() {
  for (std::uint32_t child = 0; child < settings_.processes; ++child) {
    if (!records_[child].running || state_.child(child).retired.load(std::memory_order_relaxed) != 0) continue;
    std::string why;
    if (settings_.max_jobs_per_child != 0) {
      std::uint64_t jobs = 0;
      for (std::uint32_t t = 0; t < settings_.threads; ++t) {
        jobs += state_.writer(state_.first_writer(child) + t).started.load(std::memory_order_relaxed);
      }
      if (jobs >= settings_.max_jobs_per_child) why = "it ran " + std::to_string(jobs) + " jobs";
    }
    if (why.empty() && settings_.max_bytes_per_child != 0) {
      const std::uint64_t resident = resident_bytes(children_->pid(child));
      if (resident > settings_.max_bytes_per_child) {
        why = "it has " + megabytes(static_cast<std::int64_t>(resident)) + " resident";
      }
    }
    if (why.empty()) continue;
    log_->log(LEVERET_INFO, "child_recycled", {}, "process " + std::to_string(children_->pid(child)) + ": " + why);
    state_.child(child).retired.store(1, std::memory_order_seq_cst);
    ring(kAllLane, INT_MAX);
  }
  const bool idle = records_[quarantine()].running && waiting_[kQuarantineLane].empty() &&
                    std::none_of(placed_.begin(), placed_.end(),
                                 [](const auto& placed) { return lane_of(placed.first) == kQuarantineLane; });
  if (idle && loop_->now() - quarantine_used_ > std::chrono::seconds(30)) {
    state_.child(quarantine()).retired.store(1, std::memory_order_seq_cst);
    ring(kQuarantineLane, INT_MAX);
  }
}

// ---- ending ----

bool process_pool::abandon() {
  closing_ = true;
  children_->stop();
  return true;
}

void process_pool::stop() {
  if (loop_ != nullptr) {
    // What is on the loop must not come back to a pool that is gone.
    std::mutex done_mutex;
    std::condition_variable done;
    bool quiet = false;
    loop_->post([&] {
      closing_ = true;
      loop_->cancel(timer_);
      const std::lock_guard<std::mutex> lock(done_mutex);
      quiet = true;
      done.notify_all();
    });
    std::unique_lock<std::mutex> lock(done_mutex);
    done.wait(lock, [&] { return quiet; });
    lock.unlock();
    {
      const std::lock_guard<std::mutex> events(mutex_);
      attached_ = false;
    }
    loop_ = nullptr;
  }
  state_.header().closed.store(1, std::memory_order_seq_cst);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) ring(lane, INT_MAX);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    // Atexit functions and destructors of a handler's libraries get this long.
    changed_.wait_for(lock, std::chrono::seconds(5), [this] { return alive_ == 0; });
  }
  children_->stop();
}

}  // namespace leveret::core
