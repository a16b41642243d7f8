/// One attempt of a Python task: the arguments are read from the parsed line, the function is called, and what it
/// returns or raises becomes an outcome. What the annotation admits as an int, float, str, bool or None is made here;
/// any other value is handed to msgspec as JSON text (leveret.handler).
///
/// Threads: `call` runs on pool threads, inside `python_context`: the GIL is taken once for a run of jobs. A coroutine
/// function's attempt is deferred: the coroutine goes to leveret.handler's event loop, its end comes back by
/// `PendingJob`, on the loop's thread.
#include "handlers.hpp"

#include <nanobind/stl/string.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "call_frame.hpp"
#include "codec.hpp"
#include "encode.hpp"
#include "plugin.hpp"
#include "text_buffer.hpp"

namespace leveret::bindings {
namespace {

/// The depth of a result in its line of a chunk: the line's object is level 1.
constexpr std::size_t kResultDepth = 2;

// ---- the interpreter's lock ----

/// Keeps one Python thread state for each pool thread that ran Python code.
class python_context final : public core::handler_context {
 public:
  void enter() override {
    if (state_ == nullptr) {
      static_cast<void>(PyGILState_Ensure());
    } else {
      PyEval_RestoreThread(state_);
    }
  }
  void leave() override { state_ = PyEval_SaveThread(); }
  void end_thread() override {
    if (state_ == nullptr) return;
    PyEval_RestoreThread(state_);
    state_ = nullptr;
    PyGILState_Release(PyGILState_UNLOCKED);
  }

