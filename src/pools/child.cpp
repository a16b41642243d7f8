#include "child.hpp"

#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include "../cancelled_jobs.hpp"
#include "../faults.hpp"
#include "../worker.hpp"

namespace leveret::core {
namespace {

/// The time, for attempts; there is no loop in a child.
class clock_only final : public loop {
 public:
  void post(task) override {}
  timer_id at(clock::time_point, task) override { return 0; }
  void cancel(timer_id) override {}
  [[nodiscard]] clock::time_point now() const override { return clock::now(); }
  [[nodiscard]] unix_ms wall() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  [[nodiscard]] bool on_loop() const override { return false; }
};

constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};

// What a signal handler may touch: the record of the thread that it interrupts.
thread_local shared_writer* this_writer = nullptr;

void on_fault(int signal) {
  if (this_writer != nullptr) this_writer->fault.store(signal, std::memory_order_release);
  // SA_RESETHAND has put the default back: the signal ends the process as if nobody had looked.
  (void)raise(signal);
}

/// Lets the signal handler run when a thread's own stack is used up.
class fault_stack {
 public:
  fault_stack() : memory_(new char[kBytes]) {
    stack_t s{};
    s.ss_sp = memory_.get();
    s.ss_size = kBytes;
    sigaltstack(&s, nullptr);
  }
  ~fault_stack() {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
  fault_stack(const fault_stack&) = delete;
  fault_stack& operator=(const fault_stack&) = delete;

 private:
  static constexpr std::size_t kBytes = 64u << 10;
  std::unique_ptr<char[]> memory_;
};

// Whether this is a copy of a child, left by a handler's fork, with the thread that forked alone.
std::atomic<bool> is_copy{false};
void note_copy() { is_copy.store(true, std::memory_order_relaxed); }

}  // namespace

// ---- outcomes ----

class pool_child::parked_sink final : public outcome_sink {
 public:
  parked_sink(pool_child& child, shared_parked& slot, block_view block, packed_line line)
      : child_(child), slot_(slot), block_(block), line_(line), wants_results_(block.head().reply_size != 0) {}

  void succeeded(const job_identity& who, std::string_view json) override {
    child_.check_copy();
    const std::lock_guard<std::mutex> lock(child_.parked_mutex_);
    begin_end();
    if (wants_results_) child_.parked_out_.result(line_, who, json);
    end();
  }
  void failed(const job_identity& who, failed_line failure, std::string_view dead_reason,
              std::uint32_t attempts) override {
    child_.check_copy();
    const std::lock_guard<std::mutex> lock(child_.parked_mutex_);
    begin_end();
    child_.parked_out_.failure(line_, who, failure, dead_reason, attempts);
    end();
  }
  std::unique_ptr<outcome_sink> park() override { return nullptr; }  // it is parked

 private:
  [[nodiscard]] std::uint32_t writer() const noexcept {
    return child_.state_.first_writer(child_.index_) + child_.state_.header().threads;
  }
  // The block is there while this line has not ended: said before anything is, so that it stays until we are done.
  void begin_end() { child_.state_.writer(writer()).at.store(key_of(line_), std::memory_order_seq_cst); }
  void end() {
    block_.set_ended(writer(), line_of(line_));
    child_.unpark(slot_);
    child_.check_complete(block_);
    child_.state_.writer(writer()).at.store(0, std::memory_order_release);
  }

  pool_child& child_;
  shared_parked& slot_;
  block_view block_;
  packed_line line_;
  bool wants_results_;
};

class pool_child::line_sink final : public outcome_sink {
 public:
  line_sink(pool_child& child, std::uint32_t writer)
      : child_(child), out_(child.state_, writer, child.news_), w_(child.state_.writer(writer)), writer_(writer) {}

  void begin(block_view block, block_key key) {
    block_ = block;
    key_ = key;
    ended_ = block.bitmap(writer_);
    id_ = block.id();
    wants_results_ = block.head().reply_size != 0;
  }
  void begin(std::uint32_t line) noexcept { line_ = line; }

