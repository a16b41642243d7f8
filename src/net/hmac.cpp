#include "hmac.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <leveret/error.hpp>
#include <memory>

namespace leveret::core::net {

digest hmac_sha256(std::string_view key, const std::string_view* parts, std::size_t count) {
  // Found once: looking an algorithm up costs more than a message.
  static EVP_MAC* const algorithm = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  const std::unique_ptr<EVP_MAC_CTX, void (*)(EVP_MAC_CTX*)> context(
      algorithm == nullptr ? nullptr : EVP_MAC_CTX_new(algorithm), &EVP_MAC_CTX_free);
  char name[] = "SHA256";
  const OSSL_PARAM settings[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                                 OSSL_PARAM_construct_end()};
  digest made{};
  std::size_t size = 0;
  bool good = context && EVP_MAC_init(context.get(), reinterpret_cast<const unsigned char*>(key.data()), key.size(),
                                      settings) == 1;
  for (std::size_t i = 0; good && i < count; ++i) {
    good = EVP_MAC_update(context.get(), reinterpret_cast<const unsigned char*>(parts[i].data()), parts[i].size()) == 1;
  }
  good = good && EVP_MAC_final(context.get(), made.data(), &size, made.size()) == 1 && size == made.size();
  if (!good) {
    throw unsupported("cannot sign messages: this machine's OpenSSL gives no HMAC-SHA-256; look into its openssl.cnf");
  }
  return made;
}

digest sha256(std::string_view text) {
  static EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  digest made{};
  unsigned int size = 0;
  if (algorithm == nullptr || EVP_Digest(text.data(), text.size(), made.data(), &size, algorithm, nullptr) != 1 ||
      size != made.size()) {
    throw unsupported(
        "cannot make a key of a job's arguments: this machine's OpenSSL gives no SHA-256; look into its openssl.cnf, "
        "or give an idempotency key");
  }
  return made;
}

bool same_text(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace leveret::core::net
