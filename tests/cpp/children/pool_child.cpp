/// What the tests' process pools start: a child with tasks that behave well, and badly.
#include <signal.h>
#include <unistd.h>

#include <atomic>
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

std::string text_argument(leveret_call* call) {
  const std::string all = to_json(call->job->args);  // ["..."]
  return all.substr(2, all.size() - 4);
}

// The pool's first child is 0, and the quarantine's is its last.
int child_number = -1;
std::atomic<int> beside{0};

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
  child_number = child;
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
  // Ends when there is a file of that name.
  add(tasks, "gate", [](void*, leveret_call* call) {
    const std::string path = text_argument(call);
    while (::access(path.c_str(), F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return LEVERET_SUCCEEDED;
  });
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
  // "kill" ends the first child when so many of "beside" run in it, which stay until then; in quarantine, at once.
  add(tasks, "beside", [](void*, leveret_call*) {
    ++beside;
    if (child_number == 0) std::this_thread::sleep_for(std::chrono::hours(1));
    return LEVERET_SUCCEEDED;
  });
  add(tasks, "kill", [](void*, leveret_call* call) {
    while (child_number == 0 && beside < argument(call, 0)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
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