 private:
  static thread_local PyThreadState* state_;
};
thread_local PyThreadState* python_context::state_ = nullptr;

python_context& the_context() {
  static python_context* const context = new python_context;  // pools may outlive static objects
  return *context;
}

// ---- what the handler is told about its job ----

/// Whether the worker is stopping, as long as the job runs. Shared by the job's frame and the object that Python holds.
struct stop_flag {
  std::atomic<const std::atomic<bool>*> stopping{nullptr};
  core::job_control* control = nullptr;  // may be null; read while `stopping` is not
  std::string id;
  std::string reply;
};

class job_probe {
 public:
  explicit job_probe(std::shared_ptr<stop_flag> flag) : flag_(std::move(flag)) {}
  [[nodiscard]] bool stopping() const noexcept {
    const std::atomic<bool>* stopping = flag_->stopping.load(std::memory_order_acquire);
    return stopping != nullptr && stopping->load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool cancelled() const {
    return running() && flag_->control != nullptr && flag_->control->is_cancelled(flag_->id);
  }
  void set_progress(const std::string& body) const {
    if (running() && flag_->control != nullptr) flag_->control->progress(flag_->id, flag_->reply, body);
  }

 private:
  [[nodiscard]] bool running() const noexcept { return flag_->stopping.load(std::memory_order_acquire) != nullptr; }

  std::shared_ptr<stop_flag> flag_;
};

/// The job that this thread runs, for current_job(); its flag is made when somebody asks.
struct running_job {
  leveret_call* frame = nullptr;
  std::string_view task;
  std::shared_ptr<stop_flag> flag;
};
thread_local running_job* g_running = nullptr;

/// Set in the child of a fork, if it was a handler that forked.
thread_local bool g_forked = false;

/// (id, task, queue, retry_count, deadline in ms or None, probe)
nb::tuple facts_of(running_job& job) {
  const leveret_call& frame = *job.frame;
  if (!job.flag) {
    job.flag = std::make_shared<stop_flag>();
    job.flag->control = frame.control;
    job.flag->id = frame.job_id;
    job.flag->reply = frame.reply;
    job.flag->stopping.store(frame.stopping, std::memory_order_release);
  }
  const nb::object deadline = frame.deadline == 0 ? nb::none() : nb::object(nb::int_(frame.deadline));
  return nb::make_tuple(text(frame.job_id), text(job.task), text(frame.queue), frame.job->retry_count, deadline,
                        nb::cast(job_probe(job.flag)));
}

/// Says why. Texts are cut by the host.
leveret_outcome fail(leveret_call* frame, leveret_outcome outcome, std::string_view why, std::int64_t delay_ms = 0) {
  core::host_functions().fail(frame, why.data(), why.size(), delay_ms);
  return outcome;
}

/// What became of an attempt.
struct verdict {
  leveret_outcome outcome = LEVERET_FAILED;
  std::string text;
  std::int64_t delay_ms = 0;
};

/// What the exception `raised` means for its job.
verdict judge(const python_handler& handler, nb::handle raised, std::uint32_t retry_count) {
  verdict v;
  try {
    const nb::object judged = handler.failed(raised, retry_count);
    v.outcome = static_cast<leveret_outcome>(nb::cast<int>(judged[0]));
    v.text = utf8(judged[1]);
    v.delay_ms = nb::cast<std::int64_t>(judged[2]);
  } catch (const std::exception& wrong) {
    v.outcome = LEVERET_FAILED;
    v.text = "the handler failed, and so did describing how: " + std::string(wrong.what());
  }
  return v;
}

// ---- results ----

/// Writes a result. False: `why` says what has no form in JSON.
bool write_result(const python_handler& handler, PyObject* result, text_buffer& out, std::string& why) {
  out.clear();
  encoder enc(out, handler.to_builtins.ptr());
  if (enc.write(result, kResultDepth)) return true;
  const encode_failure& failure = enc.failure();
  why = "result" + failure.path + ": ";
  if (failure.what == encode_failure::kind::python) {
    const nb::object said = handler.mismatch(take_raised());
    why += utf8(said[1]);
  } else {
    why += failure.text;
  }
  return false;
}

text_buffer& result_buffer() {
  static thread_local text_buffer buffer;
  return buffer;
}

leveret_outcome succeed(const python_handler& handler, leveret_call* frame, PyObject* result) {
  if (!frame->wants_result) return LEVERET_SUCCEEDED;
  text_buffer& out = result_buffer();
  std::string why;
  if (!write_result(handler, result, out, why)) return fail(frame, LEVERET_BAD_RESULT, why);
  frame->result.raw_trusted(out.view());
  return LEVERET_SUCCEEDED;
}

// ---- coroutines ----

/// A deferred attempt, ended by leveret.handler's loop.
class pending_job {
 public:
  pending_job(const python_handler& handler, const core::decoded_job& job, std::shared_ptr<stop_flag> flag,
              bool wants_result)
      : handler_(handler), flag_(std::move(flag)), retry_count_(job.retry_count), wants_result_(wants_result) {}
  pending_job(const pending_job&) = delete;
  pending_job& operator=(const pending_job&) = delete;
  /// A coroutine that was thrown away with its loop has failed.
  ~pending_job() { end({LEVERET_FAILED, "the coroutine was not run to its end", 0}); }

  void attach(std::unique_ptr<core::pending_attempt> attempt) { attempt_ = std::move(attempt); }

  void succeeded(nb::handle result) {
    if (!wants_result_) {
      finish(LEVERET_SUCCEEDED, {}, {}, 0);
      return;
    }
    text_buffer& out = result_buffer();
    std::string why;
    if (write_result(handler_, result.ptr(), out, why)) {
      finish(LEVERET_SUCCEEDED, out.view(), {}, 0);
    } else {
      finish(LEVERET_BAD_RESULT, {}, why, 0);
    }
  }
  void failed(nb::handle raised) { end(judge(handler_, raised, retry_count_)); }

 private:
  void end(const verdict& v) { finish(v.outcome, {}, v.text, v.delay_ms); }
  void finish(leveret_outcome outcome, std::string_view result, std::string_view why, std::int64_t delay_ms) {
    flag_->stopping.store(nullptr, std::memory_order_release);
    const std::unique_ptr<core::pending_attempt> attempt = std::move(attempt_);
    if (!attempt) return;
    const nb::gil_scoped_release released;  // whoever waits for this job may need the GIL
    attempt->finish(outcome, result, why, delay_ms);
  }

