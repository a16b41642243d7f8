#include "cpp/support/disk_tap.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace leveret::test {

namespace {

constexpr std::size_t kSector = 512;

/// One failure less to come; true: this one fails.
bool take_one(std::atomic<int>& left) {
  int now = left.load();
  while (now > 0 && !left.compare_exchange_weak(now, now - 1)) {
  }
  return now != 0;
}

const char* suffix_of(tapped file) {
  switch (file) {
    case tapped::database:
      return "";
    case tapped::log:
      return "-wal";
    case tapped::journal:
      return "-journal";
  }
  return "";
}

}  // namespace

/// An open file: SQLite's base, what is ours, and behind it in the same memory the system's own file.
struct tap_file {
  sqlite3_file base;
  disk_tap* tap;
  sqlite3_file* real;
  int connection;
  tapped what;
  bool ours;
};

struct disk_tap::shim {
  sqlite3_vfs vfs{};
  sqlite3_vfs* real = nullptr;
  disk_tap* tap = nullptr;

  static tap_file* file_of(sqlite3_file* f) { return reinterpret_cast<tap_file*>(f); }
  static sqlite3_file* real_of(sqlite3_file* f) { return file_of(f)->real; }
  static sqlite3_vfs* real_of(sqlite3_vfs* v) { return static_cast<shim*>(v->pAppData)->real; }

  std::optional<tapped> which(const char* name) const {
    if (name == nullptr) return std::nullopt;
    for (const tapped one : {tapped::database, tapped::log, tapped::journal}) {
      if (tap->database_ + suffix_of(one) == name) return one;
    }
    return std::nullopt;
  }

  static int open(sqlite3_vfs* v, const char* name, sqlite3_file* f, int flags, int* out) {
    auto* self = static_cast<shim*>(v->pAppData);
    auto* file = new (f) tap_file{};
    file->real = reinterpret_cast<sqlite3_file*>(file + 1);
    file->tap = self->tap;
    const auto what = self->which(name);
    file->ours = what.has_value();
    file->what = what.value_or(tapped::database);
    file->connection = ++self->tap->connections_;
    const int code = self->real->xOpen(self->real, name, file->real, flags, out);
    file->base.pMethods = file->real->pMethods != nullptr ? methods() : nullptr;
    return code;
  }
  static int remove(sqlite3_vfs* v, const char* name, int sync) {
    auto* self = static_cast<shim*>(v->pAppData);
    const std::lock_guard lock(self->tap->mutex_);
    const int code = self->real->xDelete(self->real, name, sync);
    if (const auto what = self->which(name); what && code == SQLITE_OK) {
      disk_event e;
      e.what = disk_event::kind::remove;
      e.file = *what;
      e.durable = sync != 0;
      self->tap->add(std::move(e));
    }
    return code;
  }

