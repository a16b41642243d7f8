// The half of store.hpp that is not about waiting and running messages: results, dead jobs, owners, statistics, purges.
#include <unistd.h>

#include <algorithm>

#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kPurgeRows = 1000;
constexpr std::size_t kLeaseRows = 1000;

std::uint32_t line_number(const rows& r, int column) {
  return static_cast<std::uint32_t>(std::min<std::int64_t>(r.count(column), UINT32_MAX));
}

}  // namespace

void store::add_result(const result_chunk& r, unix_ms now) {
  const std::int64_t n = next_seq();
  const unix_ms expires = now + std::chrono::duration_cast<std::chrono::milliseconds>(options_.result_ttl).count();
  add_result_.run(n, r.reply, r.id, static_cast<std::int64_t>(r.first_line), static_cast<std::int64_t>(r.last_line),
                  expires, blob_view{r.data});
  result_bytes_ += static_cast<std::int64_t>(r.data.size());
  state_changed_ = true;
  if (!r.reply.empty()) rings_ |= reply_interest(r.reply);
}

bool store::results_to_trim(unix_ms now) {
  rows r = oldest_results_.query(std::int64_t{1});
  return r.next() && r.integer(1) <= now;
}

bool store::trim_results(unix_ms now, std::size_t limit) {
  load_state();
  std::vector<std::int64_t> drop;
  const auto cap = static_cast<std::int64_t>(std::min<std::uint64_t>(options_.result_cap_bytes, INT64_MAX));
  {
    rows r = oldest_results_.query(static_cast<std::int64_t>(limit));
    while (r.next()) {
      if (r.integer(1) > now && result_bytes_ <= cap) break;
      drop.push_back(r.integer(0));
      result_bytes_ -= r.count(2);
    }
  }
  for (const std::int64_t n : drop) drop_result_.run(n);
  if (!drop.empty()) state_changed_ = true;
  return drop.size() == limit;
}

void store::add_dead(const dead_job& job) {
  const queue_key queue = declare(job.queue);
  add_dead_.run(next_seq(), queue, job.id, job.record);
  ++tallies_[queue].dead;
}

std::vector<result_chunk> store::results_for(const std::string& reply, std::int64_t& cursor, std::size_t limit,
                                             std::size_t bytes) {
  std::vector<result_chunk> out;
  rows r = results_for_.query(reply, cursor, static_cast<std::int64_t>(limit));
  std::size_t taken = 0;
  while (taken < bytes && r.next()) {
    result_chunk c;
    c.reply = reply;
    c.id = r.text(1);
    c.first_line = line_number(r, 2);
    c.last_line = line_number(r, 3);
    c.data = r.blob(4);
    taken += c.data.size();
    cursor = r.integer(0);
    out.push_back(std::move(c));
  }
  return out;
}

std::vector<result_chunk> store::results_of(const std::string& message_id) {
  std::vector<result_chunk> out;
  rows r = results_of_.query(message_id);
  while (r.next()) {
    result_chunk c;
    c.reply = r.text(0);
    c.id = r.text(1);
    c.first_line = line_number(r, 2);
    c.last_line = line_number(r, 3);
    c.data = r.blob(4);
    out.push_back(std::move(c));
  }
  return out;
}

browse_page store::dead_page(queue_key queue, const std::string& name, std::int64_t after, std::size_t limit) {
  browse_page page;
  rows r = dead_.query(queue, after, static_cast<std::int64_t>(limit) + 1);
  while (r.next()) {
    if (page.entries.size() == limit) {
      page.more = true;
      break;
    }
    browse_entry e;
    e.cursor = std::to_string(r.integer(0));
    e.id = r.text(1);
    e.queue = name;
    e.record = r.text(2);
    page.entries.push_back(std::move(e));
  }
  return page;
}

owner_key store::add_owner(const seat_identity& seat) {
  const owner_key owner = next_seq();
  add_owner_.run(owner, static_cast<std::int64_t>(::getpid()), boot_, seat.bell, seat.slot, seat.nonce,
                 static_cast<std::int64_t>(options_.lease.count()), options_.client_name);
  return owner;
}

void store::move_owner(owner_key owner, const seat_identity& seat) {
  move_owner_.run(owner, seat.bell, seat.slot, seat.nonce);
}

bool store::has_owner(owner_key owner) {
  rows r = has_owner_.query(owner);
  return r.next();
}

std::vector<owner_row> store::owners() {
  std::vector<owner_row> out;
  rows r = owners_.query();
  while (r.next()) {
    owner_row o;
    o.owner = r.integer(0);
    o.boot = r.text(1);
    o.seat = {r.integer(2), r.integer(3), r.integer(4)};
    o.lease = std::chrono::milliseconds(r.count(5));
    out.push_back(std::move(o));
  }
  return out;
}

