/// The wire contract's checks for what other programs wrote: `leveret send --from`.
#include "codec.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cstdint>
#include <string_view>

#include "bindings.hpp"

namespace leveret::bindings {
namespace {

nb::object describe(const core::refused_line& why) {
  return nb::make_tuple(
      core::to_string(why.code),
      nb::steal(PyUnicode_DecodeUTF8(why.text.data(), static_cast<Py_ssize_t>(why.text.size()), "replace")));
}

std::string_view bytes_view(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }

/// Checks a line or whole lines; gives (lines, None) or (lines before the bad one, (code, text)).
nb::tuple check_lines(core::line_codec& codec, std::string_view data) {
  std::uint64_t lines = 0;
  bool good = true;
  core::refused_line why;
  {
    const nb::gil_scoped_release released;
    while (good && !data.empty()) {
      const std::size_t end = data.find('\n');
      good = codec.check(data.substr(0, end), why);
      if (good) ++lines;
      data.remove_prefix(end == std::string_view::npos ? data.size() : end + 1);
    }
  }
  return nb::make_tuple(lines, good ? nb::none() : describe(why));
}

}  // namespace

void init_codec(nb::module_& m) {
  m.def(
      "check_line",
      [](const nb::bytes& line) -> nb::object {
        core::line_codec codec;
        core::refused_line why;
        if (codec.check(bytes_view(line), why)) return nb::none();
        return describe(why);
      },
      nb::arg("line"), nb::sig("def check_line(line: bytes) -> tuple[str, str] | None"),
      "None if a worker would accept this line (no newline in it); else the contract's code and a text.");
  m.def(
      "check_lines",
      [](const nb::bytes& data) {
        core::line_codec codec;
        return check_lines(codec, bytes_view(data));
      },
      nb::arg("data"), nb::sig("def check_lines(data: bytes) -> tuple[int, tuple[str, str] | None]"),
      "Checks whole lines, each ended by a newline but perhaps the last: how many are good before the first bad one, "
      "and "
      "what is wrong with that one. Releases the GIL.");
}

}  // namespace leveret::bindings
