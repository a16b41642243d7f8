/// What becomes of a child's lines when it ends: the second half of process_pool.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <utility>

#include "../codec.hpp"
#include "processes.hpp"

namespace leveret::core {
namespace {

bool went_wrong(const child_end& end) noexcept {
  return !end.error.empty() || !WIFEXITED(end.status) || WEXITSTATUS(end.status) != 0;
}

}  // namespace

std::vector<packed_line> process_pool::running_of(std::uint32_t child) const {
  std::vector<packed_line> lines;
  const auto add = [&](packed_line line) {
    if (line == 0 || line_of(line) == kClaiming) return;
    const auto found = placed_.find(key_of(line));
    if (found != placed_.end() && !found->second.view.has_ended(line_of(line))) lines.push_back(line);
  };
  for (std::uint32_t t = 0; t < settings_.threads; ++t) {
    add(state_.writer(state_.first_writer(child) + t).running.load(std::memory_order_acquire));
  }
  for (std::uint32_t p = 0; p < settings_.parked; ++p) {
    add(state_.parked(child, p).running.load(std::memory_order_acquire));
  }
  return lines;
}

std::vector<packed_line> process_pool::rests_of(std::uint32_t child) const {
  std::vector<packed_line> lines;
  for (std::uint32_t t = 0; t < settings_.threads; ++t) {
    const packed_rest rest = state_.writer(state_.first_writer(child) + t).rest.load(std::memory_order_acquire);
    const auto found = std::find_if(placed_.begin(), placed_.end(),
                                    [rest](const auto& placed) { return is_rest_of(rest, placed.first); });
    if (found == placed_.end()) continue;
    for (std::uint32_t line = next_of(rest); line < end_of(rest); ++line) lines.push_back(pack(found->first, line));
  }
  return lines;
}

bool process_pool::is_claiming_elsewhere(std::uint32_t child) const noexcept {
  for (std::uint32_t other = 0; other < records_.size(); ++other) {
    if (other == child || !records_[other].running) continue;
    for (std::uint32_t t = 0; t < settings_.threads; ++t) {
      const packed_line line = state_.writer(state_.first_writer(other) + t).running.load(std::memory_order_acquire);
      if (line != 0 && line_of(line) == kClaiming) return true;
    }
  }
  return false;
}

void process_pool::on_child_end(const child_end& end) {
  if (closing_) return;
  // Lines taken by now. Whoever took one before this moment says so by now too, unless it is just in between: a few
  // instructions, or as long as it is stopped right there.
  std::map<block_key, std::uint32_t> taken;
  for (const auto& [key, block] : placed_) {
    const shared_block& head = block.view.head();
    taken[key] = std::min(head.cursor.load(std::memory_order_seq_cst), head.lines);
  }
  if (is_claiming_elsewhere(end.child)) {
    loop_->after(std::chrono::milliseconds(1), [this, end] { on_child_end(end); });
    return;
  }
  sort_out(end, taken);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) place(lane);
  respawn(end.child);
}

void process_pool::sort_out(const child_end& end, const std::map<block_key, std::uint32_t>& taken) {
  const std::uint32_t child = end.child;
  // In this order: a line's way is from the taken ones to its writer's rest, on to what that runs, then to the ended
  // ones.
  std::vector<packed_line> elsewhere;
  for (std::uint32_t other = 0; other < records_.size(); ++other) {
    if (other == child || !records_[other].running) continue;
    for (const std::vector<packed_line>& theirs : {rests_of(other), running_of(other)}) {
      elsewhere.insert(elsewhere.end(), theirs.begin(), theirs.end());
    }
  }
  std::sort(elsewhere.begin(), elsewhere.end());
  drain();
  const std::vector<packed_line> suspects = running_of(child);
  std::vector<packed_line> culprits;
  const child_record& record = records_[child];
  for (const packed_line line : suspects) {
    if (record.killed && record.is_killed_for(line)) culprits.push_back(line);
  }
  const bool killed = !culprits.empty();
  const auto terminated = [&](packed_line line) {
    return killed && std::find(record.terminated.begin(), record.terminated.end(), line) != record.terminated.end();
  };
  // A second signal may end the process while the first one is on its way: each culprit has its own on record.
  std::map<packed_line, child_end> ends;
  if (culprits.empty()) {
    for (std::uint32_t t = 0; t < settings_.threads; ++t) {
      const shared_writer& w = state_.writer(state_.first_writer(child) + t);
      const packed_line line = w.running.load(std::memory_order_acquire);
      const int signal = w.fault.load(std::memory_order_acquire);
      if (signal == 0 || std::find(suspects.begin(), suspects.end(), line) == suspects.end()) continue;
      culprits.push_back(line);
      ends.emplace(line, end).first->second.status = W_EXITCODE(0, signal);
    }
  }
  if (culprits.empty() && suspects.size() == 1) culprits = suspects;

  const bool wrong = went_wrong(end);
  if (wrong) {
    std::string text = "process " + std::to_string(end.pid) + " " + describe(end);
    if (end.pid != 0) text += " (at most " + megabytes(end.peak_bytes) + " resident)";
    if (!suspects.empty()) {
      text += culprits.empty() ? "; " + std::to_string(suspects.size()) + " jobs ran in it: each runs again alone"
                               : "; " + std::to_string(culprits.size()) + " of " + std::to_string(suspects.size()) +
                                     " jobs end by this";
    }
    log_->log(LEVERET_ERROR, "child_ended", {}, text);
  }

  // Of every block: lines that were taken, have not ended, and run nowhere else.
  const std::uint32_t own = state_.writers();
  std::vector<block_key> touched;
  for (const auto& [key, block] : placed_) {
    const shared_block& head = block.view.head();
    if (head.complete.load(std::memory_order_acquire) != 0) continue;
    const auto until = taken.find(key);
    if (until == taken.end()) continue;
    waiting_lines again{block.owner, {}};
    for (std::uint32_t line = 0; line < until->second; ++line) {
      const packed_line packed = pack(key, line);
      if (block.view.has_ended(line) || std::binary_search(elsewhere.begin(), elsewhere.end(), packed)) continue;
      if (block.owner) {
        if (std::find(culprits.begin(), culprits.end(), packed) != culprits.end()) {
          if (terminated(packed)) {
            end_terminated(block, line, end);
          } else {
            const auto own_end = ends.find(packed);
            charge(block, line, own_end == ends.end() ? end : own_end->second, killed);
          }
        } else if (culprits.empty() && std::find(suspects.begin(), suspects.end(), packed) != suspects.end()) {
          ++block.owner->open_;
          waiting_[kQuarantineLane].push_back({block.owner, {block.view.index(line)}});
        } else {
          again.which.push_back(block.view.index(line));
        }
      }
      block.view.set_ended(own, line);
    }
    if (!again.which.empty()) {
      ++block.owner->open_;
      // Before what was not started yet: they were.
      waiting_[kAllLane].push_front(std::move(again));
    }
    touched.push_back(key);
  }
  for (std::uint32_t t = 0; t <= settings_.threads; ++t) {
    const std::uint32_t number = state_.first_writer(child) + t;
    shared_writer& w = state_.writer(number);
    w.at.store(0, std::memory_order_relaxed);
    w.running.store(0, std::memory_order_relaxed);
    w.rest.store(0, std::memory_order_relaxed);
    w.limit.store(0, std::memory_order_relaxed);
    w.fault.store(0, std::memory_order_relaxed);
    w.started.store(0, std::memory_order_relaxed);
    readers_[number].reset(state_, number);
  }
  for (std::uint32_t p = 0; p < settings_.parked; ++p) {
    state_.parked(child, p).running.store(0, std::memory_order_relaxed);
    state_.parked(child, p).limit.store(0, std::memory_order_relaxed);
  }
  for (const block_key key : touched) {
    const auto found = placed_.find(key);
    if (found != placed_.end()) check_complete(key, found->second.view);
  }
}

