#include "plugin.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <leveret/version.hpp>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "registration.hpp"

namespace leveret::core {

namespace {

[[noreturn]] void refuse(const std::string& source, const std::string& why) {
  throw std::invalid_argument("cannot load plugin " + source + ": " + why);
}

std::string system_text(int code) { return std::generic_category().message(code); }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// What the file is, if it is no shared object of this machine; empty otherwise. The dynamic linker would only say
/// "invalid ELF header".
std::string what_else(const unsigned char* head, std::size_t size, const std::string& path) {
  for (const char* suffix : {".cpp", ".cc", ".cxx", ".c", ".hpp", ".h"}) {
    if (ends_with(path, suffix)) return "it is a source file; build it first: leveret build " + path;
  }
  if (size < EI_NIDENT || std::memcmp(head, ELFMAG, SELFMAG) != 0) {
    return "it is not a shared object; build one from C++ source: leveret build";
  }
  constexpr unsigned char kHere = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
  Elf64_Half type = 0;  // where ELF's two classes agree
  Elf64_Half machine = 0;
  if (size >= EI_NIDENT + sizeof type + sizeof machine) {
    std::memcpy(&type, head + EI_NIDENT, sizeof type);
    std::memcpy(&machine, head + EI_NIDENT + sizeof type, sizeof machine);
  }
#if defined(__x86_64__)
  constexpr Elf64_Half kMachine = EM_X86_64;
#elif defined(__aarch64__)
  constexpr Elf64_Half kMachine = EM_AARCH64;
#else
  const Elf64_Half kMachine = machine;
#endif
  if (head[EI_CLASS] != kHere || machine != kMachine) return "it was built for another kind of processor";
  if (type == ET_REL) return "it is an object file, not linked yet; leveret build makes a plugin of it";
  if (type == ET_EXEC) return "it is a program, not a plugin: run it, or build a plugin from its source: leveret build";
  if (type != ET_DYN) return "it is not a shared object";
  return {};
}

std::string demangled(const std::string& symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status),
                                                    &std::free);
  return status == 0 && text ? std::string(text.get()) : symbol;
}

/// The dynamic linker's text in words that say what to do.
std::string linker_problem(std::string text, const std::string& path) {
  if (text.compare(0, path.size() + 2, path + ": ") == 0) text.erase(0, path.size() + 2);
  constexpr std::string_view kUndefined = "undefined symbol: ";
  if (const auto at = text.find(kUndefined); at != std::string::npos) {
    std::string symbol = text.substr(at + kUndefined.size());
    if (const auto end = symbol.find_first_of(", \t"); end != std::string::npos) symbol.erase(end);
    return "it needs \"" + demangled(symbol) +
           "\", which neither it nor its libraries define; build it with the source or library that does: "
           "leveret build FILE… -- -lNAME";
  }
  constexpr std::string_view kCannotOpen = ": cannot open shared object file";
  if (const auto at = text.find(kCannotOpen); at != std::string::npos) {
    return "it needs the library " + text.substr(0, at) +
           ", which was not found; install it, or say where it is: leveret build FILE… -- -Wl,-rpath,FOLDER";
  }
  if (text.find("cannot dynamically load") != std::string::npos) {
    return "it is a program, not a plugin: run it, or build a plugin from its source: leveret build";
  }
  return text;
}

struct descriptor {
  int fd;
  explicit descriptor(int opened) : fd(opened) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

void check_file(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) refuse(path, system_text(errno));
  struct stat info{};
  if (::fstat(file.fd, &info) != 0) refuse(path, system_text(errno));
  if (!S_ISREG(info.st_mode)) refuse(path, S_ISDIR(info.st_mode) ? "it is a folder" : "it is not a regular file");
  // Its code would run with this worker's rights.
  if ((info.st_mode & S_IWOTH) != 0) refuse(path, "everyone may write to it; chmod o-w it first");
  unsigned char head[64];
  const ssize_t got = ::read(file.fd, head, sizeof head);
  if (got < 0) refuse(path, system_text(errno));
  if (const std::string why = what_else(head, static_cast<std::size_t>(got), path); !why.empty()) refuse(path, why);
}

