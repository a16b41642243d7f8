/* A plugin in C: the ABI needs no C++. */
#include <leveret/abi.h>

static const leveret_host* host;

static leveret_outcome sum(void* self, leveret_call* call) {
  int64_t total = 0;
  leveret_iterator at;
  leveret_value each;
  (void)self;
  host->begin(host->args(call), &at);
  while (host->next(&at, NULL, &each)) {
    int64_t one;
    if (!host->get_integer(each, &one)) {
      const char why[] = "only integers";
      host->fail(call, why, sizeof why - 1, 0);
      return LEVERET_BAD_ARGUMENTS;
    }
    total += one;
  }
  host->write_integer(call, total);
  return LEVERET_SUCCEEDED;
}

static int register_tasks(const leveret_host* given, leveret_registry* registry) {
  static const char name[] = "sum";
  leveret_task task = {0};
  host = given;
  task.size = sizeof task;
  task.name.data = name;
  task.name.size = sizeof name - 1;
  task.max_retries = -1;
  task.call = &sum;
  return host->add_task(registry, &task) == NULL;
}

LEVERET_EXPORT extern const leveret_plugin_info leveret_plugin;
const leveret_plugin_info leveret_plugin = {"leveret", LEVERET_ABI_VERSION, sizeof(leveret_plugin_info), "C",
                                            &register_tasks};
