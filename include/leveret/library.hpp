/// Finds Leveret itself, for programs (libleveret.so) and plugins (their host).
#pragma once

#include <leveret/library.h>

#include <leveret/error.hpp>
#include <leveret/version.hpp>

// A plugin must load where there is no libleveret.so, though its source may contain a `main` for use as a program. Code
// compiled for a shared object (-fPIC; programs have -fPIE or neither) therefore refers to the library weakly: it is
// null then, and the host's is used. In programs the reference is strong, so that a forgotten -lleveret is the linker's
// error.
#if defined(LEVERET_PLUGIN) || (defined(__PIC__) && !defined(__PIE__))
#define LEVERET_LIBRARY_IS_WEAK 1
#pragma weak leveret_get_library
#endif

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {
namespace detail {

/// The host's library, in a plugin that one loaded; written once, before any handler runs.
inline const leveret_library* host_library = nullptr;

/// Null: neither linked with libleveret nor loaded by a worker.
[[nodiscard]] inline const leveret_library* find_library() noexcept {
  if (host_library != nullptr) return host_library;
#ifdef LEVERET_LIBRARY_IS_WEAK
  if (&leveret_get_library == nullptr) return nullptr;
#endif
  return leveret_get_library(LEVERET_ABI_VERSION);
}

/// Throws leveret::unsupported if there is none, or one that is older than these headers.
[[nodiscard]] inline const leveret_library& need_library() {
  const leveret_library* found = find_library();
  if (found == nullptr) {
    throw unsupported("this program is not linked with libleveret " LEVERET_VERSION
                      ": compile it with $(leveret config --cflags --libs), or by leveret build --exe");
  }
  if (found->size < sizeof(leveret_library)) {
    throw unsupported(std::string("libleveret ") + found->version +
                      " is older than the headers this was compiled with (" LEVERET_VERSION "): install that version");
  }
  return *found;
}

}  // namespace detail
}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
