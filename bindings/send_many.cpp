#include "send_many.hpp"

#include <exception>
#include <leveret/error.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "ordered.hpp"
#include "ordered_publisher.hpp"
#include "text_buffer.hpp"

namespace leveret::bindings {
namespace {

/// Lines are handed to the core in pieces of this size: large enough that giving up the GIL costs nothing per job.
constexpr std::size_t kPiece = 64u << 10;

/// None for none.
nb::object python_error_of(const std::exception_ptr& failure) {
  if (!failure) return nb::none();
  try {
    std::rethrow_exception(failure);
  } catch (...) {
    set_python_error();
  }
  const nb::python_error error;
  return nb::borrow(error.value());
}

/// A send_many under way: lines are gathered here and handed on in pieces. Every call may wait; the GIL is free then.
class batch {
 public:
  batch(std::shared_ptr<core::client> client, core::envelope e) : client_(std::move(client)) {
    attempt([&] { publisher_ = client_->start_batch(e); });
  }
  batch(const batch&) = delete;
  batch& operator=(const batch&) = delete;
  ~batch() {
    const nb::gil_scoped_release released;
    publisher_.reset();
    client_.reset();
  }

  [[nodiscard]] text_buffer& lines() noexcept { return lines_; }
  [[nodiscard]] bool failed() const noexcept { return failure_ != nullptr; }

  /// One more line was put into `lines`. False: publishing failed.
  bool added() {
    ++jobs_;
    return lines_.size() < kPiece || flush();
  }
  bool add_block(std::string_view block, std::uint32_t jobs) {
    return attempt([&] { publisher_->add_lines(block, jobs); });
  }
  bool flush() {
    if (jobs_ == 0) return !failed();
    const bool sent = attempt([&] { publisher_->add_lines(lines_.view(), jobs_); });
    lines_.clear();
    jobs_ = 0;
    return sent;
  }
  void finish() {
    if (flush()) attempt([&] { publisher_->finish(); });
  }

  /// ([(message id, jobs)…], the publishing error or None)
  [[nodiscard]] nb::tuple outcome() const {
    nb::list accepted;
    if (publisher_) {
      for (const core::published& message : publisher_->accepted())
        accepted.append(nb::make_tuple(lossy_text(message.id), message.jobs));
    }
    return nb::make_tuple(accepted, python_error_of(failure_));
  }

 private:
  template <class Function>
  bool attempt(Function&& function) {
    if (failure_) return false;
    const nb::gil_scoped_release released;
    try {
      function();
      return true;
    } catch (...) {
      failure_ = std::current_exception();
      return false;
    }
  }

  std::shared_ptr<core::client> client_;
  std::unique_ptr<core::batch_publisher> publisher_;
  std::exception_ptr failure_;
  text_buffer lines_;
  std::uint32_t jobs_ = 0;
};

/// Takes a job's arguments out of what send_many's iterable gave: a tuple, or the object that `task.args` makes.
bool write_item(const line_writer& writer, text_buffer& out, PyObject* item, PyObject* args_type) {
  if (Py_TYPE(item) == &PyTuple_Type) return writer.write(out, item, nullptr);
  if (reinterpret_cast<PyObject*>(Py_TYPE(item)) == args_type) {
    const nb::object positional = nb::steal(PyObject_GetAttrString(item, "positional"));
    const nb::object keywords = nb::steal(PyObject_GetAttrString(item, "keywords"));
    if (!positional.is_valid() || !keywords.is_valid()) return false;
    return writer.write(out, positional.ptr(), keywords.ptr());
  }
  if (PyTuple_Check(item)) {
    // A named tuple is a tuple of arguments too; its own methods are not asked.
    return writer.write(out, item, nullptr);
  }
  PyErr_Format(
      PyExc_TypeError,
      "cannot send \"%s\": each job must be a tuple of arguments or %s.args(...), not %s; for one argument write (x,)",
      writer.sig().task.c_str(), writer.sig().task.c_str(), Py_TYPE(item)->tp_name);
  return false;
}

/// As `batch`, for jobs with keys.
class keyed_batch {
 public:
  keyed_batch(std::shared_ptr<core::client> client, const core::envelope& e) : client_(std::move(client)) {
    attempt([&] { publisher_ = client_->start_ordered_batch(e); });
  }
  keyed_batch(const keyed_batch&) = delete;
  keyed_batch& operator=(const keyed_batch&) = delete;
  ~keyed_batch() {
    const nb::gil_scoped_release released;
    publisher_.reset();
    client_.reset();
  }

  [[nodiscard]] text_buffer& lines() noexcept { return lines_; }
  [[nodiscard]] bool failed() const noexcept { return failure_ != nullptr; }
  /// One more line was put into `lines`.
  void added(std::uint32_t shard) {
    ends_.push_back({shard, lines_.size()});
    if (lines_.size() >= kPiece) flush();
  }
  void finish() {
    if (flush()) attempt([&] { publisher_->finish(); });
  }
  /// ([(message id, jobs)…], where each job is, the publishing error or None, jobs accepted behind the first that was
  /// not). Where: a u32 of the message's index and one of the line, native order.
  [[nodiscard]] nb::tuple outcome() const {
    nb::list messages;
    core::ordered_batch::result accepted;
    if (publisher_) accepted = publisher_->accepted();
    for (const core::published& message : accepted.messages) {
      messages.append(nb::make_tuple(lossy_text(message.id), message.jobs));
    }
    static_assert(sizeof(core::ordered_batch::place) == 8);
    return nb::make_tuple(messages,
                          nb::bytes(reinterpret_cast<const char*>(accepted.jobs.data()), accepted.jobs.size() * 8),
                          python_error_of(failure_), accepted.accepted_behind);
  }