  void limit(std::chrono::milliseconds time) override {
    const auto at = loop::clock::now() + time;
    w_.limit.store(std::chrono::nanoseconds(at.time_since_epoch()).count(), std::memory_order_release);
    limited_ = true;
  }
  void succeeded(const job_identity& who, std::string_view json) override {
    child_.check_copy();
    if (limited_) end_limit();
    if (wants_results_) {
      // Nearly all are their own message's, whose id the other side has.
      const bool own = who.result_id.data() == id_;
      out_.result(pack(key_, line_), {who.id, own ? std::string_view() : who.result_id, who.result_line}, json);
    }
    block_view::set_bit(ended_, line_);
  }
  void failed(const job_identity& who, failed_line failure, std::string_view dead_reason,
              std::uint32_t attempts) override {
    child_.check_copy();
    if (limited_) end_limit();
    out_.failure(pack(key_, line_), who, failure, dead_reason, attempts);
    block_view::set_bit(ended_, line_);
  }
  std::unique_ptr<outcome_sink> park() override {
    const packed_line line = pack(key_, line_);
    shared_parked* slot = child_.park(line, w_.limit.load(std::memory_order_relaxed));
    if (slot == nullptr) throw std::runtime_error("more attempts go on without a thread than the pool was made for");
    if (limited_) end_limit();
    w_.running.store(0, std::memory_order_release);
    return std::make_unique<parked_sink>(child_, *slot, block_, line);
  }

 private:
  void end_limit() noexcept {
    w_.limit.store(0, std::memory_order_release);
    limited_ = false;
  }

  pool_child& child_;
  outcome_writer out_;
  shared_writer& w_;
  std::uint32_t writer_;
  block_view block_;
  std::atomic<std::uint64_t>* ended_ = nullptr;  // these two of the block
  const char* id_ = nullptr;
  block_key key_ = 0;
  std::uint32_t line_ = 0;
  bool wants_results_ = false;
  bool limited_ = false;
};

/// What running jobs ask: the I/O process knows it, and has written it down.
class pool_child::jobs_of_child final : public job_control {
 public:
  explicit jobs_of_child(pool_child& child) : child_(child) {}

  [[nodiscard]] bool is_cancelled(std::string_view job_id) const override {
    const std::uint64_t all = child_.state_.header().cancelled.load(std::memory_order_acquire);
    return all != 0 && is_among(all, job_id);
  }
  void progress(std::string_view job_id, std::string_view reply, std::string_view body) override {
    const std::lock_guard<std::mutex> lock(child_.parked_mutex_);
    child_.parked_out_.progress(job_id, reply, body);
    child_.parked_out_.notify();
  }

 private:
  // Apart, so that where nothing is cancelled its frame is not paid for with each job.
  [[nodiscard, gnu::noinline]] bool is_among(std::uint64_t all, std::string_view job_id) const {
    const shared_header& h = child_.state_.header();
    if (all != seen_.load(std::memory_order_acquire)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      const std::uint64_t oldest = all > kCancelledIds ? all - kCancelledIds : 0;
      for (std::uint64_t i = std::max(seen_.load(std::memory_order_relaxed), oldest); i < all; ++i) {
        const auto& entry = h.cancelled_ids[i % kCancelledIds];
        cancelled_.add(std::string(entry.text, entry.size));
      }
      seen_.store(std::max(seen_.load(std::memory_order_relaxed), all), std::memory_order_release);
    }
    return cancelled_.contains(job_id);
  }

  pool_child& child_;
  mutable std::mutex mutex_;  // taken by whoever reads new ids
  mutable std::atomic<std::uint64_t> seen_{0};
  mutable cancelled_jobs cancelled_;
};

// ---- the child ----

pool_child::pool_child(int memory, int news, std::uint32_t index, const registry& tasks, log_sink& log,
                       std::function<void()> end_copy)
    : state_(memory),
      news_(news),
      index_(index),
      lane_(index + 1 == state_.header().children ? kQuarantineLane : kAllLane),
      end_copy_(std::move(end_copy)),
      clock_(std::make_unique<clock_only>()),
      jobs_(std::make_unique<jobs_of_child>(*this)),
      parked_out_(state_, state_.first_writer(index) + state_.header().threads, news) {
  const shared_header& h = state_.header();
  if (index >= h.children) throw std::runtime_error("cannot join the pool: it has no such child");
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != h.parent) throw std::runtime_error("cannot join the pool: its worker has ended");
  for (const int ignored : {SIGINT, SIGTERM}) std::signal(ignored, SIG_IGN);
  struct sigaction action{};
  action.sa_handler = on_fault;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_ONSTACK | static_cast<int>(SA_RESETHAND) | SA_NODEFER;
  for (const int fault : kFaults) sigaction(fault, &action, nullptr);
  pthread_atfork(nullptr, nullptr, note_copy);

  for (std::uint32_t i = h.parked; i > 0; --i) parked_free_.push_back(i - 1);

