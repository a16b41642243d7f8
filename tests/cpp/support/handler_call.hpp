/// Runs handlers in a test as a worker's pool thread does: a line is decoded, the task is called across the C ABI.
#pragma once

#include <atomic>
#include <cstring>
#include <leveret/task_set.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "call_frame.hpp"
#include "codec.hpp"
#include "plugin.hpp"
#include "registration.hpp"
#include "registry.hpp"

namespace leveret::test {

/// How one attempt ended.
struct ended {
  leveret_outcome outcome = LEVERET_SUCCEEDED;
  std::string result;   ///< JSON; empty for void
  std::string failure;  ///< the text of every outcome but success
  std::int64_t delay_ms = 0;
};

/// Calls a registered task with JSON arguments. One per thread; keeps per-thread handlers itself.
class caller {
 public:
  explicit caller(const core::registry& tasks) : tasks_(tasks), own_(tasks.tasks().size(), nullptr) {}
  caller(const caller&) = delete;
  caller& operator=(const caller&) = delete;
  ~caller() {
    for (const auto& task : tasks_.tasks()) {
      if (own_[task->index] != nullptr) task->abi.destroy_self(own_[task->index]);
    }
  }

  leveret_call& frame() { return frame_; }

  ended call(std::string_view task, std::string_view args = "[]", std::string_view kwargs = "{}") {
    std::string line = R"({"task":")" + std::string(task) + R"(","args":)" + std::string(args) + R"(,"kwargs":)" +
                       std::string(kwargs) + R"(,"retry_count":2})";
    return call_line(line, task);
  }

  ended call_line(std::string line, std::string_view task) {
    const std::size_t size = line.size();
    line.append(core::body::kPadding, '\0');
    core::refused_line refused;
    if (!codec_.decode(std::string_view(line).substr(0, size), job_, refused)) throw std::runtime_error(refused.text);
    const core::registered_task* found = tasks_.find(task);
    if (found == nullptr) throw std::runtime_error("no task " + std::string(task));
    frame_.reset();
    frame_.job = &job_;
    ended end;
    void* self = found->abi.state;
    if (found->abi.per_thread != 0) {
      void*& own = own_[found->index];
      if (own == nullptr) own = found->abi.make(found->abi.state, &frame_);
      self = own;
    }
    end.outcome = self == nullptr && found->abi.per_thread != 0 ? LEVERET_FAILED : found->abi.call(self, &frame_);
    if (end.outcome == LEVERET_SUCCEEDED) end.result = frame_.result.text();
    end.failure = frame_.failure;
    end.delay_ms = frame_.delay_ms;
    return end;
  }

 private:
  const core::registry& tasks_;
  std::vector<void*> own_;
  core::line_codec codec_;
  core::decoded_job job_;
  leveret_call frame_;
};

/// Registers what `define` adds, as a plugin would.
template <class Define>
void register_into(core::registry& into, Define&& define) {
  task_set tasks(&core::host_functions());
  define(tasks);
  leveret_registry registration{&into, "the test", 0, {}};
  tasks.register_with(&registration);
}

/// One handler under the name "t", called once.
template <class... Said>
class one_task {
 public:
  template <class F>
  explicit one_task(F handler, Said... said) {
    register_into(tasks_, [&](task_set& tasks) { tasks.add("t", std::move(handler), said...); });
  }
  ended operator()(std::string_view args = "[]", std::string_view kwargs = "{}") {
    return caller(tasks_).call("t", args, kwargs);
  }
  [[nodiscard]] const std::string& signature() const { return tasks_.find("t")->signature; }

 private:
  core::registry tasks_;
};
template <class F, class... Said>
one_task(F, Said...) -> one_task<Said...>;

}  // namespace leveret::test
