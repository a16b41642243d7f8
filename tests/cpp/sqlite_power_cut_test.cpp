// What a power cut may leave of a file: all that SQLite wrote and synced in a run is recorded, and the file is looked
// at as it would be found after each part of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cpp/support/disk_tap.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/session.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/schema.hpp"

namespace leveret::core {
namespace {

using test::disk_after;
using test::disk_tap;
using test::folder;
using test::session;
using test::subscription;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kSteps = 40;
constexpr std::size_t kCuts = 150;
#else
constexpr std::size_t kSteps = 170;
constexpr std::size_t kCuts = 2200;
#endif
constexpr std::size_t kNever = SIZE_MAX;
constexpr std::uint64_t kSeed = 20261126;

/// What was promised of a message, and from which position of the recording on.
struct promised {
  std::string body;
  std::size_t accepted = kNever;
  std::size_t settling = kNever;  // from here on its end may be there
  std::size_t settled = kNever;   // from here on it is
  enum class end { result, dead, retry } how = end::result;
  std::string retry;  // the message published in its place
};

/// One message with its place, as found in a file.
struct found_message {
  int places = 0;
  int bodies = 0;
  int results = 0;
  int dead = 0;
  std::string body;
};

/// A run of a producer and a worker whose settles end jobs in every way, with many checkpoints in between.
class recorded_run {
 public:
  explicit recorded_run(const std::string& parameters = {}, bool lie = false) : tap_(folder_.file()), random_(kSeed) {
    ::setenv("LEVERET_CHECKPOINT_BYTES", "500000", 1);
    tap_.lie_about_syncs = lie;
    work(folder_.url() + parameters);
    ::unsetenv("LEVERET_CHECKPOINT_BYTES");
  }

  [[nodiscard]] const disk_tap& tap() const { return tap_; }
  [[nodiscard]] const std::map<std::string, promised>& promises() const { return promises_; }

 private:
  message fresh() {
    const std::string id = "m" + std::to_string(promises_.size());
    std::string body = id + std::string(1 + random_() % (random_() % 8 == 0 ? 40'000 : 2'000), '.') + "\n";
    promises_[id].body = body;
    return test::make_message("q", body, id);
  }

  void publish(session& s) {
    std::vector<message> batch;
    std::vector<std::string> ids;
    const bool later = random_() % 8 == 0;
    for (std::size_t i = 1 + random_() % 4; i > 0; --i) {
      batch.push_back(fresh());
      ids.push_back(batch.back().id);
      if (later) {
        batch.back().due = s.loop().wall() + 3'600'000;
      } else {
        ++waiting_;
      }
    }
    s.must_publish(std::move(batch));
    for (const std::string& id : ids) promises_[id].accepted = tap_.position();
  }

  void settle(session& s, const delivery& d) {
    const std::string id = d.msg.id;
    settlement end;
    end.token = d.token;
    promised& p = promises_.at(id);
    switch (random_() % 4) {
      case 0:
        end.dead.push_back({"q", id, "{\"id\":\"" + id + "\"}"});
        p.how = promised::end::dead;
        break;
      case 1:
        end.publish.push_back(fresh());
        end.publish.back().due = s.loop().wall() + 3'600'000;
        p.how = promised::end::retry;
        p.retry = end.publish.back().id;
        break;
      default:
        end.results.push_back({id, "reply", 1, 1, "{\"line\":1,\"result\":1}\n"});
        break;
    }
    p.settling = tap_.position();
    if (s.settle(std::move(end)).status != settle_status::settled) throw std::runtime_error("not settled: " + id);
    p.settled = tap_.position();
    if (!p.retry.empty()) promises_.at(p.retry).accepted = p.settled;
  }

  void work(const std::string& url) {
    session producer(url);
    session worker(url);
    producer.declare("q");
    window w;
    w.messages = 8;
    subscription c(worker, "q", w);
    std::vector<delivery> held;
    for (std::size_t step = 0; step < kSteps; ++step) {
      publish(producer);
      while (waiting_ > 0 && held.size() < 8) {
        held.push_back(c.next());
        --waiting_;
      }
      for (std::size_t i = random_() % 4; i > 0 && !held.empty(); --i) {
        const std::size_t which = random_() % held.size();
        if (random_() % 8 == 0) {
          session::must(worker.release({held[which].token}));
          ++waiting_;
        } else {
          settle(worker, held[which]);
        }
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
      }
    }
  }