/// Refuses a path that others may lead elsewhere: along it, and along the symbolic links on it, no folder may be
/// writable for everyone. With the sticky bit (/tmp) nobody can replace what is somebody else's.
void check_folders(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // as the kernel
  std::error_code failed;
  const fs::path whole = fs::absolute(path, failed).relative_path();
  std::deque<fs::path> names(whole.begin(), whole.end());
  fs::path folder = "/";
  for (int links = 0; !names.empty() && links < kMostLinks;) {
    struct stat info{};
    if (::stat(folder.c_str(), &info) != 0) refuse(path, system_text(errno));
    if ((info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0) {
      refuse(path, "everyone may write to the folder " + folder.string() +
                       ", and put another file in its place; chmod o-w that folder first");
    }
    const fs::path name = std::move(names.front());
    names.pop_front();
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      folder = folder.parent_path();
      continue;
    }
    const fs::path next = folder / name;
    const fs::path target = fs::read_symlink(next, failed);
    if (failed) {  // no link
      folder = next;
      continue;
    }
    ++links;
    if (target.is_absolute()) folder = "/";
    const fs::path inside = target.relative_path();
    names.insert(names.begin(), inside.begin(), inside.end());
  }
}

}  // namespace

void register_plugin(const leveret_plugin_info* info, registry& into, const std::string& source) {
  constexpr char kMagic[8] = "leveret";
  if (info == nullptr || std::memcmp(info->magic, kMagic, sizeof kMagic) != 0) {
    refuse(source, "its leveret_plugin is not what LEVERET_TASKS defines");
  }
  if (info->abi_version != LEVERET_ABI_VERSION) {
    // Only the version can be read of another version.
    refuse(source, "it was built for plugin version " + std::to_string(info->abi_version) + ", this worker (" +
                       LEVERET_VERSION + ") has version " + std::to_string(LEVERET_ABI_VERSION) +
                       "; build it again with this worker's leveret build");
  }
  if (info->size < sizeof(leveret_plugin_info) || info->register_tasks == nullptr) {
    refuse(source, "its leveret_plugin is not what LEVERET_TASKS defines");
  }
  leveret_registry registration{&into, source, 0, {}};
  bool registered = false;
  try {
    registered = info->register_tasks(&host_functions(), &registration) != 0;
  } catch (const std::exception& thrown) {
    refuse(source, std::string("registering its tasks threw: ") + thrown.what());
  } catch (...) {
    refuse(source, "registering its tasks threw an unknown exception");
  }
  if (!registered) {
    refuse(source, registration.refusal.empty() ? "it refused to register its tasks" : registration.refusal);
  }
  if (registration.added == 0) refuse(source, "it registers no task; call tasks.add in its LEVERET_TASKS");
}

void load_plugin(const std::string& path, registry& into) {
  // Absolute: dlopen would look a bare name up in the library path.
  const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  if (!resolved) {
    const int code = errno;
    if (code != ENOENT) refuse(path, system_text(code));
    refuse(path,
           ends_with(path, ".so") ? "there is no such file; build it first: leveret build" : "there is no such file");
  }
  const std::string absolute = resolved.get();
  check_folders(path);
  check_file(absolute);
  void* handle = ::dlopen(absolute.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* text = ::dlerror();
    refuse(absolute, linker_problem(text != nullptr ? text : "unknown error of the dynamic linker", absolute));
  }
  // Never closed from here on: handlers and thread-local objects of the plugin may be in use until the process ends.
  const void* symbol = ::dlsym(handle, LEVERET_PLUGIN_SYMBOL);
  if (symbol == nullptr) {
    refuse(
        absolute,
        "it is a shared object, but no plugin: it defines no leveret_plugin; write LEVERET_TASKS(tasks) {…} in one of "
        "its sources");
  }
  register_plugin(static_cast<const leveret_plugin_info*>(symbol), into, absolute);
}

}  // namespace leveret::core
