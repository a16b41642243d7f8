#include "transport.hpp"

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "ordered.hpp"
#include "results_store.hpp"

namespace leveret::core {
namespace {

constexpr const char* kForms =
    "write memory://[name], sqlite:///relative/path, sqlite:////absolute/path, amqp://user:password@host:port/vhost or "
    "amqps://…";
constexpr std::size_t kMaxQueueNameBytes = 128;

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '-' || c == ':';
}

// For error texts: control characters and bytes past ASCII as \xNN, cut at the length that a name may have.
std::string printable(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string shown;
  for (const char c : text.substr(0, kMaxQueueNameBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      shown += c;
    } else {
      shown += "\\x";
      shown += kDigits[byte >> 4];
      shown += kDigits[byte & 15];
    }
  }
  return shown;
}

// Everything between the scheme and the last '@' is user and password, wherever a stray '/' or '?' of an unescaped
// password would end the authority: rather a host hidden than a part of a password shown.
std::string without_password(std::string_view scheme, std::string_view rest) {
  std::string shown(scheme);
  shown += "://";
  const std::size_t at = rest.rfind('@');
  if (at != std::string_view::npos) {
    const std::string_view user = rest.substr(0, rest.substr(0, at).find(':'));
    shown += user.substr(0, at);
    rest.remove_prefix(at);
  }
  shown += rest;
  return shown;
}

}  // namespace

// NOLINTNEXTLINE(performance-unnecessary-value-param): those that do it take both along
void transport::exchange(exchanged_value what, reply<std::string> then) {
  then({}, failure{errc::unsupported, "cannot change the key " + what.key + ": " + where() + " is no store"});
}

std::string display_url(const std::string& url) {
  const std::size_t colon = url.find("://");
  if (colon == std::string::npos || colon == 0) {
    // Not repeated: what is no url may still hold a password.
    throw std::invalid_argument(std::string("cannot read the broker's url: it has no scheme; ") + kForms);
  }
  const std::string_view scheme = std::string_view(url).substr(0, colon);
  const broker_and_results split = split_results(url);
  const std::string_view rest = std::string_view(url).substr(colon + 3);
  if (scheme == "memory") return url;
  if (scheme == "amqp" || scheme == "amqps") {
    std::string shown = without_password(scheme, std::string_view(split.broker).substr(colon + 3));
    if (!split.results.empty()) shown += ", results in " + display_results_url(split.results);
    return shown;
  }
  if (scheme == "sqlite") {
    if (rest.size() < 2 || rest.front() != '/' || rest[1] == '?') {
      throw std::invalid_argument("cannot read the broker's url \"" + url +
                                  "\": after sqlite:// comes a slash and the file's path; write "
                                  "sqlite:///relative/path or sqlite:////absolute/path");
    }
    const std::size_t query = rest.find('?');
    const std::string_view path = rest.substr(1, query == std::string_view::npos ? query : query - 1);
    std::error_code failed;
    const std::filesystem::path absolute = std::filesystem::absolute(std::filesystem::path(path), failed);
    if (failed) return url;  // no working directory any more: the path as it came says more than nothing
    std::string shown = "sqlite:///" + absolute.lexically_normal().string();
    if (query != std::string_view::npos) shown += rest.substr(query);
    return shown;
  }
  if (scheme == "redis" || scheme == "rediss") {
    throw std::invalid_argument(
        "cannot read the broker's url: Redis keeps results beside RabbitMQ and is no broker of jobs; write "
        "amqp://host?results=redis://…, or App(\"amqp://host\", results=\"redis://…\")");
  }
  throw std::invalid_argument("cannot read the broker's url: unknown scheme \"" + std::string(scheme) +
                              "\"; the known ones are memory, sqlite, amqp, amqps: " + kForms);
}

void check_queue_name(const std::string& name) {
  const auto refuse = [&name](const std::string& why) {
    throw std::invalid_argument("\"" + printable(name) + "\" is no queue name: " + why);
  };
  if (name.empty()) refuse("it is empty; give 1 to 128 letters, digits, '.', '_', '-', ':'");
  if (name.size() > kMaxQueueNameBytes) {
    refuse("it has " + std::to_string(name.size()) + " bytes, at most 128 are allowed; shorten it");
  }
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (!is_name_character(name[i])) {
      refuse("byte " + std::to_string(i + 1) + " is not allowed; use letters, digits, '.', '_', '-', ':'");
    }
  }
  for (const char* reserved : {kDeadSuffix, kSuspectsSuffix, kOrderedSuffix}) {
    if (ends_with(name, reserved)) {
      refuse(std::string("names that end in '") + reserved + "' are Leveret's own; take another ending");
    }
  }
}

}  // namespace leveret::core