  folder folder_;
  disk_tap tap_;
  std::mt19937_64 random_;
  std::map<std::string, promised> promises_;
  std::size_t waiting_ = 0;
};

/// What the database holds of every message, by tables that the transport reads.
std::map<std::string, found_message> messages_in(sqlite::connection& db) {
  std::map<std::string, found_message> out;
  sqlite::statement places(db,
                           "SELECT b.id, b.data, (SELECT count(*) FROM ready r WHERE r.msg = b.msg) + "
                           "(SELECT count(*) FROM delayed d WHERE d.msg = b.msg) + "
                           "(SELECT count(*) FROM leased l WHERE l.msg = b.msg) FROM body b");
  for (auto r = places.query(); r.next();) {
    found_message& m = out[std::string(r.text(0))];
    ++m.bodies;
    m.body = r.blob(1);
    m.places += static_cast<int>(r.integer(2));
  }
  sqlite::statement results(db, "SELECT id FROM result");
  for (auto r = results.query(); r.next();) ++out[std::string(r.text(0))].results;
  sqlite::statement dead(db, "SELECT id FROM dead");
  for (auto r = dead.query(); r.next();) ++out[std::string(r.text(0))].dead;
  return out;
}

class inspection {
 public:
  inspection(const recorded_run& run, std::size_t cut) : run_(run), cut_(cut) {}

  /// Opens the file as the transport does. Gives what is wrong with it.
  std::vector<std::string> of(const sqlite::location& at) {
    try {
      sqlite::connection db = sqlite::open_database(at, 1000);
      const std::string integrity = db.text("PRAGMA integrity_check");
      if (integrity != "ok") wrong_.push_back("integrity_check: " + integrity);
      const std::int64_t lost_rows = db.integer(
          "SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM delayed) + (SELECT count(*) FROM leased) - "
          "(SELECT count(*) FROM body)");
      if (lost_rows != 0) wrong_.push_back("places and bodies differ by " + std::to_string(lost_rows));
      compare(messages_in(db));
    } catch (const std::exception& e) {
      wrong_.emplace_back(e.what());
    }
    return wrong_;
  }

 private:
  void compare(std::map<std::string, found_message> found) {
    const std::map<std::string, found_message> all = found;
    for (const auto& [id, p] : run_.promises()) {
      const found_message m = found[id];
      found.erase(id);
      const bool waits = m.places > 0;
      const bool ended = m.results + m.dead > 0 || (!p.retry.empty() && (all.count(p.retry) != 0) && !waits);
      if (m.places > 1 || m.bodies > 1 || m.bodies != m.places) complain(id, "is there twice", m);
      if (m.results + m.dead > 1 || (m.results + m.dead == 1 && waits)) complain(id, "ended and waits, or twice", m);
      if (waits && m.body != p.body) complain(id, "has another body", m);
      if (p.settling > cut_ && m.results + m.dead > 0) complain(id, "ended before it was settled", m);
      if (p.accepted <= cut_ && p.settled > cut_ && !waits && !(p.settling <= cut_ && ended)) {
        complain(id, "is lost", m);
      }
      if (p.settled <= cut_) {
        if (waits) complain(id, "waits again", m);
        if (p.how == promised::end::result && m.results != 1) complain(id, "lost its result", m);
        if (p.how == promised::end::dead && m.dead != 1) complain(id, "lost its dead record", m);
      }
    }
    for (const auto& [id, m] : found) complain(id, "is nobody's", m);
  }
  void complain(const std::string& id, const std::string& what, const found_message& m) {
    wrong_.push_back(id + " " + what + " (places " + std::to_string(m.places) + ", bodies " + std::to_string(m.bodies) +
                     ", results " + std::to_string(m.results) + ", dead " + std::to_string(m.dead) + ")");
  }

