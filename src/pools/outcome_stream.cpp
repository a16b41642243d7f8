#include "outcome_stream.hpp"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

namespace leveret::core {

void outcome_writer::begin(outcome_record::kind what) {
  buffer_.clear();
  number(std::uint32_t{0});  // the length, known at the end
  number(static_cast<std::uint8_t>(what));
}

void outcome_writer::text(std::string_view bytes) {
  number(static_cast<std::uint32_t>(bytes.size()));
  buffer_.append(bytes);
}

void outcome_writer::result(packed_line line, const job_identity& who, std::string_view json) {
  // Once a job: in one piece, for each append costs as much as running a short job's line.
  buffer_.resize(sizeof(std::uint32_t) + sizeof(outcome_record::kind) + sizeof line + sizeof(std::uint32_t) +
                 who.result_id.size() + sizeof who.result_line + sizeof(std::uint32_t) + json.size());
  char* to = buffer_.data();
  const auto add_number = [&to](auto value) {
    std::memcpy(to, &value, sizeof value);
    to += sizeof value;
  };
  const auto add_text = [&](std::string_view bytes) {
    add_number(static_cast<std::uint32_t>(bytes.size()));
    to = std::copy(bytes.begin(), bytes.end(), to);
  };
  add_number(std::uint32_t{0});  // as `begin`
  add_number(outcome_record::kind::result);
  add_number(line);
  add_text(who.result_id);
  add_number(who.result_line);
  add_text(json);
  send();
}

void outcome_writer::failure(packed_line line, const job_identity& who, const failed_line& failed,
                             std::string_view dead_reason, std::uint32_t attempts) {
  begin(outcome_record::kind::failure);
  number(line);
  text(who.result_id);
  number(who.result_line);
  number(static_cast<std::uint8_t>(failed.fate));
  number(failed.next_retry_count);
  number(std::int64_t{failed.delay.count()});
  text(failed.id);
  text(failed.text);
  text(failed.reason);
  text(failed.error);
  text(dead_reason);
  number(attempts);
  send();
}

void outcome_writer::progress(std::string_view job_id, std::string_view reply, std::string_view body) {
  begin(outcome_record::kind::progress);
  text(job_id);
  text(reply);
  text(body);
  send();
}

void outcome_writer::task(const described_task& t) {
  begin(outcome_record::kind::task);
  text(t.name);
  text(t.queue);
  number(t.max_retries);
  number(t.hard_limit_ms);
  text(t.signature);
  text(t.source);
  send();
}

void outcome_writer::fact(std::string_view name, std::string_view value) {
  begin(outcome_record::kind::fact);
  text(name);
  text(value);
  send();
}

void outcome_writer::notify() const noexcept {
  if (state_.header().news.exchange(1, std::memory_order_seq_cst) != 0) return;  // it has not begun to look
  const std::uint64_t one = 1;
  (void)!write(news_, &one, sizeof one);
}

void outcome_writer::send() {
  const auto length = static_cast<std::uint32_t>(buffer_.size() - sizeof(std::uint32_t));
  std::memcpy(buffer_.data(), &length, sizeof length);
  shared_writer& w = state_.writer(writer_);
  char* ring = state_.ring(writer_);
  std::size_t sent = 0;
  while (sent < buffer_.size()) {
    const std::uint64_t written = w.written.load(std::memory_order_relaxed);
    const std::uint32_t space = w.space.load(std::memory_order_acquire);
    const std::size_t room = kRingBytes - static_cast<std::size_t>(written - w.read.load(std::memory_order_acquire));
    if (room == 0) {
      // Said before it looks again: the reader moves `read` first and looks at this afterwards, so one of the two sees
      // the other. Whether the ring is full when the reader begins to read proves nothing: it may fill meanwhile.
      w.blocked.store(1, std::memory_order_seq_cst);
      if (written - w.read.load(std::memory_order_seq_cst) == kRingBytes) {
        notify();
        futex_wait(w.space, space);
      }
      w.blocked.store(0, std::memory_order_relaxed);
      continue;
    }
    const std::size_t begin = written % kRingBytes;
    const std::size_t n = std::min({buffer_.size() - sent, room, kRingBytes - begin});
    std::memcpy(ring + begin, buffer_.data() + sent, n);
    sent += n;
    w.written.store(written + n, std::memory_order_release);
  }
}

void outcome_reader::take(const shared_state& state, std::uint32_t writer) {
  shared_writer& w = state.writer(writer);
  const std::uint64_t written = w.written.load(std::memory_order_acquire);
  std::uint64_t read = w.read.load(std::memory_order_relaxed);
  if (written == read || written - read > kRingBytes) return;  // the latter: a child wrote where it must not
  const char* ring = state.ring(writer);
  while (read < written) {
    const std::size_t begin = read % kRingBytes;
    const std::size_t n = std::min(static_cast<std::size_t>(written - read), kRingBytes - begin);
    kept_.append(ring + begin, n);
    read += n;
  }
  w.read.store(read, std::memory_order_seq_cst);
  w.space.fetch_add(1, std::memory_order_seq_cst);
  if (w.blocked.load(std::memory_order_seq_cst) != 0) futex_wake(w.space, INT_MAX);
}

bool outcome_reader::next(std::size_t& at, std::string_view& record) const noexcept {
  std::uint32_t length = 0;
  if (kept_.size() - at < sizeof length) return false;
  std::memcpy(&length, kept_.data() + at, sizeof length);
  if (kept_.size() - at - sizeof length < length) return false;
  record = std::string_view(kept_).substr(at + sizeof length, length);
  at += sizeof length + length;
  return true;
}

void outcome_reader::reset(const shared_state& state, std::uint32_t writer) noexcept {
  kept_.clear();
  shared_writer& w = state.writer(writer);
  w.read.store(w.written.load(std::memory_order_acquire), std::memory_order_release);
}

namespace {

class fields {
 public:
  explicit fields(std::string_view record) : left_(record) {}
  template <class T>
  T number() noexcept {
    T value{};
    if (left_.size() >= sizeof value) {
      std::copy_n(left_.begin(), sizeof value, reinterpret_cast<char*>(&value));
      left_.remove_prefix(sizeof value);
    }
    return value;
  }
  std::string_view text() noexcept {
    const std::size_t n = std::min<std::size_t>(number<std::uint32_t>(), left_.size());
    const std::string_view all = left_.substr(0, n);
    left_.remove_prefix(n);
    return all;
  }

