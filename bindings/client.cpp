/// The producing side of the core (client.hpp) for Python: converts, and never holds the GIL while it waits.
#include "client.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "send_many.hpp"
#include "sent_queue.hpp"
#include "signature.hpp"
#include "text_buffer.hpp"
#include "wall_clock.hpp"

namespace leveret::bindings {
namespace {

using std::chrono::milliseconds;

/// How long a wait goes on before Python's signal handlers (Ctrl-C) get a turn.
constexpr milliseconds kSignalSlice{100};

class client_handle {
 public:
  client_handle(const std::string& url, double publish_deadline, std::size_t batch_bytes, double linger, bool record) {
    core::client_options options;
    if (record) {
      recorded_ = std::make_shared<recorded>();
      options.on_publish = [kept = recorded_](const core::message& m) {
        const std::lock_guard<std::mutex> lock(kept->mutex);
        const core::unix_ms delay = m.due == 0 ? 0 : m.due - core::wall_clock_now();
        kept->messages.push_back({m.id, m.queue, delay, std::string(m.data.view())});
      };
    }
    options.publish_deadline = milliseconds(static_cast<std::int64_t>(publish_deadline * 1000));
    options.batch_bytes = batch_bytes;
    options.linger = std::chrono::microseconds(static_cast<std::int64_t>(linger * 1e6));
    const nb::gil_scoped_release released;
    client_ = std::make_shared<core::client>(url, options);
  }
  client_handle(const client_handle&) = delete;
  client_handle& operator=(const client_handle&) = delete;
  ~client_handle() {
    if (!client_) return;
    const nb::gil_scoped_release released;
    client_.reset();
  }

  /// A reference of the caller's own: another thread may close meanwhile.
  [[nodiscard]] std::shared_ptr<core::client> get() const {
    if (!client_)
      throw closed("cannot use this connection: it belongs to the parent process; open a new one after fork");
    return client_;
  }

  /// [(message id, queue, delay in ms, lines)…] published since the last call, if it records.
  [[nodiscard]] nb::list take_recorded() {
    std::vector<recorded_message> messages;
    if (recorded_) {
      const std::lock_guard<std::mutex> lock(recorded_->mutex);
      messages.swap(recorded_->messages);
    }
    nb::list out;
    for (const recorded_message& m : messages) {
      out.append(nb::make_tuple(m.id, m.queue, m.delay_ms, nb::bytes(m.lines.data(), m.lines.size())));
    }
    return out;
  }

  void close(double grace) {
    const std::shared_ptr<core::client> client = get();
    const nb::gil_scoped_release released;
    client->close(milliseconds(static_cast<std::int64_t>(grace * 1000)));
  }

  /// After fork, in the child: the threads and locks of the client are not here, so it can neither be used nor ended.
  void abandon() noexcept {
    if (client_) static_cast<void>(new std::shared_ptr<core::client>(std::move(client_)));
    client_.reset();
  }

