/// Loads plugins: shared objects that export `leveret_plugin` (leveret/abi.h).
#pragma once

#include <string>

#include "registry.hpp"

namespace leveret::core {

/// The host's function table; one for the whole process. Its call functions work on `leveret_call` (call_frame.hpp).
[[nodiscard]] const leveret_host& host_functions();

/// Registers the tasks of one plugin description (a program's own, or a loaded file's). Throws std::invalid_argument
/// with one sentence: no plugin, another version, a task refused.
void register_plugin(const leveret_plugin_info* info, registry& into, const std::string& source);

/// Loads a file (RTLD_NOW | RTLD_LOCAL, by absolute path) and registers its tasks. The file stays loaded for the life
/// of the process. Throws std::invalid_argument with one sentence naming the file: missing, not a shared object, no
/// plugin, another version, missing symbols, others may write to it or to a folder of its path.
void load_plugin(const std::string& path, registry& into);

}  // namespace leveret::core
