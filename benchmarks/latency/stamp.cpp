// A task that notes when its handler begins: nanoseconds of the monotonic clock, eight bytes a job, in a file.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <leveret/worker.hpp>
#include <stdexcept>
#include <string>

namespace {

void stamp(const std::string& path, std::int64_t number) {
  const std::int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written = file >= 0 && ::pwrite(file, &now, sizeof now, number * 8) == sizeof now;
  if (file >= 0) ::close(file);
  if (!written) throw std::runtime_error("cannot write to " + path);
}

}  // namespace

LEVERET_TASKS(tasks) { tasks.add("stamp", stamp, leveret::arg("path"), leveret::arg("number")); }
