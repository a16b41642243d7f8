// What people and other processes ask of the transport: revised dead jobs, cancelled jobs, reports, pages of messages.
// See writer.hpp.
#include <algorithm>
#include <charconv>
#include <utility>

#include "transports/sqlite/writer.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kBrowseBytes = 4u << 20;  // bodies of one page
constexpr std::size_t kCancelledRows = 1000;
constexpr std::chrono::seconds kControlTrim{60};

/// "first" or "first/second". Nothing: it is no cursor.
std::optional<browse_place> read_cursor(const std::string& cursor, bool two) {
  browse_place at;
  if (cursor.empty()) return at;
  const char* const end = cursor.data() + cursor.size();
  auto parsed = std::from_chars(cursor.data(), end, at.first);
  if (parsed.ec != std::errc()) return std::nullopt;
  if (two) {
    if (parsed.ptr == end || *parsed.ptr != '/') return std::nullopt;
    parsed = std::from_chars(parsed.ptr + 1, end, at.second);
    if (parsed.ec != std::errc()) return std::nullopt;
  }
  if (parsed.ptr != end) return std::nullopt;
  return at;
}

}  // namespace

void writer::step(revise_op& op) {
  op.before = op.state;
  if (!op.found) {
    const auto queue = store_.find_queue(op.queue);
    if (!queue) {
      op.finished = true;
      return;
    }
    op.found = true;
    op.state.queue = op.before.queue = *queue;
  }
  op.finished = !store_.revise_step(op.state, op.queue, op.decide, loop_.wall());
}

void writer::step(cancel_op& op) {
  op.outcomes.clear();
  for (const cancellation& job : op.jobs) op.outcomes.push_back(store_.cancel(job, loop_.wall()));
}

void writer::step(keep_op& op) {
  const unix_ms now = loop_.wall();
  for (const result_chunk& r : op.results) store_.add_result(r, now);
  store_.trim_results(now, std::max(kTrimAtOnce, 2 * op.results.size()));
}

void writer::step(exchange_op& op) { op.found = store_.exchange(op.what, loop_.wall()); }

void writer::step(report_op& op) {
  store_.set_report(op.what, loop_.wall());
  const steady::time_point now = steady::now();
  if (now < next_control_trim_) return;
  next_control_trim_ = now + kControlTrim;
  store_.trim_control(loop_.wall());
}

void writer::serve(browse_messages_op& op) {
  message_page page;
  maybe_failure why;
  const auto queue = store_.find_queue(op.query.queue);
  const auto after = read_cursor(op.query.cursor, op.query.state == message_state::delayed);
  if (!queue) {
    why = failure{errc::not_found, "cannot list the jobs of \"" + op.query.queue + "\": there is no such queue in " +
                                       at_.path + "; declare it first"};
  } else if (!after) {
    why = failure{errc::invalid_argument, "cannot list the jobs of \"" + op.query.queue + "\": \"" + op.query.cursor +
                                              "\" is no cursor; pass one that an earlier page gave"};
  } else {
    store_.begin_read();
    try {
      page = store_.browse(op.query, *queue, *after, loop_.wall(), kBrowseBytes);
    } catch (...) {
      store_.end_read();
      throw;
    }
    store_.end_read();
  }
  post([then = std::move(op.then), page = std::move(page), why]() mutable { then(std::move(page), why); });
}

void writer::serve(watch_cancelled_op& op) {
  on_cancelled_ = std::move(op.on_cancelled);
  maybe_cancelled_ = true;
  update_interest();
  serve_cancelled();
  post([then = std::move(op.then)] { then(std::nullopt); });
}

void writer::serve(known_op& op) {
  std::vector<report> found = store_.reports(op.kind, op.id, loop_.wall());
  post([then = std::move(op.then), found = std::move(found)]() mutable { then(std::move(found), std::nullopt); });
}

void writer::serve_cancelled() {
  while (on_cancelled_ && maybe_cancelled_) {
    std::vector<cancelled_job> jobs;
    try {
      jobs = store_.cancelled_after(cancelled_cursor_, kCancelledRows);
    } catch (const database_error& e) {
      on_database_error(e);
      return;
    }
    maybe_cancelled_ = jobs.size() == kCancelledRows;
    if (jobs.empty()) return;
    post([on = on_cancelled_, jobs = std::move(jobs)]() mutable {
      for (cancelled_job& job : jobs) on(std::move(job));
    });
  }
}

}  // namespace leveret::core::sqlite
