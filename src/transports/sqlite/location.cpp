#include "transports/sqlite/location.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <leveret/error.hpp>
#include <memory>
#include <stdexcept>
#include <string_view>

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

namespace leveret::core::sqlite {

namespace {

constexpr std::string_view kScheme = "sqlite://";
constexpr std::uint64_t kFuseMagic = 0x65735546;

[[noreturn]] void bad_url(const std::string& url, const std::string& why) {
  throw std::invalid_argument("cannot open \"" + url + "\": " + why +
                              "; write sqlite:///relative/path.db or sqlite:////absolute/path.db");
}

std::string system_text(int code) { return std::strerror(code); }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text, const std::string& url) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) bad_url(url, "a '%' is not followed by two hexadecimal digits (a '%' itself is %25)");
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

void read_query(std::string_view query, const std::string& url, location& out) {
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), one.size() + 1));
    const std::string_view name = one.substr(0, one.find('='));
    const std::string_view value = name.size() < one.size() ? one.substr(name.size() + 1) : std::string_view();
    if (name != "durability") {
      bad_url(url, "unknown parameter \"" + std::string(name) + "\" (known: durability)");
    }
    if (value == "full") {
      out.how = durability::full;
    } else if (value == "normal") {
      out.how = durability::normal;
    } else {
      bad_url(url, "durability is \"" + std::string(value) + "\", not full or normal");
    }
  }
}

std::string resolved(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real == nullptr ? std::string() : std::string(real.get());
}

/// The type that /proc/self/mountinfo gives for the mount with `path` on it: "fuse.sshfs", "fuseblk".
std::string mounted_type(const std::string& path) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string best;
  std::string type;
  for (std::string line; std::getline(mounts, line);) {
    // 36 35 98:0 /root /mount/point options … - type source …
    std::size_t from = 0;
    for (int field = 0; field < 4 && from != std::string::npos; ++field) from = line.find(' ', from + (field > 0));
    const std::size_t dash = line.find(" - ");
    if (from == std::string::npos || dash == std::string::npos) continue;
    const std::string point = line.substr(from + 1, line.find(' ', from + 1) - from - 1);
    const bool holds =
        point == "/" || path == point || (path.compare(0, point.size(), point) == 0 && path[point.size()] == '/');
    if (!holds || point.size() < best.size()) continue;
    best = point;
    type = line.substr(dash + 3, line.find(' ', dash + 3) - dash - 3);
  }
  return type;
}

void check_file_system(const std::string& folder, const std::string& path) {
  struct statfs about{};
  if (::statfs(folder.c_str(), &about) != 0) return;
  const auto type = static_cast<std::uint64_t>(static_cast<std::uint32_t>(about.f_type));
  const char* name = refused_file_system(type);
  std::string fuse;
  if (name == nullptr && type == kFuseMagic) {
    // FUSE is a network as often as not; only "fuseblk" is a disk of this machine for certain.
    fuse = mounted_type(folder);
    if (fuse != "fuseblk") name = fuse.empty() ? "FUSE" : fuse.c_str();
  }
  if (name == nullptr) return;
  cannot_open(path,
              "it is on a network file system (" + std::string(name) +
                  "), where several processes cannot share SQLite's write-ahead log; use a folder on a disk of this "
                  "machine, or RabbitMQ for several machines");
}

void check_not_mounted_itself(const std::string& path) {
  struct statx about{};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_TYPE, &about) != 0) return;
  if ((about.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0 || (about.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    return;
  }
  cannot_open(
      path,
      "the file itself is a mount (a bind mount of a single file), so its write-ahead log would not be shared and "
      "jobs would be lost; mount the folder that holds it instead");
}

}  // namespace

void cannot_open(const std::string& path, const std::string& why) {
  throw storage_failed("cannot open the SQLite file " + path + ": " + why);
}

const char* refused_file_system(std::uint64_t type) noexcept {
  switch (type) {
    case 0x6969:
      return "NFS";
    case 0x517b:
      return "SMB";
    case 0xff534d42:
      return "CIFS";
    case 0xfe534d42:
      return "SMB2";
    case 0x01021997:
      return "9p";
    case 0x6a656a63:
      return "virtiofs";
    case 0x786f4256:
      return "vboxsf";
    case 0x73757245:
      return "Coda";
    case 0x5346414f:
    case 0x6b414653:
      return "AFS";
    case 0x00c36400:
      return "Ceph";
    case 0x01161970:
      return "GFS2";
    case 0x7461636f:
      return "OCFS2";
    case 0x0bd00bd0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x19830326:
      return "BeeGFS";
    default:
      return nullptr;
  }
}

