/// What this build is made of, and checks of names and urls.
#include <leveret/abi.h>
#include <nanobind/stl/string.h>

#include <leveret/version.hpp>

#include "bindings.hpp"
#include "default_url.hpp"
#include "ordered.hpp"
#include "shards.hpp"
#include "transport.hpp"

namespace leveret::bindings {

void init_host(nb::module_& m) {
  m.attr("version") = LEVERET_VERSION;
  m.attr("abi_version") = LEVERET_ABI_VERSION;
  m.def(
      "libraries",
      [] {
        nb::dict out;
        out["rabbitmq-c"] = LEVERET_BUILT_RABBITMQ;
        out["hiredis"] = LEVERET_BUILT_HIREDIS;
        out["sqlite"] = LEVERET_BUILT_SQLITE;
        out["simdjson"] = LEVERET_BUILT_SIMDJSON;
        out["openssl"] = LEVERET_BUILT_OPENSSL;
        return out;
      },
      nb::sig("def libraries() -> dict[str, str]"), "The versions of the system libraries that this was built with.");
  m.def("default_url", &core::default_url,
        "The url where none is given: LEVERET_URL, or leveret.db beside the nearest pyproject.toml, else here.");
  m.def("display_url", &core::display_url, nb::arg("url"),
        "The url for people: the absolute path or host, never a password. ValueError for what is no url.");
  m.def("check_queue_name", &core::check_queue_name, nb::arg("name"),
        "ValueError, with the reason, for what is no queue name.");
  m.def(
      "ordered_queue",
      [](const std::string& queue, const std::string& key) { return core::ordered_queue(queue, core::shard_of(key)); },
      nb::arg("queue"), nb::arg("key"), "The queue that keeps the jobs of a key in order.");
  m.def("check_shards", &core::check_shards, nb::arg("queue"), nb::arg("shards"),
        "ValueError, with the reason, for what a queue can't be spread over.");
  m.def(
      "shard_queue", [](const std::string& queue, std::uint32_t shard) { return core::shard_queue(queue, shard); },
      nb::arg("queue"), nb::arg("shard"), "The queue of a shard, from 0 on.");
  m.attr("ordered_shards") = core::kOrderedShards;
}

}  // namespace leveret::bindings
