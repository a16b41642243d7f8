// Refuses to register, as a plugin does whose headers need more of the host's table than is there.
#include <leveret/worker.hpp>

namespace {

int register_tasks(const leveret_host* host, leveret_registry* registry) {
  leveret_host older = *host;
  older.size -= 8;
  return leveret::detail::register_tasks(&older, registry, [](leveret::task_set& tasks) { tasks.add("x", [] {}); });
}

}  // namespace

const leveret_plugin_info leveret_plugin = {"leveret", LEVERET_ABI_VERSION, sizeof(leveret_plugin_info),
                                            LEVERET_VERSION, &register_tasks};
