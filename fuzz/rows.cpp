/// libFuzzer's target for the rows of a SQLite file: what Leveret makes of a file that anybody may have written.
///
///     fuzz/run.py --seconds 60 rows
///
/// The input says which rows the tables hold: a byte for the table, then a value for each column (see `value`). The
/// file's schema is Leveret's own without its constraints, since a file can say what it likes: any column may hold a
/// value of any type. Everything that the transport reads is read; SQLite itself is the system's, and no target.
#include <stdlib.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "codec.hpp"
#include "redelivery.hpp"
#include "transports/sqlite/bell.hpp"
#include "transports/sqlite/database.hpp"
#include "transports/sqlite/store.hpp"

namespace {

using namespace leveret::core;
using namespace leveret::core::sqlite;

constexpr unix_ms kNow = 1'767'225'600'000;
constexpr std::size_t kMostRows = 64;

struct table {
  const char* name;
  int columns;
};
constexpr table kTables[] = {
    {"state", 3}, {"ready", 6}, {"delayed", 5},  {"leased", 8},    {"body", 9},   {"result", 7},
    {"dead", 4},  {"owner", 8}, {"consumer", 3}, {"cancelled", 4}, {"report", 5}, {"queue", 7},
};

/// Takes an input to pieces.
class reader {
 public:
  reader(const unsigned char* data, std::size_t size) : at_(data), end_(data + size) {}
  [[nodiscard]] bool empty() const { return at_ == end_; }
  unsigned byte() { return empty() ? 0 : *at_++; }
  std::string hex(std::size_t size) {
    constexpr const char* kDigits = "0123456789abcdef";
    std::string out;
    for (; size > 0 && !empty(); --size) {
      const unsigned b = byte();
      out += {kDigits[b >> 4], kDigits[b & 15]};
    }
    return out;
  }

 private:
  const unsigned char* at_;
  const unsigned char* end_;
};

/// One value as SQL: a byte for its kind, and what that takes.
std::string value(reader& from) {
  switch (const unsigned kind = from.byte(); kind % 8) {
    case 0:
      return "NULL";
    case 1: {  // an integer of eight bytes
      std::uint64_t bits = 0;
      for (int i = 0; i < 8; ++i) bits = bits << 8 | from.byte();
      if (bits == 1ull << 63) return "(-9223372036854775807 - 1)";
      return std::to_string(static_cast<std::int64_t>(bits));
    }
    case 2:
      return "CAST(x'" + from.hex(from.byte()) + "' AS TEXT)";
    case 3:
      return "x'" + from.hex(from.byte()) + "'";
    case 4:
      return "1.5e" + std::to_string(from.byte());
    case 5:
      return "zeroblob(" + std::to_string(from.byte() * 64) + ")";
    case 6:  // what belongs together
      return kind < 128 ? "'m'" : "'r'";
    default:
      return std::to_string(kind / 8);
  }
}

void check(bool holds) {
  if (!holds) std::abort();
}

/// A file with a schema that allows everything, open twice: for the store, and to write rows by hand.
struct file {
  std::string folder;
  location at;
  std::unique_ptr<seat> here;
  std::unique_ptr<store> looked_at;
  connection by_hand;
  owner_key owner = 0;
  queue_key queue = 0;