std::size_t store::remove_owner(owner_key owner, bool charge) {
  std::size_t given = 0;
  while (true) {
    std::vector<lease> found;
    {
      rows r = leases_of_.query(owner, static_cast<std::int64_t>(kLeaseRows));
      while (r.next()) {
        lease l;
        l.msg = r.integer(0);
        l.queue = r.integer(1);
        l.seq = r.integer(2);
        l.jobs = r.count(3);
        l.bytes = r.count(4);
        l.returns = std::min<std::int64_t>(r.count(5), kMostReturns);
        found.push_back(l);
      }
    }
    for (const lease& l : found) {
      drop_lease_of_.run(owner, l.msg);
      return_row(l, charge);
    }
    given += found.size();
    if (found.size() < kLeaseRows) break;
  }
  drop_consumers_of_.run(owner);
  drop_owner_.run(owner);
  return given;
}

void store::set_consumers(owner_key owner, queue_key queue, std::int64_t count) {
  if (count > 0) {
    set_consumer_.run(owner, queue, count);
  } else {
    drop_consumer_.run(owner, queue);
  }
}

std::map<queue_key, std::uint64_t> store::live_consumers(const seat& here) {
  std::map<queue_key, std::uint64_t> consumers;
  rows r = consumers_.query();
  while (r.next()) {
    std::uint32_t beats = 0;
    if (r.text(2) != boot_ || here.judge({r.integer(3), r.integer(4), r.integer(5)}, beats) == life::dead) continue;
    consumers[r.integer(0)] += static_cast<std::uint64_t>(r.count(1));
  }
  return consumers;
}

std::vector<queue_stats> store::stats(const std::string& name, const seat& here) {
  const std::map<queue_key, std::uint64_t> consumers = live_consumers(here);
  std::vector<queue_stats> out;
  const auto read = [&](rows r) {
    while (r.next()) {
      queue_stats s;
      s.queue = r.text(1);
      s.ready = static_cast<std::uint64_t>(r.count(2));
      s.ready_jobs = static_cast<std::uint64_t>(r.count(3));
      s.delayed = static_cast<std::uint64_t>(r.count(4));
      s.running = static_cast<std::uint64_t>(r.count(5));
      s.dead = static_cast<std::uint64_t>(r.count(6));
      const auto found = consumers.find(r.integer(0));
      s.consumers = found == consumers.end() ? 0 : found->second;
      out.push_back(std::move(s));
    }
  };
  if (name.empty()) {
    read(all_queues_.query());
  } else {
    read(one_queue_.query(name));
  }
  return out;
}

bool store::purge_step(purge_state& p) {
  if (p.ready_up_to < 0) p.ready_up_to = p.delayed_up_to = last_seq();
  tally& t = tallies_[p.queue];
  if (p.dead) {
    std::vector<std::int64_t> found;
    {
      rows r = oldest_dead_.query(p.queue, static_cast<std::int64_t>(kPurgeRows));
      while (r.next() && r.integer(0) <= p.ready_up_to) found.push_back(r.integer(0));
    }
    for (const std::int64_t n : found) drop_dead_.run(n);
    t.dead -= static_cast<std::int64_t>(found.size());
    p.removed += found.size();
    return found.size() == kPurgeRows;
  }
  if (!p.ready_done) {
    std::vector<message_key> found;
    std::int64_t last = 0;
    {
      rows r = ready_up_to_.query(p.queue, p.ready_up_to, static_cast<std::int64_t>(kPurgeRows));
      while (r.next()) {
        last = r.integer(0);
        found.push_back(r.integer(1));
        t.ready_jobs -= r.count(2);
      }
    }
    for (const message_key msg : found) {
      let_go_of(msg);
      drop_body_.run(msg);
    }
    if (!found.empty()) drop_ready_.run(p.queue, last);
    t.ready -= static_cast<std::int64_t>(found.size());
    p.removed += found.size();
    p.ready_done = found.size() < kPurgeRows;
    if (!p.ready_done) return true;
  }
  // The delayed ones of all queues lie in order of time: looked through in steps.
  std::vector<std::pair<std::int64_t, message_key>> found;
  std::size_t looked = 0;
  {
    rows r = delayed_after_.query(p.delayed_due, p.delayed_msg, static_cast<std::int64_t>(kPurgeRows));
    while (r.next()) {
      ++looked;
      p.delayed_due = r.integer(0);
      p.delayed_msg = r.integer(1);
      if (r.integer(2) == p.queue && p.delayed_msg <= p.delayed_up_to) found.emplace_back(p.delayed_due, p.delayed_msg);
    }
  }
  for (const auto& [due, msg] : found) {
    drop_delayed_.run(due, msg);
    let_go_of(msg);
    drop_body_.run(msg);
  }
  t.delayed -= static_cast<std::int64_t>(found.size());
  p.removed += found.size();
  return looked == kPurgeRows;
}

}  // namespace leveret::core::sqlite