 private:
  std::string_view left_;
};

}  // namespace

bool outcome_reader::parse(std::string_view record, outcome_record& out, child_description& said) {
  fields f(record);
  const auto kind = f.number<std::uint8_t>();
  if (kind < 1 || kind > static_cast<std::uint8_t>(outcome_record::kind::progress))
    return false;  // of no child of ours
  out.what = static_cast<outcome_record::kind>(kind);
  if (out.what == outcome_record::kind::fact) {
    const std::string_view name = f.text();
    said.facts[std::string(name)] = f.text();
    return false;
  }
  if (out.what == outcome_record::kind::task) {
    described_task& task = said.tasks.emplace_back();
    task.name = f.text();
    task.queue = f.text();
    task.max_retries = f.number<std::int32_t>();
    task.hard_limit_ms = f.number<std::int64_t>();
    task.signature = f.text();
    task.source = f.text();
    return false;
  }
  if (out.what == outcome_record::kind::progress) {
    out.result_id = f.text();
    out.dead_reason = f.text();
    out.json = f.text();
    return true;
  }
  out.line = f.number<packed_line>();
  out.result_id = f.text();
  out.result_line = f.number<std::uint32_t>();
  if (out.what == outcome_record::kind::result) {
    out.json = f.text();
    return true;
  }
  out.failure.fate = static_cast<line_fate>(f.number<std::uint8_t>());
  out.failure.next_retry_count = f.number<std::uint32_t>();
  out.failure.delay = std::chrono::milliseconds(f.number<std::int64_t>());
  out.failure.id = f.text();
  out.failure.text = f.text();
  out.failure.reason = f.text();
  out.failure.error = f.text();
  out.dead_reason = f.text();
  out.attempts = f.number<std::uint32_t>();
  return true;
}

}  // namespace leveret::core
