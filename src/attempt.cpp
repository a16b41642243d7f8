#include "attempt.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "faults.hpp"
#include "ids.hpp"
#include "plugin.hpp"
#include "redelivery.hpp"

namespace leveret::core {

std::string base_queue(const std::string& queue) {
  const std::string_view suffix = kSuspectsSuffix;
  if (queue.size() > suffix.size() && queue.compare(queue.size() - suffix.size(), suffix.size(), suffix) == 0) {
    return queue.substr(0, queue.size() - suffix.size());
  }
  return queue;
}

message_view view_of(const message& m) {
  message_view v{m.id, m.queue, 0, !m.reply.empty(), m.reply};
  if (const std::string* text = m.find_header(kHeaderUnknownSince)) {
    std::from_chars(text->data(), text->data() + text->size(), v.unknown_since);
  }
  return v;
}

/// What must be known of an attempt when it ends.
struct running_attempt {
  const run_settings& settings;
  const loop& time;
  job_identity who;
  std::string_view queue;
  std::string_view task;
  std::string_view line;
  std::uint32_t retry_count = 0;
  std::int32_t job_retries = -1;   // the job's own limit; -1: none
  std::int32_t task_retries = -1;  // its task's

  void end_dead(outcome_sink& sink, const char* reason, std::string_view error, bool ran) const {
    failed_line dead;
    dead.fate = line_fate::dead;
    dead.id = who.id;
    dead.reason = reason;
    dead.error = error;
    const failed_attempt attempt{time.wall(), settings.worker, dead.error};
    dead.text =
        dead_record(who.id, task, base_queue(std::string(queue)), reason, error, ran ? &attempt : nullptr, line);
    if (ran) faults::hit(faults::point::after_result);
    sink.failed(who, std::move(dead), reason, retry_count + (ran ? 1 : 0));
  }

  /// After the handler's return. `complete`: whether `result` is nothing or one JSON value.
  void end(outcome_sink& sink, leveret_outcome outcome, std::string_view result, bool complete,
           std::string_view failure, std::int64_t delay_ms) const {
    switch (outcome) {
      case LEVERET_SUCCEEDED:
        if (!complete) {
          end_dead(sink, kReasonBadResult, "the result is not one complete JSON value", true);
        } else if (result.size() > kMaxResultBytes) {
          end_dead(sink, kReasonBadResult,
                   "result too large: " + std::to_string(result.size()) + " bytes, at most " +
                       std::to_string(kMaxResultBytes),
                   true);
        } else {
          faults::hit(faults::point::after_result);
          sink.succeeded(who, result);
        }
        return;
      case LEVERET_REJECTED:
        end_dead(sink, kReasonRejected, failure, true);
        return;
      case LEVERET_BAD_ARGUMENTS:
        end_dead(sink, kReasonBadArguments, failure, true);
        return;
      case LEVERET_BAD_RESULT:
        end_dead(sink, kReasonBadResult, failure, true);
        return;
      case LEVERET_RETRY_AFTER:
      case LEVERET_FAILED:
        break;
    }
    if (!may_retry(settings.retries, retry_count, job_retries, task_retries)) {
      end_dead(sink, kReasonException, failure, true);
      return;
    }
    failed_line retry;
    retry.fate = outcome == LEVERET_RETRY_AFTER ? line_fate::retry_after : line_fate::retry;
    retry.next_retry_count = retry_count + 1;
    retry.delay = std::chrono::milliseconds(std::max<std::int64_t>(delay_ms, 0));
    retry.id = who.id;
    retry.error = failure;
    const failed_attempt attempt{time.wall(), settings.worker, retry.error};
    retry.text = rewrite_line(line, who.id, retry.next_retry_count, &attempt);
    faults::hit(faults::point::after_result);
    sink.failed(who, std::move(retry), {}, 0);
  }
};

namespace {

constexpr std::size_t kMostDigits = 10;  // of a line's number

/// Keeps what views of the runner's buffers said. The line itself lives as long as its message.
class deferred_attempt final : public pending_attempt {
 public:
  deferred_attempt(const running_attempt& now, std::unique_ptr<outcome_sink> sink)
      : id_(now.who.id),
        result_id_(now.who.result_id),
        task_(now.task),
        queue_(now.queue),
        attempt_(now),
        sink_(std::move(sink)) {
    attempt_.who.id = id_;
    attempt_.who.result_id = result_id_;
    attempt_.task = task_;
    attempt_.queue = queue_;
  }