  file() {
    char name[] = "/dev/shm/leveret-rows-XXXXXX";
    check(::mkdtemp(name) != nullptr);
    folder = name;
    at.path = folder + "/fuzz.db";
    at.how = durability::normal;
    prepare_file(at);
    store_options options;
    options.seed = 1;
    {
      store made(at, options);
      check(made.begin(false));
      queue = made.declare("q");
      made.commit();
      made.close();
    }
    by_hand = connection(at.path);
    by_hand.execute("PRAGMA synchronous = OFF; PRAGMA writable_schema = ON");
    by_hand.execute(
        "UPDATE sqlite_schema SET sql = replace(replace(replace(sql, 'STRICT, ', ''), 'STRICT', ''), ' NOT NULL', '')");
    by_hand.close();
    by_hand = connection(at.path);
    by_hand.execute("PRAGMA synchronous = OFF");
    by_hand.busy_timeout(10'000);
    here = std::make_unique<seat>(at.path);
    looked_at = std::make_unique<store>(at, options);
    owner = 1;
  }
  ~file() {
    looked_at->close();
    by_hand.close();
    here.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  /// False: the rows contradict the keys of their tables.
  bool fill(const unsigned char* data, std::size_t size) {
    std::string sql = "BEGIN IMMEDIATE;";
    for (const table& t : kTables) sql += std::string("DELETE FROM ") + t.name + ";";
    reader from(data, size);
    for (std::size_t i = 0; i < kMostRows && !from.empty(); ++i) {
      const table& t = kTables[from.byte() % std::size(kTables)];
      sql += std::string("INSERT OR REPLACE INTO ") + t.name + " VALUES(";
      for (int c = 0; c < t.columns; ++c) sql += (c > 0 ? "," : "") + value(from);
      sql += ");";
    }
    // What every look begins with.
    sql += "INSERT OR IGNORE INTO state VALUES(1, 1000, 0);";
    sql += "INSERT OR REPLACE INTO queue VALUES(" + std::to_string(queue) + ", 'q', 1, 1, 1, 1, 1);COMMIT";
    try {
      by_hand.execute(sql.c_str());
      return true;
    } catch (const database_error&) {
      if (by_hand.in_transaction()) by_hand.execute("ROLLBACK");
      return false;
    }
  }

  /// One transaction that is given up; what the file makes impossible is said by an exception, and by nothing else.
  template <class F>
  void look(F what) {
    try {
      check(looked_at->begin(false));
      what(*looked_at);
    } catch (const database_error& e) {
      check(std::strlen(e.what()) > 0);
    }
    looked_at->rollback();
  }
};

void use_messages(const std::vector<message>& messages) {
  static line_codec codec;
  for (const message& m : messages) {
    delivery d;
    d.msg = m;
    d.returns = INT32_MAX;
    check(crashes_of(d) >= 0);
    (void)on_return(d, true, true, 3);
    const std::vector<std::uint32_t> offsets = split_lines(m.data.view());
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      decoded_job job;
      refused_line why;
      (void)codec.decode(m.data.view().substr(offsets[i], offsets[i + 1] - 1 - offsets[i]), job, why);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static file f;
  if (!f.fill(data, size)) return 0;
  f.look([](store& s) {
    bool more = false;
    const auto leases = s.claim(f.owner, f.queue, 20, 1u << 20, true, more);
    check(leases.size() <= 20);
    for (const lease& l : leases) check(l.bytes >= 0 && l.jobs >= 0 && l.returns >= 0 && l.returns <= INT32_MAX);
    use_messages(s.read_bodies(leases));
    for (const lease& l : leases) {
      check(s.holds(f.owner, l));
      (void)s.give_back(f.owner, l, true);
    }
    s.commit();
  });
  f.look([](store& s) {
    s.move_due(kNow, 20);
    (void)s.first_due();
    (void)s.has_ready(f.queue);
  });
  for (const message_state state : {message_state::ready, message_state::delayed, message_state::running}) {
    for (const char* id : {"", "m"}) {
      f.look([&](store& s) {
        browse_query q;
        q.queue = "q";
        q.state = state;
        q.id = id;
        q.limit = 10;
        const message_page page = s.browse(q, f.queue, {}, kNow, 1u << 20);
        for (const browsed_message& m : page.entries) use_messages({m.msg});
      });
    }
  }
  f.look([](store& s) {
    std::int64_t cursor = 0;
    check(s.results_for("r", cursor, 10, 1u << 20).size() <= 10);
    (void)s.results_of("m");
    (void)s.results_to_trim(kNow);
    (void)s.trim_results(kNow, 10);
    s.add_result({"m", "r", 1, 1, "{\"line\":1,\"result\":1}\n"}, kNow);
    s.commit();
  });
  f.look([](store& s) {
    check(s.dead_page(f.queue, "q", 0, 10).entries.size() <= 10);
    revise_state walk;
    walk.queue = f.queue;
    bool goes_on = true;
    for (int i = 0; i < 10 && goes_on; ++i) {
      goes_on = s.revise_step(
          walk, "q",
          [](const browse_entry& e) {
            dead_fate fate;
            fate.stays = e.record.size() % 2 == 0;
            if (fate.stays) return fate;
            message m;
            m.id = "replayed";
            m.queue = "q";
            m.data = body(std::string_view(e.record));
            fate.publish = m;
            return fate;
          },
          kNow);
    }
    s.commit();
  });
  f.look([](store& s) {
    (void)s.cancel({"m/1", "m", 1, "{}\n", true}, kNow);
    std::int64_t cursor = 0;
    check(s.cancelled_after(cursor, 10).size() <= 10);
    s.set_report({kReportWorker, "w", "{}", {}, kNow, std::chrono::milliseconds(1)}, kNow);
    (void)s.reports(kReportWorker, {}, 0);
    (void)s.reports(kReportProgress, "m", 0);
    s.trim_control(kNow);
    s.commit();
  });
  f.look([](store& s) {
    for (const owner_row& o : s.owners()) {
      std::uint32_t beats = 0;
      (void)f.here->judge(o.seat, beats);
    }
    (void)s.stats("q", *f.here);
    (void)s.stats({}, *f.here);
    (void)s.remove_owner(1, true);
    s.commit();
  });
  for (const bool dead : {false, true}) {
    f.look([&](store& s) {
      purge_state purge;
      purge.queue = f.queue;
      purge.dead = dead;
      for (int i = 0; i < 10 && s.purge_step(purge); ++i) continue;
      s.commit();
    });
  }
  return 0;
}
