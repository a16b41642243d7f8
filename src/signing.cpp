#include "signing.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "attempt.hpp"
#include "claim.hpp"
#include "codec.hpp"
#include "forwarding_transport.hpp"
#include "net/hmac.hpp"
#include "redelivery.hpp"
#include "shards.hpp"

namespace leveret::core {
namespace {

constexpr std::string_view kLabel = "leveret-message-1";
constexpr std::string_view kTakeUnsigned = "unsigned";  // among the keys
constexpr std::size_t kLeastSecret = 32;
constexpr std::size_t kMostIdBytes = 64;
constexpr std::string_view kBetween = " \t\r\n,";

/// What Leveret itself reads of the headers: who could alter these could have a job end as crashed.
constexpr std::array<const char*, 3> kSignedHeaders = {kHeaderSuspect, kHeaderCrashes, kHeaderUnknownSince};

[[noreturn]] void refuse(const std::string& why) {
  throw std::invalid_argument(std::string("cannot use ") + kSigningKeysVariable + ": " + why +
                              "; write ID:SECRET for each key, separated by spaces, the one that signs first, or "
                              "@FILE with a file that says so");
}

bool is_id(std::string_view text) {
  return !text.empty() && text.size() <= kMostIdBytes && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

void append_size(std::string& to, std::size_t size) {
  for (int shift = 56; shift >= 0; shift -= 8) to.push_back(static_cast<char>(size >> shift & 0xff));
}

void append_field(std::string& to, std::string_view field) {
  append_size(to, field.size());
  to.append(field);
}

class signed_transport final : public forwarding_transport {
 public:
  signed_transport(std::unique_ptr<transport> broker, std::shared_ptr<const signing_keys> keys)
      : forwarding_transport(std::move(broker)), keys_(std::move(keys)) {}

  void publish(std::vector<message> messages, loop::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then) override {
    for (message& m : messages) keys_->sign(m);
    forwarding_transport::publish(std::move(messages), deadline, std::move(then));
  }
  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    for (settlement& s : settlements) {
      for (message& m : s.publish) keys_->sign(m);
    }
    forwarding_transport::settle(std::move(settlements), std::move(then));
  }
  void revise_dead(const std::string& queue, dead_decision decide, reply<std::uint64_t> then) override {
    forwarding_transport::revise_dead(
        queue,
        [keys = keys_, decide = std::move(decide)](const browse_entry& e) {
          dead_fate fate = decide(e);
          if (fate.publish) keys->sign(*fate.publish);
          return fate;
        },
        std::move(then));
  }
  subscription_id subscribe(const std::string& queue, window w, subscriber events) override {
    events.on_delivery = [keys = keys_, next = std::move(events.on_delivery)](delivery d) {
      signing_keys::verdict found = keys->verify(d.msg);
      if (found.reason != nullptr) d.refused = refused_delivery{found.reason, std::move(found.text)};
      next(std::move(d));
    };
    return forwarding_transport::subscribe(queue, w, std::move(events));
  }

 private:
  std::shared_ptr<const signing_keys> keys_;
};

}  // namespace

signing_keys::signing_keys(std::string_view text) {
  while (true) {
    const std::size_t begin = text.find_first_not_of(kBetween);
    if (begin == std::string_view::npos) break;
    text.remove_prefix(begin);
    const std::string_view one = text.substr(0, text.find_first_of(kBetween));
    text.remove_prefix(one.size());
    if (one == kTakeUnsigned) {
      take_unsigned_ = true;
      continue;
    }
    const std::string place = "key " + std::to_string(keys_.size() + 1);
    const std::size_t colon = one.find(':');
    // Without a colon the whole is perhaps a secret: it is not repeated.
    if (colon == std::string_view::npos) refuse(place + " has no id and colon");
    const std::string id(one.substr(0, colon));
    if (!is_id(id)) refuse(place + " has an id that is not 1 to 64 letters, digits, '.', '_' and '-'");
    const std::string_view secret = one.substr(colon + 1);
    if (secret.size() < kLeastSecret) {
      refuse("the secret of the key \"" + id + "\" has " + std::to_string(secret.size()) +
             " bytes, at least 32 are needed (openssl rand -hex 32 makes one)");
    }
    if (std::any_of(keys_.begin(), keys_.end(), [&](const key& k) { return k.id == id; })) {
      refuse("two keys are called \"" + id + "\"");
    }
    keys_.push_back({id, std::string(secret)});
  }
  if (keys_.empty()) refuse("it names no key");
}

std::string signing_keys::signature(const key& by, const message& m) {
  std::string head;
  append_field(head, kLabel);
  append_field(head, m.id);
  append_field(head, base_queue(m.queue));
  append_field(head, m.reply);
  for (const char* name : kSignedHeaders) {
    const std::string* value = m.find_header(name);
    append_field(head, value != nullptr ? std::string_view(*value) : std::string_view());
  }
  // Fields more: messages without them keep the signature that older programs make.
  if (const std::string* claim = m.find_header(kHeaderClaim)) append_field(head, *claim);
  if (const std::string* shards = m.find_header(kHeaderShards)) {
    append_field(head, kHeaderShards);
    append_field(head, *shards);
  }
  const std::string_view data = m.data.view();
  append_size(head, data.size());
  const std::string_view parts[] = {head, data};
  const net::digest made = net::hmac_sha256(by.secret, parts, std::size(parts));
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text = by.id + ":";
  for (const unsigned char byte : made) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

void signing_keys::sign(message& m) const {
  m.headers.erase(
      std::remove_if(m.headers.begin(), m.headers.end(), [](const header& h) { return h.name == kHeaderSignature; }),
      m.headers.end());
  m.headers.push_back({kHeaderSignature, signature(keys_.front(), m)});
}

signing_keys::verdict signing_keys::verify(const message& m) const {
  const std::string* found = m.find_header(kHeaderSignature);
  if (found == nullptr && take_unsigned_) return {};
  if (found == nullptr) {
    return {kReasonUnsigned, std::string("the message has no signature, and this worker takes signed ones alone; "
                                         "whoever sends to it needs ") +
                                 kSigningKeysVariable};
  }
  const std::string_view id = std::string_view(*found).substr(0, found->find(':'));
  const auto by = std::find_if(keys_.begin(), keys_.end(), [&](const key& k) { return k.id == id; });
  if (by == keys_.end()) {
    return {kReasonBadSignature,
            is_id(id) ? "the message is signed by the key \"" + std::string(id) + "\", which this worker does not have"
                      : std::string("the message's signature names no key")};
  }
  const std::string wanted = signature(*by, m);
  // The ids are the same; the rest is compared without telling by the time how much of it fits.
  if (found->size() != wanted.size() || !net::same_text(*found, wanted)) {
    return {kReasonBadSignature,
            "the signature by the key \"" + by->id +
                "\" does not fit: another secret made it, or the message was altered or moved from another queue"};
  }
  return {};
}

std::shared_ptr<const signing_keys> signing_keys_of_environment() {
  const char* said = std::getenv(kSigningKeysVariable);
  if (said == nullptr || *said == '\0') return nullptr;
  if (*said != '@') return std::make_shared<const signing_keys>(said);
  std::ifstream file(said + 1, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    refuse(std::string("the file ") + (said + 1) + " cannot be read");
  }
  return std::make_shared<const signing_keys>(text);
}

std::unique_ptr<transport> with_signatures(std::unique_ptr<transport> broker,
                                           std::shared_ptr<const signing_keys> keys) {
  return std::make_unique<signed_transport>(std::move(broker), std::move(keys));
}

}  // namespace leveret::core