  const recorded_run& run_;
  std::size_t cut_;
  std::vector<std::string> wrong_;
};

/// What is found wrong over all cuts.
struct verdict {
  std::size_t events = 0;
  std::size_t looked_at = 0;
  std::size_t damaged = 0;  // of them, files that are not a whole database
  std::size_t lossy = 0;    // of them, files without a message, result or record that was promised
  std::string first;        // the first complaint
};

/// A worker started after the power came back takes every message that waits, once.
void run_after(const sqlite::location& at, std::size_t cut) {
  std::set<std::string> expected;
  {
    sqlite::connection db = sqlite::open_database(at, 1000);
    db.execute("UPDATE owner SET boot = 'before the power cut'");
    sqlite::statement waiting(db, "SELECT id FROM body WHERE msg NOT IN (SELECT msg FROM delayed)");
    for (auto r = waiting.query(); r.next();) expected.insert(std::string(r.text(0)));
  }
  session s("sqlite:///" + at.path);
  if (s.stats("").empty()) return;  // cut before the queue was declared
  window w;
  w.messages = 10'000;
  subscription c(s, "q", w);
  std::set<std::string> got;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const delivery d = c.next();
    EXPECT_TRUE(got.insert(d.msg.id).second) << d.msg.id << " twice after a cut at " << cut;
    EXPECT_EQ(s.settle(d).status, settle_status::settled);
  }
  EXPECT_EQ(got, expected) << "after a cut at " << cut;
  EXPECT_EQ(s.queue("q").ready, 0u);
  EXPECT_EQ(s.queue("q").running, 0u);
}

verdict cut_everywhere(const recorded_run& run, std::size_t cuts) {
  const folder f;
  sqlite::location at;
  at.path = f.file("after.db");
  const std::vector<test::disk_event>& events = run.tap().events();
  verdict v;
  v.events = events.size();
  std::mt19937_64 random(kSeed);
  disk_after disk;
  std::size_t next = 0;
  std::size_t seen_syncs = SIZE_MAX;
  for (std::size_t cut = 0; cut <= events.size(); ++cut) {
    if (cut > 0) disk.add(events[cut - 1], cut - 1);
    const bool last = cut == events.size();
    if (cut * cuts < next * events.size() && !last) continue;
    ++next;
    for (const auto how : {disk_after::unsynced::dropped, disk_after::unsynced::kept, disk_after::unsynced::torn}) {
      // What is dropped changes by syncs alone.
      if (how == disk_after::unsynced::dropped && disk.syncs() == seen_syncs && !last) continue;
      seen_syncs = disk.syncs();
      const auto files = disk.files(how, random);
      test::put_files(at.path, files);
      try {
        sqlite::prepare_file(at);
      } catch (const std::exception& e) {
        ADD_FAILURE() << "cut at " << cut << ": " << e.what();
        continue;
      }
      const std::vector<std::string> wrong = inspection(run, cut).of(at);
      ++v.looked_at;
      if (wrong.empty()) {
        if (v.looked_at % 200 == 0) run_after(at, cut);
        continue;
      }
      const bool lossy =
          wrong.front().find(" lost") != std::string::npos || wrong.front().find(" waits again") != std::string::npos;
      ++(lossy ? v.lossy : v.damaged);
      if (v.first.empty()) {
        v.first = "cut after " + std::to_string(cut) + " of " + std::to_string(events.size()) + " events, " +
                  (how == disk_after::unsynced::dropped ? "unsynced dropped"
                   : how == disk_after::unsynced::kept  ? "all kept"
                                                        : "torn") +
                  ": " + wrong.front();
      }
    }
  }
  return v;
}

TEST(sqlite_power_cut, at_any_point_loses_nothing_that_was_accepted_or_settled) {
  const recorded_run run;
  std::size_t log_syncs = 0;
  std::size_t database_syncs = 0;
  for (const test::disk_event& e : run.tap().events()) {
    if (e.what != test::disk_event::kind::sync) continue;
    ++(e.file == test::tapped::log ? log_syncs : database_syncs);
  }
  EXPECT_GT(database_syncs, kSteps / 20) << "checkpoints were to be among it";
  const verdict v = cut_everywhere(run, kCuts);
  std::printf("%zu events (%zu syncs of the log, %zu of the file), %zu files looked at\n", v.events, log_syncs,
              database_syncs, v.looked_at);
  EXPECT_EQ(v.damaged + v.lossy, 0u) << v.first;
  EXPECT_GT(v.looked_at, 2 * std::min(kCuts, v.events));
}

// What the checks above are worth: without the syncs they find what is lost.

TEST(sqlite_power_cut, at_durability_normal_may_lose_the_latest_and_damages_nothing) {
  const recorded_run run("?durability=normal");
  const verdict v = cut_everywhere(run, kCuts / 10);
  EXPECT_GT(v.lossy, 0u);
  EXPECT_EQ(v.damaged, 0u) << v.first;
}

TEST(sqlite_power_cut, on_a_disk_that_lies_about_syncs_is_found_out) {
  const recorded_run run({}, true);
  const verdict v = cut_everywhere(run, kCuts / 10);
  EXPECT_GT(v.lossy + v.damaged, 0u);
}

}  // namespace
}  // namespace leveret::core
