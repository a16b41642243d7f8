/// A SQLite VFS over the system's that sees, records and breaks what SQLite does to one database: the default of this
/// process while it lives. Every call goes on to the real file, fsync too.
///
/// Made before the first connection is opened, and ended after the last one is closed. Only the file, its log and its
/// rollback journal are recorded: the shared memory beside them does not outlive a power cut.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace leveret::test {

/// Where a connection is with a lock of the log's index.
enum class lock_phase { wants, has, gave_back };

enum class tapped { database, log, journal };

struct disk_event {
  enum class kind { write, truncate, sync, failed_sync, remove };
  kind what = kind::write;
  tapped file = tapped::database;
  std::int64_t offset = 0;  ///< of a write; the new size of a truncate
  std::string bytes;
  std::size_t covers = 0;  ///< of a sync: events before this one were written when it began
  bool durable = false;    ///< of a remove: the folder was synced too
};

class disk_tap {
 public:
  explicit disk_tap(const std::string& database);
  ~disk_tap();
  disk_tap(const disk_tap&) = delete;
  disk_tap& operator=(const disk_tap&) = delete;

  // The recording. Any thread.
  void record(bool on);
  /// The number of events so far: what was done before this call is before this position.
  [[nodiscard]] std::size_t position() const;
  /// After the last connection was closed.
  [[nodiscard]] const std::vector<disk_event>& events() const { return events_; }

  // Faults, to be set at any time.
  /// fsync does nothing and says that it did.
  std::atomic<bool> lie_about_syncs{false};
  /// The next so many syncs (writes) of the log fail with EIO; -1: all.
  std::atomic<int> failing_log_syncs{0};
  std::atomic<int> failing_log_writes{0};
  std::atomic<int> failing_database_syncs{0};
  std::atomic<int> failing_database_writes{0};

  // Hooks, to be set before a connection is opened. On the thread that uses it, with the connection's own number.
  /// An exclusive lock of the log's index, by SQLite's slots: 0 is to write, 1 is to checkpoint.
  std::function<void(int connection, int slot, int count, lock_phase phase)> on_log_lock;
  /// A connection found that others had changed the file, and holds its own copy of the log's header from here on.
  std::function<void(int connection)> on_header_read;

  struct shim;  // the C side

 private:
  friend struct shim;
  void add(disk_event e);

  std::string database_;
  std::unique_ptr<shim> shim_;
  mutable std::mutex mutex_;
  bool recording_ = true;
  std::vector<disk_event> events_;
  std::atomic<int> connections_{0};
};

/// What would be on the disk if the power went after some of the events.
class disk_after {
 public:
  enum class unsynced {
    dropped,  ///< the disk lost whatever was not synced
    kept,     ///< it had written all of it
    torn      ///< any 512-byte sector of it, in any order
  };

  /// Events are to be added in their order.
  void add(const disk_event& e, std::size_t at);
  /// The files' contents; none for a file that is not there.
  [[nodiscard]] std::map<tapped, std::string> files(unsynced how, std::mt19937_64& random) const;
  /// Grows whenever what `dropped` gives may have changed.
  [[nodiscard]] std::size_t syncs() const { return syncs_; }

 private:
  struct pending {
    const disk_event* event;
    std::size_t at;
  };
  struct file {
    std::optional<std::string> durable;
    std::vector<pending> unsynced_events;
  };
  static void settle_removals(file& f, std::size_t before);
  static void apply(std::optional<std::string>& content, const disk_event& e);
  static void tear(std::optional<std::string>& content, const disk_event& e, std::mt19937_64& random);

  std::map<tapped, file> files_;
  std::size_t syncs_ = 0;
};

/// Writes the files of a database beside each other; removes those that are not there.
void put_files(const std::string& database, const std::map<tapped, std::string>& files);

}  // namespace leveret::test