  static int close(sqlite3_file* f) { return real_of(f)->pMethods->xClose(real_of(f)); }
  static int read(sqlite3_file* f, void* out, int size, sqlite3_int64 at) {
    return real_of(f)->pMethods->xRead(real_of(f), out, size, at);
  }
  static int write(sqlite3_file* f, const void* from, int size, sqlite3_int64 at) {
    tap_file* file = file_of(f);
    disk_tap& tap = *file->tap;
    if (file->ours) {
      auto& failing = file->what == tapped::log ? tap.failing_log_writes : tap.failing_database_writes;
      if (file->what != tapped::journal && take_one(failing)) return SQLITE_IOERR_WRITE;
    }
    // Under the mutex: the order of the recording is the order on the disk.
    const std::lock_guard lock(tap.mutex_);
    const int code = file->real->pMethods->xWrite(file->real, from, size, at);
    if (code == SQLITE_OK && file->ours) {
      disk_event e;
      e.file = file->what;
      e.offset = at;
      e.bytes.assign(static_cast<const char*>(from), static_cast<std::size_t>(size));
      tap.add(std::move(e));
    }
    return code;
  }
  static int truncate(sqlite3_file* f, sqlite3_int64 size) {
    tap_file* file = file_of(f);
    const std::lock_guard lock(file->tap->mutex_);
    const int code = file->real->pMethods->xTruncate(file->real, size);
    if (code == SQLITE_OK && file->ours) {
      disk_event e;
      e.what = disk_event::kind::truncate;
      e.file = file->what;
      e.offset = size;
      file->tap->add(std::move(e));
    }
    return code;
  }
  static int sync(sqlite3_file* f, int flags) {
    tap_file* file = file_of(f);
    disk_tap& tap = *file->tap;
    if (tap.lie_about_syncs) return SQLITE_OK;
    disk_event e;
    e.what = disk_event::kind::sync;
    e.file = file->what;
    e.covers = tap.position();
    int code = SQLITE_OK;
    if (file->ours && file->what != tapped::journal &&
        take_one(file->what == tapped::log ? tap.failing_log_syncs : tap.failing_database_syncs)) {
      code = SQLITE_IOERR_FSYNC;
      e.what = disk_event::kind::failed_sync;
    } else {
      code = file->real->pMethods->xSync(file->real, flags);
      if (code != SQLITE_OK) e.what = disk_event::kind::failed_sync;
    }
    if (file->ours) {
      const std::lock_guard lock(tap.mutex_);
      tap.add(std::move(e));
    }
    return code;
  }
  static int size(sqlite3_file* f, sqlite3_int64* out) { return real_of(f)->pMethods->xFileSize(real_of(f), out); }
  static int lock(sqlite3_file* f, int level) { return real_of(f)->pMethods->xLock(real_of(f), level); }
  static int unlock(sqlite3_file* f, int level) { return real_of(f)->pMethods->xUnlock(real_of(f), level); }
  static int reserved(sqlite3_file* f, int* out) { return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out); }
  static int control(sqlite3_file* f, int what, void* with) {
    return real_of(f)->pMethods->xFileControl(real_of(f), what, with);
  }
  static int sector_size(sqlite3_file* f) { return real_of(f)->pMethods->xSectorSize(real_of(f)); }
  static int traits(sqlite3_file* f) { return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f)); }
  static int shm_map(sqlite3_file* f, int page, int size, int extend, void volatile** out) {
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
  }
  static int shm_lock(sqlite3_file* f, int slot, int count, int flags) {
    const tap_file* file = file_of(f);
    const bool taking = (flags & SQLITE_SHM_LOCK) != 0;
    const auto tell = [&](lock_phase phase) {
      if (file->ours && file->tap->on_log_lock && (flags & SQLITE_SHM_EXCLUSIVE) != 0) {
        file->tap->on_log_lock(file->connection, slot, count, phase);
      }
    };
    // After it is given back: who waits for that gets it. The next one may be told that it has it first.
    if (taking) tell(lock_phase::wants);
    const int code = file->real->pMethods->xShmLock(file->real, slot, count, flags);
    if (!taking) {
      tell(lock_phase::gave_back);
    } else if (code == SQLITE_OK) {
      tell(lock_phase::has);
    }
    return code;
  }
  static void shm_barrier(sqlite3_file* f) { real_of(f)->pMethods->xShmBarrier(real_of(f)); }
  static int shm_unmap(sqlite3_file* f, int remove) { return real_of(f)->pMethods->xShmUnmap(real_of(f), remove); }
  static int fetch(sqlite3_file* f, sqlite3_int64 at, int size, void** out) {
    return real_of(f)->pMethods->xFetch(real_of(f), at, size, out);
  }
  static int unfetch(sqlite3_file* f, sqlite3_int64 at, void* what) {
    const tap_file* file = file_of(f);
    if (what == nullptr && file->ours && file->tap->on_header_read) file->tap->on_header_read(file->connection);
    return file->real->pMethods->xUnfetch(file->real, at, what);
  }

  static const sqlite3_io_methods* methods() {
    static const sqlite3_io_methods all{3,        close,       read,      write,   truncate,    sync,   size,
                                        lock,     unlock,      reserved,  control, sector_size, traits, shm_map,
                                        shm_lock, shm_barrier, shm_unmap, fetch,   unfetch};
    return &all;
  }

  static int access(sqlite3_vfs* v, const char* name, int flags, int* out) {
    return real_of(v)->xAccess(real_of(v), name, flags, out);
  }
  static int full_name(sqlite3_vfs* v, const char* name, int size, char* out) {
    return real_of(v)->xFullPathname(real_of(v), name, size, out);
  }
  static int randomness(sqlite3_vfs* v, int size, char* out) { return real_of(v)->xRandomness(real_of(v), size, out); }
  static int sleep(sqlite3_vfs* v, int us) { return real_of(v)->xSleep(real_of(v), us); }
  static int time(sqlite3_vfs* v, double* out) { return real_of(v)->xCurrentTime(real_of(v), out); }
  static int time64(sqlite3_vfs* v, sqlite3_int64* out) { return real_of(v)->xCurrentTimeInt64(real_of(v), out); }
  static int last_error(sqlite3_vfs* v, int size, char* out) {
    return real_of(v)->xGetLastError(real_of(v), size, out);
  }
};

disk_tap::disk_tap(const std::string& database) : database_(database), shim_(std::make_unique<shim>()) {
  shim& s = *shim_;
  s.tap = this;
  s.real = sqlite3_vfs_find(nullptr);
  if (s.real == nullptr || s.real->iVersion < 2) throw std::runtime_error("no SQLite VFS to tap");
  s.vfs.iVersion = 2;
  s.vfs.szOsFile = static_cast<int>(sizeof(tap_file)) + s.real->szOsFile;
  s.vfs.mxPathname = s.real->mxPathname;
  s.vfs.zName = "leveret-disk-tap";
  s.vfs.pAppData = &s;
  s.vfs.xOpen = shim::open;
  s.vfs.xDelete = shim::remove;
  s.vfs.xAccess = shim::access;
  s.vfs.xFullPathname = shim::full_name;
  s.vfs.xRandomness = shim::randomness;
  s.vfs.xSleep = shim::sleep;
  s.vfs.xCurrentTime = shim::time;
  s.vfs.xCurrentTimeInt64 = shim::time64;
  s.vfs.xGetLastError = shim::last_error;
  if (sqlite3_vfs_register(&s.vfs, 1) != SQLITE_OK) throw std::runtime_error("SQLite does not take the tap");
}

