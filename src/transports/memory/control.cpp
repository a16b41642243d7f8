// What people and other processes ask of the memory transport: pages of messages, revised dead jobs, cancelled jobs.
#include <algorithm>
#include <utility>

#include "transports/memory/broker.hpp"

namespace leveret::core::memory {

namespace {

/// Adds a message to the page if it is the one looked for and behind the cursor. False: the page is full.
bool add(message_page& page, const browse_query& query, const message& m, std::uint64_t place, std::uint64_t after) {
  if (place <= after || (!query.id.empty() && query.id != m.id)) return true;
  if (page.entries.size() == query.limit) {
    page.more = true;
    return false;
  }
  page.entries.push_back({std::to_string(place), m});
  return true;
}

}  // namespace

message_page browse(broker& b, queue& q, const browse_query& query, std::uint64_t after, unix_ms now) {
  (void)stats_of(b, q, now);  // what is due is ready
  message_page page;
  if (query.state == message_state::ready) {
    for (const auto& [place, s] : q.ready) {
      if (!add(page, query, s->msg, place, after)) break;
    }
  } else if (query.state == message_state::delayed) {
    std::uint64_t place = 0;  // its rank: a page may miss one when the list changes meanwhile
    for (const auto& each : q.delayed) {
      if (!add(page, query, each.second->msg, ++place, after)) break;
    }
  } else {
    std::map<std::uint64_t, const message*> running;
    for (const subscription_ptr& s : q.consumers) {
      for (const auto& each : s->owner->leases) {
        if (each.second.by->from == &q) running[each.second.what->place] = &each.second.what->msg;
      }
    }
    for (const auto& [place, m] : running) {
      if (!add(page, query, *m, place, after)) break;
    }
  }
  return page;
}

std::uint64_t revise_dead(connection& c, const std::string& name, const dead_decision& decide, unix_ms now,
                          touched_queues& touched) {
  broker& b = *c.at;
  const auto found = b.dead.find(name);
  if (found == b.dead.end()) return 0;
  std::deque<dead_entry> stay;
  std::uint64_t left = 0;
  for (dead_entry& e : found->second) {
    dead_fate fate = decide({std::to_string(e.number), e.job.id, e.job.queue, e.job.record});
    if (fate.publish) b.queues.try_emplace(fate.publish->queue).first->second.name = fate.publish->queue;
    if (fate.stays ||
        (fate.publish && accept(c, std::move(*fate.publish), now, touched, true).status != publish_status::accepted)) {
      stay.push_back(std::move(e));
    } else {
      ++left;
    }
  }
  found->second = std::move(stay);
  return left;
}

cancel_outcome cancel(connection& c, const cancellation& job, unix_ms now) {
  broker& b = *c.at;
  const message* waiting = nullptr;
  bool removed = false;
  std::string reply;
  for (auto& [name, q] : b.queues) {
    (void)stats_of(b, q, now);
    const auto ready = std::find_if(q.ready.begin(), q.ready.end(),
                                    [&](const auto& each) { return each.second->msg.id == job.message_id; });
    const auto delayed = std::find_if(q.delayed.begin(), q.delayed.end(),
                                      [&](const auto& each) { return each.second->msg.id == job.message_id; });
    if (ready == q.ready.end() && delayed == q.delayed.end()) continue;
    waiting = ready != q.ready.end() ? &ready->second->msg : &delayed->second->msg;
    reply = waiting->reply;
    if (waiting->jobs != 1) break;
    removed = true;
    if (ready != q.ready.end()) {
      take_away(b, q, ready);
    } else {
      take_away(b, q, delayed);
    }
    break;
  }
  if (!removed && (b.cancelled_ids.insert(job.id).second || job.terminate)) {
    b.cancelled.push_back({job.id, job.terminate});
    for (const listener& l : b.listeners) {
      l.owner->call([to = l.on_cancelled, told = b.cancelled.back()] { (*to)(told); });
    }
  }
  if (waiting == nullptr) return cancel_outcome::asked;
  result_chunk chunk;
  chunk.id = job.message_id;
  chunk.reply = reply;
  chunk.first_line = chunk.last_line = job.line;
  chunk.data = job.result;
  store_result(c, std::move(chunk), now);
  return cancel_outcome::ended;
}

void drop_reports(broker& b, unix_ms now) {
  for (auto each = b.reports.begin(); each != b.reports.end();) {
    each = each->second.expires <= now ? b.reports.erase(each) : std::next(each);
  }
}

}  // namespace leveret::core::memory
