// Looking at messages, revising dead jobs, cancelled jobs, reports: what people and other processes ask for.
#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "conformance/fixture.hpp"

namespace leveret::conformance {
namespace {

using core::browse_entry;
using core::browse_query;
using core::cancel_outcome;
using core::cancellation;
using core::dead_decision;
using core::dead_fate;
using core::maybe_failure;
using core::message;
using core::message_page;
using core::message_state;
using core::queue_stats;
using core::report;
using core::result_chunk;
using core::settlement;

std::pair<message_page, maybe_failure> browse(side& s, browse_query query) {
  auto [then, answered] = s.once<message_page, maybe_failure>("browse");
  s.transport().browse(std::move(query), std::move(then));
  auto [page, why] = answered.get();
  return {page, why};
}

std::pair<std::uint64_t, maybe_failure> revise(side& s, const std::string& queue, dead_decision decide) {
  auto [then, answered] = s.once<std::uint64_t, maybe_failure>("revise_dead");
  s.transport().revise_dead(queue, std::move(decide), std::move(then));
  const auto [left, why] = answered.get();
  return {left, why};
}

std::vector<cancel_outcome> must_cancel(side& s, const std::vector<cancellation>& jobs) {
  auto [then, answered] = s.once<std::vector<cancel_outcome>, maybe_failure>("cancel");
  s.transport().cancel(jobs, std::move(then));
  const auto [outcomes, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  return outcomes;
}

void must_make_known(side& s, report r) {
  auto [then, answered] = s.once<maybe_failure>("make_known");
  s.transport().make_known(std::move(r), std::move(then));
  const auto [why] = answered.get();
  EXPECT_FALSE(why) << why->text;
}

std::vector<report> must_know(side& s, const std::string& kind, const std::string& id) {
  auto [then, answered] = s.once<std::vector<report>, maybe_failure>("known");
  s.transport().known(kind, id, std::move(then));
  const auto [found, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  return found;
}

/// The job of a message's line.
cancellation job_of(const message& m, std::uint32_t line) {
  const std::string number = std::to_string(line);
  return {m.id + "/" + number, m.id, line, R"({"line":)" + number + R"(,"state":"cancelled"})" + "\n"};
}

/// Collects the ids of cancelled jobs.
class cancel_watch {
 public:
  explicit cancel_watch(side& s) : record_(s.many("on_cancelled")) {
    auto [then, answered] = s.once<maybe_failure>("watch_cancelled");
    s.transport().watch_cancelled(
        [st = state_, record = record_, &l = s.loop()](const core::cancelled_job& job) {
          if (!l.on_loop()) ++record->off_loop;
          const std::lock_guard lock(st->mutex);
          st->ids.push_back(job.id + (job.terminate ? "!" : ""));
          st->changed.notify_all();
        },
        std::move(then));
    const auto [why] = answered.get();
    EXPECT_FALSE(why) << why->text;
  }
  [[nodiscard]] bool knows(const std::string& id) {
    const std::lock_guard lock(state_->mutex);
    return state_->has(id);
  }
  [[nodiscard]] bool wait(const std::string& id) {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, kPatience, [&] { return state_->has(id); });
  }

 private:
  // Shared with the callback, which is called until its side is closed.
  struct state {
    [[nodiscard]] bool has(const std::string& id) const { return std::find(ids.begin(), ids.end(), id) != ids.end(); }
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> ids;
  };
  const std::shared_ptr<call_record> record_;
  const std::shared_ptr<state> state_ = std::make_shared<state>();
};

// Three dead jobs, "job/0" to "job/2", in one settlement.
void make_three_dead(side& s, const std::string& queue) {
  consumer c(s, queue, {1, 32u << 20});
  s.must_publish(make_messages(queue, 1));
  settlement end;
  end.token = c.next().token;
  for (int i = 0; i < 3; ++i) {
    const std::string id = "job/" + std::to_string(i);
    std::string record = R"({"id":")" + id + R"(","task":"t","queue":")" + queue;
    record += R"(","reason":"exception","error":"e","attempts":[],"body":"{}"})";
    end.dead.push_back({queue, id, std::move(record)});
  }
  s.must_settle(end);
  c.unsubscribe();
}

std::vector<std::string> dead_ids(side& s, const std::string& queue) {
  std::vector<std::string> ids;
  for (const browse_entry& e : s.browse_dead(queue, "", 100).first.entries) ids.push_back(e.id);
  return ids;
}

