#include "worker_report.hpp"

#include <unistd.h>

#include <leveret/version.hpp>

#include "ids.hpp"

namespace leveret::core {

namespace {

std::string host_name() {
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '?';
  return host;
}

}  // namespace

std::string worker_report(const worker_facts& facts) {
  json_writer out;
  const auto text = [&out](const char* key, const std::string& value) {
    (void)out.key(key);
    out.string_lossy(value);
  };
  const auto number = [&out](const char* key, std::uint64_t value) {
    (void)out.key(key);
    out.uinteger(value);
  };
  out.begin_object();
  text("name", facts.name);
  text("host", host_name());
  number("pid", static_cast<std::uint64_t>(getpid()));
  text("version", LEVERET_VERSION);
  text("state", facts.stopping ? "stopping" : "running");
  (void)out.key("queues");
  out.begin_array();
  for (const std::string& queue : facts.queues) out.string_lossy(queue);
  out.end_array();
  text("tasks", facts.tasks);
  number("threads", facts.threads);
  (void)out.key("started");
  out.integer(facts.started);
  number("succeeded", facts.counts.succeeded);
  number("retried", facts.counts.retried);
  number("dead", facts.counts.dead);
  number("cancelled", facts.counts.cancelled);
  (void)out.key("running");
  out.begin_array();
  for (const running_job& job : facts.running) {
    out.begin_object();
    text("id", job.id);
    text("task", job.task);
    (void)out.key("since");
    out.integer(job.since);
    out.end_object();
  }
  out.end_array();
  out.end_object();
  return out.text();
}

running_job line_reader::read(const std::string& message_id, std::string_view line, std::uint32_t index) {
  decoded_job job;
  refused_line why;
  running_job out;
  if (codec_.decode(line, job, why)) {
    out.task = job.task;
    if (!job.foreign) out.id = job.id;
  } else {
    out.task = why.task;
    out.id = why.id;
  }
  if (out.id.empty()) out.id = make_job_id(message_id, index + 1);
  return out;
}

}  // namespace leveret::core
