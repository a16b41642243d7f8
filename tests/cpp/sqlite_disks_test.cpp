// Disks that fail, clocks that jump, files that others left: what the transport says, and that nothing it accepted is
// lost. Full disks, permissions, mounts and sidecars that are lost: sqlite_files_test. Damaged pages:
// sqlite_upkeep_test.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cpp/support/disk_tap.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/puppet.hpp"
#include "cpp/support/session.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/schema.hpp"
#include "wall_clock.hpp"

namespace leveret::core {
namespace {

using test::disk_after;
using test::disk_tap;
using test::folder;
using test::make_message;
using test::puppet;
using test::session;
using test::subscription;

constexpr std::chrono::hours kStep{1};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The ids of a file as a power cut would leave it now.
std::set<std::string> left_by_power_cut(const disk_tap& tap, const std::string& path) {
  disk_after disk;
  for (std::size_t i = 0; i < tap.events().size(); ++i) disk.add(tap.events()[i], i);
  std::mt19937_64 random(1);
  test::put_files(path, disk.files(disk_after::unsynced::dropped, random));
  sqlite::location at;
  at.path = path;
  sqlite::connection db = sqlite::open_database(at, 1000);
  EXPECT_EQ(db.text("PRAGMA integrity_check"), "ok");
  std::set<std::string> out;
  sqlite::statement ids(db, "SELECT id FROM body");
  for (auto r = ids.query(); r.next();) out.insert(std::string(r.text(0)));
  return out;
}

/// Publishes one by one until `want` were accepted; notes those whose outcome is said to be unknown or refused.
struct sending {
  std::set<std::string> accepted;
  std::vector<std::string> others;
  std::vector<std::string> why;
  int next = 0;

  void send(session& s, std::size_t want, std::size_t size = 200) {
    while (accepted.size() < want) {
      const std::string id = "m" + std::to_string(next++);
      const publish_outcome o = s.publish(make_message("q", std::string(size, 'x') + "\n", id));
      if (o.status == publish_status::accepted) {
        accepted.insert(id);
      } else {
        others.push_back(id);
        why.push_back(o.why.text);
      }
    }
  }
};

void expect_all_there(const std::set<std::string>& accepted, const std::set<std::string>& found) {
  std::size_t missing = 0;
  for (const std::string& id : accepted) missing += 1 - found.count(id);
  EXPECT_EQ(missing, 0u) << "of " << accepted.size();
}

TEST(sqlite_disks, after_a_failed_fsync_nothing_is_accepted_that_a_power_cut_could_take) {
  const folder f;
  disk_tap tap(f.file());
  sending all;
  {
    session s(f.url());
    s.declare("q");
    all.send(s, 5);
    // Claims are committed without a sync: the log's end is not on the disk when the next sync fails.
    window w;
    w.messages = 3;
    subscription c(s, "q", w);
    c.next(3);
    tap.failing_log_syncs = 1;
    const publish_outcome o = s.publish(make_message("q", "x\n", "unknown"));
    EXPECT_EQ(o.status, publish_status::unknown);
    EXPECT_TRUE(has(o.why.text, f.file() + " failed")) << o.why.text;
    all.send(s, 10);
    EXPECT_TRUE(all.others.empty()) << all.why.front();
    EXPECT_EQ(s.transport().how_it_is().state, health_state::connected);
  }
  expect_all_there(all.accepted, left_by_power_cut(tap, f.file("after.db")));
}

TEST(sqlite_disks, while_every_fsync_fails_nothing_is_accepted_and_it_goes_on_when_they_work) {
  const folder f;
  disk_tap tap(f.file());
  sending all;
  {
    session s(f.url());
    s.declare("q");
    all.send(s, 3);
    tap.failing_log_syncs = -1;
    for (int i = 0; i < 3; ++i) {
      EXPECT_NE(s.publish(make_message("q", "x\n")).status, publish_status::accepted);
    }
    EXPECT_EQ(s.transport().how_it_is().state, health_state::blocked);
    tap.failing_log_syncs = 0;
    all.send(s, 6);
  }
  expect_all_there(all.accepted, left_by_power_cut(tap, f.file("after.db")));
}

TEST(sqlite_disks, a_failed_write_of_the_log_refuses_what_it_carried_alone) {
  const folder f;
  disk_tap tap(f.file());
  sending all;
  {
    session s(f.url());
    s.declare("q");
    all.send(s, 3);
    for (int i = 0; i < 4; ++i) {
      tap.failing_log_writes = 1;
      all.send(s, all.accepted.size() + 3);
    }
    EXPECT_EQ(all.others.size(), 4u);
    EXPECT_TRUE(has(all.why.front(), "look at its disk")) << all.why.front();
    EXPECT_EQ(s.queue("q").ready, all.accepted.size());
  }
  expect_all_there(all.accepted, left_by_power_cut(tap, f.file("after.db")));
}

TEST(sqlite_disks, checkpoints_that_fail_lose_nothing) {
  ::setenv("LEVERET_CHECKPOINT_BYTES", "300000", 1);
  const folder f;
  disk_tap tap(f.file());
  sending all;
  {
    session s(f.url());
    s.declare("q");
    all.send(s, 50, 5000);
    tap.failing_database_writes = 3;
    all.send(s, 100, 5000);
    tap.failing_database_syncs = 3;
    EXPECT_TRUE(all.others.empty()) << all.why.front();
    all.send(s, 150, 5000);
    EXPECT_LE(all.others.size(), 3u) << "refused while it was to be made sure of what was written before";
    EXPECT_EQ(tap.failing_database_writes, 0);
    EXPECT_EQ(tap.failing_database_syncs, 0);
  }
  ::unsetenv("LEVERET_CHECKPOINT_BYTES");
  expect_all_there(all.accepted, left_by_power_cut(tap, f.file("after.db")));
}

TEST(sqlite_disks, a_read_only_disk_is_refused_until_it_can_be_written) {
  const folder f;
  puppet p;
  p.ask("own_mounts");
  p.ask("tmpfs", f.path(), "8388608");
  p.ask("open", f.url(), "30000");
  p.ask("declare", "q");
  EXPECT_EQ(p.ask("publish_id", "q", "a"), "accepted");
  p.ask("end");
  p.ask("remount", f.path(), "read-only");
  std::string why;
  try {
    p.ask("open", f.url(), "30000");
  } catch (const std::runtime_error& e) {
    why = e.what();
  }
  EXPECT_TRUE(has(why, "cannot be written (Read-only file system)")) << why;
  p.ask("remount", f.path(), "writable");
  p.ask("open", f.url(), "30000");
  p.ask("subscribe", "q", "1");
  EXPECT_EQ(p.ask("take", "1"), "a");
  EXPECT_EQ(p.ask("settle", "-"), "settled");
}

/// The wall clock at a time of the test's.
class stepped_clock {
 public:
  stepped_clock() : begun_(wall_clock_now()) { step(std::chrono::milliseconds(0)); }
  ~stepped_clock() { stopped_wall_clock() = 0; }
  stepped_clock(const stepped_clock&) = delete;
  stepped_clock& operator=(const stepped_clock&) = delete;
  void step(std::chrono::milliseconds by) { stopped_wall_clock() = begun_ + by.count(); }
  [[nodiscard]] unix_ms now() const { return stopped_wall_clock(); }

