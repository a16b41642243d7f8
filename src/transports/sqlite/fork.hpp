/// What lets a forked child open a file that its parent has open.
///
/// SQLite keeps, per process and file, what it believes to hold: lock counts in memory, whose POSIX locks a child does
/// not inherit. A child that opens the file again shares those structures. Two things make that sound:
///
///  - fork waits until no transport is inside SQLite, so the child finds no transaction begun and no mutex held;
///  - before it opens the file, the child takes for itself the locks that its copy of SQLite believes to hold: the
///  shared
///    lock on the database, and the one on the wal-index that says "somebody is here". Without the latter the next
///    process to come would start the index afresh under the child's feet.
///
/// The transports that were open at the fork stay the parent's: the child must not touch them.
#pragma once

#include <string>

namespace leveret::core::sqlite {

/// Held by a thread while it is inside SQLite, for milliseconds; not recursive. fork waits for it.
class inside_sqlite {
 public:
  inside_sqlite();
  ~inside_sqlite();
  inside_sqlite(const inside_sqlite&) = delete;
  inside_sqlite& operator=(const inside_sqlite&) = delete;
};

/// Lets forks through while a thread that is `inside_sqlite` sleeps.
class outside_sqlite {
 public:
  outside_sqlite();
  ~outside_sqlite();
  outside_sqlite(const outside_sqlite&) = delete;
  outside_sqlite& operator=(const outside_sqlite&) = delete;
};

/// Notes that this process has `path` open, for its children; in a child, takes the locks that are its parent's only.
/// Throws storage_failed.
void note_open(const std::string& path);

}  // namespace leveret::core::sqlite
