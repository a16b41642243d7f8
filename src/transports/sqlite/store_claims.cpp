// The part of store.hpp that is about keys that jobs hold.
#include <chrono>

#include "claim.hpp"
#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

std::optional<std::string> store::find_other_holder(const message& m, unix_ms now) {
  const std::optional<core::claim> c = claim_of(m);
  if (!c || c->expires <= now) return std::nullopt;
  {
    rows r = holder_.query(c->key, now);
    if (r.next()) {
      std::string job(r.text(0));
      if (job == c->job) return std::nullopt;
      return job;
    }
  }
  add_claim_.run(next_seq(), c->key, c->job, c->expires);
  trim_claims_.run(now);  // two for each that comes: none is kept for long, and no transaction is
  return std::nullopt;
}

void store::let_go(const claimed_key& k) { drop_claim_.run(k.key, k.job); }

void store::let_go_of(message_key msg) {
  message m;
  {
    rows r = headers_.query(msg);
    if (!r.next()) return;
    m.headers = decode_headers(r.blob(0));
  }
  const std::optional<core::claim> c = claim_of(m);
  if (c && c->until != held_until::window) let_go({c->key, c->job});
}

std::string store::exchange(const exchanged_value& what, unix_ms now) {
  std::string found;
  {
    rows r = holder_.query(what.key, now);
    if (r.next()) found = r.text(0);
  }
  if (found != what.expected || found == what.value) return found;
  if (what.value.empty()) {
    drop_claim_.run(what.key, found);
  } else if (found.empty()) {
    add_claim_.run(next_seq(), what.key, what.value, now + what.ttl.count());
    trim_claims_.run(now);
  } else {
    change_claim_.run(what.key, what.value);
  }
  return what.value;
}

}  // namespace leveret::core::sqlite