 private:
  unix_ms begun_;
};

TEST(sqlite_disks, an_hour_forward_ends_no_lease_and_brings_what_is_due) {
  const folder f;
  stepped_clock clock;
  session a(f.url());
  session b(f.url());
  a.declare("q");
  a.must_publish({make_message("q", "held\n", "held")});
  window one;
  one.messages = 1;
  subscription holder(a, "q", one);
  const delivery held = holder.next();
  message later = make_message("q", "later\n", "later");
  later.due = clock.now() + std::chrono::milliseconds(kStep).count() - 1000;
  message latest = make_message("q", "latest\n", "latest");
  latest.due = later.due + 60'000;
  a.must_publish({later, latest});
  subscription other(b, "q");
  clock.step(kStep);
  EXPECT_EQ(other.next().msg.id, "later");
  a.must_publish({make_message("q", "new\n", "new")});
  EXPECT_EQ(other.next().msg.id, "new") << "and not what the other one holds";
  EXPECT_EQ(other.delivered(), 2u);
  EXPECT_EQ(a.settle(held).status, settle_status::settled);
}

TEST(sqlite_disks, an_hour_back_holds_no_job_up_that_waits_and_keeps_results) {
  const folder f;
  stepped_clock clock;
  limits lim;
  lim.result_ttl = std::chrono::seconds(600);
  session s(f.url(), lim);
  s.declare("q");
  s.must_publish({make_message("q", "a\n", "a")});
  message later = make_message("q", "later\n", "later");
  later.due = clock.now() + 1000;
  s.must_publish({later});
  clock.step(-kStep);
  s.must_publish({make_message("q", "b\n", "b")});
  subscription c(s, "q");
  const std::vector<delivery> got = c.next(2);
  EXPECT_EQ(got[0].msg.id, "a");
  EXPECT_EQ(got[1].msg.id, "b");
  settlement end;
  end.token = got[0].token;
  end.results.push_back({"a", "reply", 1, 1, "{\"line\":1,\"result\":1}\n"});
  EXPECT_EQ(s.settle(std::move(end)).status, settle_status::settled);
  EXPECT_EQ(s.queue("q").delayed, 1u) << "due an hour and a second from this clock's now";
  clock.step(std::chrono::seconds(2));
  EXPECT_EQ(c.next().msg.id, "later");
  EXPECT_EQ(s.fetch({"a"}).size(), 1u);
}

TEST(sqlite_disks, a_sidecar_of_another_time_is_taken_and_its_owners_are_dead) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
    s.must_publish({make_message("q", "x\n", "a")});
  }
  std::filesystem::copy_file(f.file() + "-bell", f.file("old-bell"));
  {
    // Somebody holds the message and is killed; the sidecar that knows of it is lost with a restored folder.
    puppet p;
    p.ask("open", f.url(), "1000");
    p.ask("subscribe", "q", "1");
    EXPECT_EQ(p.ask("take", "1"), "a");
    p.signal(SIGKILL);
    EXPECT_EQ(p.wait_ended(), SIGKILL);
  }
  std::filesystem::rename(f.file("old-bell"), f.file() + "-bell");
  session s(f.url());
  subscription c(s, "q");
  const delivery d = c.next();
  EXPECT_EQ(d.msg.id, "a");
  EXPECT_EQ(d.returns, 1);
  EXPECT_EQ(s.settle(d).status, settle_status::settled);
}

}  // namespace
}  // namespace leveret::core

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