void process_pool::charge(const placed_block& block, std::uint32_t line, const child_end& end, bool over_limit) {
  const std::uint32_t index = block.view.index(line);
  const std::string process = "process " + std::to_string(end.pid);
  std::string error;
  if (over_limit) {
    error = "it ran longer than its hard time limit: " + process + " was killed for it";
  } else {
    error =
        process + " " + describe(end) + " while it ran this job (at most " + megabytes(end.peak_bytes) + " resident)";
    if (WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGKILL) {
      error += "; the kernel does that where memory runs out";
    }
  }
  process_work& w = *block.owner;
  line_returner::charged charged =
      returner_.charge(w.what().msg, w.line(index), index, over_limit ? kReasonTimeLimit : kReasonCrashed, error,
                       charging_, settings_.max_crashes, loop_->wall());
  log_->log(LEVERET_WARNING, over_limit ? "job_over_limit" : "job_crashed", charged.failure.id, error);
  w.fail(std::move(charged.failure), charged.who.result_id, charged.who.result_line, charged.dead_reason,
         charged.attempts);
}

void process_pool::end_terminated(const placed_block& block, std::uint32_t line, const child_end& end) {
  const std::uint32_t index = block.view.index(line);
  process_work& w = *block.owner;
  const job_identity who = returner_.identify(w.what().msg, w.line(index), index);
  log_->log(LEVERET_INFO, "job_terminated", who.id,
            "it was cancelled by force: process " + std::to_string(end.pid) + " was killed for it");
  failed_line gone;
  gone.fate = line_fate::cancelled;
  gone.id = who.id;
  w.fail(std::move(gone), who.result_id, who.result_line, {}, 0);
}

void process_pool::respawn(std::uint32_t child) {
  child_record& record = records_[child];
  const bool was_ready =
      static_cast<child_state>(state_.child(child).state.load(std::memory_order_acquire)) == child_state::ready;
  const std::uint32_t failures = was_ready ? 0 : record.failures + 1;
  record.running = false;
  if (child == quarantine()) {
    const bool wanted = !waiting_[kQuarantineLane].empty() ||
                        std::any_of(placed_.begin(), placed_.end(),
                                    [](const auto& placed) { return lane_of(placed.first) == kQuarantineLane; });
    if (!wanted) return;  // started when it is needed
  }
  if (failures == 0) {
    start_child(child);
    return;
  }
  // It does not even start: not again and again at full speed.
  const auto delay =
      std::min(std::chrono::milliseconds(100) * (1 << std::min(failures - 1, 7u)), std::chrono::milliseconds(10'000));
  record.failures = failures;
  loop_->after(delay, [this, child, failures] {
    if (closing_) return;
    start_child(child);
    records_[child].failures = failures;
  });
}

std::uint64_t process_pool::resident_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  std::uint64_t shared = 0;
  file >> size >> resident >> shared;
  // Without what is shared: the pool's own memory is everybody's.
  if (!file || resident < shared) return 0;
  return (resident - shared) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace leveret::core
