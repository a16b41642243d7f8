#include "ordered_publisher.hpp"

#include <array>
#include <utility>

#include "window_publisher.hpp"

namespace leveret::core {

struct ordered_batch::shared_state {
  publish_shard publish;
  std::mutex mutex;  // never held while publishing
  std::condition_variable changed;
  std::array<shard_state, kOrderedShards> shards;
  std::vector<sent_message> messages;
  std::uint64_t bytes = 0;  // waiting or on their way
  std::uint64_t window_bytes = 0;
  std::uint32_t busy = 0;  // shards
  bool flushing = false;   // a message goes as soon as it can, full or not
  std::optional<publish_outcome> failed;
};

ordered_batch::ordered_batch(std::size_t batch_bytes, std::uint64_t window_bytes, prepare_shard prepare,
                             publish_shard publish)
    : batch_bytes_(batch_bytes), prepare_(std::move(prepare)), shared_(std::make_shared<shared_state>()) {
  shared_->publish = std::move(publish);
  shared_->window_bytes = window_bytes;
}

ordered_batch::~ordered_batch() {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  if (!shared_->failed) shared_->failed = publish_outcome{publish_status::unknown, {errc::closed, "given up"}, {}};
  wait_idle(lock);
}

void ordered_batch::wait_idle(std::unique_lock<std::mutex>& lock) const {
  shared_->changed.wait(lock, [this] { return shared_->busy == 0; });
}

void ordered_batch::add(std::uint32_t shard, std::string_view line) {
  shared_state& s = *shared_;
  shard_state& at = s.shards.at(shard);
  if (!at.ready) {
    prepare_(shard);
    at.ready = true;
  }
  std::unique_lock<std::mutex> lock(s.mutex);
  s.changed.wait(lock, [&] { return s.failed || s.bytes < s.window_bytes; });
  if (s.failed) {
    wait_idle(lock);
    throw_outcome(*s.failed);
  }
  const auto fits = [&](const part& p) {
    return p.jobs < kOrderedJobs && p.lines.size() + line.size() <= batch_bytes_;
  };
  if (at.waiting.empty() || !fits(at.waiting.back())) {
    at.waiting.push_back({{}, 0, static_cast<std::uint32_t>(s.messages.size())});
    s.messages.emplace_back();
  }
  part& last = at.waiting.back();
  last.lines += line;
  ++last.jobs;
  s.bytes += line.size();
  ++s.messages[last.number].what.jobs;
  jobs_.push_back({last.number, last.jobs});
  // What is not full waits for more, unless the window would be full of such.
  if (at.waiting.size() > 1) send_next(shared_, shard, lock);
  if (s.bytes < s.window_bytes) return;
  for (std::uint32_t i = 0; i < kOrderedShards; ++i) send_next(shared_, i, lock);
}

void ordered_batch::send_next(const std::shared_ptr<shared_state>& s, std::uint32_t shard,
                              std::unique_lock<std::mutex>& lock) {
  shard_state& at = s->shards.at(shard);
  if (at.busy || at.waiting.empty() || s->failed) return;
  at.busy = true;
  ++s->busy;
  const part sent = std::move(at.waiting.front());
  at.waiting.pop_front();
  const std::uint64_t bytes = sent.lines.size();
  const auto answered = [s, shard, bytes, number = sent.number](const publish_outcome& outcome) {
    std::unique_lock<std::mutex> answered_lock(s->mutex);
    shard_state& from = s->shards.at(shard);
    from.busy = false;
    --s->busy;
    s->bytes -= bytes;
    if (outcome.status == publish_status::accepted) {
      s->messages[number].accepted = true;
    } else if (!s->failed) {
      s->failed = outcome;
    }
    if (s->flushing || from.waiting.size() > 1 || s->bytes >= s->window_bytes) {
      send_next(s, shard, answered_lock);
    }
    s->changed.notify_all();
  };
  lock.unlock();
  std::string id;
  try {
    id = s->publish(shard, sent.lines, sent.jobs, answered);
  } catch (const error& why) {
    answered({publish_status::unknown, {why.code(), why.what()}, {}});
  }
  lock.lock();
  s->messages[sent.number].what.id = std::move(id);
}

void ordered_batch::finish() {
  shared_state& s = *shared_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.flushing = true;
  for (std::uint32_t i = 0; i < kOrderedShards; ++i) send_next(shared_, i, lock);
  wait_idle(lock);
  if (s.failed) throw_outcome(*s.failed);
}

ordered_batch::result ordered_batch::accepted() const {
  result out;
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  const std::vector<sent_message>& all = shared_->messages;
  std::size_t first_failed = 0;
  while (first_failed < jobs_.size() && all[jobs_[first_failed].message].accepted) ++first_failed;
  constexpr std::uint32_t kUnused = UINT32_MAX;
  std::vector<std::uint32_t> numbers(all.size(), kUnused);
  out.jobs.reserve(first_failed);
  for (std::size_t i = 0; i < first_failed; ++i) {
    std::uint32_t& number = numbers[jobs_[i].message];
    if (number == kUnused) {
      number = static_cast<std::uint32_t>(out.messages.size());
      out.messages.push_back(all[jobs_[i].message].what);
    }
    out.jobs.push_back({number, jobs_[i].line});
  }
  for (std::size_t i = first_failed; i < jobs_.size(); ++i) {
    if (all[jobs_[i].message].accepted) ++out.accepted_behind;
  }
  return out;
}

}  // namespace leveret::core