TEST_P(conformance, waiting_and_running_messages_are_listed_in_pages_or_unsupported) {
  side s(broker());
  const std::string queue = declared(s);
  const std::vector<message> messages = make_messages(queue, 5);
  message later = make_message(queue, "later\n");
  later.due = s.loop().wall() + 86'400'000;
  s.must_publish(messages);
  if (!s.transport().what_it_can().browse_live) {
    const auto [page, why] = browse(s, {queue, message_state::ready, "", "", 2});
    ASSERT_TRUE(why);
    EXPECT_EQ(why->code, errc::unsupported);
    EXPECT_NE(why->text.find("leveret queues"), std::string::npos) << "names no remedy: " << why->text;
    return;
  }
  s.must_publish({later});
  consumer c(s, queue, {1, 32u << 20});
  (void)c.next();
  std::vector<std::string> seen;
  std::string cursor;
  for (const std::size_t expected : {2u, 2u}) {
    const auto [page, why] = browse(s, {queue, message_state::ready, "", cursor, 2});
    ASSERT_FALSE(why) << why->text;
    ASSERT_EQ(page.entries.size(), expected);
    EXPECT_EQ(page.more, seen.empty());
    for (const auto& e : page.entries) {
      seen.push_back(e.msg.id);
      EXPECT_EQ(e.msg.data.view(), std::to_string(seen.size()) + "\n");
      EXPECT_EQ(e.msg.queue, queue);
    }
    cursor = page.entries.back().cursor;
  }
  const std::vector<std::string> ids = ids_of(messages);
  EXPECT_EQ(seen, std::vector<std::string>(ids.begin() + 1, ids.end()));
  const auto [delayed, why] = browse(s, {queue, message_state::delayed, "", "", 10});
  ASSERT_EQ(delayed.entries.size(), 1u);
  EXPECT_EQ(delayed.entries[0].msg.id, later.id);
  EXPECT_TRUE(browse(s, {queue, message_state::delayed, "", delayed.entries[0].cursor, 10}).first.entries.empty());
  const auto running = browse(s, {queue, message_state::running, "", "", 10}).first;
  ASSERT_EQ(running.entries.size(), 1u);
  EXPECT_EQ(running.entries[0].msg.id, ids[0]);
  EXPECT_EQ(browse(s, {queue, message_state::ready, ids[3], "", 10}).first.entries.size(), 1u);
  EXPECT_EQ(browse(s, {queue, message_state::running, ids[0], "", 10}).first.entries.size(), 1u);
  EXPECT_TRUE(browse(s, {queue, message_state::running, ids[3], "", 10}).first.entries.empty());
  EXPECT_EQ(browse(s, {broker().unique("unknown"), message_state::ready, "", "", 1}).second->code, errc::not_found);
  EXPECT_EQ(browse(s, {queue, message_state::ready, "", "no cursor", 1}).second->code, errc::invalid_argument);
}

TEST_P(conformance, dead_jobs_stay_go_or_give_way_to_a_message) {
  side s(broker());
  const std::string queue = declared(s);
  make_three_dead(s, queue);
  ASSERT_TRUE(s.stats_become(queue, [](const queue_stats& q) { return q.dead.value_or(1) > 0; }));
  const message again = make_message(queue, "again\n");
  const auto [left, why] = revise(s, queue, [&again](const browse_entry& e) {
    dead_fate fate;
    fate.stays = e.id == "job/1";
    if (e.id == "job/2") fate.publish = again;
    return fate;
  });
  EXPECT_FALSE(why) << why->text;
  EXPECT_EQ(left, 2u);
  EXPECT_EQ(dead_ids(s, queue), (std::vector<std::string>{"job/1"}));
  consumer c(s, queue, {1, 32u << 20});
  const core::delivery d = c.next();
  EXPECT_EQ(d.msg.data.view(), "again\n");
  c.settle(d);
  EXPECT_EQ(revise(s, queue, [](const browse_entry&) { return dead_fate{}; }).first, 0u);
  EXPECT_EQ(dead_ids(s, queue), (std::vector<std::string>{"job/1"}));
}

TEST_P(conformance, revising_the_dead_of_an_unknown_queue_is_not_found) {
  side s(broker());
  const auto [left, why] = revise(s, broker().unique("unknown"), [](const browse_entry&) { return dead_fate{}; });
  ASSERT_TRUE(why);
  EXPECT_EQ(why->code, errc::not_found);
  const std::string queue = declared(s);
  EXPECT_FALSE(revise(s, queue, [](const browse_entry&) { return dead_fate{}; }).second);
}

