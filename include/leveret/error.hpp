/// The errors of Leveret: one tree, the same in Python (`leveret.errors`).
#pragma once

#include <leveret/version.hpp>
#include <stdexcept>
#include <string>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// What kind of failure; the numbers cross the C ABI and never change.
enum class errc : int {
  invalid_argument = 1,    ///< the caller's mistake; nothing was tried
  broker_unavailable = 2,  ///< no broker, connection lost, file locked for too long
  refused = 3,             ///< the broker answered no; nothing was stored
  unknown_outcome = 4,     ///< no answer before the deadline: the message may be stored or not
  unsupported = 5,         ///< this transport can't; the text names the remedy
  not_found = 6,           ///< no such queue, job or file
  timed_out = 7,           ///< what was waited for did not happen in time
  closed = 8,              ///< used after close, or closed meanwhile
  storage = 9,             ///< the disk or database failed
};

/// Base of every error that Leveret throws for the world's failures. The caller's own mistakes are
/// `std::invalid_argument`.
class error : public std::runtime_error {
 public:
  error(errc code, const std::string& text) : std::runtime_error(text), code_(code) {}
  [[nodiscard]] errc code() const noexcept { return code_; }

 private:
  errc code_;
};

class broker_unavailable : public error {
 public:
  explicit broker_unavailable(const std::string& text) : error(errc::broker_unavailable, text) {}
};
class publish_refused : public error {
 public:
  explicit publish_refused(const std::string& text) : error(errc::refused, text) {}
};
class publish_unknown : public error {
 public:
  explicit publish_unknown(const std::string& text) : error(errc::unknown_outcome, text) {}
};
class unsupported : public error {
 public:
  explicit unsupported(const std::string& text) : error(errc::unsupported, text) {}
};
class not_found : public error {
 public:
  explicit not_found(const std::string& text) : error(errc::not_found, text) {}
};
class timed_out : public error {
 public:
  explicit timed_out(const std::string& text) : error(errc::timed_out, text) {}
};
class closed : public error {
 public:
  explicit closed(const std::string& text) : error(errc::closed, text) {}
};
class storage_failed : public error {
 public:
  explicit storage_failed(const std::string& text) : error(errc::storage, text) {}
};

/// Throws the error class that `code` names.
[[noreturn]] inline void throw_error(errc code, const std::string& text) {
  switch (code) {
    case errc::invalid_argument:
      throw std::invalid_argument(text);
    case errc::broker_unavailable:
      throw broker_unavailable(text);
    case errc::refused:
      throw publish_refused(text);
    case errc::unknown_outcome:
      throw publish_unknown(text);
    case errc::unsupported:
      throw unsupported(text);
    case errc::not_found:
      throw not_found(text);
    case errc::timed_out:
      throw timed_out(text);
    case errc::closed:
      throw closed(text);
    case errc::storage:
      throw storage_failed(text);
  }
  throw error(code, text);
}

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
