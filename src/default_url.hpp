/// Which broker a program uses when it is not told.
#pragma once

#include <string>

namespace leveret::core {

/// LEVERET_URL; else the file leveret.db beside the nearest pyproject.toml, in this folder or above; else in this
/// folder. The rule of the Python side.
[[nodiscard]] std::string default_url();

}  // namespace leveret::core
