#include "ordered_work.hpp"

#include <iterator>
#include <utility>

#include "ids.hpp"

namespace leveret::core {

std::shared_ptr<ordered_work> ordered_work::run(delivery d, pool& p, loop& l, line_returner& returner, ended on_ended) {
  auto w = std::make_shared<ordered_work>(std::move(d), p, l, returner, std::move(on_ended));
  w->start_next();
  return w;
}

ordered_work::ordered_work(delivery d, pool& p, loop& l, line_returner& returner, ended on_ended)
    : work(std::move(d)), pool_(p), loop_(l), returner_(returner), on_ended_(std::move(on_ended)) {}

void ordered_work::start_next() {
  for (; next_ < lines(); ++next_) {
    delivery one = what();
    if (lines() > 1) {
      const line_returner::returned line = returner_.give_back(what().msg, this->line(next_), next_);
      if (refuse(line)) continue;
      one.msg.data = body(line.text + "\n");
      one.msg.jobs = 1;
    }
    // Weakly: this holds the line, and whoever waits for this holds it until it has ended.
    const auto on_line = [at = weak_from_this()](const std::shared_ptr<work>& ended) {
      if (const auto self = at.lock()) self->line_ended(ended);
    };
    current_ = next_ == 0 ? pool_.run(std::move(one), on_line) : pool_.run_next(std::move(one), on_line);
    return;
  }
  finish();
}

// A line that the codec refuses has no id of its own to run under: it ends here, as it would in the pool.
bool ordered_work::refuse(const line_returner::returned& line) {
  if (!line.dead) return false;
  std::string_view root;
  std::uint32_t number = 0;
  if (wants_results() && split_job_id(line.id, root, number)) {
    result_chunk& told = results_.emplace_back(result_chunk{std::string(root), what().msg.reply, number, number, {}});
    append_dead_result(told.data, number, line.reason, line.error, 0);
  }
  failed_line failed;
  failed.fate = line_fate::dead;
  failed.id = line.id;
  failed.text = line.text;
  failed.reason = line.reason;
  failed.error = line.error;
  failures_.push_back(std::move(failed));
  return true;
}

void ordered_work::line_ended(const std::shared_ptr<work>& line) {
  if (ended_) return;
  std::vector<result_chunk> results = line->take_results();
  std::move(results.begin(), results.end(), std::back_inserter(results_));
  std::vector<failed_line> failures = line->take_failures();
  std::move(failures.begin(), failures.end(), std::back_inserter(failures_));
  succeeded_ += line->succeeded_lines();
  current_ = nullptr;
  if (!line->unstarted().empty()) {
    give_back_from(next_);
  } else if (stop_) {
    give_back_from(next_ + 1);
  } else {
    ++next_;
    start_next();
  }
}

void ordered_work::give_back_from(std::uint32_t first) {
  for (std::uint32_t i = first; i < lines(); ++i) unstarted_.push_back(i);
  next_ = lines();
  finish();
}

void ordered_work::finish() {
  if (std::exchange(ended_, true)) return;
  loop_.post([self = shared_from_this()] { self->on_ended_(self); });
}

bool ordered_work::started() const noexcept { return next_ > 0 || current_ == nullptr || current_->started(); }

bool ordered_work::has_unstarted() const noexcept {
  return !stop_ && (next_ + 1 < lines() || (current_ != nullptr && current_->has_unstarted()));
}

void ordered_work::stop_starting() {
  stop_ = true;
  if (const auto line = current_) line->stop_starting();
}

void ordered_work::wind_down() {
  const auto line = current_;
  if (next_ == 0 && line) line->stop_starting();
}

void ordered_work::abandon_running() {
  stop_ = true;
  if (const auto line = current_) line->abandon_running();
}

std::vector<result_chunk> ordered_work::take_results() {
  std::vector<result_chunk> all = std::exchange(results_, {});
  if (current_) {
    std::vector<result_chunk> now = current_->take_results();
    std::move(now.begin(), now.end(), std::back_inserter(all));
  }
  return merge_chunks(std::move(all));
}

std::vector<std::uint32_t> ordered_work::running_lines(std::size_t most) const {
  if (most == 0 || current_ == nullptr || current_->running_lines(1).empty()) return {};
  return {next_};
}

std::uint64_t ordered_work::succeeded_lines() const noexcept {
  return succeeded_ + (current_ ? current_->succeeded_lines() : 0);
}

}  // namespace leveret::core
