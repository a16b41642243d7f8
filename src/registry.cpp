#include "registry.hpp"

#include <algorithm>
#include <exception>

#include "abi_text.hpp"
#include "codec.hpp"
#include "transport.hpp"

namespace leveret::core {

namespace {

std::string name_problem(std::string_view name) {
  if (name.empty()) return "a task's name is empty";
  if (name.size() > kMaxTaskNameBytes) {
    return "a task's name has " + std::to_string(name.size()) + " bytes, at most " + std::to_string(kMaxTaskNameBytes) +
           " are allowed";
  }
  json_writer probe;
  if (!probe.string(name)) return "a task's name is not UTF-8";
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(name.begin(), name.end(), control)) return "a task's name has control characters: " + probe.text();
  return {};
}

}  // namespace

registry::~registry() {
  for (auto task = tasks_.rbegin(); task != tasks_.rend(); ++task) {
    const leveret_task& abi = (*task)->abi;
    if (abi.destroy_state != nullptr) abi.destroy_state(abi.state);
  }
}

std::string registry::add(const leveret_task& task, std::string_view source, handler_context* context,
                          std::chrono::milliseconds hard_limit) {
  // Fields appended after version 1 are optional: a plugin of older headers does not have them.
  if (task.size < sizeof(leveret_task)) return "a task's description is too short";
  const std::string_view name = view(task.name);
  if (std::string why = name_problem(name); !why.empty()) return why;
  const std::string quoted = '"' + std::string(name) + '"';
  if (const auto known = by_name_.find(name); known != by_name_.end()) {
    const std::string& first = known->second->source;
    return first == source ? "task " + quoted + " is registered twice; rename one"
                           : "task " + quoted + " is already registered by " + first + "; rename one";
  }
  if (task.max_retries < -1) return "task " + quoted + ": max_retries must be 0 or more";
  if (task.call == nullptr || (task.per_thread != 0 && task.make == nullptr)) {
    return "task " + quoted + " has no function to call";
  }
  if (task.queue.size != 0) {
    try {
      check_queue_name(std::string(view(task.queue)));
    } catch (const std::exception& wrong) {
      return "task " + quoted + ": " + wrong.what();
    }
  }
  json_writer signature;
  if (task.signature.size != 0 && !signature.raw(view(task.signature))) {
    return "task " + quoted + ": its signature is not JSON";
  }

  auto added = std::make_unique<registered_task>();
  added->name = name;
  added->queue = view(task.queue);
  added->max_retries = task.max_retries;
  added->signature = view(task.signature);
  added->source = source;
  added->index = static_cast<std::uint32_t>(tasks_.size());
  added->context = context;
  added->hard_limit = hard_limit;
  added->abi = task;
  added->abi.size = sizeof(leveret_task);
  added->abi.name = {added->name.data(), added->name.size()};
  added->abi.queue = {added->queue.data(), added->queue.size()};
  added->abi.signature = {added->signature.data(), added->signature.size()};
  tasks_.reserve(tasks_.size() + 1);
  by_name_.emplace(added->name, added.get());
  tasks_.push_back(std::move(added));
  return {};
}

const registered_task* registry::find(std::string_view name) const noexcept {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

std::string registry::names() const {
  std::vector<std::string_view> sorted;
  sorted.reserve(tasks_.size());
  for (const auto& task : tasks_) sorted.emplace_back(task->name);
  std::sort(sorted.begin(), sorted.end());
  std::string joined;
  for (const std::string_view name : sorted) {
    if (!joined.empty()) joined += ", ";
    joined += name;
  }
  return joined.empty() ? "none" : joined;
}

}  // namespace leveret::core