TEST_P(conformance, a_waiting_job_that_is_cancelled_ends_or_its_workers_are_asked) {
  side s(broker());
  const std::string queue = declared(s);
  const std::string reply = s.must_make_reply();
  result_reader results(s, reply);
  message now = make_message(queue, "one\n");
  message later = make_message(queue, "two\n");
  later.due = s.loop().wall() + 86'400'000;
  now.reply = later.reply = reply;
  s.must_publish({now, later});
  const std::vector<cancel_outcome> outcomes = must_cancel(s, {job_of(now, 1), job_of(later, 1)});
  ASSERT_EQ(outcomes.size(), 2u);
  if (!s.transport().what_it_can().browse_live) {
    EXPECT_EQ(outcomes, (std::vector<cancel_outcome>(2, cancel_outcome::asked)));
    cancel_watch told(s);
    EXPECT_TRUE(told.knows(now.id + "/1"));
    return;
  }
  EXPECT_EQ(outcomes, (std::vector<cancel_outcome>(2, cancel_outcome::ended)));
  const std::vector<result_chunk> chunks = results.wait(2);
  EXPECT_EQ(chunks[0].id, now.id);
  EXPECT_EQ(chunks[0].data, R"({"line":1,"state":"cancelled"})"
                            "\n");
  const queue_stats stats = s.must_stats(queue);
  EXPECT_EQ(stats.ready, 0u);
  EXPECT_EQ(stats.ready_jobs.value_or(0), 0u);
  EXPECT_EQ(stats.delayed.value_or(0), 0u);
}

TEST_P(conformance, a_job_of_a_batch_that_is_cancelled_is_known_before_its_delivery) {
  side s(broker());
  side other(broker());
  const std::string queue = declared(s);
  const message batch = make_message(queue, "a\nb\nc\n");
  cancel_watch early(other);
  s.must_publish({batch});
  (void)must_cancel(s, {job_of(batch, 2)});
  EXPECT_TRUE(early.wait(batch.id + "/2"));
  EXPECT_FALSE(early.knows(batch.id + "/1"));
  cancel_watch late(s);
  EXPECT_TRUE(late.knows(batch.id + "/2")) << "not told before the watch began";
  consumer c(s, queue, {1, 32u << 20});
  c.settle(c.next());
}

TEST_P(conformance, a_running_job_that_is_cancelled_is_told_to_its_worker) {
  side s(broker());
  side other(broker());
  const std::string queue = declared(s);
  const message one = make_message(queue, "a\n");
  cancel_watch watch(other);
  s.must_publish({one});
  consumer c(other, queue, {1, 32u << 20});
  const core::delivery d = c.next();
  EXPECT_EQ(must_cancel(s, {job_of(one, 1)}), (std::vector<cancel_outcome>{cancel_outcome::asked}));
  EXPECT_TRUE(watch.wait(one.id + "/1"));
  // Who asks again, and now by force, is heard again; and the force stays known.
  cancellation forced = job_of(one, 1);
  forced.terminate = true;
  EXPECT_EQ(must_cancel(s, {forced}), (std::vector<cancel_outcome>{cancel_outcome::asked}));
  EXPECT_TRUE(watch.wait(one.id + "/1!"));
  EXPECT_EQ(must_cancel(s, {job_of(one, 1)}), (std::vector<cancel_outcome>{cancel_outcome::asked}));
  side late(broker());
  cancel_watch told(late);
  EXPECT_TRUE(told.knows(one.id + "/1!"));
  c.settle(d);
}

TEST_P(conformance, of_what_a_worker_reports_the_latest_counts_until_its_time_is_over) {
  side s(broker());
  side other(broker());
  const std::string name = broker().unique("worker");
  must_make_known(s, {core::kReportWorker, name, R"({"n":1})", "", 0, std::chrono::minutes(1)});
  must_make_known(s, {core::kReportWorker, name, R"({"n":2})", "", 0, std::chrono::minutes(1)});
  must_make_known(s, {core::kReportWorker, name + "-other", R"({"n":3})", "", 0, std::chrono::minutes(1)});
  const std::vector<report> one = must_know(other, core::kReportWorker, name);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].body, R"({"n":2})");
  EXPECT_GT(one[0].time, 1'600'000'000'000);
  EXPECT_GE(must_know(other, core::kReportWorker, "").size(), 2u);
  must_make_known(s, {core::kReportWorker, name, "{}", "", 0, std::chrono::milliseconds(0)});
  EXPECT_TRUE(must_know(other, core::kReportWorker, name).empty());
}

TEST_P(conformance, a_jobs_progress_is_known_or_reaches_its_sender) {
  side s(broker());
  const std::string reply = s.must_make_reply();
  const report half{core::kReportProgress, "message/7", R"({"progress":0.5})", reply, 0, std::chrono::minutes(1)};
  if (s.transport().what_it_can().fetch) {
    must_make_known(s, half);
    const std::vector<report> found = must_know(s, core::kReportProgress, "message/7");
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].body, half.body);
    return;
  }
  result_reader results(s, reply);
  must_make_known(s, half);
  const std::vector<result_chunk> chunks = results.wait(1);
  EXPECT_EQ(chunks[0].id, "message/7");
  EXPECT_EQ(chunks[0].first_line, 0u);
  EXPECT_EQ(chunks[0].data, half.body + "\n");
}

}  // namespace
}  // namespace leveret::conformance
