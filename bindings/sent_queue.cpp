#include "sent_queue.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace leveret::bindings {

core::published place_of(const core::sent_job& sent) {
  if (sent.existing.empty()) return sent.message;
  return {sent.existing.substr(0, sent.existing.rfind('/')), 0};
}

sent_queue::content::content() : file_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (file_ < 0) throw std::system_error(errno, std::generic_category(), "cannot send from an event loop: eventfd");
}

sent_queue::content::~content() { ::close(file_); }

void sent_queue::content::put(answer a) {
  const std::lock_guard<std::mutex> lock(mutex_);
  answers_.push_back(std::move(a));
  if (answers_.size() > 1) return;  // the loop was told
  const std::uint64_t one = 1;
  // It can only fail for a counter at its end, which wakes the loop as well.
  [[maybe_unused]] const ssize_t written = ::write(file_, &one, sizeof one);
}

std::vector<sent_queue::answer> sent_queue::content::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(file_, &count, sizeof count);
  return std::exchange(answers_, {});
}

namespace {

nb::object error_of(const std::exception_ptr& failed) {
  if (!failed) return nb::none();
  try {
    std::rethrow_exception(failed);
  } catch (...) {
    set_python_error();
  }
  const nb::python_error error;
  return nb::borrow(error.value());
}

/// [(ticket, message id, line, jobs of the message, error or None)…]
nb::list take(const sent_queue& self) {
  nb::list out;
  for (const sent_queue::answer& a : self.shared()->take()) {
    const core::published at = place_of(a.job);
    out.append(nb::make_tuple(a.ticket, nb::str(at.id.c_str(), at.id.size()), a.job.line, at.jobs, error_of(a.failed)));
  }
  return out;
}

}  // namespace

void init_sent_queue(nb::module_& m) {
  nb::class_<sent_queue>(m, "SentQueue", "What became of jobs that an event loop sent.")
      .def(nb::init<>())
      .def(
          "fileno", [](const sent_queue& self) { return self.shared()->file(); }, nb::sig("def fileno(self) -> int"),
          "Readable when there is something to take.")
      .def("take", &take, nb::sig("def take(self) -> list[tuple[int, str, int, int, Exception | None]]"),
           "(ticket, message id, line, jobs of the message, error) of what came since the last call.");
}

}  // namespace leveret::bindings