 private:
  bool flush() {
    const bool sent = attempt([&] {
      std::size_t start = 0;
      for (const auto& [shard, end] : ends_) {
        publisher_->add(shard, lines_.view().substr(start, end - start));
        start = end;
      }
    });
    lines_.clear();
    ends_.clear();
    return sent;
  }
  template <class Function>
  bool attempt(Function&& function) {
    if (failure_) return false;
    const nb::gil_scoped_release released;
    try {
      function();
      return true;
    } catch (...) {
      failure_ = std::current_exception();
      return false;
    }
  }

  std::shared_ptr<core::client> client_;
  std::unique_ptr<core::ordered_batch> publisher_;
  std::exception_ptr failure_;
  text_buffer lines_;
  std::vector<std::pair<std::uint32_t, std::size_t>> ends_;  // of each line: its shard, where it ends
};

/// The shard of a job of send_many's iterable: `key` is called with its arguments, and gives the key's text.
std::optional<std::uint32_t> shard_of_item(const nb::object& key, PyObject* item, PyObject* args_type) {
  nb::object positional = nb::borrow(item);
  nb::object keywords = nb::dict();
  if (reinterpret_cast<PyObject*>(Py_TYPE(item)) == args_type) {
    positional = nb::steal(PyObject_GetAttrString(item, "positional"));
    keywords = nb::steal(PyObject_GetAttrString(item, "keywords"));
    if (!positional.is_valid() || !keywords.is_valid()) return std::nullopt;
  }
  const nb::object found =
      nb::steal(PyObject_CallFunctionObjArgs(key.ptr(), positional.ptr(), keywords.ptr(), nullptr));
  if (!found.is_valid()) return std::nullopt;
  Py_ssize_t size = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(found.ptr(), &size);
  if (utf8 == nullptr) return std::nullopt;
  return core::shard_of({utf8, static_cast<std::size_t>(size)});
}

}  // namespace

nb::object lossy_text(const std::string& utf8) {
  nb::object out = nb::steal(PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace"));
  if (!out.is_valid()) throw nb::python_error();
  return out;
}

nb::tuple send_many(std::shared_ptr<core::client> client, const line_writer& writer, const nb::object& jobs,
                    const nb::object& args_type, const core::envelope& e) {
  const nb::object iterator = nb::steal(PyObject_GetIter(jobs.ptr()));
  if (!iterator.is_valid()) throw nb::python_error();
  batch b(std::move(client), e);
  nb::object raised = nb::none();
  while (!b.failed()) {
    const nb::object item = nb::steal(PyIter_Next(iterator.ptr()));
    bool good = item.is_valid();
    if (!good && PyErr_Occurred() == nullptr) break;
    good = good && write_item(writer, b.lines(), item.ptr(), args_type.ptr());
    // Ctrl-C: iterators written in C never ask.
    if (good) good = b.lines().size() < kPiece || PyErr_CheckSignals() == 0;
    if (good) {
      b.added();
      continue;
    }
    const nb::python_error error;
    raised = nb::borrow(error.value());
    break;
  }
  b.finish();
  const nb::tuple outcome = b.outcome();
  return nb::make_tuple(outcome[0], outcome[1], raised);
}

nb::tuple send_many_keyed(std::shared_ptr<core::client> client, const line_writer& writer, const nb::object& jobs,
                          const nb::object& args_type, const nb::object& key, const core::envelope& e) {
  const nb::object iterator = nb::steal(PyObject_GetIter(jobs.ptr()));
  if (!iterator.is_valid()) throw nb::python_error();
  keyed_batch b(std::move(client), e);
  nb::object raised = nb::none();
  while (!b.failed()) {
    const nb::object item = nb::steal(PyIter_Next(iterator.ptr()));
    bool good = item.is_valid();
    if (!good && PyErr_Occurred() == nullptr) break;
    const std::size_t before = b.lines().size();
    // The arguments first: what is wrong with them is said by the signature.
    good = good && write_item(writer, b.lines(), item.ptr(), args_type.ptr());
    std::optional<std::uint32_t> shard;
    if (good) shard = shard_of_item(key, item.ptr(), args_type.ptr());
    if (good && !shard) b.lines().truncate(before);
    if (shard && (b.lines().size() < kPiece || PyErr_CheckSignals() == 0)) {
      b.added(*shard);
      continue;
    }
    const nb::python_error error;
    raised = nb::borrow(error.value());
    break;
  }
  b.finish();
  const nb::tuple outcome = b.outcome();
  return nb::make_tuple(outcome[0], outcome[1], outcome[2], raised, outcome[3]);
}

nb::tuple send_blocks(std::shared_ptr<core::client> client, const nb::object& blocks, const core::envelope& e) {
  batch b(std::move(client), e);
  for (const nb::handle item : nb::borrow<nb::iterable>(blocks)) {
    const auto block = nb::cast<nb::bytes>(item[0]);
    if (!b.add_block({block.c_str(), block.size()}, nb::cast<std::uint32_t>(item[1]))) break;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
  b.finish();
  return b.outcome();
}

}  // namespace leveret::bindings
