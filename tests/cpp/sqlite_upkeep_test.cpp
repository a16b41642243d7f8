// Looking at, copying and saving a database file: examine, back_up, recover.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "claim.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/puppet.hpp"
#include "cpp/support/session.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/pages.hpp"
#include "transports/sqlite/schema.hpp"
#include "transports/sqlite/upkeep.hpp"

namespace leveret::core {
namespace {

using test::folder;
using test::make_message;
using test::puppet;
using test::session;
using test::subscription;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMessages = 60;
#else
constexpr int kMessages = 300;
#endif
constexpr std::size_t kPage = sqlite::kPageSize;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

template <class F>
std::string error_of(F what) {
  try {
    what();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

std::string body_of_message(int i) {
  const auto size = static_cast<std::size_t>(i % 25 == 0 ? 40'000 : 900 + i);
  return "message " + std::to_string(i) + " " + std::string(size, static_cast<char>('a' + i % 26)) + "\n";
}

/// A file with messages in every state, dead jobs, results, a cancelled job; all of it in the file itself.
struct sample {
  explicit sample(bool keep_log = false) {
    {
      session s(f.url());
      s.declare("q");
      s.declare("other");
      std::vector<message> all;
      for (int i = 0; i < kMessages; ++i) {
        all.push_back(make_message(i % 5 == 0 ? "other" : "q", body_of_message(i), "m" + std::to_string(i)));
        if (i % 10 == 3) all.back().due = s.loop().wall() + 3'600'000;
        bodies["m" + std::to_string(i)] = body_of_message(i);
      }
      s.must_publish(std::move(all));
      window w;
      w.messages = 20;
      subscription c(s, "q", w);
      for (int i = 0; i < 20; ++i) {
        const delivery d = c.next();
        settlement end;
        end.token = d.token;
        end.dead.push_back({"q", d.msg.id, R"({"id":")" + d.msg.id + "\"}"});
        end.results.push_back({d.msg.id, "reply", 1, 1, "{\"line\":1,\"result\":1}\n"});
        if (s.settle(std::move(end)).status != settle_status::settled) throw std::runtime_error("not settled");
        bodies.erase(d.msg.id);
        ended.insert(d.msg.id);
      }
      while (s.queue("q").running != 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      // As a worker that was killed leaves it: with the messages that it held.
      copy(s);
    }
    if (!keep_log) {
      sqlite::connection db(f.file("made.db"));
      EXPECT_GT(db.integer("SELECT count(*) FROM body"), 0);
      EXPECT_TRUE(db.checkpoint());
      db.close();
      std::filesystem::remove(f.file("made.db-wal"));
    }
    std::filesystem::remove(f.file("made.db-shm"));
  }

  void copy(session& /*open*/) {
    for (const char* suffix : {"", "-wal"}) {
      std::filesystem::copy_file(f.file() + suffix, f.file("made.db") + suffix);
    }
  }

  [[nodiscard]] std::string path() const { return f.file("made.db"); }
  [[nodiscard]] std::string url() const { return f.url("made.db"); }

  folder f;
  std::map<std::string, std::string> bodies;  // of all that wait, by id
  std::set<std::string> ended;
};

/// The messages of a file, by id.
std::map<std::string, std::string> messages_of(const std::string& path) {
  std::map<std::string, std::string> out;
  sqlite::connection db(path);
  EXPECT_EQ(db.text("PRAGMA integrity_check"), "ok");
  sqlite::statement all(db, "SELECT id, data FROM body");
  for (auto r = all.query(); r.next();) out[std::string(r.text(0))] = r.blob(1);
  return out;
}

std::size_t waiting(session& s, const std::string& queue) {
  const queue_stats q = s.queue(queue);
  return q.ready + q.delayed.value_or(0) + q.running.value_or(0);
}

TEST(sqlite_upkeep, a_sound_file_is_recovered_whole_and_its_running_messages_wait) {
  const sample made;
  EXPECT_TRUE(sqlite::examine(made.path()).damage.empty());
  const std::string before = read(made.path());
  const std::string to = made.f.file("new.db");
  std::uint64_t reports = 0;
  const sqlite::recovered r = sqlite::recover(made.path(), to, [&](std::uint64_t, std::uint64_t) { ++reports; });
  EXPECT_TRUE(read(made.path()) == before);
  EXPECT_TRUE(r.damage.empty()) << r.damage.front();
  EXPECT_EQ(r.running, 20u);
  EXPECT_EQ(r.unplaced, 0u);
  EXPECT_EQ(r.dead, 20u);
  EXPECT_EQ(r.results, 20u);
  EXPECT_EQ(r.waiting + r.delayed, made.bodies.size());
  EXPECT_EQ(r.jobs, made.bodies.size());
  EXPECT_TRUE(r.lost.empty());
  EXPECT_EQ(r.lost_rows, 0u);
  EXPECT_TRUE(messages_of(to) == made.bodies);
  EXPECT_TRUE(sqlite::examine(to).damage.empty());

  session s(made.f.url("new.db"));
  EXPECT_EQ(waiting(s, "q") + waiting(s, "other"), made.bodies.size());
  EXPECT_EQ(s.queue("q").dead, 20u);
  EXPECT_EQ(s.fetch({*made.ended.begin()}).size(), 1u);
  subscription c(s, "q");
  const delivery first = c.next();
  EXPECT_EQ(first.msg.data.view(), made.bodies.at(first.msg.id));
  EXPECT_EQ(first.returns, 0) << "it was only handed out";
  EXPECT_EQ(s.settle(first).status, settle_status::settled);
  EXPECT_EQ(s.publish(make_message("q", "x\n")).status, publish_status::accepted);
}

TEST(sqlite_upkeep, what_stands_in_the_log_is_recovered_too) {
  const sample made(true);
  ASSERT_GT(std::filesystem::file_size(made.path() + "-wal"), kPage);
  const sqlite::recovered r = sqlite::recover(made.path(), made.f.file("new.db"), {});
  EXPECT_EQ(r.waiting + r.delayed, made.bodies.size());
  EXPECT_TRUE(messages_of(made.f.file("new.db")) == made.bodies);
}

/// One damaged file: what was said about it, and that nothing is missing of which nothing is said.
struct damaged_one {
  damaged_one(const sample& made, const std::string& name, const std::string& bytes, bool drain)
      : path(made.f.file(name)) {
    write(path, bytes);
    const std::string to = path + "-recovered";
    r = sqlite::recover(path, to, {});
    saved = messages_of(to);
    EXPECT_TRUE(read(path) == bytes) << "it was only read";
    std::filesystem::remove(to);
    std::string opened;
    try {
      const sqlite::file_state state = sqlite::examine(path);
      noticed = !state.damage.empty();
    } catch (const storage_failed& e) {
      opened = e.what();
      EXPECT_TRUE(has(opened, path)) << opened;
      noticed = true;
    }
    if (drain && opened.empty()) use();
    for (const char* suffix : {"", "-wal", "-shm", "-bell"}) std::filesystem::remove(path + suffix);
  }

  /// Whatever is damaged: what the transport says is an error, and nothing crashes.
  void use() {
    try {
      session s("sqlite:///" + path);
      const auto answer = s.publish(make_message("q", "x\n"));
      if (answer.status != publish_status::accepted) noticed = noticed || !answer.why.text.empty();
      static_cast<void>(s.fetch({"m1"}));
      window w;
      w.messages = 1000;
      subscription c(s, "q", w);
      std::size_t taken = 0;
      for (int round = 0; round < 3; ++round) {
        static_cast<void>(s.stats("q"));  // an answer of the thread that hands messages out
        std::vector<settlement> ends;
        for (; taken < c.delivered(); ++taken) {
          ends.emplace_back();
          ends.back().token = c.next().token;
        }
        static_cast<void>(s.settle(std::move(ends)));
      }
    } catch (const std::exception&) {
      noticed = true;
    }
  }

  std::string path;
  sqlite::recovered r;
  std::map<std::string, std::string> saved;
  bool noticed = false;
};

TEST(sqlite_upkeep, a_page_of_rubbish_anywhere_costs_what_stood_on_it) {
  const sample made;
  const std::string whole = read(made.path());
  const std::size_t pages = whole.size() / kPage;
  ASSERT_GT(pages, 20u);
  std::size_t lost = 0;
  for (std::size_t n = 0; n < pages; ++n) {
    std::string bytes = whole;
    bytes.replace(n * kPage, kPage, kPage, '\x5a');
    const damaged_one d(made, "rubbish.db", bytes, n % 4 == 0);
    EXPECT_TRUE(d.noticed || !d.r.damage.empty() || d.saved == made.bodies) << "page " << n + 1;
    std::size_t gone = 0;
    for (const auto& [id, body] : made.bodies) {
      const auto found = d.saved.find(id);
      if (found == d.saved.end()) ++gone;
    }
    for (const auto& [id, body] : d.saved) {
      EXPECT_EQ(made.ended.count(id), 0u) << "page " << n + 1 << ": " << id << " had ended";
    }
    EXPECT_TRUE(gone == 0 || d.r.lost.size() + d.r.lost_rows + d.r.unreadable_pages > 0) << "page " << n + 1;
    EXPECT_LE(gone, 120u) << "page " << n + 1 << ": no more than one page held";
    lost += gone;
  }
  // Each message stands on one page, or on eight.
  EXPECT_LT(lost, 8 * made.bodies.size());
}

TEST(sqlite_upkeep, a_backup_without_its_first_page_is_recovered_whole) {
  const sample made;
  const std::string copy = made.f.file("copy.db");
  sqlite::back_up(made.path(), copy, {});
  std::string bytes = read(copy);
  bytes.replace(0, kPage, kPage, '\x5a');
  const damaged_one d(made, "headless.db", bytes, true);
  EXPECT_TRUE(d.noticed);
  EXPECT_TRUE(d.saved == made.bodies) << d.saved.size() << " of " << made.bodies.size();
  EXPECT_EQ(d.r.dead, 20u);
}

TEST(sqlite_upkeep, keys_that_jobs_hold_are_backed_up_and_recovered) {
  const folder f;
  constexpr int kKeys = 300;  // several pages of them
  const auto claiming = [](session& s, int i, const std::string& id) {
    message m = make_message("q", "x\n", id);
    const claim c{held_until::window, s.loop().wall() + 86'400'000, m.id + "/1", "4:work:" + std::to_string(i)};
    m.headers = {{kHeaderClaim, claim_text(c)}};
    return m;
  };
  {
    session s(f.url());
    s.declare("q");
    std::vector<message> all;
    for (int i = 0; i < kKeys; ++i) all.push_back(claiming(s, i, "m" + std::to_string(i)));
    s.must_publish(std::move(all));
  }
  sqlite::back_up(f.file(), f.file("copy.db"), {});
  EXPECT_TRUE(sqlite::examine(f.file("copy.db")).damage.empty());
  (void)sqlite::recover(f.file(), f.file("recovered.db"), {});
  EXPECT_TRUE(sqlite::examine(f.file("recovered.db")).damage.empty());
  std::string headless = read(f.file("copy.db"));
  headless.replace(0, kPage, kPage, '\x5a');
  write(f.file("headless.db"), headless);
  (void)sqlite::recover(f.file("headless.db"), f.file("recovered-headless.db"), {});
  for (const char* const name : {"copy.db", "recovered.db", "recovered-headless.db"}) {
    session s(f.url(name));
    int found = 0;
    for (int i = 0; i < kKeys; ++i) {
      if (s.publish(claiming(s, i, {})).existing == "m" + std::to_string(i) + "/1") ++found;
    }
    EXPECT_EQ(found, kKeys) << name;
  }
}

TEST(sqlite_upkeep, a_flipped_bit_of_any_page_is_named_or_harms_no_other_message) {
  const sample made;
  const std::string whole = read(made.path());
  std::mt19937_64 random(7);
  std::size_t unnoticed = 0;
  const std::size_t pages = whole.size() / kPage;
  for (std::size_t n = 0; n < pages; ++n) {
    for (int again = 0; again < 2; ++again) {
      // Once in the page's head, where it hurts most: in the bytes before its first cells' pointers end.
      const std::size_t range = again == 0 ? 20 : kPage;
      const std::size_t at = n * kPage + random() % range;
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
      const damaged_one d(made, "flipped.db", bytes, (n + static_cast<std::size_t>(again)) % 2 == 0);
      for (const auto& [id, body] : d.saved) {
        EXPECT_TRUE(made.bodies.count(id) != 0 || !d.r.damage.empty() || d.noticed) << id << " by byte " << at;
      }
      if (d.noticed) continue;
      // SQLite has no checksums: a bit inside a body is the body's. Nothing may be missing.
      ++unnoticed;
      std::size_t different = 0;
      for (const auto& [id, body] : made.bodies) {
        const auto found = d.saved.find(id);
        different += found == d.saved.end() || found->second != body ? 1 : 0;
      }
      EXPECT_LE(different, 1u) << "byte " << at;
    }
  }
  std::printf("%zu pages, %zu flips noticed, %zu in content alone\n", pages, 2 * pages - unnoticed, unnoticed);
  EXPECT_GT(2 * pages - unnoticed, pages / 4);
}

TEST(sqlite_upkeep, a_truncated_file_is_refused_or_named) {
  const sample made;
  const std::string whole = read(made.path());
  for (std::size_t size = 0; size < whole.size(); size += kPage * 5 + 1234) {
    const damaged_one d(made, "short.db", whole.substr(0, size), true);
    EXPECT_TRUE(d.noticed || size == 0) << size << " of " << whole.size() << " bytes";
    for (const auto& [id, body] : d.saved) EXPECT_EQ(body, made.bodies.at(id));
  }
}

TEST(sqlite_upkeep, messages_behind_a_damaged_place_of_the_log_are_noted_and_recovered) {
  folder f;
  {
    session s(f.url());
    s.declare("q");
    for (int i = 0; i < 20; ++i) s.must_publish({make_message("q", "x\n", "m" + std::to_string(i))});
  }
  std::string log = read(f.file() + "-wal");
  // In the middle: frames of a header and a page each, behind the log's own header.
  const std::size_t frames = (log.size() - 32) / (24 + kPage);
  ASSERT_GT(frames, 40u);
  log[32 + frames / 2 * (24 + kPage) + 1000] ^= 1;
  write(f.file() + "-wal", log);
  std::filesystem::remove(f.file() + "-shm");
  const sqlite::recovered r = sqlite::recover(f.file(), f.file("new.db"), {});
  EXPECT_EQ(messages_of(f.file("new.db")).size(), 20u);
  EXPECT_TRUE(has(r.damage.at(0), "write-ahead log is damaged"));
  const sqlite::file_state state = sqlite::examine(f.file());
  EXPECT_TRUE(has(state.notes.at(0), "write-ahead log is damaged"));
}

TEST(sqlite_upkeep, a_file_in_use_and_a_name_in_use_are_refused) {
  const sample made;
  write(made.f.file("there.db"), "");
  EXPECT_TRUE(has(error_of([&] { static_cast<void>(sqlite::recover(made.path(), made.f.file("there.db"), {})); }),
                  "there is a file of that name"));
  EXPECT_TRUE(has(error_of([&] { sqlite::back_up(made.path(), made.f.file("there.db"), {}); }), "of that name"));
  EXPECT_EQ(read(made.f.file("there.db")), "");
  EXPECT_TRUE(has(error_of([&] { static_cast<void>(sqlite::recover(made.f.file("no.db"), made.f.file("x.db"), {})); }),
                  "No such file"));
  puppet user;
  user.ask("open", made.url(), "3000");
  EXPECT_TRUE(has(error_of([&] { static_cast<void>(sqlite::recover(made.path(), made.f.file("x.db"), {})); }),
                  "process " + std::to_string(user.pid()) + " is using it"));
  session s(made.f.url("mine.db"));
  EXPECT_TRUE(
      has(error_of([&] { static_cast<void>(sqlite::recover(made.f.file("mine.db"), made.f.file("x.db"), {})); }),
          "this program has it open"));
  EXPECT_FALSE(std::filesystem::exists(made.f.file("x.db")));
  EXPECT_FALSE(std::filesystem::exists(made.f.file("x.db-partial")));
}

TEST(sqlite_upkeep, a_backup_under_load_holds_all_that_was_accepted_before_it_and_nothing_twice) {
  const folder f;
  session producer(f.url());
  session worker(f.url());
  producer.declare("q");
  std::mutex mutex;
  std::set<std::string> accepted;
  std::set<std::string> settled;
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::thread sending([&] {
    for (int n = 0; !stop; ++n) {
      std::vector<message> batch;
      for (int i = 0; i < 10; ++i) {
        batch.push_back(make_message("q", std::string(500, 'x') + "\n", std::to_string(n) + "-" + std::to_string(i)));
      }
      std::vector<std::string> ids;
      for (const message& m : batch) ids.push_back(m.id);
      producer.must_publish(std::move(batch));
      const std::lock_guard lock(mutex);
      accepted.insert(ids.begin(), ids.end());
      ++rounds;
    }
  });
  std::thread working([&] {
    subscription c(worker, "q");
    while (!stop) {
      const delivery d = c.next();
      settlement end;
      end.token = d.token;
      end.results.push_back({d.msg.id, "reply", 1, 1, "{\"line\":1,\"result\":1}\n"});
      worker.settle(std::move(end));
      const std::lock_guard lock(mutex);
      settled.insert(d.msg.id);
    }
  });
  for (int copy = 0; copy < 3; ++copy) {
    const int begun = rounds;
    while (rounds < begun + 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::set<std::string> expected;
    std::set<std::string> ended;
    {
      const std::lock_guard lock(mutex);
      expected = accepted;
      ended = settled;
    }
    const std::string to = f.file("backup" + std::to_string(copy) + ".db");
    sqlite::back_up(f.file(), to, {});
    EXPECT_FALSE(std::filesystem::exists(to + "-wal"));
    EXPECT_TRUE(sqlite::examine(to).damage.empty());
    const auto saved = messages_of(to);
    session s("sqlite:///" + to);
    for (const std::string& id : expected) {
      const bool has_result = !s.fetch({id}).empty();
      EXPECT_NE(saved.count(id) != 0, has_result) << id << " waits or has ended, one of them";
      EXPECT_TRUE(has_result || ended.count(id) == 0) << id;
    }
    EXPECT_EQ(s.queue("q").ready, saved.size()) << "nobody runs anything in a copy";
    EXPECT_EQ(s.queue("q").running, 0u);
    if (!saved.empty()) {
      subscription c(s, "q");
      EXPECT_EQ(s.settle(c.next()).status, settle_status::settled);
    }
  }
  stop = true;
  sending.join();
  producer.must_publish({make_message("q", "last\n")});
  working.join();
}

}  // namespace
}  // namespace leveret::core

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
