#include "claimed_work.hpp"

#include <utility>

namespace leveret::core {

std::shared_ptr<claimed_work> claimed_work::run(delivery d, pool& p, loop& l, let_go key, ended on_ended) {
  auto w = std::make_shared<claimed_work>(std::move(d), p, l, std::move(key), std::move(on_ended));
  w->wait_for_thread();
  return w;
}

claimed_work::claimed_work(delivery d, pool& p, loop& l, let_go key, ended on_ended)
    : work(std::move(d)), pool_(p), loop_(l), let_go_(std::move(key)), on_ended_(std::move(on_ended)) {}

void claimed_work::wait_for_thread() {
  delivery place;
  place.token = what().token;
  place.msg.id = what().msg.id;
  place.msg.queue = what().msg.queue;
  place.msg.data = body("\n");
  place.msg.jobs = 1;
  // Weakly: this holds the line, and whoever waits for this holds it until it has ended.
  place_ = pool_.run(std::move(place), [at = weak_from_this()](const std::shared_ptr<work>& line) {
    if (const auto self = at.lock()) self->has_thread(line);
  });
}

void claimed_work::has_thread(const std::shared_ptr<work>& place) {
  place_ = nullptr;
  if (ended_) return;
  if (stop_ || !place->unstarted().empty()) {
    give_back();
    return;
  }
  let_go_([at = weak_from_this()](bool ours) {
    if (const auto self = at.lock()) self->run_job(ours);
  });
}

void claimed_work::run_job(bool ours) {
  if (ended_) return;
  if (stop_ || !ours) {
    give_back();
    return;
  }
  job_ = pool_.run_next(what(), [at = weak_from_this()](const std::shared_ptr<work>& job) {
    const auto self = at.lock();
    if (!self) return;
    self->unstarted_ = job->unstarted();
    self->finish();
  });
}

void claimed_work::give_back() {
  unstarted_ = {0};
  finish();
}

void claimed_work::finish() {
  if (std::exchange(ended_, true)) return;
  loop_.post([self = shared_from_this()] { self->on_ended_(self); });
}

bool claimed_work::started() const noexcept { return job_ != nullptr && job_->started(); }

bool claimed_work::has_unstarted() const noexcept {
  return !stop_ && !ended_ && (job_ == nullptr || job_->has_unstarted());
}

void claimed_work::stop_starting() {
  stop_ = true;
  if (const auto job = job_ ? job_ : place_) job->stop_starting();
}

void claimed_work::abandon_running() {
  stop_ = true;
  if (job_) {
    job_->abandon_running();
  } else if (const auto place = place_) {
    place->abandon_running();
  } else {
    give_back();  // the key's answer has not come
  }
}

std::vector<result_chunk> claimed_work::take_results() {
  return job_ ? job_->take_results() : std::vector<result_chunk>();
}

std::vector<failed_line> claimed_work::take_failures() {
  return job_ ? job_->take_failures() : std::vector<failed_line>();
}

std::vector<std::uint32_t> claimed_work::running_lines(std::size_t most) const {
  return job_ ? job_->running_lines(most) : std::vector<std::uint32_t>();
}

std::uint64_t claimed_work::succeeded_lines() const noexcept { return job_ ? job_->succeeded_lines() : 0; }

}  // namespace leveret::core
