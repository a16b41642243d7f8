#include "process_work.hpp"

#include <algorithm>
#include <utility>

#include "processes.hpp"

namespace leveret::core {

process_work::process_work(delivery d, process_pool& pool, ended on_ended)
    : work(std::move(d)), pool_(pool), on_ended_(std::move(on_ended)), results_(what().msg.id, what().msg.reply) {}

bool process_work::started() const noexcept {
  for (const auto& [key, block] : pool_.placed_) {
    if (block.owner.get() == this && block.view.head().cursor.load(std::memory_order_relaxed) > 0) return true;
  }
  // Ended lines, or lines that run again.
  return open_ == 0 || failed_ > 0;
}

bool process_work::has_unstarted() const noexcept {
  for (const auto& lane : pool_.waiting_) {
    for (const auto& lines : lane) {
      if (lines.owner.get() == this) return true;
    }
  }
  for (const auto& [key, block] : pool_.placed_) {
    if (block.owner.get() != this) continue;
    if (block.view.head().cursor.load(std::memory_order_relaxed) < block.view.head().lines) return true;
    for (std::uint32_t w = 0; w < pool_.state_.writers(); ++w) {
      if (is_rest_of(pool_.state_.writer(w).rest.load(std::memory_order_relaxed), key)) return true;
    }
  }
  return false;
}

void process_work::stop_starting() {
  const auto self = shared_from_this();
  std::uint32_t closed = 0;
  for (auto& lane : pool_.waiting_) {
    for (auto it = lane.begin(); it != lane.end();) {
      if (it->owner.get() != this) {
        ++it;
        continue;
      }
      if (it->which.empty()) {
        for (std::uint32_t i = 0; i < lines(); ++i) unstarted_.push_back(i);
      } else {
        unstarted_.insert(unstarted_.end(), it->which.begin(), it->which.end());
      }
      it = lane.erase(it);
      ++closed;
    }
  }
  const std::uint32_t own = pool_.state_.writers();  // the I/O process's bitmap
  std::vector<block_key> touched;
  for (const auto& [key, block] : pool_.placed_) {
    if (block.owner.get() != this) continue;
    const std::uint32_t all = block.view.head().lines;
    const std::uint32_t from = block.view.head().cursor.exchange(all, std::memory_order_acq_rel);
    const auto give_back = [&](std::uint32_t next, std::uint32_t end) {
      for (std::uint32_t i = next; i < end; ++i) {
        unstarted_.push_back(block.view.index(i));
        block.view.set_ended(own, i);
      }
    };
    give_back(from, all);
    for (std::uint32_t w = 0; w < pool_.state_.writers(); ++w) {
      if (const packed_rest rest = pool_.take_rest(w, key)) give_back(next_of(rest), end_of(rest));
    }
    touched.push_back(key);
  }
  std::sort(unstarted_.begin(), unstarted_.end());
  for (std::uint32_t i = 0; i < closed; ++i) close_block();
  for (const block_key key : touched) {
    const auto found = pool_.placed_.find(key);
    if (found != pool_.placed_.end()) pool_.check_complete(key, found->second.view);
  }
}

void process_work::abandon_running() {
  const auto self = shared_from_this();
  stop_starting();
  pool_.drain();
  for (auto& [key, block] : pool_.placed_) {
    if (block.owner.get() != this) continue;
    for (std::uint32_t i = 0; i < block.view.head().lines; ++i) {
      if (!block.view.has_ended(i)) unstarted_.push_back(block.view.index(i));
    }
    block.owner.reset();  // what its lines still lead to is dropped
  }
  std::sort(unstarted_.begin(), unstarted_.end());
  finish();
}

std::vector<result_chunk> process_work::take_results() {
  pool_.drain();
  std::vector<result_collector> mine;
  mine.push_back(results_.take());
  return result_collector::write(mine);
}

std::vector<std::uint32_t> process_work::running_lines(std::size_t most) const {
  std::vector<std::uint32_t> lines;
  for (std::uint32_t child = 0; child < pool_.records_.size(); ++child) {
    for (const packed_line line : pool_.running_of(child)) {
      const process_pool::placed_block& block = pool_.placed_.at(key_of(line));
      if (block.owner.get() != this) continue;
      if (lines.size() == most) return lines;
      lines.push_back(block.view.index(line_of(line)));
    }
  }
  return lines;
}

std::vector<failed_line> process_work::take_failures() { return std::exchange(failures_, {}); }

void process_work::fail(failed_line failure, std::string_view result_id, std::uint32_t result_line,
                        std::string_view dead_reason, std::uint32_t attempts) {
  if (failure.fate == line_fate::dead && wants_results()) {
    results_.add_dead(result_id, result_line, dead_reason, failure.error, attempts);
  }
  if (failure.fate == line_fate::expired && wants_results()) results_.add_expired(result_id, result_line);
  if (failure.fate == line_fate::cancelled && wants_results()) results_.add_cancelled(result_id, result_line);
  failures_.push_back(std::move(failure));
  ++failed_;
}

void process_work::close_block() {
  if (--open_ == 0) finish();
}

void process_work::finish() {
  if (std::exchange(finished_, true)) return;
  pool_.loop_->post([self = shared_from_this()] { self->on_ended_(self); });
}

}  // namespace leveret::core
