// Which files the SQLite transport takes, and what it does when one fails under it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "cpp/support/folder.hpp"
#include "cpp/support/puppet.hpp"
#include "cpp/support/session.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/location.hpp"

namespace leveret::core {
namespace {

using test::body_of;
using test::folder;
using test::make_message;
using test::make_messages;
using test::puppet;
using test::session;
using test::subscription;

template <class Error>
std::string refusal(const std::string& url) {
  try {
    session s(url);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

std::string refusal_in(puppet& p, const std::string& url) {
  try {
    p.ask("open", url, "30000");
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "accepted";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// An empty SQLite database of one page, by the file format's page: as another program may have made it.
std::string empty_database(std::uint32_t application, std::uint32_t version) {
  std::string page(512, '\0');
  const auto put = [&page](std::size_t at, std::uint32_t value) {
    for (unsigned i = 0; i < 4; ++i) page[at + i] = static_cast<char>((value >> (24 - 8 * i)) & 0xffu);
  };
  page.replace(0, 15, "SQLite format 3");
  page[16] = 2;  // page size 512
  page[18] = page[19] = 1;
  page[21] = 64;
  page[22] = page[23] = 32;
  put(24, 1);
  put(28, 1);
  put(44, 4);
  put(56, 1);
  put(60, version);
  put(68, application);
  put(92, 1);
  put(96, 3040001);
  page[100] = 0x0d;
  page[105] = 2;  // content starts at 512
  return page;
}

TEST(sqlite_files, urls_name_relative_absolute_and_escaped_paths) {
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(sqlite::parse_url("sqlite:///jobs.db").path, here + "/jobs.db");
  EXPECT_EQ(sqlite::parse_url("sqlite:////var/jobs.db").path, "/var/jobs.db");
  EXPECT_EQ(sqlite::parse_url("sqlite:////a%20b/%25%23%3F.db").path, "/a b/%#?.db");
  EXPECT_EQ(sqlite::parse_url("sqlite:////x?durability=normal").how, sqlite::durability::normal);
  EXPECT_EQ(sqlite::parse_url("sqlite:////x?durability=full").how, sqlite::durability::full);
  for (const char* bad : {"sqlite://", "sqlite:///", "sqlite:////", "sqlite://host/x.db", "sqlite:x.db",
                          "sqlite:///x%2", "sqlite:///x%00y", "sqlite:///x#y", "sqlite:///x?timeout=1",
                          "sqlite:///x?durability=off", "sqlite:///:memory:"}) {
    EXPECT_THROW((void)sqlite::parse_url(bad), std::invalid_argument) << bad;
  }
  EXPECT_TRUE(has(refusal<std::invalid_argument>("sqlite:///x?timeout=1"), "known: durability"));
}

TEST(sqlite_files, odd_names_and_symbolic_links_lead_to_one_file) {
  const folder f;
  const std::string url = "sqlite:///" + f.path() + "/a%20b%25%3f.db";
  session s(url);
  s.declare("q");
  EXPECT_EQ(s.transport().where(), f.path() + "/a b%?.db");
  std::filesystem::create_symlink("a b%?.db", f.file("link.db"));
  session by_link(f.url("link.db"));
  EXPECT_EQ(by_link.transport().where(), f.path() + "/a b%?.db");
  EXPECT_EQ(by_link.queue("q").ready, 0u);
  std::filesystem::create_symlink("nothing", f.file("dangling.db"));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("dangling.db")), "symbolic link to nothing"));
}

TEST(sqlite_files, what_is_no_database_of_ours_is_refused_and_left_alone) {
  const folder f;
  std::filesystem::create_directory(f.file("folder.db"));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("folder.db")), "it is a folder"));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("no/such/jobs.db")), "does not exist; make it first"));
  write(f.file("plain"), "x");
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("plain/jobs.db")), "is not a folder") ||
              has(refusal<storage_failed>(f.url("plain/jobs.db")), "cannot be entered"));
  EXPECT_TRUE(has(refusal<storage_failed>("sqlite:////dev/null"), "not an ordinary file"));

  const std::string text(8192, 'j');
  write(f.file("text.db"), text);
  const std::string damaged = refusal<storage_failed>(f.url("text.db"));
  EXPECT_TRUE(has(damaged, f.file("text.db")) && has(damaged, "damaged or not a SQLite database")) << damaged;
  EXPECT_EQ(read(f.file("text.db")), text);

  write(f.file("other.db"), empty_database(0x12345678, 1));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("other.db")), "another program"));
  EXPECT_EQ(read(f.file("other.db")), empty_database(0x12345678, 1));
  write(f.file("unmarked.db"), empty_database(0, 3));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("unmarked.db")), "another program"));
  write(f.file("newer.db"), empty_database(0x4c767274, 99));
  EXPECT_TRUE(has(refusal<storage_failed>(f.url("newer.db")), "newer Leveret (schema 99"));
  write(f.file("fresh.db"), empty_database(0, 0));
  EXPECT_EQ(refusal<storage_failed>(f.url("fresh.db")), "accepted") << "empty: nobody's";
}

