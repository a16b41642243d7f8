/// Where a database file is, and whether it may be one there.
///
/// A url is `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`, percent-encoded, with the one optional query
/// parameter `durability=full|normal`.
///
/// Refused with a sentence, before SQLite sees the file:
///  - a network or shared-by-virtual-machines file system: SQLite's write-ahead log needs memory shared by all
///  processes;
///  - a database file that is itself a mount (a bind mount of a single file): each mount gets a log of its own beside
///  it,
///    and commits vanish;
///  - a folder, a special file, a dangling symbolic link, a missing parent folder, a file or folder without write
///    permission.
///
/// The database file is never opened here: closing any descriptor of it would drop the locks that SQLite holds on it in
/// this process.
#pragma once

#include <cstdint>
#include <string>

namespace leveret::core::sqlite {

enum class durability { full, normal };

struct location {
  std::string path;  ///< absolute, symbolic links resolved
  durability how = durability::full;
};

/// Which file a path names now; tells a file that was replaced from the one that was opened.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  [[nodiscard]] bool operator==(const file_identity& other) const {
    return device == other.device && inode == other.inode;
  }
};
/// False: there is none.
[[nodiscard]] bool identify(const std::string& path, file_identity& out);

/// Throws the storage_failed of a file that cannot be opened.
[[noreturn]] void cannot_open(const std::string& path, const std::string& why);

/// Throws std::invalid_argument for a url that is none of ours.
[[nodiscard]] location parse_url(const std::string& url);

/// Resolves symbolic links and checks all of the above; makes the file (mode 0600, empty) where there is none. Throws
/// storage_failed.
void prepare_file(location& at);

/// Why a file system of this kind (statfs' f_type) is refused; nullptr: it is not. For tests too.
[[nodiscard]] const char* refused_file_system(std::uint64_t type) noexcept;

}  // namespace leveret::core::sqlite