  settings_.tasks = &tasks;
  settings_.default_task = h.default_task;
  settings_.retries.max_retries = h.max_retries;
  settings_.retries.backoff_base = std::chrono::milliseconds(h.backoff_base_ms);
  settings_.retries.backoff_cap = std::chrono::milliseconds(h.backoff_cap_ms);
  settings_.unknown_task_patience = std::chrono::milliseconds(h.unknown_task_patience_ms);
  settings_.worker = h.worker;
  settings_.log = &log;
  settings_.control = jobs_.get();
  settings_.stop_flag = &h.stopping;
}

pool_child::~pool_child() {
  for (std::thread& t : threads_) t.join();
}

void pool_child::tell(std::string_view name, std::string_view value) {
  outcome_writer(state_, state_.first_writer(index_), news_).fact(name, value);
}

void pool_child::start() {
  outcome_writer out(state_, state_.first_writer(index_), news_);
  for (const auto& task : settings_.tasks->tasks()) {
    out.task({task->name, task->queue, task->max_retries, task->hard_limit.count(), task->signature, task->source});
  }
  state_.child(index_).state.store(static_cast<std::uint32_t>(child_state::ready), std::memory_order_seq_cst);
  out.notify();

  const std::uint32_t count = lane_ == kQuarantineLane ? 1 : state_.header().threads;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  for (const int fault : kFaults) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  running_threads_ = count;
  for (std::uint32_t t = 0; t < count; ++t) threads_.emplace_back([this, t] { serve(t); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool pool_child::wait_ended(std::uint32_t milliseconds) {
  {
    std::unique_lock<std::mutex> lock(ended_mutex_);
    if (!ended_.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return running_threads_ == 0; })) {
      return false;
    }
  }
  const std::lock_guard<std::mutex> lock(parked_mutex_);
  return parked_free_.size() == state_.header().parked;
}

bool pool_child::retired() const noexcept { return state_.child(index_).retired.load(std::memory_order_relaxed) != 0; }

void pool_child::serve(std::uint32_t thread) {
  const std::uint32_t number = state_.first_writer(index_) + thread;
  shared_writer& w = state_.writer(number);
  shared_lane& lane = state_.header().lanes[lane_];
  const fault_stack stack;
  this_writer = &w;
  {
    attempt_runner runner(settings_, *clock_);
    std::uint64_t next[kLanes] = {};
    bool woken = false;
    while (!retired()) {
      const std::uint32_t rung = lane.bell.load(std::memory_order_acquire);
      if (lane_ == kAllLane && run_lane(kFirstLane, next[kFirstLane], number, runner, woken)) continue;
      if (run_lane(lane_, next[lane_], number, runner, woken)) continue;
      if (state_.header().closed.load(std::memory_order_acquire) != 0 || retired()) break;
      runner.rest();
      futex_wait(lane.bell, rung);
      woken = true;
    }
    if (woken) futex_wake(lane.bell, 1);  // it may have been meant for a thread that goes on
  }
  this_writer = nullptr;
  const std::lock_guard<std::mutex> lock(ended_mutex_);
  --running_threads_;
  ended_.notify_all();
}

bool pool_child::run_lane(std::uint32_t number, std::uint64_t& next, std::uint32_t writer, attempt_runner& runner,
                          bool& woken) {
  shared_lane& lane = state_.header().lanes[number];
  next = std::max(next, lane.head.load(std::memory_order_acquire));
  if (next >= lane.tail.load(std::memory_order_acquire)) return false;
  shared_writer& w = state_.writer(writer);
  const block_key key = make_key(number, next);
  const shared_lane::entry& entry = lane.entries[next % kLaneEntries];
  w.at.store(key, std::memory_order_seq_cst);
  bool all = true;
  if (entry.key.load(std::memory_order_seq_cst) == key) {
    const block_view block = state_.block(entry.block.load(std::memory_order_relaxed));
    if (woken) wake_next(lane, next, block, woken);
    all = run_block(writer, runner, block, key);
  }
  w.at.store(0, std::memory_order_release);
  if (!all) return true;  // retired, or something else goes first
  std::uint64_t expected = next++;
  lane.head.compare_exchange_strong(expected, expected + 1, std::memory_order_acq_rel);
  return true;
}

// One at a time, as in thread_pool: who is woken for a burst of quick lines mostly finds that the others have done
// them. It stays the one that is to wake the next until it has done so, or sleeps again: what it looks at may be the
// last line of one block while another waits in another lane. One that dies or is stopped before that leaves the rest
// asleep until the pool's next tick.
void pool_child::wake_next(const shared_lane& lane, std::uint64_t number, block_view block, bool& woken) noexcept {
  const shared_block& head = block.head();
  const bool more = head.cursor.load(std::memory_order_relaxed) + 1 < head.lines ||
                    lane.tail.load(std::memory_order_relaxed) > number + 1;
  if (!more) return;
  woken = false;
  futex_wake(state_.header().lanes[lane_].bell, 1);
}

bool pool_child::something_goes_first(std::uint32_t lane) const noexcept {
  if (lane != kAllLane) return false;
  const shared_lane& first = state_.header().lanes[kFirstLane];
  return first.head.load(std::memory_order_acquire) < first.tail.load(std::memory_order_acquire);
}

bool pool_child::run_block(std::uint32_t writer, attempt_runner& runner, block_view block, block_key key) {
  shared_writer& w = state_.writer(writer);
  shared_block& head = block.head();
  runner.begin({{block.id(), head.id_size},
                {block.queue(), head.queue_size},
                head.unknown_since,
                head.reply_size != 0,
                {block.reply(), head.reply_size}});
  line_sink sink(*this, writer);
  sink.begin(block, key);
  std::uint64_t started = w.started.load(std::memory_order_relaxed);
  // Where they are follows from the header, and costs as much as all else that is done here for a line.
  const std::uint32_t* const offsets = block.offsets();
  const char* const body = block.body();
  line_pace pace;
  bool all = true;
  for (;;) {
    if (retired()) return false;  // the rest of a run goes to others when the process has ended
    std::uint32_t line = 0;
    if (!next_of_run(w, key, line)) {
      if (something_goes_first(lane_of(key))) {
        all = false;
        break;
      }
      if (!claim(w, head, key, pace, runner.is_inside(), line)) break;
    }
    w.started.store(++started, std::memory_order_relaxed);
    sink.begin(line);
    faults::hit(faults::point::in_child);
    runner.run({body + offsets[line], offsets[line + 1] - 1 - offsets[line]}, block.index(line), sink);
  }
  w.running.store(0, std::memory_order_release);
  check_complete(block);
  return all;
}

bool pool_child::next_of_run(shared_writer& w, block_key key, std::uint32_t& line) noexcept {
  packed_rest rest = w.rest.load(std::memory_order_relaxed);
  if (rest == 0) return false;
  line = next_of(rest);
  // In this order: the line must be in one of the places at any time.
  w.running.store(pack(key, line), std::memory_order_release);
  return w.rest.compare_exchange_strong(rest, pack_rest(key, line + 1, end_of(rest)), std::memory_order_acq_rel);
}

bool pool_child::claim(shared_writer& w, shared_block& head, block_key key, line_pace& pace, bool one_by_one,
                       std::uint32_t& line) {
  const std::uint32_t all_threads = (state_.header().children - 1) * state_.header().threads;
  const std::uint32_t taken = head.cursor.load(std::memory_order_relaxed);
  const std::uint32_t run = pace.next(taken < head.lines ? head.lines - taken : 0, all_threads, one_by_one);
  // Said before the claim: who looks at a dead writer, or waits for a live one, knows that a line may be in between.
  w.running.store(pack(key, kClaiming), std::memory_order_release);
  line = head.cursor.fetch_add(run, std::memory_order_acq_rel);
  if (line >= head.lines) return false;
  faults::hit(faults::point::in_claim);
  w.rest.store(pack_rest(key, line + 1, std::min(line + run, head.lines)), std::memory_order_release);
  w.running.store(pack(key, line), std::memory_order_release);
  return true;
}

void pool_child::check_copy() const {
  if (is_copy.load(std::memory_order_relaxed)) end_copy_();
}

void pool_child::check_complete(block_view block) const noexcept {
  // A write that everybody makes in one order: the last one sees all bits that were set before the others' came.
  if (block.head().complete.fetch_or(0, std::memory_order_acq_rel) != 0) return;
  if (block.all_ended() && block.head().complete.exchange(1, std::memory_order_acq_rel) == 0) parked_out_.notify();
}

shared_parked* pool_child::park(packed_line line, std::int64_t limit) {
  const std::lock_guard<std::mutex> lock(parked_mutex_);
  if (parked_free_.empty()) return nullptr;
  shared_parked& slot = state_.parked(index_, parked_free_.back());
  parked_free_.pop_back();
  slot.limit.store(limit, std::memory_order_relaxed);
  slot.running.store(line, std::memory_order_release);
  return &slot;
}

void pool_child::unpark(shared_parked& slot) {
  slot.limit.store(0, std::memory_order_relaxed);
  slot.running.store(0, std::memory_order_release);
  parked_free_.push_back(static_cast<std::uint32_t>(&slot - &state_.parked(index_, 0)));
}

}  // namespace leveret::core