TEST(sqlite_files, a_file_of_an_older_schema_is_brought_up_to_date_with_its_messages) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
    s.publish(make_messages("q", 3));
  }
  const char* const older[] = {
      "DROP TABLE once; DROP TABLE cancelled; DROP TABLE report; PRAGMA user_version = 1",
      "DROP TABLE once; ALTER TABLE cancelled DROP COLUMN terminate; PRAGMA user_version = 2",
      "DROP TABLE once; PRAGMA user_version = 3",
  };
  for (const char* const make_old : older) {
    sqlite::connection(f.file("jobs.db")).execute(make_old);
    session s(f.url());
    EXPECT_EQ(s.queue("q").ready, 3u);
    sqlite::connection db(f.file("jobs.db"));
    EXPECT_EQ(db.integer("PRAGMA user_version"), 4);
    EXPECT_EQ(db.integer("SELECT count(terminate) FROM cancelled"), 0);
    EXPECT_EQ(db.integer("SELECT count(value) FROM once"), 0);
  }
}

TEST(sqlite_files, without_write_permission_it_says_so) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
  }
  std::filesystem::permissions(f.path(), std::filesystem::perms(0755));
  puppet p;
  p.ask("drop_to", "65534");
  if (::geteuid() != 0) std::filesystem::permissions(f.file(), std::filesystem::perms(0400));
  EXPECT_TRUE(has(refusal_in(p, f.url()), "cannot be written"));
  std::filesystem::permissions(f.file(), std::filesystem::perms(0666));
  std::filesystem::permissions(f.path(), std::filesystem::perms(0555));
  EXPECT_TRUE(has(refusal_in(p, f.url()), "its folder cannot be written"));
  EXPECT_TRUE(has(refusal_in(p, f.url("new.db")), "cannot be made there"));
  std::filesystem::permissions(f.path(), std::filesystem::perms(0700));
}

TEST(sqlite_files, network_file_systems_are_known) {
  for (const std::uint64_t type : {0x6969ull, 0xff534d42ull, 0xfe534d42ull, 0x01021997ull, 0x6a656a63ull}) {
    EXPECT_NE(sqlite::refused_file_system(type), nullptr) << std::hex << type;
  }
  for (const std::uint64_t type : {0xef53ull, 0x01021994ull, 0x9123683eull, 0x58465342ull, 0x794c7630ull}) {
    EXPECT_EQ(sqlite::refused_file_system(type), nullptr) << std::hex << type;
  }
}

TEST(sqlite_files, a_file_that_is_itself_a_mount_is_refused) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
  }
  puppet p;
  p.ask("own_mounts");
  p.ask("bind", f.file());
  const std::string why = refusal_in(p, f.url());
  EXPECT_TRUE(has(why, "the file itself is a mount") && has(why, "mount the folder")) << why;
}

TEST(sqlite_files, a_full_disk_refuses_messages_takes_settles_and_recovers) {
  const folder f;
  puppet p;
  p.ask("own_mounts");
  p.ask("tmpfs", f.path(), "8388608");
  p.ask("fill", f.file("ballast"), "3000000");
  p.ask("open", f.url(), "30000");
  p.ask("declare", "q");
  EXPECT_EQ(p.ask("publish", "q", "3", "0"), "accepted accepted accepted");
  p.ask("subscribe", "q", "3");
  p.ask("take", "3");
  p.ask("declare", "full");
  const std::string full = p.ask("publish_until_refused", "full", "60000");
  EXPECT_TRUE(has(full, "the disk of " + f.file() + " is full")) << full;
  p.ask("publish_until_refused", "full", "1");  // a small one may still have fitted
  EXPECT_TRUE(has(p.ask("publish_id", "full", "again"), "refused: ")) << "it lives on";
  p.ask("remove", f.file("ballast"));
  EXPECT_EQ(p.ask("publish_id", "full", "again"), "accepted");
  EXPECT_EQ(p.ask("settle", "-"), "settled settled settled");
}

TEST(sqlite_files, a_settle_that_fits_is_done_when_the_messages_beside_it_do_not) {
  const folder f;
  puppet p("round:PAUSE");  // so that one transaction tries both
  p.ask("own_mounts");
  p.ask("tmpfs", f.path(), "4194304");
  p.ask("open", f.url(), "30000");
  p.ask("declare", "q");
  p.ask("publish", "q", "3", "0");
  p.ask("subscribe", "q", "3");
  p.ask("take", "3");
  EXPECT_EQ(p.ask("publish_and_settle", "q", "7", "1000000"), "refused settled settled settled");
}

TEST(sqlite_files, a_file_removed_or_replaced_while_open_takes_nothing_more) {
  const folder f;
  session s(f.url());
  s.declare("q");
  std::filesystem::rename(f.file(), f.file("moved.db"));
  publish_outcome o = s.publish(make_message("q", "x\n"));
  EXPECT_EQ(o.status, publish_status::refused);
  EXPECT_TRUE(has(o.why.text, "removed or replaced")) << o.why.text;
  write(f.file(), "");
  o = s.publish(make_message("q", "x\n"));
  EXPECT_EQ(o.status, publish_status::refused);
  std::filesystem::rename(f.file("moved.db"), f.file());
  EXPECT_EQ(s.publish(make_message("q", "x\n")).status, publish_status::accepted);
}

