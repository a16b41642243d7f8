#include "once_publisher.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

namespace leveret::core {
namespace {

constexpr std::uint64_t kOnTheirWay = 256;

}  // namespace

struct once_batch::shared_state {
  struct answer {
    std::string message;  // its id; empty: none yet, or `failed` says why
    std::exception_ptr failed;
  };
  std::mutex mutex;
  std::condition_variable answered;
  std::vector<answer> jobs;
  std::uint64_t on_their_way = 0;
  bool failed = false;
};

once_batch::once_batch(client& to) : to_(to), shared_(std::make_shared<shared_state>()) {}

once_batch::~once_batch() { wait_for_at_most(0); }

void once_batch::wait_for_at_most(std::uint64_t on_their_way) const {
  shared_state& s = *shared_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.answered.wait(lock, [&] { return s.on_their_way <= on_their_way; });
}

void once_batch::throw_first_failure() const {
  std::exception_ptr first;
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    if (!shared_->failed) return;
    for (auto each = shared_->jobs.begin(); !first; ++each) first = each->failed;
  }
  std::rethrow_exception(first);
}

void once_batch::add(const envelope& e, std::string_view line) {
  wait_for_at_most(kOnTheirWay - 1);
  std::size_t number = 0;
  {
    std::unique_lock<std::mutex> lock(shared_->mutex);
    if (shared_->failed) {
      lock.unlock();
      return finish();
    }
    number = shared_->jobs.size();
    shared_->jobs.emplace_back();
    ++shared_->on_their_way;
  }
  const auto answered = [s = shared_, number](sent_job sent, std::exception_ptr failed) {
    const std::lock_guard<std::mutex> lock(s->mutex);
    shared_state::answer& job = s->jobs[number];
    job.failed = std::move(failed);
    if (job.failed) {
      s->failed = true;
    } else if (sent.existing.empty()) {
      job.message = std::move(sent.message.id);
    } else {
      job.message = sent.existing.substr(0, sent.existing.rfind('/'));  // alone there, as each of these is
    }
    --s->on_their_way;
    s->answered.notify_all();
  };
  try {
    to_.send_soon(e, {}, line, answered);
  } catch (...) {
    answered({}, std::current_exception());
    throw;
  }
}

void once_batch::finish() {
  wait_for_at_most(0);
  throw_first_failure();
}

once_batch::result once_batch::accepted() const {
  result out;
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  const auto is_accepted = [](const shared_state::answer& job) { return !job.message.empty(); };
  auto job = shared_->jobs.begin();
  for (; job != shared_->jobs.end() && is_accepted(*job); ++job) out.messages.push_back({job->message, 1});
  for (; job != shared_->jobs.end(); ++job) out.accepted_behind += is_accepted(*job) ? 1 : 0;
  return out;
}

}  // namespace leveret::core
