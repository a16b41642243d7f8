/// Signed messages: HMAC-SHA-256 over what makes a message do what it does, so that nobody without a key can write,
/// alter or move one unseen. Which bytes are signed is the contract's (contracts/README.md, Signatures); what is not
/// protected is said in docs/security.md.
///
/// Keys are a process's: whoever has some signs all that it publishes and takes signed messages alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "message.hpp"
#include "transport.hpp"

namespace leveret::core {

inline constexpr const char* kHeaderSignature = "x-leveret-signature";  ///< `<key id>:<64 hexadecimal digits>`
inline constexpr const char* kSigningKeysVariable = "LEVERET_SIGNING_KEYS";

class signing_keys {
 public:
  /// `id:secret id:secret …`, separated by white space or commas: the first signs, all are accepted; with the word
  /// `unsigned` among them messages without a signature too. Throws std::invalid_argument, whose text never holds a
  /// secret.
  explicit signing_keys(std::string_view text);

  /// Puts the signature into the headers, in place of one that is there.
  void sign(message& m) const;

  struct verdict {
    const char* reason = nullptr;  ///< of the dead job; null: the signature is good
    std::string text;
  };
  [[nodiscard]] verdict verify(const message& m) const;

 private:
  struct key {
    std::string id;
    std::string secret;
  };
  [[nodiscard]] static std::string signature(const key& by, const message& m);

  std::vector<key> keys_;  // never empty
  bool take_unsigned_ = false;
};

/// The keys of LEVERET_SIGNING_KEYS, or, where that is `@PATH`, of the file PATH. Null: the variable is not set or
/// empty. Throws std::invalid_argument.
[[nodiscard]] std::shared_ptr<const signing_keys> signing_keys_of_environment();

/// A transport that signs what it publishes (retries, replays and parts of messages too), and marks deliveries that are
/// not signed well: see delivery::refused.
[[nodiscard]] std::unique_ptr<transport> with_signatures(std::unique_ptr<transport> broker,
                                                         std::shared_ptr<const signing_keys> keys);

}  // namespace leveret::core