 private:
  struct recorded_message {
    std::string id;
    std::string queue;
    std::int64_t delay_ms = 0;
    std::string lines;
  };
  struct recorded {
    std::mutex mutex;
    std::vector<recorded_message> messages;
  };
  std::shared_ptr<recorded> recorded_;
  std::shared_ptr<core::client> client_;
};

using wanted_claim = std::optional<std::tuple<std::string, int, std::int64_t>>;

core::envelope make_envelope(std::string queue, std::int64_t delay_ms, bool want_results, std::uint32_t shards,
                             const wanted_claim& once = std::nullopt) {
  core::envelope e;
  e.shards = shards;
  e.queue = std::move(queue);
  if (delay_ms > 0) {
    e.due = core::wall_clock_now() + delay_ms;
  }
  e.want_results = want_results;
  if (once) {
    const auto& [key, until, window_ms] = *once;
    e.once = {key, static_cast<core::held_until>(until), milliseconds(window_ms)};
  }
  return e;
}

nb::list chunks_to_python(const std::vector<core::result_chunk>& chunks) {
  nb::list out;
  for (const core::result_chunk& chunk : chunks) {
    out.append(nb::make_tuple(lossy_text(chunk.id), chunk.first_line, chunk.last_line,
                              nb::bytes(chunk.data.data(), chunk.data.size())));
  }
  return out;
}

/// Jobs whose results are wanted share a message only if one record of the sender's can hold their results: those of
/// one writer.
std::string group_of(const line_writer& writer, bool want_results) {
  return want_results ? std::to_string(reinterpret_cast<std::uintptr_t>(&writer)) : std::string();
}

/// Gives (message id, line, jobs of the message); 0 jobs: nothing was stored, and this is where the first one is.
nb::tuple send(const client_handle& self, const line_writer& writer, const nb::tuple& args, const nb::dict& kwargs,
               std::string queue, std::int64_t delay_ms, bool want_results, const wanted_claim& once,
               std::uint32_t shards) {
  text_buffer line;
  if (!writer.write(line, args.ptr(), kwargs.ptr())) throw nb::python_error();
  const std::shared_ptr<core::client> client = self.get();
  const core::envelope e = make_envelope(std::move(queue), delay_ms, want_results, shards, once);
  core::sent_job sent;
  {
    const nb::gil_scoped_release released;
    sent = client->send(e, group_of(writer, want_results), line.view());
  }
  const core::published at = place_of(sent);
  return nb::make_tuple(lossy_text(at.id), sent.line, at.jobs);
}

/// As `send`, for a line that is checked.
nb::tuple send_line(const client_handle& self, const nb::bytes& line, const std::string& queue, std::int64_t delay_ms,
                    bool want_results, const wanted_claim& once, std::uint32_t shards) {
  const std::shared_ptr<core::client> client = self.get();
  const core::envelope e = make_envelope(queue, delay_ms, want_results, shards, once);
  const std::string_view text(line.c_str(), line.size());
  core::sent_job sent;
  {
    const nb::gil_scoped_release released;
    sent = client->send(e, {}, text);
  }
  const core::published at = place_of(sent);
  return nb::make_tuple(lossy_text(at.id), sent.line, at.jobs);
}

void send_soon(const client_handle& self, const line_writer& writer, const nb::tuple& args, const nb::dict& kwargs,
               std::string queue, std::int64_t delay_ms, bool want_results, const sent_queue& into,
               std::uint64_t ticket, const wanted_claim& once, std::uint32_t shards) {
  text_buffer line;
  if (!writer.write(line, args.ptr(), kwargs.ptr())) throw nb::python_error();
  self.get()->send_soon(make_envelope(std::move(queue), delay_ms, want_results, shards, once),
                        group_of(writer, want_results), line.view(),
                        [to = into.shared(), ticket](core::sent_job job, std::exception_ptr failed) {
                          to->put({ticket, std::move(job), std::move(failed)});
                        });
}

nb::list take_results(const client_handle& self, const std::vector<std::string>& ids, std::optional<double> seconds) {
  using clock = core::client::clock;
  const std::shared_ptr<core::client> client = self.get();
  const auto now = clock::now();
  // About 30 years stand for "for ever": a time point must not overflow.
  const auto wait = std::chrono::duration<double>(seconds ? std::min(std::max(*seconds, 0.0), 1e9) : 1e9);
  const auto deadline = now + std::chrono::duration_cast<clock::duration>(wait);
  for (;;) {
    std::vector<core::result_chunk> chunks;
    {
      const nb::gil_scoped_release released;
      chunks = client->take_results(ids, std::min(deadline, clock::now() + kSignalSlice));
    }
    if (!chunks.empty() || clock::now() >= deadline) return chunks_to_python(chunks);
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

nb::dict stats_to_python(const core::queue_stats& stats) {
  nb::dict out;
  out["queue"] = lossy_text(stats.queue);
  out["ready"] = stats.ready;
  out["ready_jobs"] = stats.ready_jobs;
  out["delayed"] = stats.delayed;
  out["running"] = stats.running;
  out["dead"] = stats.dead;
  out["consumers"] = stats.consumers;
  return out;
}

core::message_state state_of(const std::string& name) {
  if (name == "ready") return core::message_state::ready;
  if (name == "delayed") return core::message_state::delayed;
  if (name == "running") return core::message_state::running;
  throw std::invalid_argument("there is no state " + name + " of messages: ready, delayed or running");
}

template <class Function>
auto without_gil(const client_handle& self, Function&& function) {
  const std::shared_ptr<core::client> client = self.get();
  const nb::gil_scoped_release released;
  return function(*client);
}

}  // namespace

void init_client(nb::module_& m) {
  nb::class_<client_handle>(m, "Client", "A connection to a broker. Thread-safe; no call holds the GIL while it waits.")
      .def(nb::init<const std::string&, double, std::size_t, double, bool>(), nb::arg("url"),
           nb::arg("publish_deadline"), nb::arg("batch_bytes"), nb::arg("linger") = 0.0, nb::arg("record") = false)
      .def("take_recorded", &client_handle::take_recorded,
           nb::sig("def take_recorded(self) -> list[tuple[str, str, int, bytes]]"),
           "(message id, queue, delay in ms, lines) of what was published since the last call, if it records.")
      .def(
          "send", &send, nb::arg("writer"), nb::arg("args"), nb::arg("kwargs"), nb::arg("queue"), nb::arg("delay_ms"),
          nb::arg("want_results"), nb::arg("once") = nb::none(), nb::arg("shards") = 1,
          nb::sig("def send(self, writer: LineWriter, args: tuple[typing.Any, ...], kwargs: dict[str, typing.Any], "
                  "queue: str, delay_ms: int, want_results: bool, once: tuple[str, int, int] | None = None, "
                  "shards: int = 1) -> tuple[str, int, int]"),
          "Publishes one job; gives its message's id, its line there, and how many jobs are there, once it is durable. "
          "`once`: the key that it claims, until when (0: the window, 1: its start, 2: its end), the window in ms; if "
          "the key is another job's, that one comes back, and 0 for the jobs.")
      .def("send_line", &send_line, nb::arg("line"), nb::arg("queue"), nb::arg("delay_ms"), nb::arg("want_results"),
           nb::arg("once"), nb::arg("shards") = 1,
           nb::sig("def send_line(self, line: bytes, queue: str, delay_ms: int, want_results: bool, once: tuple[str, "
                   "int, int] | None, shards: int = 1) -> tuple[str, int, int]"),
           "As `send`, for the checked line of a job, ended by a newline.")
      .def("send_soon", &send_soon, nb::arg("writer"), nb::arg("args"), nb::arg("kwargs"), nb::arg("queue"),
           nb::arg("delay_ms"), nb::arg("want_results"), nb::arg("into"), nb::arg("ticket"),
           nb::arg("once") = nb::none(), nb::arg("shards") = 1,
           nb::sig("def send_soon(self, writer: LineWriter, args: tuple[typing.Any, ...], "
                   "kwargs: dict[str, typing.Any], queue: str, delay_ms: int, want_results: bool, into: SentQueue, "
                   "ticket: int, once: tuple[str, int, int] | None = None, shards: int = 1) -> None"),
           "As `send`, without waiting: what became of it comes into `into`.")
      .def(
          "send_many",
          [](const client_handle& self, const line_writer& writer, const nb::object& jobs, const nb::object& args_type,
             const std::string& queue, std::int64_t delay_ms, bool want_results, std::uint32_t shards) {
            return send_many(self.get(), writer, jobs, args_type, make_envelope(queue, delay_ms, want_results, shards));
          },
          nb::arg("writer"), nb::arg("jobs"), nb::arg("args_type"), nb::arg("queue"), nb::arg("delay_ms"),
          nb::arg("want_results"), nb::arg("shards") = 1,
          nb::sig("def send_many(self, writer: LineWriter, jobs: object, args_type: type, queue: str, delay_ms: int, "
                  "want_results: bool, shards: int = 1) -> "
                  "tuple[list[tuple[str, int]], Exception | None, BaseException | None]"),
          "Publishes jobs: the messages accepted, what publishing failed with, what the iterable or an argument "
          "raised.")
      .def(
          "send_many_keyed",
          [](const client_handle& self, const line_writer& writer, const nb::object& jobs, const nb::object& args_type,
             const nb::object& key, const std::string& queue, std::int64_t delay_ms, bool want_results) {
            return send_many_keyed(self.get(), writer, jobs, args_type, key,
                                   make_envelope(queue, delay_ms, want_results, 1));
          },
          nb::arg("writer"), nb::arg("jobs"), nb::arg("args_type"), nb::arg("key"), nb::arg("queue"),
          nb::arg("delay_ms"), nb::arg("want_results"),
          nb::sig("def send_many_keyed(self, writer: LineWriter, jobs: object, args_type: type, "
                  "key: collections.abc.Callable[[tuple[typing.Any, ...], dict[str, typing.Any]], str], queue: str, "
                  "delay_ms: int, want_results: bool) -> tuple[list[tuple[str, int]], bytes, Exception | None, "
                  "BaseException | None, int]"),
          "As `send_many`, for jobs with keys: the messages; two u32 a job, its message's index and its line; what "
          "publishing failed with; what the iterable, a key or an argument raised; how many jobs behind the first "
          "that was not accepted were.")
      .def(
          "send_blocks",
          [](const client_handle& self, const nb::object& blocks, const std::string& queue, std::int64_t delay_ms,
             bool want_results, std::uint32_t shards) {
            return send_blocks(self.get(), blocks, make_envelope(queue, delay_ms, want_results, shards));
          },
          nb::arg("blocks"), nb::arg("queue"), nb::arg("delay_ms"), nb::arg("want_results"), nb::arg("shards") = 1,
          nb::sig(
              "def send_blocks(self, blocks: collections.abc.Iterable[tuple[bytes, int]], queue: str, delay_ms: int, "
              "want_results: bool, shards: int = 1) -> tuple[list[tuple[str, int]], Exception | None]"),
          "Publishes blocks of checked lines, each line ended by a newline, with their number.")
      .def("take_results", &take_results, nb::arg("ids"), nb::arg("seconds"),
           nb::sig("def take_results(self, ids: collections.abc.Sequence[str], seconds: float | None) -> "
                   "list[tuple[str, int, int, bytes]]"),
           "(message id, first line, last line, lines) of what came; waits for the first up to `seconds` (None: for "
           "ever).")
      .def(
          "forget_results",
          [](const client_handle& self, const std::vector<std::string>& ids) {
            without_gil(self, [&](core::client& c) {
              c.forget_results(ids);
              return 0;
            });
          },
          nb::arg("ids"))
      .def(
          "fetch_results",
          [](const client_handle& self, const std::vector<std::string>& ids) {
            return chunks_to_python(without_gil(self, [&](core::client& c) { return c.fetch_results(ids); }));
          },
          nb::arg("ids"),
          nb::sig("def fetch_results(self, ids: collections.abc.Sequence[str]) -> list[tuple[str, int, int, bytes]]"))
      .def(
          "declare",
          [](const client_handle& self, const std::string& queue) {
            without_gil(self, [&](core::client& c) {
              c.declare(queue);
              return 0;
            });
          },
          nb::arg("queue"))
      .def(
          "stats",
          [](const client_handle& self, const std::string& queue) {
            nb::list out;
            for (const core::queue_stats& stats : without_gil(self, [&](core::client& c) { return c.stats(queue); })) {
              out.append(stats_to_python(stats));
            }
            return out;
          },
          nb::arg("queue"), nb::sig("def stats(self, queue: str) -> list[dict[str, typing.Any]]"))
      .def(
          "dead",
          [](const client_handle& self, const std::string& queue, const std::string& cursor, std::size_t limit) {
            const core::browse_page page =
                without_gil(self, [&](core::client& c) { return c.dead(queue, cursor, limit); });
            nb::list entries;
            for (const core::browse_entry& entry : page.entries)
              entries.append(nb::make_tuple(lossy_text(entry.cursor), lossy_text(entry.record)));
            return nb::make_tuple(entries, page.more);
          },
          nb::arg("queue"), nb::arg("cursor"), nb::arg("limit"),
          nb::sig("def dead(self, queue: str, cursor: str, limit: int) -> tuple[list[tuple[str, str]], bool]"),
          "([(cursor, dead record as JSON)…], whether there are more)")
      .def(
          "purge",
          [](const client_handle& self, const std::string& queue) {
            return without_gil(self, [&](core::client& c) { return c.purge(queue); });
          },
          nb::arg("queue"))
      .def(
          "check_access",
          [](const client_handle& self, const std::string& queue) {
            without_gil(self, [&](core::client& c) { c.check_access(queue); });
          },
          nb::arg("queue"))
      .def(
          "browse",
          [](const client_handle& self, const std::string& queue, const std::string& state, const std::string& id,
             const std::string& cursor, std::size_t limit) {
            core::browse_query query{queue, state_of(state), id, cursor, limit};
            const core::message_page page = without_gil(self, [&](core::client& c) { return c.browse(query); });
            nb::list entries;
            for (const core::browsed_message& entry : page.entries) {
              nb::dict one;
              one["cursor"] = lossy_text(entry.cursor);
              one["id"] = lossy_text(entry.msg.id);
              one["jobs"] = entry.msg.jobs;
              one["due"] = entry.msg.due;
              one["data"] = nb::bytes(entry.msg.data.data(), entry.msg.data.size());
              entries.append(one);
            }
            return nb::make_tuple(entries, page.more);
          },
          nb::arg("queue"), nb::arg("state"), nb::arg("id"), nb::arg("cursor"), nb::arg("limit"),
          nb::sig("def browse(self, queue: str, state: str, id: str, cursor: str, limit: int) -> "
                  "tuple[list[dict[str, typing.Any]], bool]"),
          "Messages that are `ready`, `delayed` or `running`, and whether there are more.")
      .def(
          "replay",
          [](const client_handle& self, const std::string& queue, const std::vector<std::string>& ids, bool all) {
            return without_gil(self, [&](core::client& c) { return c.replay(queue, ids, all); });
          },
          nb::arg("queue"), nb::arg("ids"), nb::arg("all"),
          nb::sig("def replay(self, queue: str, ids: collections.abc.Sequence[str], all: bool) -> int"),
          "Puts dead jobs back into their queue; gives how many.")
      .def(
          "drop_dead",
          [](const client_handle& self, const std::string& queue, const std::vector<std::string>& ids, bool all) {
            return without_gil(self, [&](core::client& c) { return c.drop_dead(queue, ids, all); });
          },
          nb::arg("queue"), nb::arg("ids"), nb::arg("all"),
          nb::sig("def drop_dead(self, queue: str, ids: collections.abc.Sequence[str], all: bool) -> int"),
          "Removes dead jobs for good; gives how many.")
      .def(
          "cancel",
          [](const client_handle& self, const std::vector<std::string>& ids, bool terminate) {
            return without_gil(self, [&](core::client& c) { return c.cancel(ids, terminate); });
          },
          nb::arg("ids"), nb::arg("terminate") = false,
          nb::sig("def cancel(self, ids: collections.abc.Sequence[str], terminate: bool = False) -> list[bool]"),
          "Has jobs end as cancelled; whether each ended at once, or its workers were asked.")
      .def(
          "progress",
          [](const client_handle& self, const std::string& id) {
            return without_gil(self, [&](core::client& c) { return c.progress(id); });
          },
          nb::arg("id"), "The latest progress of a job as JSON; empty: none is known.")
      .def(
          "known",
          [](const client_handle& self, const std::string& kind, const std::string& id) {
            nb::list out;
            for (const core::report& r : without_gil(self, [&](core::client& c) { return c.known(kind, id); })) {
              out.append(nb::make_tuple(lossy_text(r.id), r.time, lossy_text(r.body)));
            }
            return out;
          },
          nb::arg("kind"), nb::arg("id"), nb::sig("def known(self, kind: str, id: str) -> list[tuple[str, int, str]]"),
          "(id, time in milliseconds since 1970, JSON) of what was made known.")
      .def("where", [](const client_handle& self) { return self.get()->where(); })
      .def(
          "health",
          [](const client_handle& self) {
            const core::health health = self.get()->how_it_is();
            constexpr const char* kNames[] = {"connected", "connecting", "blocked", "failed", "closed"};
            return nb::make_tuple(kNames[static_cast<int>(health.state)], lossy_text(health.detail));
          },
          nb::sig("def health(self) -> tuple[str, str]"))
      .def(
          "capabilities",
          [](const client_handle& self) {
            const core::capabilities can = self.get()->what_it_can();
            nb::dict out;
            out["delivery_count"] = can.delivery_count;
            out["fetch"] = can.fetch;
            out["list_queues"] = can.list_queues;
            out["browse_live"] = can.browse_live;
            out["job_reports"] = can.job_reports;
            out["exactly_one_end"] = can.exactly_one_end;
            out["claims"] = can.claims;
            return out;
          },
          nb::sig("def capabilities(self) -> dict[str, bool]"))
      .def("close", &client_handle::close, nb::arg("grace"))
      .def("abandon", &client_handle::abandon, "After fork, in the child: never touch the parent's connection again.");
}

}  // namespace leveret::bindings
