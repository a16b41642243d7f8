/// Many jobs sent together, for Python: lines are gathered and handed on in pieces. Every call may wait for the broker;
/// the GIL is free meanwhile.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string>

#include "client.hpp"
#include "signature.hpp"

namespace leveret::bindings {

namespace nb = nanobind;

/// What a broker or another program has written; what is no UTF-8 in it is replaced.
[[nodiscard]] nb::object lossy_text(const std::string& utf8);

/// Gives ([(message id, jobs)…], the publishing error or None, what the iterable or an argument raised or None).
[[nodiscard]] nb::tuple send_many(std::shared_ptr<core::client> client, const line_writer& writer,
                                  const nb::object& jobs, const nb::object& args_type, const core::envelope& e);
/// For jobs with keys, to the ordered queues of the envelope's queue; `key` is called with a job's arguments and gives
/// the key's text. Gives ([(message id, jobs)…], where each job is, the publishing error or None, what the iterable, a
/// key or an argument raised or None, jobs accepted behind the first that was not).
[[nodiscard]] nb::tuple send_many_keyed(std::shared_ptr<core::client> client, const line_writer& writer,
                                        const nb::object& jobs, const nb::object& args_type, const nb::object& key,
                                        const core::envelope& e);
/// Blocks of (lines, their number). Gives ([(message id, jobs)…], the publishing error or None).
[[nodiscard]] nb::tuple send_blocks(std::shared_ptr<core::client> client, const nb::object& blocks,
                                    const core::envelope& e);

}  // namespace leveret::bindings
