/// What the tests' process pools start: a child with tasks that behave well, and badly.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "pools/child.hpp"
#include "stderr_log.hpp"

using namespace leveret::core;

namespace {

void add(registry& tasks, const char* name, leveret_outcome (*call)(void*, leveret_call*), int hard_limit_ms = 0) {
  leveret_task t{};
  t.size = sizeof t;
  t.name = {name, std::strlen(name)};
  t.max_retries = -1;
  t.call = call;
  if (!tasks.add(t, "pool_child", nullptr, std::chrono::milliseconds(hard_limit_ms)).empty()) std::abort();
}

std::int64_t argument(leveret_call* call, std::size_t index) {
  const std::string all = to_json(call->job->args);  // "[1,2]"
  std::size_t at = 1;
  for (std::size_t i = 0; i < index; ++i) at = all.find(',', at) + 1;
  return std::atoll(all.c_str() + at);
}

leveret_outcome sleep_for(void*, leveret_call* call) {
  std::this_thread::sleep_for(std::chrono::milliseconds(argument(call, 0)));
  call->result.integer(getpid());
  return LEVERET_SUCCEEDED;
}

}  // namespace

int main(int argc, char** argv) {
  int memory = -1;
  int news = -1;
  int child = -1;
  bool broken = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--memory") memory = std::atoi(argv[++i]);
    if (word == "--news") news = std::atoi(argv[++i]);
    if (word == "--child") child = std::atoi(argv[++i]);
    if (word == "--broken") broken = true;
  }
  if (broken) return 7;
  registry tasks;
  add(tasks, "noop", [](void*, leveret_call*) { return LEVERET_SUCCEEDED; });
  add(tasks, "echo", [](void*, leveret_call* call) {
    call->result.raw_trusted(to_json(call->job->args));
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "fail", [](void*, leveret_call* call) {
    call->failure = "as asked";
    return LEVERET_FAILED;
  });
  add(tasks, "progress", [](void*, leveret_call* call) {
    call->control->progress(call->job_id, call->reply, R"({"done":0.5})");
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "sleep", sleep_for);
  add(tasks, "segv", [](void*, leveret_call*) {
    raise(SIGSEGV);
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "overflow", [](void*, leveret_call* call) {
    // Uses up the thread's stack.
    struct deep {
      static int down(volatile char* above, int n) {
        volatile char here[4096];
        here[0] = above != nullptr ? above[0] : 'x';
        return n == 0 ? here[0] : down(here, n - 1) + here[0];
      }
    };
    call->result.integer(deep::down(nullptr, 1'000'000));
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "kill", [](void*, leveret_call*) {
    ::kill(getpid(), SIGKILL);
    std::this_thread::sleep_for(std::chrono::seconds(60));
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "exit", [](void*, leveret_call*) -> leveret_outcome { _exit(3); });
  add(tasks, "fork", [](void*, leveret_call* call) {
    const pid_t copy = fork();
    call->result.integer(copy == 0 ? 0 : 1);
    return LEVERET_SUCCEEDED;
  });
  add(
      tasks, "hang",
      [](void*, leveret_call*) {
        std::this_thread::sleep_for(std::chrono::hours(1));
        return LEVERET_SUCCEEDED;
      },
      300);
  add(tasks, "big", [](void*, leveret_call* call) {
    call->result.string_lossy(std::string(static_cast<std::size_t>(argument(call, 0)), 'b'));
    return LEVERET_SUCCEEDED;
  });
  // Goes on without its thread for as long as asked: all such attempts end on one thread of their own.
  add(tasks, "later", [](void*, leveret_call* call) {
    const std::int64_t ms = argument(call, 0);
    std::thread([pending = std::shared_ptr<pending_attempt>(call->deferring->defer()), ms] {
      std::this_thread::sleep_for(std::chrono::milliseconds(ms));
      pending->finish(LEVERET_SUCCEEDED, std::to_string(ms), {}, 0);
    }).detach();
    return LEVERET_SUCCEEDED;
  });
  stderr_log log("warning");
  pool_child self(memory, news, static_cast<std::uint32_t>(child), tasks, log, [] { _exit(0); });
  self.start();
  while (!self.wait_ended(1'000)) {
  }
  return 0;
}
