/// The C ABI of Leveret itself (leveret/library.h): sending jobs and being a worker, for C++ programs and for plugins.
/// Exceptions end here; the caller gets a number of leveret::errc and asks for the text.
#include <leveret/library.h>

#include <chrono>
#include <exception>
#include <leveret/error.hpp>
#include <leveret/version.hpp>
#include <memory>
#include <new>
#include <stdexcept>

#include "abi_text.hpp"
#include "call_frame.hpp"
#include "client.hpp"
#include "codec.hpp"
#include "default_url.hpp"
#include "ids.hpp"
#include "plugin.hpp"
#include "worker.hpp"
#include "worker_command.hpp"

struct leveret_producer {
  leveret::core::client client;
  explicit leveret_producer(const std::string& url) : client(url) {}
};

struct leveret_batch {
  leveret::core::new_job job;
  std::string task;
  std::string line;
  leveret::core::line_codec codec;
  std::unique_ptr<leveret::core::batch_publisher> publisher;
};

namespace leveret::core {

namespace {

thread_local std::string last_error_text;

/// Runs `f`; 0, or the number of what it threw.
template <class F>
int guarded(F&& f) noexcept {
  try {
    f();
    return 0;
  } catch (const error& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(thrown.code());
  } catch (const std::invalid_argument& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(errc::invalid_argument);
  } catch (const std::exception& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(errc::storage);
  } catch (...) {
    last_error_text = "unknown exception";
    return static_cast<int>(errc::storage);
  }
}

envelope envelope_of(const leveret_send_options& options) {
  if (options.size < sizeof(leveret_send_options)) {
    throw std::invalid_argument("cannot send: the options are of headers older than this library");
  }
  envelope made;
  made.queue = options.queue.size == 0 ? std::string(kNativeQueue) : std::string(view(options.queue));
  check_queue_name(made.queue);
  made.want_results = options.want_results != 0;
  if (options.delay_ms > 0) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    made.due = std::chrono::duration_cast<std::chrono::milliseconds>(now).count() + options.delay_ms;
  }
  return made;
}

new_job job_of(const leveret_send_options& options, std::string_view task) {
  new_job made;
  made.task = task;
  if (options.max_retries < -1) throw std::invalid_argument("cannot send: max_retries must be 0 or more");
  if (options.max_retries >= 0) made.max_retries = options.max_retries;
  return made;
}

/// Appends the job's line to `out`, checked as a worker will check it: a job that would be dead is not sent.
void append_checked(std::string& out, const new_job& job, line_codec& codec) {
  const std::size_t start = out.size();
  append_job(out, job);
  const std::string_view line(out.data() + start, out.size() - start - 1);
  refused_line refused;
  if (!codec.check(line, refused)) {
    throw std::invalid_argument("cannot send \"" + std::string(job.task) + "\": " + refused.text);
  }
}

int open(leveret_string url, leveret_producer** out) {
  return guarded([&] {
    const std::string said(view(url));
    *out = new leveret_producer(said.empty() ? default_url() : said);
  });
}

void close(leveret_producer* producer) {
  if (producer == nullptr) return;
  (void)guarded([&] { producer->client.close(); });
  delete producer;
}

int send(leveret_producer* producer, const leveret_send_options* options, leveret_string args, leveret_string kwargs,
         leveret_string* job_id) {
  static thread_local std::string id;
  return guarded([&] {
    static thread_local line_codec codec;
    const envelope to = envelope_of(*options);
    new_job job = job_of(*options, view(options->task));
    job.args = view(args);
    job.kwargs = view(kwargs);
    std::string line;
    append_checked(line, job, codec);
    const sent_job sent = producer->client.send(to, {}, line);
    id = make_job_id(sent.message.id, sent.line);
    *job_id = string_of(id);
  });
}

int begin_batch(leveret_producer* producer, const leveret_send_options* options, leveret_batch** out) {
  return guarded([&] {
    const envelope to = envelope_of(*options);
    auto made = std::make_unique<leveret_batch>();
    made->task = view(options->task);
    made->job = job_of(*options, made->task);
    made->publisher = producer->client.start_batch(to);
    *out = made.release();
  });
}

int add(leveret_batch* batch, leveret_string args, leveret_string kwargs) {
  return guarded([&] {
    batch->job.args = view(args);
    batch->job.kwargs = view(kwargs);
    batch->line.clear();
    append_checked(batch->line, batch->job, batch->codec);
    batch->publisher->add(batch->line);
  });
}

int finish(leveret_batch* batch) {
  return guarded([&] { batch->publisher->finish(); });
}

int accepted(leveret_batch* batch, std::size_t index, leveret_string* message_id, std::uint32_t* jobs) {
  const std::vector<published>& all = batch->publisher->accepted();
  if (index >= all.size()) return 0;
  *message_id = string_of(all[index].id);
  *jobs = all[index].jobs;
  return 1;
}

leveret_call* new_value() { return new (std::nothrow) leveret_call; }

leveret_library make_library() noexcept {
  leveret_library made{};
  made.abi_version = LEVERET_ABI_VERSION;
  made.size = sizeof(leveret_library);
  made.version = LEVERET_VERSION;
  made.host = [] { return &host_functions(); };
  made.last_error = [] { return string_of(last_error_text); };
  made.new_value = &new_value;
  made.clear_value = [](leveret_call* value) { value->reset(); };
  made.value_text = [](leveret_call* value) { return string_of(value->result.text()); };
  made.delete_value = [](leveret_call* value) { delete value; };
  made.run_worker = &run_worker_main;
  made.open = &open;
  made.close = &close;
  made.send = &send;
  made.begin_batch = &begin_batch;
  made.add = &add;
  made.finish = &finish;
  made.accepted = &accepted;
  made.end_batch = [](leveret_batch* batch) { delete batch; };
  return made;
}

}  // namespace

}  // namespace leveret::core

const leveret_library* leveret_get_library(uint32_t abi_version) {
  static const leveret_library library = leveret::core::make_library();
  return abi_version == LEVERET_ABI_VERSION ? &library : nullptr;
}
