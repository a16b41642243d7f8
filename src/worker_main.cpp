/// The command line of standalone C++ workers. The single includer of CLI11.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <exception>
#include <leveret/version.hpp>

#include "codec.hpp"
#include "default_url.hpp"
#include "plugin.hpp"
#include "worker.hpp"
#include "worker_command.hpp"

namespace leveret::core {
namespace {

void describe(const registry& tasks) {
  json_writer out;
  out.begin_array();
  for (const auto& task : tasks.tasks()) {
    out.begin_object();
    (void)out.key("task");
    out.string_lossy(task->name);
    (void)out.key("queue");
    out.string_lossy(task->queue.empty() ? kNativeQueue : task->queue);
    (void)out.key("max_retries");
    if (task->max_retries < 0) {
      out.null();
    } else {
      out.integer(task->max_retries);
    }
    (void)out.key("signature");
    if (task->signature.empty()) {
      out.null();
    } else {
      out.raw_trusted(task->signature);
    }
    out.end_object();
  }
  out.end_array();
  std::printf("%s\n", out.text().c_str());
}

}  // namespace

int run_worker_main(int argc, char** argv, const registry& tasks) {
  CLI::App app{"A Leveret worker: executes jobs of the tasks compiled into it."};
  worker_command_options options;
  double grace = 25;
  bool describe_only = false;
  app.add_option("--url", options.url, "Broker: sqlite:///PATH, amqp://HOST, amqps://HOST")->envname("LEVERET_URL");
  app.add_option("--queue", options.queues, "Queue to consume; repeatable (default: those of the tasks)")
      ->envname("LEVERET_QUEUE");
  app.add_option("--ordered", options.ordered, "Queue whose jobs with keys are run too, in order; repeatable")
      ->envname("LEVERET_ORDERED");
  app.add_option("--threads", options.threads, "Threads that run handlers (default: one a core)")
      ->envname("LEVERET_THREADS")
      ->check(CLI::Range(1, 4096));
  app.add_flag("--burst", options.burst, "End when the queues are empty and nothing is running");
  app.add_option("--default-task", options.default_task, "Task that gets objects without a \"task\"")
      ->envname("LEVERET_DEFAULT_TASK");
  app.add_option("--grace", grace, "Seconds that running jobs get at a stop (default: 25)")
      ->envname("LEVERET_GRACE")
      ->check(CLI::Range(0.0, 86'400.0));
  app.add_option("--max-retries", options.max_retries, "Retries where neither job nor task says (default: 3)")
      ->envname("LEVERET_MAX_RETRIES")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--prefetch", options.lim.prefetch_messages, "Messages of a queue held at once, at most (default: 64)")
      ->envname("LEVERET_PREFETCH")
      ->check(CLI::Range(1, 65'535));
  app.add_option("--max-memory", options.max_memory, "Memory for messages that are held: 256MB, 1GiB (default: 256MiB)")
      ->envname("LEVERET_MAX_MEMORY")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::Range(kLeastMemory, std::uint64_t{1} << 40));
  app.add_option("--log-level", options.log_level, "debug, info, warning or error (default: info)")
      ->envname("LEVERET_LOG_LEVEL");
  app.add_option("--log-format", options.log_format, "text, or json for one JSON object a line (default: text)")
      ->envname("LEVERET_LOG_FORMAT")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_flag("--json", options.json, "Print the summary as one JSON object");
  app.add_flag("--quiet", options.quiet, "No banner");
  app.add_flag("--describe", describe_only, "Print the tasks with their signatures as JSON, and end");
  app.set_version_flag("--version", LEVERET_VERSION);
  app.footer("Example: " + std::string(argc > 0 ? argv[0] : "worker") + " --url sqlite:///jobs.db --threads 4 --burst");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& stop) {
    if (stop.get_exit_code() == 0) return app.exit(stop);
    std::fprintf(stderr, "%s: %s\n", argc > 0 ? argv[0] : "worker", stop.what());
    return 2;
  }
  if (describe_only) {
    describe(tasks);
    return 0;
  }
  if (options.url.empty()) options.url = default_url();
  options.grace = std::chrono::milliseconds(std::llround(grace * 1000));
  return run_worker_command(options, tasks);
}

int run_worker_main(const leveret_plugin_info* tasks, int argc, char** argv) {
  const char* program = argc > 0 ? argv[0] : "worker";
  registry registered;
  try {
    register_plugin(tasks, registered, program);
  } catch (const std::exception& wrong) {
    std::fprintf(stderr, "%s: %s\n", program, wrong.what());
    return 2;
  }
  return run_worker_main(argc, argv, registered);
}

}  // namespace leveret::core