bool identify(const std::string& path, file_identity& out) {
  struct stat about{};
  if (::stat(path.c_str(), &about) != 0) return false;
  out.device = static_cast<std::uint64_t>(about.st_dev);
  out.inode = static_cast<std::uint64_t>(about.st_ino);
  return true;
}

location parse_url(const std::string& url) {
  std::string_view rest = url;
  if (rest.substr(0, kScheme.size()) != kScheme) bad_url(url, "it does not begin with sqlite://");
  rest.remove_prefix(kScheme.size());
  if (rest.find('#') != std::string_view::npos) bad_url(url, "it has a '#' (in a path, write %23)");
  location out;
  if (const std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
    read_query(rest.substr(mark + 1), url, out);
    rest = rest.substr(0, mark);
  }
  if (rest.empty() || rest.front() != '/') bad_url(url, "a host is named; a file has none");
  std::string path = percent_decoded(rest.substr(1), url);
  if (path.empty() || path == "/") bad_url(url, "it names no file");
  if (path.find('\0') != std::string::npos) bad_url(url, "its path holds a NUL");
  if (path == ":memory:") {
    throw std::invalid_argument("cannot open \"" + url + "\": a file is needed; for queues in memory write memory://");
  }
  if (path.front() != '/') {
    const std::unique_ptr<char, decltype(&std::free)> here(::getcwd(nullptr, 0), &std::free);
    if (here == nullptr) bad_url(url, "the current folder is gone, so a relative path means nothing");
    path = std::string(here.get()) + "/" + path;
  }
  out.path = std::move(path);
  return out;
}

void prepare_file(location& at) {
  const std::string given = at.path;
  if (given.back() == '/') cannot_open(given, "it names a folder; name a file in it");
  const std::size_t slash = given.rfind('/');
  const std::string given_folder = slash == 0 ? "/" : given.substr(0, slash);
  const std::string folder = resolved(given_folder);
  if (folder.empty()) {
    if (errno == ENOENT) {
      cannot_open(given, "its folder " + given_folder + " does not exist; make it first (mkdir -p)");
    }
    cannot_open(given, "its folder " + given_folder + " cannot be entered: " + system_text(errno));
  }
  struct stat about{};
  if (::stat(folder.c_str(), &about) == 0 && !S_ISDIR(about.st_mode))
    cannot_open(given, given_folder + " is not a folder");
  std::string path = (folder == "/" ? "" : folder) + given.substr(slash);

  if (::lstat(path.c_str(), &about) == 0 && S_ISLNK(about.st_mode)) {
    const std::string target = resolved(path);
    if (target.empty()) cannot_open(given, "it is a symbolic link to nothing; remove the link or make its target");
    path = target;
  }
  const std::string real_folder = path.rfind('/') == 0 ? "/" : path.substr(0, path.rfind('/'));
  check_file_system(real_folder, path);

  if (::stat(path.c_str(), &about) != 0) {
    if (errno != ENOENT) cannot_open(path, system_text(errno));
    // Made here for its mode; SQLite's log takes the database's. O_EXCL: nobody can have it open, so closing drops no
    // lock.
    const int made = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made < 0 && errno != EEXIST) {
      const int code = errno;
      cannot_open(path, code == EACCES || code == EROFS ? "it cannot be made there (" + system_text(code) +
                                                              "); give this user write permission on the folder"
                                                        : "it cannot be made there: " + system_text(code));
    }
    if (made >= 0) ::close(made);
  } else if (S_ISDIR(about.st_mode)) {
    cannot_open(path, "it is a folder; name a file in it");
  } else if (!S_ISREG(about.st_mode)) {
    cannot_open(path, "it is not an ordinary file");
  } else if (::access(path.c_str(), R_OK | W_OK) != 0) {
    cannot_open(path, "it cannot be written (" + system_text(errno) + "); give this user write permission on it");
  }
  if (::access(real_folder.c_str(), W_OK | X_OK) != 0) {
    cannot_open(path,
                "its folder cannot be written (" + system_text(errno) +
                    "), and SQLite keeps its write-ahead log there; give this user write permission on the folder");
  }
  check_not_mounted_itself(path);
  at.path = path;
}

}  // namespace leveret::core::sqlite
