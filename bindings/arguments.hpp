/// A Python task, compiled, and the binding of a job's arguments to its parameters.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.hpp"
#include "codec.hpp"

namespace leveret::bindings {

/// What a parameter takes without asking msgspec.
struct taken {
  enum bit : std::uint8_t { is_int = 1, is_float = 2, is_str = 4, is_bool = 8, is_none = 16, is_any = 32 };
};

struct parameter_in {
  std::string name;
  nb::object name_object;
  std::uint8_t mask = 0;
  nb::object decode;  ///< callable(bytes) -> value
  bool required = true;
};

struct python_handler {
  std::string name;
  nb::object function;
  nb::object failed;       ///< callable(exception, retry_count) -> (outcome, text, delay in ms)
  nb::object mismatch;     ///< callable(exception) -> (path, text)
  nb::object to_builtins;  ///< leveret.encoding.to_builtins
  nb::object spawn;        ///< of a coroutine function: callable(coroutine, context, pending); else None
  nb::object context;      ///< contextvars.Context that each attempt gets a copy of
  nb::object current;      ///< the ContextVar of current_job
  nb::object describe;     ///< callable(*facts) -> what the ContextVar holds
  nb::object end_child;    ///< callable(exception or None): ends this process, the child of a handler that forked
  std::vector<parameter_in> positional;
  std::size_t positional_only = 0;
  std::vector<parameter_in> keyword_only;
  std::optional<parameter_in> var_positional;
  std::optional<parameter_in> var_keyword;
};

/// A str of UTF-8; what is none becomes U+FFFD.
[[nodiscard]] nb::object text(std::string_view utf8);
/// The other way: lone surrogates become '?'.
[[nodiscard]] std::string utf8(nb::handle str);
/// The Python error that is set, taken away.
[[nodiscard]] nb::object take_raised();

/// One call's arguments: positional ones, then the values of the named ones. Owns them.
class argument_list {
 public:
  argument_list() = default;
  argument_list(const argument_list&) = delete;
  argument_list& operator=(const argument_list&) = delete;
  ~argument_list() {
    for (std::size_t i = 0; i < size_; ++i) Py_DECREF(at(i));
  }

  void push(PyObject* owned) {
    if (size_ < kFew) {
      few_[size_ + 1] = owned;
    } else {
      // The first slot is room for a callee, as the vectorcall protocol allows it to be used.
      if (size_ == kFew) many_.assign(few_.begin(), few_.end());
      many_.push_back(owned);
    }
    ++size_;
  }
  [[nodiscard]] PyObject** values() noexcept { return (size_ <= kFew ? few_.data() : many_.data()) + 1; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  [[nodiscard]] PyObject* at(std::size_t i) noexcept { return values()[i]; }

  static constexpr std::size_t kFew = 8;
  std::array<PyObject*, kFew + 1> few_{};
  std::vector<PyObject*> many_;
  std::size_t size_ = 0;
};

/// Binds a job's arguments to the parameters. Not enough, too many, of the wrong type: `why` says which, with its path.
class binder {
 public:
  binder(const python_handler& handler, const core::decoded_job& job, argument_list& out);

  /// False: they do not fit. Throws nb::python_error for what the interpreter can't do.
  [[nodiscard]] bool bind();
  /// How many of the arguments are positional; the others are named by `names`, a tuple or null.
  [[nodiscard]] std::size_t positional() const noexcept { return positional_; }
  [[nodiscard]] PyObject* names() const noexcept { return names_.ptr(); }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }

 private:
  [[nodiscard]] bool refuse(std::string why);
  [[nodiscard]] bool mismatched(const std::string& place);
  [[nodiscard]] bool take_foreign();
  [[nodiscard]] bool take_positional();
  [[nodiscard]] bool take_named();
  [[nodiscard]] bool complete();
  [[nodiscard]] bool named(const parameter_in& p) const;
  [[nodiscard]] const parameter_in* find(std::string_view name, std::size_t& position) const;
  [[nodiscard]] PyObject* make(const parameter_in& p, leveret_value value);

  const leveret_host& host_;
  const python_handler& handler_;
  const core::decoded_job& job_;
  argument_list& out_;
  std::size_t positional_ = 0;
  nb::object names_;
  std::string why_;
};

}  // namespace leveret::bindings
