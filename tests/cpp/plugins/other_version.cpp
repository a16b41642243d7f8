// What a plugin of a later ABI looks like to this worker: only magic and version can be relied on.
#include <leveret/abi.h>

extern "C" {
extern LEVERET_EXPORT const leveret_plugin_info leveret_plugin;
}
const leveret_plugin_info leveret_plugin = {"leveret", LEVERET_ABI_VERSION + 7, 4, nullptr, nullptr};
