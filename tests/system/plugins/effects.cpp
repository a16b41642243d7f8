/// Tasks with effects that tests can count: one line per attempt, appended to a file in one write.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <leveret/worker.hpp>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using leveret::arg;

namespace {

/// O_APPEND makes one write one line, whoever writes beside it.
void append(const std::string& path, const std::string& line) {
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) throw std::runtime_error("cannot open " + path);
  const ssize_t written = write(fd, line.data(), line.size());
  close(fd);
  if (written != static_cast<ssize_t>(line.size())) throw std::runtime_error("cannot write " + path);
}

void note(leveret::context& context, const std::string& path, std::int64_t n) {
  // Between newlines: a worker that is killed may leave the first part of its line, which then ends before the next.
  append(path, "\n" + std::to_string(n) + " " + std::string(context.job_id()) + " " +
                   std::to_string(context.retry_count()) + " " + std::to_string(getpid()) + "\n");
}

std::int64_t effect(leveret::context& context, const std::string& path, std::int64_t n) {
  note(context, path, n);
  return n;
}

/// Announces itself, then runs until `gate` exists: a test decides when it ends.
std::int64_t gated(leveret::context& context, const std::string& path, std::int64_t n, const std::string& gate) {
  note(context, path, n);
  while (access(gate.c_str(), F_OK) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return n;
}

/// Ends early once the worker stops.
std::int64_t polite(leveret::context& context, const std::string& path, std::int64_t n) {
  note(context, path, n);
  while (!context.stopping()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return n;
}

/// Says that it is half done, and ends once it is cancelled.
std::string patient(leveret::context& context) {
  context.set_progress(0.5, "half");
  while (!context.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return "ended as asked";
}

std::int64_t spin(leveret::context& context, const std::string& path, std::int64_t n, std::int64_t microseconds) {
  note(context, path, n);
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < until) {
  }
  return n;
}

/// Notes when it begins and ends, with its key.
std::int64_t keyed(const std::string& path, std::int64_t key, std::int64_t n) {
  const std::string rest = " " + std::to_string(key) + " " + std::to_string(n) + " " + std::to_string(getpid()) + "\n";
  append(path, "\nbegin" + rest);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  append(path, "\nend" + rest);
  return n;
}

std::int64_t fail_until(leveret::context& context, const std::string& path, std::int64_t n, std::uint32_t attempts) {
  note(context, path, n);
  if (context.retry_count() < attempts) throw std::runtime_error("attempt " + std::to_string(context.retry_count()));
  return n;
}

[[noreturn]] void reject(const std::string& why) { leveret::reject(why); }

std::string later(leveret::context& context, std::int64_t milliseconds) {
  if (context.retry_count() == 0) leveret::retry_after(std::chrono::milliseconds(milliseconds), "not yet");
  return "done";
}

/// Takes its process down as a crash does.
void crash(leveret::context& context, const std::string& path, std::int64_t n) {
  note(context, path, n);
  std::raise(SIGKILL);
}

[[noreturn]] void abort_it() { std::abort(); }

std::int64_t foreign(const std::map<std::string, leveret::json>& fields) {
  return std::stoll(std::string(fields.at("value").text())) * 2;
}

std::vector<std::string> words(std::vector<std::string> in) { return in; }

std::string large(std::uint32_t bytes) { return std::string(bytes, 'x'); }

}  // namespace

LEVERET_TASKS(tasks) {
  tasks.add("effect", effect, arg("path"), arg("n"));
  tasks.add("gated", gated, arg("path"), arg("n"), arg("gate"));
  tasks.add("polite", polite, arg("path"), arg("n"));
  tasks.add("patient", patient);
  tasks.add("keyed", keyed, arg("path"), arg("key"), arg("number"));
  tasks.add("spin", spin, arg("path"), arg("n"), arg("microseconds"));
  tasks.add("fail_until", fail_until, arg("path"), arg("n"), arg("attempts"));
  tasks.add("reject", reject, arg("why"));
  tasks.add("later", later, arg("milliseconds"));
  tasks.add("crash", crash, arg("path"), arg("n"));
  tasks.add("abort", abort_it);
  tasks.add("foreign", foreign);
  tasks.add("words", words, arg("words"));
  tasks.add("large", large, arg("bytes"));
}

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
