#include "explain.hpp"

#include <array>
#include <string_view>

namespace leveret::core::redis {
namespace {

struct known_error {
  std::string_view mark;
  std::string_view meaning;
};

// Found anywhere in the text: a script's error begins with other words before Redis 7.
constexpr std::array<known_error, 12> kKnown{{
    {"WRONGTYPE",
     "the key is another program's, which keeps something else there; give results a database of their own, as in "
     "redis://host:port/1"},
    {"OOM command not allowed",
     "the server has reached its maxmemory and evicts nothing; raise maxmemory, or have it evict what expires first "
     "(maxmemory-policy volatile-ttl)"},
    {"READONLY", "the server is a replica, which takes no writes; name the primary in the url"},
    {"NOPERM",
     "the user of the url may not do that; allow it: ACL SETUSER name ~leveret:result:* +eval +hlen +hsetnx +expire "
     "+hgetall +select +ping"},
    {"NOAUTH", "the server wants a password; write redis://:password@host or redis://user:password@host"},
    {"MISCONF", "the server cannot save its data and takes no writes until it can; look at its log and its disk"},
    {"LOADING", "the server is reading its data from disk; it is tried again"},
    {"MASTERDOWN", "the server is a replica without its primary; name the primary in the url"},
    {"NOREPLICAS", "the server takes no writes while too few replicas follow it (min-replicas-to-write)"},
    {"BUSY ", "another program's script keeps the server busy; end it with SCRIPT KILL"},
    {"MOVED ", "the server is a node of a Redis Cluster, of which keys are elsewhere; name a server that is none"},
    {"CLUSTERDOWN", "the server is a node of a Redis Cluster that is down; name a server that is none"},
}};

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string without(std::string text, const std::string& secret) {
  if (secret.empty()) return text;
  for (std::size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at + 3)) {
    text.replace(at, secret.size(), "***");
  }
  return text;
}

}  // namespace

std::string explained(const std::string& error) {
  for (const known_error& known : kKnown) {
    if (has(error, known.mark)) return std::string(known.meaning) + " (" + error + ")";
  }
  return "the server refused it: " + error;
}

std::string login_refused(const std::string& error, const endpoint& where) {
  const std::string shown = " (" + without(error, where.password) + ")";
  if (has(error, "without any password configured")) {
    return "the server has no password set, the url has one; leave it out, or set one (requirepass)" + shown;
  }
  if (has(error, "wrong number of arguments")) {
    return "the server knows no users, as before Redis 6; write redis://:password@host" + shown;
  }
  if (has(error, "WRONGPASS") || has(error, "invalid password")) {
    return "the server refused the user or password of the url" + shown;
  }
  return "the server refused the login" + shown;
}

std::string database_refused(const std::string& error, const endpoint& where) {
  const std::string database = std::to_string(where.database);
  if (has(error, "out of range")) {
    return "the server has no database " + database +
           "; take a lower number at the end of the url, or raise its setting databases (" + error + ")";
  }
  if (has(error, "cluster mode")) {
    return "a Redis Cluster has no database " + database + ", and is not supported; name a server that is none (" +
           error + ")";
  }
  return explained(error);
}

}  // namespace leveret::core::redis