disk_tap::~disk_tap() { sqlite3_vfs_unregister(&shim_->vfs); }

void disk_tap::record(bool on) {
  const std::lock_guard lock(mutex_);
  recording_ = on;
}

std::size_t disk_tap::position() const {
  const std::lock_guard lock(mutex_);
  return events_.size();
}

void disk_tap::add(disk_event e) {
  if (recording_) events_.push_back(std::move(e));
}

void disk_after::apply(std::optional<std::string>& content, const disk_event& e) {
  if (e.what == disk_event::kind::remove) {
    content.reset();
    return;
  }
  if (!content) content.emplace();
  const auto at = static_cast<std::size_t>(e.offset);
  if (e.what == disk_event::kind::truncate) {
    content->resize(at);
    return;
  }
  if (content->size() < at + e.bytes.size()) content->resize(at + e.bytes.size());
  std::memcpy(content->data() + at, e.bytes.data(), e.bytes.size());
}

void disk_after::tear(std::optional<std::string>& content, const disk_event& e, std::mt19937_64& random) {
  if (e.what != disk_event::kind::write) {
    if ((random() & 1) != 0) apply(content, e);
    return;
  }
  // A write of less than a sector is torn with its sector: by the offset on the disk.
  for (std::size_t done = 0; done < e.bytes.size();) {
    const auto at = static_cast<std::size_t>(e.offset) + done;
    const std::size_t size = std::min(kSector - at % kSector, e.bytes.size() - done);
    if ((random() & 1) != 0) {
      disk_event part;
      part.file = e.file;
      part.offset = static_cast<std::int64_t>(at);
      part.bytes = e.bytes.substr(done, size);
      apply(content, part);
    }
    done += size;
  }
}

void disk_after::settle_removals(file& f, std::size_t before) {
  auto& list = f.unsynced_events;
  for (std::size_t i = list.size(); i-- > 0;) {
    if (list[i].event->what != disk_event::kind::remove || list[i].at >= before) continue;
    f.durable.reset();
    list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    return;
  }
}

void disk_after::add(const disk_event& e, std::size_t at) {
  file& f = files_[e.file];
  if (e.what == disk_event::kind::failed_sync) {
    // Linux takes what it could not write for written: later syncs say nothing of it. Whether it is there nobody knows.
    const auto begun = std::remove_if(f.unsynced_events.begin(), f.unsynced_events.end(),
                                      [&](const pending& p) { return p.at < e.covers; });
    f.unsynced_events.erase(begun, f.unsynced_events.end());
    return;
  }
  if (e.what == disk_event::kind::remove && e.durable) {
    f.durable.reset();
    f.unsynced_events.clear();
    ++syncs_;
    return;
  }
  if (e.what != disk_event::kind::sync) {
    f.unsynced_events.push_back({&e, at});
    return;
  }
  ++syncs_;
  // With the first sync of a file that it made, SQLite syncs the folder too: what was removed before is gone for good.
  if (!f.durable) {
    for (auto& [what, other] : files_) settle_removals(other, e.covers);
  }
  std::vector<pending> later;
  for (const pending& p : f.unsynced_events) {
    if (p.at >= e.covers) {
      later.push_back(p);
    } else {
      apply(f.durable, *p.event);
    }
  }
  f.unsynced_events = std::move(later);
}

std::map<tapped, std::string> disk_after::files(unsynced how, std::mt19937_64& random) const {
  std::map<tapped, std::string> out;
  for (const auto& [what, f] : files_) {
    std::optional<std::string> content = f.durable;
    if (how != unsynced::dropped) {
      for (const pending& p : f.unsynced_events) {
        if (how == unsynced::torn) {
          tear(content, *p.event, random);
        } else {
          apply(content, *p.event);
        }
      }
    }
    if (content) out[what] = std::move(*content);
  }
  return out;
}

void put_files(const std::string& database, const std::map<tapped, std::string>& files) {
  for (const tapped one : {tapped::database, tapped::log, tapped::journal}) {
    const std::string path = database + suffix_of(one);
    // Removed first: ext4 writes a file out at once that was truncated and written again.
    std::filesystem::remove(path);
    const auto found = files.find(one);
    if (found == files.end()) continue;
    std::ofstream out(path, std::ios::binary);
    out.write(found->second.data(), static_cast<std::streamsize>(found->second.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path);
  }
  std::filesystem::remove(database + "-shm");
}

}  // namespace leveret::test