TEST(sqlite_files, a_damaged_file_is_named_and_the_transport_lives_on) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
    for (int i = 0; i < 30; ++i) s.must_publish({make_message("q", std::string(64 << 10, 'x'))});
    for (int i = 0; i < 300; ++i) s.must_publish({make_message("q", std::string(64 << 10, 'x'))});
  }
  // Everything behind the first pages, in the file and in the log.
  for (const std::string& path : {f.file(), f.file() + "-wal"}) {
    std::string bytes = read(path);
    if (bytes.size() <= 262144) continue;
    if (path == f.file()) bytes.replace(131072, bytes.size() - 131072, bytes.size() - 131072, '\x5a');
    if (path != f.file()) bytes.resize(0);
    write(path, bytes);
  }
  session s(f.url());
  subscription c(s, "q");
  std::string why;
  for (int i = 0; i < 200 && why.empty(); ++i) {
    const publish_outcome o = s.publish(make_message("q", std::string(64 << 10, 'x')));
    if (o.status != publish_status::accepted) why = o.why.text;
  }
  EXPECT_TRUE(has(why, f.file()) && has(why, "damaged")) << why;
  EXPECT_EQ(s.transport().how_it_is().state, health_state::failed);
  EXPECT_TRUE(std::filesystem::exists(f.file()));
}

// Anybody who may write the file may write any number, and whatever a schema can say.
TEST(sqlite_files, senseless_numbers_in_a_file_harm_nobody) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
    s.must_publish({make_message("q", "a\n", "m1"), make_message("q", "b\n", "m2")});
  }
  {
    sqlite::connection db(f.file());
    db.execute(
        "UPDATE ready SET jobs = 9223372036854775807, bytes = -9223372036854775807, returns = 9223372036854775807;"
        "UPDATE body SET jobs = -1;"
        "UPDATE state SET result_bytes = 9223372036854775807");
  }
  session s(f.url());
  window w;
  w.messages = 2;
  subscription c(s, "q", w);
  for (const char* id : {"m1", "m2"}) {
    const delivery d = c.next();
    EXPECT_EQ(d.msg.id, id);
    EXPECT_EQ(d.returns, INT32_MAX);
    settlement end;
    end.token = d.token;
    end.results.push_back({d.msg.id, "reply", 1, 1, "{\"line\":1,\"result\":1}\n"});
    EXPECT_EQ(s.settle(std::move(end)).status, settle_status::settled);
  }
}

TEST(sqlite_files, a_trigger_that_somebody_put_into_a_file_is_not_run) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
  }
  {
    sqlite::connection db(f.file());
    db.execute("CREATE TRIGGER steal AFTER INSERT ON body BEGIN DELETE FROM body; DELETE FROM ready; END");
  }
  session s(f.url());
  s.must_publish({make_message("q", "a\n", "m1"), make_message("q", "b\n", "m2")});
  EXPECT_EQ(s.queue("q").ready, 2u);
  subscription c(s, "q", {});
  EXPECT_EQ(c.next().msg.id, "m1");
}

TEST(sqlite_files, a_counter_at_its_end_is_damage) {
  const folder f;
  {
    session s(f.url());
    s.declare("q");
  }
  {
    sqlite::connection db(f.file());
    db.execute("UPDATE state SET seq = 9223372036854775807");
  }
  session s(f.url());
  const publish_outcome answer = s.publish(make_message("q", "a\n", "m1"));
  EXPECT_EQ(answer.status, publish_status::refused);
  EXPECT_TRUE(has(answer.why.text, "is damaged")) << answer.why.text;
}

TEST(sqlite_files, a_lost_sidecar_is_made_again_and_nobody_is_taken_for_dead) {
  const folder f;
  session a(f.url());
  session b(f.url());
  a.declare("q");
  a.must_publish(make_messages("q", 1));
  window one;
  one.messages = 1;
  subscription holder(a, "q", one);
  const delivery held = holder.next();
  std::filesystem::remove(f.file() + "-bell");
  subscription other(b, "q");
  for (int i = 0; !std::filesystem::exists(f.file() + "-bell"); ++i) {
    ASSERT_LT(i, 6000);
    ::usleep(10'000);
  }
  write(f.file("other-bell"), "not a sidecar");
  std::filesystem::rename(f.file("other-bell"), f.file() + "-bell");
  std::error_code none_there;
  for (int i = 0; std::filesystem::file_size(f.file() + "-bell", none_there) < 4096 || none_there; ++i) {
    ASSERT_LT(i, 6000);
    ::usleep(10'000);
  }
  puppet p;
  p.ask("open", f.url(), "30000");
  p.ask("publish_id", "q", "rung");
  EXPECT_EQ(other.next().msg.id, "rung");
  EXPECT_EQ(a.settle(held).status, settle_status::settled);
  EXPECT_EQ(other.delivered(), 1u);
}

}  // namespace
}  // namespace leveret::core

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
