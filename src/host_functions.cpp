/// The host's half of the C ABI: what handlers can ask of the attempt that they run (leveret_call), and how plugins
/// register tasks. The functions that read values are the codec's.
#include <leveret/library.h>

#include <algorithm>

#include "abi_text.hpp"
#include "call_frame.hpp"
#include "codec.hpp"
#include "plugin.hpp"
#include "registration.hpp"

namespace leveret::core {

namespace {

/// A handler's text travels in every retry and stands in the dead record; no exception's text needs more.
constexpr std::size_t kMaxFailureBytes = 4096;
constexpr std::size_t kMaxProgressBytes = 1000;

const char* add_task(leveret_registry* registry, const leveret_task* task) {
  static thread_local std::string why;
  why = registry->into->add(*task, registry->source);
  if (why.empty()) {
    ++registry->added;
    return nullptr;
  }
  return why.c_str();
}

leveret_string raw(leveret_call* call, leveret_value value) {
  return string_of(call->raws.emplace_back(to_json(value)));
}

void fail(leveret_call* call, const char* text, std::size_t size, std::int64_t delay_ms) {
  std::size_t kept = size;
  if (kept > kMaxFailureBytes) {
    kept = kMaxFailureBytes;
    // Not inside a character: back to the first byte of the one that would be cut.
    while (kept > kMaxFailureBytes - 4 && (static_cast<unsigned char>(text[kept]) & 0xC0U) == 0x80U) --kept;
  }
  call->failure.assign(text, kept);
  if (kept < size) call->failure += "…";
  call->delay_ms = delay_ms;
}

void log(leveret_call* call, leveret_log_level level, const char* text, std::size_t size) {
  if (call->log != nullptr) call->log->log(level, "task_log", call->job_id, std::string_view(text, size));
}

int set_progress(leveret_call* call, double fraction, const char* text, std::size_t size) {
  json_writer told;
  told.begin_object();
  (void)told.key("progress");
  if (fraction < 0) {
    told.null();
  } else if (!(fraction <= 1) || !told.real(fraction)) {
    return 0;
  }
  (void)told.key("text");
  if (size > kMaxProgressBytes || !told.string(std::string_view(text, size))) return 0;
  told.end_object();
  if (call->control != nullptr) call->control->progress(call->job_id, call->reply, told.text());
  return 1;
}

leveret_host make_host_functions() noexcept {
  leveret_host host{};
  host.abi_version = LEVERET_ABI_VERSION;
  host.size = sizeof(leveret_host);
  host.add_task = &add_task;
  host.refuse = [](leveret_registry* registry, const char* text, std::size_t n) { registry->refusal.assign(text, n); };

  host.args = [](leveret_call* call) { return call->job->args; };
  host.kwargs = [](leveret_call* call) { return call->job->kwargs; };
  host.foreign = [](leveret_call* call, leveret_value* whole) {
    if (!call->job->foreign) return 0;
    *whole = call->job->whole;
    return 1;
  };
  set_value_functions(host);
  host.raw = &raw;

  host.write_null = [](leveret_call* call) { call->result.null(); };
  host.write_boolean = [](leveret_call* call, int value) { call->result.boolean(value != 0); };
  host.write_integer = [](leveret_call* call, std::int64_t value) {
    call->wants_result ? call->result.integer(value) : call->result.unread_number();
  };
  host.write_unsigned = [](leveret_call* call, std::uint64_t value) { call->result.uinteger(value); };
  host.write_double = [](leveret_call* call, double value) { return call->result.real(value) ? 1 : 0; };
  host.write_string = [](leveret_call* call, const char* data, std::size_t n) {
    return call->result.string(std::string_view(data, n)) ? 1 : 0;
  };
  host.write_raw = [](leveret_call* call, const char* data, std::size_t n) {
    return call->result.raw(std::string_view(data, n)) ? 1 : 0;
  };
  host.begin_array = [](leveret_call* call) { call->result.begin_array(); };
  host.end_array = [](leveret_call* call) { call->result.end_array(); };
  host.begin_object = [](leveret_call* call) { call->result.begin_object(); };
  host.write_key = [](leveret_call* call, const char* data, std::size_t n) {
    return call->result.key(std::string_view(data, n)) ? 1 : 0;
  };
  host.end_object = [](leveret_call* call) { call->result.end_object(); };
  host.fail = &fail;

  host.job_id = [](leveret_call* call) { return string_of(call->job_id); };
  host.task_name = [](leveret_call* call) { return string_of(call->job->task); };
  host.queue = [](leveret_call* call) { return string_of(call->queue); };
  host.retry_count = [](leveret_call* call) { return call->job->retry_count; };
  host.deadline_ms = [](leveret_call* call) { return call->deadline; };
  host.stopping = [](leveret_call* call) {
    return call->stopping != nullptr && call->stopping->load(std::memory_order_relaxed) ? 1 : 0;
  };
  host.log = &log;
  host.cancelled = [](leveret_call* call) {
    return call->control != nullptr && call->control->is_cancelled(call->job_id) ? 1 : 0;
  };
  host.set_progress = &set_progress;
  host.arguments = [](leveret_call* call, leveret_value* values, std::size_t most, std::size_t* keywords) {
    return read_arguments(*call->job, values, most, keywords);
  };
  host.library = [] { return leveret_get_library(LEVERET_ABI_VERSION); };
  return host;
}

}  // namespace

const leveret_host& host_functions() {
  static const leveret_host host = make_host_functions();
  return host;
}

}  // namespace leveret::core
