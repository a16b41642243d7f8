#include "url.hpp"

#include <cctype>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace leveret::core::rabbitmq {
namespace {

constexpr const char* kForm = "; the form is amqp://user:password@host:port/vhost";

[[noreturn]] void refuse(const std::string& why) {
  throw std::invalid_argument("cannot use the RabbitMQ url: " + why + kForm);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decode(std::string_view text, const char* part) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low < 0) refuse(std::string("a '%' in its ") + part + " is not followed by two hexadecimal digits (write %25)");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  if (out.find('\0') != std::string::npos) refuse(std::string("its ") + part + " holds a zero byte");
  return out;
}

std::uint32_t number(std::string_view text, std::uint32_t most, const char* part) {
  std::uint64_t value = 0;
  if (text.empty()) refuse(std::string("its ") + part + " is empty");
  for (const char c : text) {
    if (c < '0' || c > '9') refuse(std::string("its ") + part + " is not a number");
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
    if (value > most) refuse(std::string("its ") + part + " is larger than " + std::to_string(most));
  }
  return static_cast<std::uint32_t>(value);
}

void parse_host(std::string_view text, endpoint& out) {
  std::string_view port;
  bool has_port = false;
  if (!text.empty() && text.front() == '[') {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) refuse("its '[' has no ']'");
    out.host = std::string(text.substr(1, close - 1));
    if (out.host.find(':') == std::string::npos) refuse("the brackets hold no IPv6 address");
    text.remove_prefix(close + 1);
    if (!text.empty() && text.front() != ':') refuse("only a port may follow the ']'");
    has_port = !text.empty();
    if (has_port) port = text.substr(1);
  } else {
    const std::size_t colon = text.find(':');
    if (colon != std::string_view::npos && text.find(':', colon + 1) != std::string_view::npos) {
      refuse("its host holds several ':' (write an IPv6 address in brackets)");
    }
    if (const std::string host = decode(text.substr(0, colon), "host"); !host.empty()) out.host = host;
    has_port = colon != std::string_view::npos;
    if (has_port) port = text.substr(colon + 1);
  }
  if (has_port) out.port = static_cast<std::uint16_t>(number(port, std::numeric_limits<std::uint16_t>::max(), "port"));
  if (out.port == 0) refuse("its port is 0");
}

std::vector<endpoint> parse_authority(std::string_view text, endpoint out) {
  // A raw '@' in a password is a common slip; the last one ends the credentials, as browsers read it.
  if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) {
    const std::string_view credentials = text.substr(0, at);
    text.remove_prefix(at + 1);
    const std::size_t colon = credentials.find(':');
    out.user = decode(credentials.substr(0, colon), "user");
    out.password = colon == std::string_view::npos ? "" : decode(credentials.substr(colon + 1), "password");
    if (out.user.empty()) refuse("its user is empty");
  }
  const bool several = text.find(',') != std::string_view::npos;
  std::vector<endpoint> servers;
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view one = text.substr(0, comma);
    if (several && (one.empty() || one.front() == ':')) refuse("one of its hosts is empty");
    parse_host(one, servers.emplace_back(out));
    if (comma == std::string_view::npos) return servers;
    text.remove_prefix(comma + 1);
  }
}

void parse_parameter(std::string_view parameter, endpoint& out) {
  const std::size_t equals = parameter.find('=');
  const std::string_view name = parameter.substr(0, equals);
  const std::string_view value = equals == std::string_view::npos ? std::string_view() : parameter.substr(equals + 1);
  if (name == "heartbeat") {
    const std::uint32_t seconds = number(value, std::numeric_limits<std::uint16_t>::max(), "heartbeat");
    if (seconds == 0) refuse("a heartbeat of 0 would leave lost connections unnoticed (give 1 to 65535 seconds)");
    out.heartbeat = std::chrono::seconds(seconds);
  } else if (name == "verify" && (value == "none" || value == "peer")) {
    if (!out.tls) refuse("verify= is for amqps://");
    out.verify = value == "peer";
  } else if (name == "verify") {
    refuse("verify= is peer or none");
  } else {
    refuse("its parameter \"" + std::string(name) + "\" is not known (heartbeat=SECONDS, verify=none)");
  }
}

std::string encode_vhost(const std::string& vhost) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : vhost) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == '~') {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace

std::string where(const std::vector<endpoint>& servers) {
  const endpoint& first = servers.front();
  std::string out = first.tls ? "amqps://" : "amqp://";
  for (const endpoint& each : servers) {
    if (&each != &first) out += ',';
    const bool v6 = each.host.find(':') != std::string::npos;
    out.append(v6 ? "[" : "").append(each.host).append(v6 ? "]:" : ":").append(std::to_string(each.port));
  }
  out += '/';
  // The default vhost is named "/": the url of people leaves it out.
  if (first.vhost != "/") out += encode_vhost(first.vhost);
  if (!first.verify) out += " (certificate NOT verified)";
  return out;
}

std::string endpoint::where() const { return rabbitmq::where({*this}); }

std::vector<endpoint> parse_url(const std::string& url) {
  endpoint out;
  std::string_view rest = url;
  if (rest.substr(0, 8) == "amqps://") {
    out.tls = true;
    out.port = 5671;
    rest.remove_prefix(8);
  } else if (rest.substr(0, 7) == "amqp://") {
    rest.remove_prefix(7);
  } else {
    refuse("it does not begin with amqp:// or amqps://");
  }
  if (rest.find("://") != std::string_view::npos) {
    refuse("it holds a second url (write several hosts of one cluster as user:password@a,b,c)");
  }
  if (rest.find('#') != std::string_view::npos) refuse("it holds a '#' (write %23)");
  std::string_view parameters;
  // Credentials may hold a raw '?' or '/' by mistake; split behind them.
  const std::size_t at = rest.rfind('@');
  const std::size_t from = at == std::string_view::npos ? 0 : at;
  if (const std::size_t question = rest.find('?', from); question != std::string_view::npos) {
    parameters = rest.substr(question + 1);
    rest = rest.substr(0, question);
  }
  const std::size_t slash = rest.find('/', from < rest.size() ? from : 0);
  const std::string_view authority = rest.substr(0, slash);
  if (slash != std::string_view::npos && slash + 1 < rest.size()) {
    const std::string_view path = rest.substr(slash + 1);
    if (path.find('/') != std::string_view::npos) refuse("its vhost holds a '/' (write %2F)");
    out.vhost = decode(path, "vhost");
  }
  while (!parameters.empty()) {
    const std::size_t ampersand = parameters.find('&');
    parse_parameter(parameters.substr(0, ampersand), out);
    parameters = ampersand == std::string_view::npos ? std::string_view() : parameters.substr(ampersand + 1);
  }
  return parse_authority(authority, std::move(out));
}

}  // namespace leveret::core::rabbitmq
