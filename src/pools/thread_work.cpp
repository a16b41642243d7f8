#include "thread_work.hpp"

#include <algorithm>
#include <iterator>
#include <thread>
#include <utility>

namespace leveret::core {

thread_work::thread_work(delivery d, std::uint32_t threads, loop& l, ended on_ended)
    : work(std::move(d)),
      loop_(l),
      on_ended_(std::move(on_ended)),
      threads_(lines() == 1 ? 1 : threads),
      slots_(std::make_unique<slot[]>(threads_)) {
  for (std::uint32_t t = 0; t < threads_; ++t) slots_[t].results = result_collector(what().msg.id, what().msg.reply);
  parked_.results = result_collector(what().msg.id, what().msg.reply);
  unfinished_.store(lines(), std::memory_order_relaxed);
}

bool thread_work::take(std::uint32_t thread, std::uint32_t& line, bool one_by_one) noexcept {
  slot& s = slot_of(thread);
  const std::uint64_t held = s.held.load(std::memory_order_relaxed);
  // A single line's slot is everybody's: what it holds may be another thread's.
  if (held == kIdle || lines() == 1) return claim(s, line, one_by_one);
  line = first_of(held);
  return true;
}

bool thread_work::claim(slot& s, std::uint32_t& line, bool one_by_one) noexcept {
  const std::uint32_t taken = cursor_.load(std::memory_order_relaxed);
  const std::uint32_t run = s.pace.next(taken < lines() ? lines() - taken : 0, threads_, one_by_one);
  // The rest of a run is older than what the cursor has.
  if (s.pace.slow() && take_over(s, line)) return true;
  if (taken < lines()) {
    // Said before the claim: a loop that moves the cursor afterwards is certain to see it, and waits for it.
    s.held.store(kClaiming, std::memory_order_relaxed);
    line = cursor_.fetch_add(run, std::memory_order_acq_rel);
    if (line < lines()) {
      s.held.store(hold(line, std::min(line + run, lines())), std::memory_order_release);
      return true;
    }
    s.held.store(kIdle, std::memory_order_release);
  }
  return take_over(s, line);
}

bool thread_work::take_over(slot& s, std::uint32_t& line) noexcept {
  for (std::uint32_t t = 0; t < threads_; ++t) {
    if (!has_rest(claimed(slots_[t]))) continue;
    s.held.store(kClaiming, std::memory_order_relaxed);
    // Nothing is added: only a write is certain to be before the loop's, which then waits, or to see it.
    if (cursor_.fetch_add(0, std::memory_order_acq_rel) < kStopped) {
      const std::lock_guard<short_lock> lock(slots_[t].lock);
      std::uint64_t theirs = slots_[t].held.load(std::memory_order_acquire);
      while (has_rest(theirs)) {
        const std::uint32_t first = first_of(theirs);
        if (!slots_[t].held.compare_exchange_weak(theirs, hold(first, first + 1), std::memory_order_acq_rel)) continue;
        line = first + 1;
        s.held.store(hold(line, end_of(theirs)), std::memory_order_release);
        return true;
      }
    }
    s.held.store(kIdle, std::memory_order_release);
  }
  return false;
}

std::uint32_t thread_work::end_line(slot& s) noexcept {
  std::uint64_t held = s.held.load(std::memory_order_relaxed);
  for (;;) {
    if (held == kIdle) return kNone;
    if (s.held.compare_exchange_weak(held, without_first(held), std::memory_order_acq_rel, std::memory_order_acquire)) {
      return first_of(held);
    }
  }
}

std::uint32_t thread_work::end_line_locked(slot& s) noexcept {
  const std::uint64_t held = s.held.load(std::memory_order_relaxed);
  if (held == kIdle) return kNone;
  s.held.store(without_first(held), std::memory_order_release);
  return first_of(held);
}

void thread_work::count_succeeded(slot& s) noexcept {
  ++s.ended;
  s.succeeded.store(s.succeeded.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool thread_work::succeeded(std::uint32_t thread) noexcept {
  slot& s = slot_of(thread);
  if (end_line(s) == kNone) return false;
  count_succeeded(s);
  return true;
}

bool thread_work::succeeded(std::uint32_t thread, std::string_view result_id, std::uint32_t result_line,
                            std::string_view json) {
  slot& s = slot_of(thread);
  const std::lock_guard<short_lock> lock(s.lock);
  if (end_line_locked(s) == kNone) return false;
  count_succeeded(s);
  s.results.add(result_id, result_line, json);
  return true;
}

bool thread_work::failed(std::uint32_t thread, failed_line failure, std::string_view result_id,
                         std::uint32_t result_line, std::string_view dead_reason, std::uint32_t attempts) {
  slot& s = slot_of(thread);
  const std::lock_guard<short_lock> lock(s.lock);
  if (end_line_locked(s) == kNone) return false;
  ++s.ended;
  record(s.results, s.failures, std::move(failure), result_id, result_line, dead_reason, attempts);
  return true;
}

void thread_work::record(result_collector& results, std::vector<failed_line>& failures, failed_line failure,
                         std::string_view result_id, std::uint32_t result_line, std::string_view dead_reason,
                         std::uint32_t attempts) const {
  if (failure.fate == line_fate::dead && wants_results()) {
    results.add_dead(result_id, result_line, dead_reason, failure.error, attempts);
  }
  if (failure.fate == line_fate::expired && wants_results()) results.add_expired(result_id, result_line);
  if (failure.fate == line_fate::cancelled && wants_results()) results.add_cancelled(result_id, result_line);
  failures.push_back(std::move(failure));
}

std::uint32_t thread_work::park(std::uint32_t thread) {
  slot& s = slot_of(thread);
  const std::lock_guard<std::mutex> parking_lock(parked_.mutex);
  const std::uint32_t line = end_line(s);
  // Abandoned in this moment: it is not parked, and whatever it ends as is dropped.
  if (line != kNone) parked_.lines.insert(line);
  return line;
}

bool thread_work::parked_succeeded(std::uint32_t line, const std::string_view* result_id, std::uint32_t result_line,
                                   std::string_view json) {
  {
    const std::lock_guard<std::mutex> lock(parked_.mutex);
    if (parked_.lines.erase(line) == 0) return false;
    ++parked_.succeeded;
    if (result_id != nullptr) parked_.results.add(*result_id, result_line, json);
  }
  subtract(1);
  return true;
}

bool thread_work::parked_failed(std::uint32_t line, failed_line failure, std::string_view result_id,
                                std::uint32_t result_line, std::string_view dead_reason, std::uint32_t attempts) {
  {
    const std::lock_guard<std::mutex> lock(parked_.mutex);
    if (parked_.lines.erase(line) == 0) return false;
    record(parked_.results, parked_.failures, std::move(failure), result_id, result_line, dead_reason, attempts);
  }
  subtract(1);
  return true;
}

void thread_work::leave(std::uint32_t thread) { subtract(std::exchange(slot_of(thread).ended, 0u)); }

void thread_work::subtract(std::uint32_t lines) {
  if (lines == 0) return;
  if (unfinished_.fetch_sub(lines, std::memory_order_acq_rel) == lines) finish();
}

void thread_work::finish() {
  if (finished_.exchange(true, std::memory_order_acq_rel)) return;
  loop_.post([self = shared_from_this()] { self->on_ended_(self); });
}

void thread_work::stop_starting() {
  const std::uint32_t from = cursor_.exchange(kStopped, std::memory_order_acq_rel);
  if (from >= kStopped) return;
  for (std::uint32_t i = from; i < lines(); ++i) unstarted_.push_back(i);
  for (std::uint32_t t = 0; t < threads_; ++t) {
    std::uint64_t held = claimed(slots_[t]);
    if (!has_rest(held)) continue;
    const std::lock_guard<short_lock> lock(slots_[t].lock);
    while (has_rest(held)) {
      const std::uint32_t next = first_of(held) + 1;
      if (!slots_[t].held.compare_exchange_weak(held, hold(next - 1, next), std::memory_order_acq_rel)) continue;
      for (std::uint32_t i = next; i < end_of(held); ++i) unstarted_.push_back(i);
      break;
    }
  }
  std::sort(unstarted_.begin(), unstarted_.end());
  subtract(static_cast<std::uint32_t>(unstarted_.size()));
}

std::uint64_t thread_work::claimed(const slot& s) noexcept {
  for (;;) {
    const std::uint64_t held = s.held.load(std::memory_order_acquire);
    if (held != kClaiming) return held;
    std::this_thread::yield();
  }
}

void thread_work::abandon_running() {
  stop_starting();
  for (std::uint32_t t = 0; t < threads_; ++t) {
    slot& s = slots_[t];
    // No line follows: the cursor has moved, and nobody holds more than the line that runs. Who looks for another's
    // rest all the same says that it claims, and finds that it must not: that is waited for, and never taken for a
    // line.
    const std::lock_guard<short_lock> lock(s.lock);
    for (std::uint64_t held = claimed(s); held != kIdle; held = claimed(s)) {
      if (!s.held.compare_exchange_weak(held, kIdle, std::memory_order_acq_rel)) continue;
      unstarted_.push_back(first_of(held));
      break;
    }
  }
  {
    // After the threads: a line on its way from one of them to the parked ones is seen in one place at least.
    const std::lock_guard<std::mutex> lock(parked_.mutex);
    unstarted_.insert(unstarted_.end(), parked_.lines.begin(), parked_.lines.end());
    parked_.lines.clear();
  }
  std::sort(unstarted_.begin(), unstarted_.end());
  finish();
}

std::vector<result_chunk> thread_work::take_results() {
  std::vector<result_collector> all;
  all.reserve(threads_ + 1);
  const auto add = [&all](auto& lock, result_collector& results) {
    const std::lock_guard guard(lock);
    all.push_back(results.take());
  };
  for (std::uint32_t t = 0; t < threads_; ++t) add(slots_[t].lock, slots_[t].results);
  add(parked_.mutex, parked_.results);
  return result_collector::write(all);
}

std::vector<failed_line> thread_work::take_failures() {
  std::vector<failed_line> all;
  const auto add = [&all](auto& lock, std::vector<failed_line>& failures) {
    const std::lock_guard guard(lock);
    std::move(failures.begin(), failures.end(), std::back_inserter(all));
    failures.clear();
  };
  for (std::uint32_t t = 0; t < threads_; ++t) add(slots_[t].lock, slots_[t].failures);
  add(parked_.mutex, parked_.failures);
  return all;
}

bool thread_work::has_unstarted() const noexcept {
  const std::uint32_t started = cursor_.load(std::memory_order_relaxed);
  if (started >= kStopped) return false;
  if (started < lines()) return true;
  return std::any_of(&slots_[0], &slots_[threads_],
                     [](const slot& s) { return has_rest(s.held.load(std::memory_order_relaxed)); });
}

std::vector<std::uint32_t> thread_work::running_lines(std::size_t most) const {
  std::vector<std::uint32_t> lines;
  for (std::uint32_t t = 0; t < threads_ && lines.size() < most; ++t) {
    const std::uint64_t held = slots_[t].held.load(std::memory_order_acquire);
    if (held < kClaiming) lines.push_back(first_of(held));
  }
  const std::lock_guard<std::mutex> lock(parked_.mutex);
  for (const std::uint32_t line : parked_.lines) {
    if (lines.size() >= most) break;
    lines.push_back(line);
  }
  return lines;
}

std::uint64_t thread_work::succeeded_lines() const noexcept {
  std::uint64_t sum = 0;
  for (std::uint32_t t = 0; t < threads_; ++t) sum += slots_[t].succeeded.load(std::memory_order_acquire);
  const std::lock_guard<std::mutex> lock(parked_.mutex);
  return sum + parked_.succeeded;
}

}  // namespace leveret::core