  const python_handler& handler_;
  std::unique_ptr<core::pending_attempt> attempt_;
  std::shared_ptr<stop_flag> flag_;
  std::uint32_t retry_count_;
  bool wants_result_;
};

// ---- the call ----

/// Makes the job known to current_job() while the function runs, in a context of its own.
class job_scope {
 public:
  job_scope(const python_handler& handler, running_job& job) : before_(g_running) {
    g_running = &job;
    context_ = nb::steal(PyContext_Copy(handler.context.ptr()));
    if (!context_.is_valid() || PyContext_Enter(context_.ptr()) != 0) {
      g_running = before_;
      throw nb::python_error();
    }
  }
  job_scope(const job_scope&) = delete;
  job_scope& operator=(const job_scope&) = delete;
  ~job_scope() { leave(); }

  [[nodiscard]] const nb::object& context() const noexcept { return context_; }
  void leave() noexcept {
    if (left_) return;
    left_ = true;
    {
      const nb::error_scope kept;  // what the handler raised is still to be judged
      if (PyContext_Exit(context_.ptr()) != 0) PyErr_Clear();
    }
    if (g_running->flag) g_running->flag->stopping.store(nullptr, std::memory_order_release);
    g_running = before_;
  }

 private:
  running_job* before_;
  nb::object context_;
  bool left_ = false;
};

/// Hands the coroutine over to the event loop. The frame is gone afterwards.
leveret_outcome defer(const python_handler& handler, leveret_call* frame, job_scope& scope, running_job& running,
                      nb::object coroutine) {
  const nb::object described = handler.describe(*facts_of(running));
  const nb::object token = nb::steal(PyContextVar_Set(handler.current.ptr(), described.ptr()));
  if (!token.is_valid()) throw nb::python_error();
  // The flag is the coroutine's from here on, and its context: one thread at a time may be in it.
  auto owned = std::make_unique<pending_job>(handler, *frame->job, std::move(running.flag), frame->wants_result);
  running.flag = nullptr;
  const nb::object context = scope.context();
  scope.leave();
  pending_job* const pending = owned.get();
  const nb::object held = nb::cast(owned.release(), nb::rv_policy::take_ownership);
  pending->attach(frame->deferring->defer());
  handler.spawn(coroutine, context, held);
  return LEVERET_SUCCEEDED;  // not looked at after defer()
}

leveret_outcome run(const python_handler& handler, leveret_call* frame) {
  argument_list arguments;
  binder bound(handler, *frame->job, arguments);
  if (!bound.bind()) return fail(frame, LEVERET_BAD_ARGUMENTS, bound.why());

  running_job job{frame, handler.name, nullptr};
  job_scope scope(handler, job);
  nb::object result = nb::steal(PyObject_Vectorcall(
      handler.function.ptr(), arguments.values(), bound.positional() | PY_VECTORCALL_ARGUMENTS_OFFSET, bound.names()));
  if (g_forked) {
    // The handler's child has come back to where the worker is: it must not go on as a second one. Does not return.
    handler.end_child(result.is_valid() ? nb::none() : take_raised());
  }
  if (result.is_valid() && !handler.spawn.is_none()) return defer(handler, frame, scope, job, std::move(result));
  scope.leave();
  if (result.is_valid()) return succeed(handler, frame, result.ptr());
  const verdict v = judge(handler, take_raised(), frame->job->retry_count);
  return fail(frame, v.outcome, v.text, v.delay_ms);
}

leveret_outcome call_handler(void* self, leveret_call* frame) {
  const auto& handler = *static_cast<const python_handler*>(self);
  try {
    return run(handler, frame);
  } catch (const std::exception& wrong) {
    // What the interpreter itself could not do (no memory), not the handler.
    return fail(frame, LEVERET_FAILED, std::string("cannot run the handler: ") + wrong.what());
  }
}

void destroy_handler(void* state) {
  if (Py_IsInitialized() == 0) return;  // at the process's end: nothing of Python's is left to release
  const nb::gil_scoped_acquire held;
  delete static_cast<python_handler*>(state);
}

// ---- from leveret.handler ----

parameter_in make_parameter(nb::handle described) {
  parameter_in p;
  p.name = nb::cast<std::string>(described[1]);
  p.name_object = nb::steal(PyUnicode_InternFromString(p.name.c_str()));
  p.mask = nb::cast<std::uint8_t>(described[2]);
  p.decode = nb::borrow(described[3]);
  p.required = nb::cast<bool>(described[4]);
  return p;
}

std::unique_ptr<python_handler> make_handler(nb::handle described) {
  auto h = std::make_unique<python_handler>();
  h->name = nb::cast<std::string>(described.attr("name"));
  h->function = described.attr("function");
  h->failed = described.attr("failed");
  h->mismatch = described.attr("mismatch");
  h->to_builtins = described.attr("to_builtins");
  h->spawn = described.attr("spawn");
  h->context = described.attr("context");
  h->current = described.attr("current");
  h->describe = described.attr("describe");
  h->end_child = described.attr("end_child");
  for (const nb::handle each : nb::borrow<nb::iterable>(described.attr("parameters"))) {
    const auto kind = nb::cast<std::string>(each[0]);
    parameter_in p = make_parameter(each);
    if (kind == "positional_only" || kind == "positional") {
      if (kind == "positional_only") ++h->positional_only;
      h->positional.push_back(std::move(p));
    } else if (kind == "keyword_only") {
      h->keyword_only.push_back(std::move(p));
    } else if (kind == "var_positional") {
      h->var_positional = std::move(p);
    } else {
      h->var_keyword = std::move(p);
    }
  }
  return h;
}

}  // namespace

void add_handlers(nb::handle handlers, core::registry& into) {
  for (const nb::handle described : nb::borrow<nb::iterable>(handlers)) {
    std::unique_ptr<python_handler> handler = make_handler(described);
    const auto queue = nb::cast<std::string>(described.attr("queue"));
    const auto signature = nb::cast<std::string>(described.attr("signature"));
    const auto source = nb::cast<std::string>(described.attr("place"));
    const std::chrono::milliseconds hard_limit(nb::cast<std::int64_t>(described.attr("hard_limit_ms")));
    leveret_task task{};
    task.size = sizeof task;
    task.name = {handler->name.data(), handler->name.size()};
    task.queue = {queue.data(), queue.size()};
    task.max_retries = nb::cast<std::int32_t>(described.attr("max_retries"));
    task.state = handler.get();
    task.signature = {signature.data(), signature.size()};
    task.call = &call_handler;
    task.destroy_state = &destroy_handler;
    if (const std::string why = into.add(task, source, &the_context(), hard_limit); !why.empty()) {
      throw std::invalid_argument("cannot start a worker: " + why);
    }
    static_cast<void>(handler.release());  // the registry's
  }
}

void init_handlers(nb::module_& m) {
  pthread_atfork(nullptr, nullptr, [] { g_forked = g_running != nullptr; });
  nb::class_<job_probe>(m, "JobProbe", "What a running job asks of its worker, and tells it.")
      .def("stopping", &job_probe::stopping)
      .def("cancelled", &job_probe::cancelled)
      .def("set_progress", &job_probe::set_progress, nb::arg("body"));
  nb::class_<pending_job>(m, "PendingJob", "A job whose coroutine runs on the event loop; ended once.")
      .def("succeeded", &pending_job::succeeded, nb::arg("result").none())
      .def("failed", &pending_job::failed, nb::arg("error"));
  m.def(
      "running_job",
      []() -> nb::object {
        if (g_running == nullptr) return nb::none();
        return facts_of(*g_running);
      },
      nb::sig("def running_job() -> tuple[str, str, str, int, int | None, JobProbe] | None"),
      "(id, task, queue, retry_count, deadline in ms, probe) of the job that this thread runs.");
}

}  // namespace leveret::bindings
