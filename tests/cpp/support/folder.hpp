/// A temporary folder with one database in it.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace leveret::test {

class folder {
 public:
  folder() {
    std::string name = (std::filesystem::temp_directory_path() / "leveret-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
    path_ = name;
  }
  ~folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name = "jobs.db") const { return path_ + "/" + name; }
  [[nodiscard]] std::string url(const std::string& name = "jobs.db") const { return "sqlite:///" + file(name); }

 private:
  std::string path_;
};

}  // namespace leveret::test
