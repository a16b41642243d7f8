#include "settling.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "claim.hpp"
#include "packer.hpp"
#include "redelivery.hpp"

namespace leveret::core {
namespace {

/// What the lines of one new message share.
struct shared_properties {
  std::string queue;
  unix_ms due = 0;
  bool rough_due = false;
  std::string reply;
  std::uint8_t priority = 0;
  std::vector<header> headers;
};

void publish_all(settlement& into, packer& lines, const shared_properties& shared, unix_ms now,
                 const random_source& random) {
  for (packed& batch : lines.take()) {
    message m;
    m.id = make_message_id(now, random);
    m.queue = shared.queue;
    m.data = body(batch.lines);
    m.jobs = batch.jobs;
    m.due = shared.due;
    m.rough_due = shared.rough_due;
    m.priority = shared.priority;
    m.reply = shared.reply;
    m.headers = shared.headers;
    into.publish.push_back(std::move(m));
  }
}

/// A retry and a line that is put back keep the key that their job holds.
std::vector<header> claim_header(const message& m) {
  if (m.headers.empty()) return {};
  const std::string* text = m.find_header(kHeaderClaim);
  if (text == nullptr) return {};
  return {{kHeaderClaim, *text}};
}

/// A job that ends lets its key go; the record of a dead one keeps it, for a replay.
void end_claim(planned& plan, const message& m, std::size_t lines) {
  if (m.headers.empty() || lines != 1 || !plan.what.publish.empty()) return;
  const std::optional<claim> held = claim_of(m);
  if (!held || held->until == held_until::window) return;
  plan.what.let_go.push_back({held->key, held->job});
  for (dead_job& dead : plan.what.dead) add_claim_to_record(dead.record, claim_text(*held));
}

std::vector<header> own_headers(const message& m) {
  std::vector<header> kept;
  for (const header& h : m.headers) {
    if (h.name != kHeaderUnknownSince) kept.push_back(h);
  }
  return kept;
}

void add_dead(planned& plan, const message& m, line_returner::returned line) {
  failed_line noted;
  noted.fate = line_fate::dead;
  noted.id = line.id;
  noted.error = std::move(line.error);
  plan.what.dead.push_back({base_queue(m.queue), line.id, std::move(line.text)});
  plan.dead.push_back(std::move(noted));
  ++plan.counts.dead;
}

/// The sender waits for this job too.
void add_dead_result(planned& plan, const message& m, std::string_view id, std::string_view reason,
                     std::string_view error) {
  if (m.reply.empty()) return;
  std::string_view root;
  std::uint32_t number = 0;
  if (!split_job_id(id, root, number)) return;
  result_chunk chunk;
  chunk.id = root;
  chunk.reply = m.reply;
  chunk.first_line = chunk.last_line = number;
  append_dead_result(chunk.data, number, reason, error, 0);
  plan.what.results.push_back(std::move(chunk));
}

/// Lines that were not run go back under explicit ids; a line that the codec refuses ends here, dead.
void give_back_lines(planned& plan, const delivery& d, const std::vector<std::uint32_t>& offsets,
                     const std::vector<std::uint32_t>* which, packer& lines, line_returner& returner) {
  const message& m = d.msg;
  const std::string_view all = m.data.view();
  const auto one = [&](std::uint32_t i) {
    const std::string_view line = all.substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
    line_returner::returned back = returner.give_back(m, line, i);
    if (back.dead) {
      add_dead_result(plan, m, back.id, kReasonMalformed, back.error);
      add_dead(plan, m, std::move(back));
    } else {
      lines.add(back.text);
      ++plan.counts.returned;
    }
  };
  if (which != nullptr) {
    for (const std::uint32_t i : *which) one(i);
  } else {
    for (std::uint32_t i = 0; i + 1 < offsets.size(); ++i) one(i);
  }
}

std::vector<std::uint32_t> lines_of(const message& m) {
  std::vector<std::uint32_t> offsets = split_lines(m.data.view());
  if (offsets.size() < 2) offsets = {0, 1};
  return offsets;
}

}  // namespace

planned plan_settlement(work& w, const settling_settings& settings, unix_ms now, const random_source& random,
                        line_returner& returner, std::uint32_t jobs_per_part) {
  planned plan;
  const delivery& d = w.what();
  const message& m = d.msg;
  plan.what.token = d.token;
  if (w.wants_results()) plan.what.results = w.take_results();
  plan.counts.succeeded = w.succeeded_lines();
  if (plan.counts.succeeded == w.lines()) {
    end_claim(plan, m, w.lines());
    return plan;
  }

  // One message for all lines that share their due time: an outage must not turn a batch into single messages.
  std::map<std::uint32_t, packer> by_count;  // backoff: one delay for all of one retry count
  std::map<std::int64_t, packer> by_delay;   // retry_after: by bucket
  packer put_back;
  for (failed_line& line : w.take_failures()) {
    switch (line.fate) {
      case line_fate::retry:
        by_count[line.next_retry_count].add(line.text);
        ++plan.counts.retried;
        break;
      case line_fate::retry_after:
        by_delay[(line.delay.count() + settings.due_bucket.count() - 1) / settings.due_bucket.count()].add(line.text);
        ++plan.counts.retried;
        break;
      case line_fate::put_back:
        put_back.add(line.text);
        ++plan.counts.returned;
        break;
      case line_fate::expired:
        ++plan.counts.expired;
        break;
      case line_fate::cancelled:
        ++plan.counts.cancelled;
        break;
      case line_fate::dead:
        plan.what.dead.push_back({base_queue(m.queue), line.id, std::move(line.text)});
        ++plan.counts.dead;
        plan.dead.push_back(std::move(line));
        break;
    }
  }

  // A job that failed by an exception is no suspect: it goes on in its own queue.
  shared_properties shared{base_queue(m.queue), 0, true, m.reply, m.priority, claim_header(m)};
  for (auto& [count, lines] : by_count) {
    shared.due = now + backoff(settings.retries, count - 1, random).count();
    plan.last_retry_due = std::max(plan.last_retry_due, shared.due);
    publish_all(plan.what, lines, shared, now, random);
  }
  shared.rough_due = false;
  for (auto& [bucket, lines] : by_delay) {
    const std::int64_t delay = bucket * settings.due_bucket.count();
    shared.due = now + delay;
    if (delay <= settings.retries.backoff_cap.count()) plan.last_retry_due = std::max(plan.last_retry_due, shared.due);
    publish_all(plan.what, lines, shared, now, random);
  }
  shared.due = now + settings.put_back_delay.count();
  shared.rough_due = true;
  const std::string* since = m.find_header(kHeaderUnknownSince);
  shared.headers.push_back({kHeaderUnknownSince, since != nullptr ? *since : std::to_string(now)});
  publish_all(plan.what, put_back, shared, now, random);

  if (!w.unstarted().empty()) {
    packer rest(kBatchBytes, jobs_per_part);
    const std::vector<std::uint32_t> offsets = lines_of(m);
    give_back_lines(plan, d, offsets, &w.unstarted(), rest, returner);
    shared = {m.queue, 0, false, m.reply, m.priority, m.headers};
    publish_all(plan.what, rest, shared, now, random);
  }
  end_claim(plan, m, w.lines());
  return plan;
}

planned plan_move(const delivery& d, const std::string& queue, bool singles, unix_ms now, const random_source& random,
                  line_returner& returner) {
  planned plan;
  plan.what.token = d.token;
  const std::vector<std::uint32_t> offsets = lines_of(d.msg);
  packer lines(kBatchBytes, singles ? 1 : UINT32_MAX);
  give_back_lines(plan, d, offsets, nullptr, lines, returner);
  shared_properties shared{queue, 0, false, d.msg.reply, d.msg.priority, own_headers(d.msg)};
  shared.headers.erase(
      std::remove_if(shared.headers.begin(), shared.headers.end(),
                     [](const header& h) { return h.name == kHeaderSuspect || h.name == kHeaderCrashes; }),
      shared.headers.end());
  shared.headers.push_back({kHeaderSuspect, singles || offsets.size() == 2 ? kSuspectSingle : kSuspectBatch});
  publish_all(plan.what, lines, shared, now, random);
  end_claim(plan, d.msg, offsets.size() - 1);
  return plan;
}

planned plan_suspect_return(const delivery& d, unix_ms now, const random_source& random, line_returner& returner) {
  planned plan;
  plan.what.token = d.token;
  packer lines;
  give_back_lines(plan, d, lines_of(d.msg), nullptr, lines, returner);
  shared_properties shared{d.msg.queue, 0, false, d.msg.reply, d.msg.priority, {}};
  for (const header& h : d.msg.headers) {
    if (h.name != kHeaderCrashes) shared.headers.push_back(h);
  }
  shared.headers.push_back({kHeaderCrashes, std::to_string(crashes_of(d))});
  publish_all(plan.what, lines, shared, now, random);
  end_claim(plan, d.msg, lines_of(d.msg).size() - 1);
  return plan;
}

planned plan_refused(const delivery& d, const refused_delivery& why, line_returner& returner) {
  planned plan;
  plan.what.token = d.token;
  const std::vector<std::uint32_t> offsets = lines_of(d.msg);
  const std::string_view all = d.msg.data.view();
  for (std::uint32_t i = 0; i + 1 < offsets.size(); ++i) {
    const std::string_view line = all.substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
    line_returner::returned dead = returner.refused(d.msg, line, i, why);
    add_dead_result(plan, d.msg, dead.id, why.reason, dead.error);
    add_dead(plan, d.msg, std::move(dead));
  }
  return plan;
}

bool has_too_many_lines(const message& m) {
  const std::string_view data = m.data.view();
  return data.size() > kMostLines && static_cast<std::size_t>(std::count(data.begin(), data.end(), '\n')) > kMostLines;
}

planned plan_too_many_lines(const delivery& d) {
  planned plan;
  plan.what.token = d.token;
  line_returner::returned dead;
  dead.id = make_job_id(d.msg.id, 1);
  dead.error = "the message has more than " + std::to_string(kMostLines) +
               " lines, and none of them was read; send more messages instead. Its first 64 KiB are kept";
  dead.text = dead_record(dead.id, {}, base_queue(d.msg.queue), kReasonTooLong, dead.error, nullptr,
                          d.msg.data.view().substr(0, kBatchBytes));
  add_dead_result(plan, d.msg, dead.id, kReasonTooLong, dead.error);
  add_dead(plan, d.msg, std::move(dead));
  return plan;
}

planned plan_crashed(const delivery& d, std::int32_t crashes, line_returner& returner) {
  planned plan;
  plan.what.token = d.token;
  const std::vector<std::uint32_t> offsets = lines_of(d.msg);
  const std::string_view all = d.msg.data.view();
  for (std::uint32_t i = 0; i + 1 < offsets.size(); ++i) {
    const std::string_view line = all.substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
    line_returner::returned dead = returner.crashed(d.msg, line, i, crashes);
    add_dead_result(plan, d.msg, dead.id, kReasonCrashed, dead.error);
    add_dead(plan, d.msg, std::move(dead));
  }
  end_claim(plan, d.msg, offsets.size() - 1);
  return plan;
}

}  // namespace leveret::core
