/// What `leveret_registry*` of the C ABI points to while one plugin registers its tasks.
#pragma once

#include <cstddef>
#include <string>

#include "registry.hpp"

/// Global, as the C ABI declares it.
struct leveret_registry {
  leveret::core::registry* into = nullptr;
  std::string source;
  std::size_t added = 0;
  std::string refusal;  ///< the plugin's own
};
