#include "once.hpp"

#include <stdexcept>

#include "net/hmac.hpp"

namespace leveret::core {
namespace {

std::string named(std::string_view task) { return std::to_string(task.size()) + ":" + std::string(task); }

}  // namespace

std::string claim_key(std::string_view task, std::string_view idempotency_key) {
  if (idempotency_key.size() > kMostIdempotencyKeyBytes) {
    throw std::invalid_argument("cannot send \"" + std::string(task) + "\": its idempotency key has " +
                                std::to_string(idempotency_key.size()) + " bytes, at most " +
                                std::to_string(kMostIdempotencyKeyBytes) + " are allowed; send a hash of it");
  }
  return named(task) + ":" + std::string(idempotency_key);
}

std::string claim_key(std::string_view task, leveret_value args, leveret_value kwargs) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string key = named(task) + "=";
  for (const unsigned char byte : net::sha256("[" + to_canonical_json(args) + "," + to_canonical_json(kwargs) + "]")) {
    key.push_back(kHex[byte >> 4]);
    key.push_back(kHex[byte & 15]);
  }
  return key;
}

}  // namespace leveret::core
