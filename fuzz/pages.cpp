/// libFuzzer's target for `leveret recover`: Leveret's own reader of a damaged SQLite file.
///
///     fuzz/run.py --seconds 60 pages
///
/// The input is a file's bytes: a size of four bytes, the database of that size, and its write-ahead log. Every page is
/// read and every row taken as `recover` takes it.
#include "transports/sqlite/pages.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "transports/sqlite/salvage.hpp"

namespace {

using namespace leveret::core::sqlite;

void check(bool holds) {
  if (!holds) std::abort();
}

void write_file(const std::string& path, const unsigned char* data, std::size_t size) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  check(file >= 0);
  while (size > 0) {
    const ssize_t written = ::write(file, data, size);
    check(written > 0);
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  ::close(file);
}

struct folder {
  std::string path;
  folder() {
    char name[] = "/dev/shm/leveret-pages-XXXXXX";
    check(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~folder() {
    for (const char* file : {"/f", "/f-wal"}) ::unlink((path + file).c_str());
    ::rmdir(path.c_str());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const folder in;
  if (size < 4) return 0;
  const std::size_t said = static_cast<std::size_t>(data[0]) | static_cast<std::size_t>(data[1]) << 8 |
                           static_cast<std::size_t>(data[2]) << 16;
  const std::size_t database = said < size - 4 ? said : size - 4;
  const std::string path = in.path + "/f";
  write_file(path, data + 4, database);
  write_file(path + "-wal", data + 4 + database, size - 4 - database);

  page_file pages(path);
  salvage s(pages);
  s.run({});
  for (const table t : {table::body, table::result, table::dead, table::cancelled}) {
    for (const auto& [key, kept] : s.rows_of(t)) {
      const auto row = pages.read(kept.at);
      check(row && row->size() >= 3);
    }
  }
  check(s.damage().size() <= 64);
  return 0;
}
