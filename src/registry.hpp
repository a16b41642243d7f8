/// The tasks that a worker can run: registered by plugins through the C ABI, looked up by name for every line.
#pragma once

#include <leveret/abi.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace leveret::core {

/// What must be entered before handlers of some kind run on a thread, for example an interpreter's lock. A pool thread
/// enters it for the first job that needs it, stays inside for a run of jobs, and leaves it when it turns to a task
/// without it, or has nothing to run. All calls come from pool threads; several may be inside unless `enter` waits.
class handler_context {
 public:
  handler_context() = default;
  handler_context(const handler_context&) = delete;
  handler_context& operator=(const handler_context&) = delete;
  virtual ~handler_context() = default;

  virtual void enter() = 0;
  virtual void leave() = 0;
  /// The thread ends and will not enter again. It is outside.
  virtual void end_thread() = 0;
};

struct registered_task {
  std::string name;
  std::string queue;              ///< empty: the default of native tasks
  std::int32_t max_retries = -1;  ///< -1: not said
  std::string signature;          ///< JSON; may be empty
  std::string source;             ///< the plugin's file, or the program, for messages
  std::uint32_t index = 0;        ///< dense, for per-thread tables
  handler_context* context = nullptr;
  std::chrono::milliseconds hard_limit{0};  ///< what runs longer is ended with its process; 0: no limit
  leveret_task abi{};                       ///< its strings point into this object
};

/// Filled before the worker starts, read-only afterwards: lookups take no lock.
class registry {
 public:
  registry() = default;
  registry(const registry&) = delete;
  registry& operator=(const registry&) = delete;
  ~registry();  ///< calls each task's destroy_state

  /// Empty: added. Else why not (two tasks of one name are refused with both sources). `context` must outlive every
  /// pool that runs the task; null: none is needed. A hard limit needs a pool of processes; threads can't be ended.
  [[nodiscard]] std::string add(const leveret_task& task, std::string_view source, handler_context* context = nullptr,
                                std::chrono::milliseconds hard_limit = {});
  [[nodiscard]] const registered_task* find(std::string_view name) const noexcept;
  [[nodiscard]] const std::vector<std::unique_ptr<registered_task>>& tasks() const noexcept { return tasks_; }
  [[nodiscard]] std::string names() const;  ///< sorted, comma-separated, for messages

 private:
  std::vector<std::unique_ptr<registered_task>> tasks_;
  std::unordered_map<std::string_view, const registered_task*> by_name_;
};

}  // namespace leveret::core
