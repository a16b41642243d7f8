// Apart from transport.cpp, so that a program that opens one transport by name does not link them all.
#include <array>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "results_store.hpp"
#include "signing.hpp"
#include "transport.hpp"

namespace leveret::core {
namespace {

using open_function = std::unique_ptr<transport> (*)(const std::string&, loop&, const limits&);

struct known_scheme {
  std::string_view name;
  open_function open;
};

constexpr std::array<known_scheme, 4> kSchemes{{
    {"memory", open_memory},
    {"sqlite", open_sqlite},
    {"amqp", open_rabbitmq},
    {"amqps", open_rabbitmq},
}};

}  // namespace

std::unique_ptr<results_store> open_results_store(const std::string& url, loop& l, const limits& lim) {
  (void)display_results_url(url);  // refuses a url that is none, without repeating a password
  return url.compare(0, 5, "redis") == 0 ? open_redis(url, l, lim) : results_in(open_sqlite(url, l, lim));
}

std::unique_ptr<transport> open_transport(const std::string& url, loop& l, const limits& lim) {
  (void)display_url(url);  // refuses a url that is none, without repeating a password
  const broker_and_results split = split_results(url);
  std::shared_ptr<const signing_keys> keys = signing_keys_of_environment();
  const std::string_view scheme = std::string_view(url).substr(0, url.find("://"));
  for (const known_scheme& known : kSchemes) {
    if (known.name != scheme) continue;
    std::unique_ptr<transport> broker = known.open(split.broker, l, lim);
    // What claims a key may be published under another sender's message id: it is signed after that.
    if (keys) broker = with_signatures(std::move(broker), std::move(keys));
    if (!split.results.empty()) {
      broker = with_results(std::move(broker), open_results_store(split.results, l, lim), l, lim);
    }
    return broker;
  }
  // display_url knows the same schemes.
  throw std::invalid_argument("cannot open the broker: no transport for scheme \"" + std::string(scheme) + "\"");
}

}  // namespace leveret::core
