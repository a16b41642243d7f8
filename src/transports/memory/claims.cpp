#include "transports/memory/claims.hpp"

#include <algorithm>
#include <iterator>
#include <optional>

namespace leveret::core::memory {

std::string claims::take(const claim& c, unix_ms now) {
  if (held_.size() >= sweep_at_) {
    for (auto each = held_.begin(); each != held_.end();) {
      each = each->second.expires <= now ? held_.erase(each) : std::next(each);
    }
    sweep_at_ = std::max<std::size_t>(64, 2 * held_.size());
  }
  const auto found = held_.find(c.key);
  if (found != held_.end() && found->second.expires > now) return found->second.job;
  if (c.expires > now) held_[c.key] = {c.job, c.expires};
  return c.job;
}

void claims::let_go(const claimed_key& k) {
  const auto found = held_.find(k.key);
  if (found != held_.end() && found->second.job == k.job) held_.erase(found);
}

void claims::let_go_of(const message& m) {
  const std::optional<claim> c = claim_of(m);
  if (c && c->until != held_until::window) let_go({c->key, c->job});
}

}  // namespace leveret::core::memory