  void finish(leveret_outcome outcome, std::string_view result, std::string_view failure,
              std::int64_t delay_ms) override {
    faults::hit(faults::point::after_effect);
    json_writer checked;
    const bool complete = result.empty() || checked.raw(result);
    attempt_.end(*sink_, outcome, result, complete, failure, delay_ms);
  }

 private:
  std::string id_;
  std::string result_id_;
  std::string task_;
  std::string queue_;
  running_attempt attempt_;
  std::unique_ptr<outcome_sink> sink_;
};

}  // namespace

attempt_runner::attempt_runner(const run_settings& settings, const loop& l)
    : settings_(settings), loop_(l), own_(settings.tasks->tasks().size(), nullptr) {
  frame_.job = &job_;
  frame_.stopping = settings.stop_flag;
  frame_.control = settings.control;
  frame_.log = settings.log;
  frame_.deferring = this;
}

attempt_runner::~attempt_runner() {
  for (const auto& task : settings_.tasks->tasks()) {
    void* self = own_[task->index];
    if (self == nullptr || task->abi.destroy_self == nullptr) continue;
    if (task->context != inside_) enter(task->context);
    task->abi.destroy_self(self);
  }
  rest();
  for (handler_context* context : entered_) context->end_thread();
}

void attempt_runner::enter(handler_context* context) {
  rest();
  if (context == nullptr) return;
  if (std::find(entered_.begin(), entered_.end(), context) == entered_.end()) entered_.push_back(context);
  context->enter();
  inside_ = context;
}

void attempt_runner::rest() {
  if (inside_ == nullptr) return;
  inside_->leave();
  inside_ = nullptr;
}

void* attempt_runner::handler_of(const registered_task& task) {
  if (task.abi.per_thread == 0) return task.abi.state;
  void*& self = own_[task.index];
  if (self == nullptr) self = task.abi.make(task.abi.state, &frame_);
  return self;
}

void attempt_runner::begin(const message_view& m) {
  message_ = m;
  frame_.queue = m.queue;
  frame_.reply = m.reply;
  frame_.wants_result = m.wants_results;
  id_.assign(m.id);
  id_.push_back('/');
  id_.resize(m.id.size() + 1 + kMostDigits);
  id_size_ = 0;
}

// Numbers mostly differ in their last digit.
std::string_view attempt_runner::id_of(std::uint32_t number) {
  const std::uint32_t more = number - id_number_;
  id_number_ = number;
  if (id_size_ != 0 && more <= 9 && id_[id_size_ - 1] + static_cast<char>(more) <= '9') {
    id_[id_size_ - 1] = static_cast<char>(id_[id_size_ - 1] + static_cast<char>(more));
  } else {
    const char* const end = std::to_chars(id_.data() + message_.id.size() + 1, id_.data() + id_.size(), number).ptr;
    id_size_ = static_cast<std::size_t>(end - id_.data());
  }
  return {id_.data(), id_size_};
}

void attempt_runner::run(std::string_view line, std::uint32_t index, outcome_sink& sink) {
  const message_view& m = message_;
  // One by one: as a whole it is put together elsewhere, and copied in pairs of words (plain_reader::task).
  who_.id = id_of(index + 1);
  who_.result_id = m.id;
  who_.result_line = index + 1;
  line_ = line;
  const auto take_id = [&](std::string_view own) {
    own_id_ = own;
    who_.id = own_id_;
    if (!split_job_id(own_id_, who_.result_id, who_.result_line)) who_ = {own_id_, m.id, index + 1};
  };

  if (!codec_.decode(line, job_, refused_)) {
    const char* reason = kReasonMalformed;
    if (refused_.code == refusal::unsupported_field) reason = kReasonUnsupported;
    if (refused_.code == refusal::too_long) reason = kReasonTooLong;
    if (!refused_.id.empty()) take_id(refused_.id);
    const running_attempt none{settings_, loop_, who_, m.queue, refused_.task, line};
    none.end_dead(sink, reason, refused_.text, false);
    return;
  }
  if (!job_.foreign && !job_.id.empty()) take_id(job_.id);
  run_task(sink);
}

/// What failures and handlers that go on without their thread need; most lines are neither.
running_attempt attempt_runner::current() const {
  return {settings_,
          loop_,
          who_,
          message_.queue,
          task_name(),
          line_,
          job_.retry_count,
          job_.max_retries.value_or(-1),
          task_ != nullptr ? task_->max_retries : -1};
}

std::string_view attempt_runner::task_name() const { return job_.foreign ? settings_.default_task : job_.task; }

void attempt_runner::run_task(outcome_sink& sink) {
  const message_view& m = message_;
  const job_identity& who = who_;
  if (job_.foreign && settings_.default_task.empty()) {
    current().end_dead(
        sink, kReasonMalformed,
        "the object has no \"task\"; name a default task for this queue (--default-task) to run such jobs", false);
    return;
  }
  if (job_.expires_at && loop_.wall() >= *job_.expires_at) {
    failed_line late;
    late.fate = line_fate::expired;
    late.id = who.id;
    sink.failed(who, std::move(late), {}, 0);
    return;
  }
  if (settings_.control != nullptr && settings_.control->is_cancelled(who.id)) {
    failed_line gone;
    gone.fate = line_fate::cancelled;
    gone.id = who.id;
    sink.failed(who, std::move(gone), {}, 0);
    return;
  }
  // Lines of one message are mostly of one task.
  if (job_.task_number == 0 || job_.task_number != task_number_) {
    const std::string_view name = task_name();
    if (task_ == nullptr || task_->name != name) task_ = settings_.tasks->find(name);
    task_number_ = job_.task_number;
  }
  const registered_task* const task = task_;
  if (task == nullptr) {
    const std::string_view name = task_name();
    const unix_ms since = m.unknown_since != 0 ? m.unknown_since : loop_.wall();
    if (loop_.wall() - since >= settings_.unknown_task_patience.count()) {
      current().end_dead(sink, kReasonUnknownTask,
                         "no worker knew the task \"" + std::string(name) + "\" for " +
                             std::to_string(settings_.unknown_task_patience.count() / 60'000) +
                             " minutes; known here: " + settings_.tasks->names(),
                         false);
      return;
    }
    failed_line put_back;
    put_back.fate = line_fate::put_back;
    put_back.id = who.id;
    put_back.next_retry_count = job_.retry_count;
    put_back.error = "unknown task \"" + std::string(name) + "\"";
    put_back.text = rewrite_line(line_, who.id, job_.retry_count, nullptr);
    sink.failed(who, std::move(put_back), {}, 0);
    return;
  }

  frame_.reset();
  frame_.job_id = who.id;
  frame_.deadline = job_.deadline_ms ? loop_.wall() + *job_.deadline_ms : 0;

  if (task->context != inside_) enter(task->context);
  void* self = handler_of(*task);
  leveret_outcome outcome = LEVERET_FAILED;
  if (self == nullptr && task->abi.per_thread != 0) {
    if (frame_.failure.empty()) frame_.failure = "the factory of \"" + task->name + "\" made no handler";
  } else {
    if (task->hard_limit.count() > 0) sink.limit(task->hard_limit);
    sink_ = &sink;
    outcome = task->abi.call(self, &frame_);
    if (std::exchange(sink_, nullptr) == nullptr) return;  // deferred
    faults::hit(faults::point::after_effect);
  }
  const std::string& result = frame_.result.text();
  const bool complete = result.empty() || frame_.result.complete();
  if (outcome == LEVERET_SUCCEEDED && complete && result.size() <= kMaxResultBytes) {
    faults::hit(faults::point::after_result);
    sink.succeeded(who, result);
  } else {
    current().end(sink, outcome, result, complete, frame_.failure, frame_.delay_ms);
  }
}

std::unique_ptr<pending_attempt> attempt_runner::defer() {
  auto pending = std::make_unique<deferred_attempt>(current(), sink_->park());
  sink_ = nullptr;
  return pending;
}

line_returner::returned line_returner::give_back(const message& m, std::string_view line, std::uint32_t index) {
  returned out;
  refused_line refused;
  if (!codec_.decode(line, job_, refused)) {
    out.dead = true;
    out.id = refused.id.empty() ? make_job_id(m.id, index + 1) : refused.id;
    out.task = refused.task;
    out.error = refused.text;
    out.reason = refused.code == refusal::unsupported_field ? kReasonUnsupported : kReasonMalformed;
    out.text = dead_record(out.id, refused.task, base_queue(m.queue), out.reason, refused.text, nullptr, line);
    return out;
  }
  out.id = !job_.foreign && !job_.id.empty() ? std::string(job_.id) : make_job_id(m.id, index + 1);
  out.task = job_.task;
  out.text = rewrite_line(line, out.id, job_.retry_count, nullptr);
  return out;
}

job_identity line_returner::identify(const message& m, std::string_view line, std::uint32_t index) {
  id_ = make_job_id(m.id, index + 1);
  job_identity who{id_, m.id, index + 1};
  refused_line refused;
  readable_ = codec_.decode(line, job_, refused);
  if (readable_ && !job_.foreign && !job_.id.empty()) {
    id_ = job_.id;
    who.id = id_;
    if (!split_job_id(id_, who.result_id, who.result_line)) who = {id_, m.id, index + 1};
  }
  return who;
}

line_returner::charged line_returner::charge(const message& m, std::string_view line, std::uint32_t index,
                                             const char* reason, std::string_view error, const run_settings& settings,
                                             std::int32_t max_crashes, unix_ms now) {
  charged out;
  out.who = identify(m, line, index);
  const bool readable = readable_;  // it was, when it ran
  const std::uint32_t retry_count = readable ? job_.retry_count : 0;
  const std::string_view name = !readable ? std::string_view() : job_.foreign ? settings.default_task : job_.task;
  const registered_task* task = settings.tasks->find(name);
  const bool again =
      readable && count_crashes(line) + 1 < max_crashes &&
      may_retry(settings.retries, retry_count, job_.max_retries.value_or(-1), task != nullptr ? task->max_retries : -1);
  failed_line& f = out.failure;
  f.id = id_;
  f.error = error;
  // So that the attempts that took their process down can be counted.
  const bool crashed = std::string_view(reason) == kReasonCrashed;
  const failed_attempt attempt{now, settings.worker, (crashed ? std::string(kCrashError) : std::string()) + f.error};
  if (again) {
    f.fate = line_fate::retry;
    f.next_retry_count = retry_count + 1;
    f.text = rewrite_line(line, id_, f.next_retry_count, &attempt);
  } else {
    f.fate = line_fate::dead;
    f.reason = reason;
    f.text = dead_record(id_, name, base_queue(m.queue), reason, error, &attempt, line);
    out.dead_reason = reason;
    out.attempts = retry_count + 1;
  }
  return out;
}

line_returner::returned line_returner::refused(const message& m, std::string_view line, std::uint32_t index,
                                               const refused_delivery& why) {
  returned out = give_back(m, line, index);
  out.dead = true;
  out.error = why.text;
  out.text = dead_record(out.id, out.task, base_queue(m.queue), why.reason, why.text, nullptr, line);
  return out;
}

line_returner::returned line_returner::crashed(const message& m, std::string_view line, std::uint32_t index,
                                               std::int32_t crashes) {
  returned out = give_back(m, line, index);
  if (out.dead) return out;
  out.dead = true;
  out.error = "the worker was lost " + std::to_string(crashes) + " times while this job ran alone";
  out.text = dead_record(out.id, out.task, base_queue(m.queue), kReasonCrashed, out.error, nullptr, line);
  return out;
}

}  // namespace leveret::core
