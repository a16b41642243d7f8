#include "url.hpp"

#include <limits>
#include <stdexcept>
#include <string_view>

namespace leveret::core::redis {
namespace {

[[noreturn]] void refuse(const std::string& why) {
  throw std::invalid_argument("cannot use the Redis url: " + why +
                              "; the form is redis://user:password@host:port/db, or redis://:password@host");
}

int hex_digit(char c) noexcept {
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

void parse_credentials(std::string_view text, endpoint& out) {
  const std::size_t colon = text.find(':');
  // Alone it could be either, and a password taken for a user would be shown.
  if (colon == std::string_view::npos) refuse("it has something before the '@' and no ':' in it");
  out.user = decode(text.substr(0, colon), "user");
  out.password = decode(text.substr(colon + 1), "password");
  if (out.password.empty()) refuse("its password is empty");
}

void parse_authority(std::string_view text, endpoint& out) {
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

}  // namespace

std::string endpoint::where() const {
  std::string out = tls ? "rediss://" : "redis://";
  out += host.find(':') != std::string::npos ? "[" + host + "]" : host;
  out += ":" + std::to_string(port) + "/" + std::to_string(database);
  if (!verify) out += " (certificate NOT verified)";
  return out;
}

endpoint parse_url(const std::string& url) {
  endpoint out;
  std::string_view rest = url;
  if (rest.substr(0, 9) == "rediss://") {
    out.tls = true;
    rest.remove_prefix(9);
  } else if (rest.substr(0, 8) == "redis://") {
    rest.remove_prefix(8);
  } else {
    refuse("it does not begin with redis:// or rediss://");
  }
  // A raw '@', '/', '?' or '#' in a password is a common slip; the last '@' ends the credentials.
  if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) {
    parse_credentials(rest.substr(0, at), out);
    rest.remove_prefix(at + 1);
  }
  if (rest.find('#') != std::string_view::npos) refuse("it holds a '#' (write %23)");
  if (const std::size_t question = rest.find('?'); question != std::string_view::npos) {
    const std::string_view parameters = rest.substr(question + 1);
    rest = rest.substr(0, question);
    if (parameters != "verify=none" && parameters != "verify=peer") {
      refuse("it has parameters that are not known (there is verify=none, with rediss://)");
    }
    if (!out.tls) refuse("verify= is for rediss://");
    out.verify = parameters == "verify=peer";
  }
  const std::size_t slash = rest.find('/');
  parse_authority(rest.substr(0, slash), out);
  if (slash != std::string_view::npos && slash + 1 < rest.size()) {
    out.database = number(rest.substr(slash + 1), std::numeric_limits<std::int32_t>::max(), "db");
  }
  return out;
}

}  // namespace leveret::core::redis
