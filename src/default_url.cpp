#include "default_url.hpp"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace leveret::core {

std::string default_url() {
  namespace fs = std::filesystem;
  if (const char* said = std::getenv("LEVERET_URL"); said != nullptr && *said != '\0') return said;
  std::error_code ignored;
  const fs::path here = fs::current_path(ignored);
  for (fs::path folder = here; !folder.empty(); folder = folder.parent_path()) {
    if (fs::exists(folder / "pyproject.toml", ignored)) return "sqlite:///" + (folder / "leveret.db").string();
    if (folder == folder.parent_path()) break;
  }
  return "sqlite:///" + (here / "leveret.db").string();
}

}  // namespace leveret::core
