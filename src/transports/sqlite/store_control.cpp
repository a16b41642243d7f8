// The part of store.hpp that is about looking and changing by hand: dead jobs that leave, cancelled jobs, reports,
// pages of messages.
#include <algorithm>

#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kReviseRows = 200;
/// Jobs may wait for long before anybody meets them.
constexpr unix_ms kCancelledTtl = 30ll * 86'400'000;

}  // namespace

bool store::revise_step(revise_state& r, const std::string& name, const dead_decision& decide, unix_ms now) {
  if (r.up_to < 0) r.up_to = last_seq();
  const browse_page page = dead_page(r.queue, name, r.after, kReviseRows);
  for (const browse_entry& e : page.entries) {
    const std::int64_t n = std::stoll(e.cursor);
    if (n > r.up_to) return false;
    r.after = n;
    const dead_fate fate = decide(e);
    if (fate.stays) continue;
    if (fate.publish) {
      // Its key again, if nobody has it meanwhile; it is replayed in any case.
      static_cast<void>(find_other_holder(*fate.publish, now));
      publish(*fate.publish, declare(fate.publish->queue), now);
    }
    drop_dead_.run(n);
    --tallies_[r.queue].dead;
    ++r.left;
  }
  return page.more;
}

bool store::remove_waiting(message_key msg, queue_key queue, unix_ms due, std::int64_t jobs) {
  tally& t = tallies_[queue];
  if (drop_delayed_.run(due, msg) > 0) {
    --t.delayed;
  } else {
    std::int64_t seq = -1;
    for (statement* look : {&ready_place_, &ready_search_}) {  // at its first place, or after a delay at another
      rows r = look->query(queue, msg);
      if (r.next()) {
        seq = r.integer(0);
        break;
      }
    }
    if (seq < 0) return false;
    drop_one_ready_.run(queue, seq);
    --t.ready;
    t.ready_jobs -= jobs;
  }
  let_go_of(msg);
  drop_body_.run(msg);
  return true;
}

cancel_outcome store::cancel(const cancellation& job, unix_ms now) {
  struct row {
    message_key msg = 0;
    queue_key queue = 0;
    std::int64_t jobs = 0;
    std::string reply;
    unix_ms due = 0;
  };
  std::optional<row> found;
  {
    rows r = where_is_.query(job.message_id);
    if (r.next()) found = row{r.integer(0), r.integer(1), r.count(2), std::string(r.text(3)), r.integer(4)};
  }
  bool waits = false;
  if (found) {
    rows r = is_leased_.query(found->msg);
    waits = !r.next();
  }
  bool removed = false;
  if (waits && found->jobs == 1) removed = remove_waiting(found->msg, found->queue, found->due, found->jobs);
  if (!removed) {
    add_cancelled_.run(next_seq(), job.id, now + kCancelledTtl, std::int64_t{job.terminate});
    rings_ |= reply_interest(kCancelledBell);
  }
  if (!waits) return cancel_outcome::asked;
  result_chunk chunk;
  chunk.id = job.message_id;
  chunk.reply = found->reply;
  chunk.first_line = chunk.last_line = job.line;
  chunk.data = job.result;
  add_result(chunk, now);
  return cancel_outcome::ended;
}

std::vector<cancelled_job> store::cancelled_after(std::int64_t& cursor, std::size_t limit) {
  std::vector<cancelled_job> out;
  rows r = cancelled_after_.query(cursor, static_cast<std::int64_t>(limit));
  while (r.next()) {
    cursor = r.integer(0);
    out.push_back({std::string(r.text(1)), r.integer(2) != 0});
  }
  return out;
}

void store::set_report(const report& r, unix_ms now) {
  set_report_.run(r.kind, r.id, now, now + r.ttl.count(), r.body);
}

std::vector<report> store::reports(const std::string& kind, const std::string& id, unix_ms now) {
  std::vector<report> out;
  const auto read = [&](rows r) {
    while (r.next()) {
      report one;
      one.kind = kind;
      one.id = r.text(0);
      one.time = r.integer(1);
      one.body = r.text(2);
      out.push_back(std::move(one));
    }
  };
  if (id.empty()) {
    read(reports_.query(kind, now));
  } else {
    read(one_report_.query(kind, now, id));
  }
  return out;
}

void store::trim_control(unix_ms now) {
  trim_cancelled_.run(now);
  trim_reports_.run(now);
}

message_page store::browse(const browse_query& query, queue_key queue, const browse_place& after, unix_ms now,
                           std::size_t bytes) {
  struct place {
    std::int64_t first = 0;
    lease l;
  };
  std::vector<place> found;
  message_page page;
  const auto limit = static_cast<std::int64_t>(query.limit) + 1;
  const auto read = [&](rows r) {
    std::size_t taken = 0;
    while (r.next()) {
      if (found.size() == query.limit || (!found.empty() && taken >= bytes)) {
        page.more = true;
        return;
      }
      place p;
      p.first = r.integer(0);
      p.l.msg = r.integer(1);
      p.l.queue = queue;
      taken += static_cast<std::size_t>(r.count(2));
      found.push_back(p);
    }
  };
  if (!query.id.empty()) {
    rows r = where_is_.query(query.id);
    while (r.next()) {
      if (r.integer(1) != queue) continue;
      place p;
      p.l.msg = r.integer(0);
      p.l.queue = queue;
      rows leased = is_leased_.query(p.l.msg);
      const message_state state = leased.next()        ? message_state::running
                                  : r.integer(4) > now ? message_state::delayed
                                                       : message_state::ready;
      if (state == query.state) found.push_back(p);
    }
  } else if (query.state == message_state::ready) {
    read(ready_after_.query(queue, after.first, limit));
  } else if (query.state == message_state::running) {
    read(leased_after_.query(queue, after.first, limit));
  } else {
    read(delayed_of_.query(queue, after.first, after.second, limit));
  }
  std::vector<lease> leases;
  leases.reserve(found.size());
  for (const place& p : found) leases.push_back(p.l);
  std::vector<message> bodies = read_bodies(leases);
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    browsed_message b;
    b.cursor = std::to_string(found[i].first);
    if (query.state == message_state::delayed) b.cursor += "/" + std::to_string(found[i].l.msg);
    b.msg = std::move(bodies[i]);
    b.msg.queue = query.queue;
    page.entries.push_back(std::move(b));
  }
  return page;
}

}  // namespace leveret::core::sqlite
