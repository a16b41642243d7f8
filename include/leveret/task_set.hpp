/// Where a program or plugin says which tasks it can run.
#pragma once

#include <deque>
#include <functional>
#include <leveret/handler.hpp>
#include <memory>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

/// One task on its way to the host. Until it is added, its state is destroyed here.
struct pending_task {
  std::string name;
  std::string queue;
  std::string signature;
  leveret_task abi{};

  pending_task() = default;
  pending_task(const pending_task&) = delete;
  pending_task& operator=(const pending_task&) = delete;
  ~pending_task() {
    if (abi.destroy_state != nullptr) abi.destroy_state(abi.state);
  }
};

/// A handler that all threads share, or the factory of one a thread, with what its call needs.
template <class Callable, class Handler>
struct task_state {
  using bound = binding<typename signature_of<Handler>::takes>;

  const leveret_host* host;
  Callable callable;
  bound binds;

  static void destroy(void* self) { delete static_cast<task_state*>(self); }
};

template <class Handler>
struct shared_task {
  static leveret_outcome call(void* self, leveret_call* call) {
    auto& task = *static_cast<task_state<Handler, Handler>*>(self);
    return run(task.host, call, task.callable, task.binds);
  }
};

template <class Factory, class Handler>
struct thread_task {
  using state = task_state<Factory, Handler>;
  struct instance {
    const state& task;
    Handler handler;
  };

  static void* make(void* self, leveret_call* call) noexcept {
    auto& task = *static_cast<state*>(self);
    try {
      return new instance{task, std::invoke(task.callable)};
    } catch (...) {
      (void)end_by_exception(task.host, call);
      return nullptr;
    }
  }
  static leveret_outcome call(void* self, leveret_call* call) {
    auto& made = *static_cast<instance*>(self);
    return run(made.task.host, call, made.handler, made.task.binds);
  }
  static void destroy(void* self) { delete static_cast<instance*>(self); }
};

}  // namespace detail

/// Options of a task just added. Valid while its task_set is.
class task_options {
 public:
  explicit task_options(detail::pending_task& task) noexcept : task_(&task) {}

  /// How often a failed job is tried again, where the job itself does not say. Default: the worker's, which is 3.
  /// Throws std::invalid_argument if negative.
  task_options& max_retries(int count) {
    if (count < 0) throw std::invalid_argument("task \"" + task_->name + "\": max_retries must be 0 or more");
    task_->abi.max_retries = count;
    return *this;
  }
  /// The queue that a worker consumes for this task when it is not told its queues. Default: `native`.
  task_options& queue(std::string name) {
    task_->queue = std::move(name);
    return *this;
  }

 private:
  detail::pending_task* task_;
};

/// Collects tasks. `LEVERET_TASKS(tasks) {…}` gives one; other source files may take it by reference and add theirs.
class task_set {
 public:
  explicit task_set(const leveret_host* host) noexcept : host_(host) {}
  task_set(const task_set&) = delete;
  task_set& operator=(const task_set&) = delete;

  /// Adds a task. `handler` is a function, a lambda or a function object, copied or moved in; it is called by all of
  /// the worker's threads at once. Its parameters are of the types that leveret/kinds.hpp lists, after
  /// `leveret::context&` if it wants one; std::string_view and leveret::json live until it returns. `said` names all
  /// arguments or none: `arg("id"), arg("value") = 3`. Throws std::invalid_argument: two equal names, a default out of
  /// range.
  template <class F, class... Said>
  task_options add(std::string name, F&& handler, Said&&... said) {
    using type = std::decay_t<F>;
    using task = detail::task_state<type, type>;
    detail::pending_task& added = prepare(std::move(name));
    describe<type>(added, [&] { return new task{host_, std::forward<F>(handler), typename task::bound(said...)}; });
    added.abi.call = &detail::shared_task<type>::call;
    return task_options(added);
  }

  /// Adds a task with one handler a thread: each pool thread calls `factory` at its first job of this task (several
  /// threads at once, if they start together), and alone uses and destroys what it gives. The factory is not called to
  /// describe the task; its return type says what it takes. A factory that throws makes that attempt fail.
  template <class Factory, class... Said>
  task_options add_per_thread(std::string name, Factory&& factory, Said&&... said) {
    using type = std::decay_t<Factory>;
    using handler = std::decay_t<std::invoke_result_t<type&>>;
    using per_thread = detail::thread_task<type, handler>;
    using task = typename per_thread::state;
    detail::pending_task& added = prepare(std::move(name));
    describe<handler>(added,
                      [&] { return new task{host_, std::forward<Factory>(factory), typename task::bound(said...)}; });
    added.abi.per_thread = 1;
    added.abi.make = &per_thread::make;
    added.abi.call = &per_thread::call;
    added.abi.destroy_self = &per_thread::destroy;
    return task_options(added);
  }

  /// Hands all tasks over to the host. Throws std::invalid_argument for one that the host refuses.
  void register_with(leveret_registry* registry) {
    for (detail::pending_task& task : tasks_) {
      task.abi.name = {task.name.data(), task.name.size()};
      task.abi.queue = {task.queue.data(), task.queue.size()};
      task.abi.signature = {task.signature.data(), task.signature.size()};
      if (const char* why = host_->add_task(registry, &task.abi)) throw std::invalid_argument(why);
      task.abi.destroy_state = nullptr;  // the host's now
    }
  }

 private:
  detail::pending_task& prepare(std::string name) {
    detail::pending_task& task = tasks_.emplace_back();
    task.name = std::move(name);
    task.abi.size = sizeof(leveret_task);
    task.abi.max_retries = -1;
    return task;
  }

  template <class Handler, class Make>
  void describe(detail::pending_task& task, Make&& make) {
    try {
      auto* state = make();
      task.abi.state = state;
      task.abi.destroy_state = &std::decay_t<decltype(*state)>::destroy;
      task.signature = "{\"args\":" + state->binds.describe_json() + ",\"returns\":";
    } catch (const std::invalid_argument& wrong) {
      const std::string text = "task \"" + task.name + "\": " + wrong.what();
      tasks_.pop_back();
      throw std::invalid_argument(text);
    }
    using result = typename detail::signature_of<Handler>::result;
    detail::append_quoted(task.signature, detail::type_name<result>());
    task.signature += '}';
  }

  const leveret_host* host_;
  std::deque<detail::pending_task> tasks_;  // their addresses are in task_options
};

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
