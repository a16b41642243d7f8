/// Keys that jobs hold at the memory transport. Not thread-safe.
#pragma once

#include <string>
#include <unordered_map>

#include "claim.hpp"

namespace leveret::core::memory {

class claims {
 public:
  /// Takes the key for the claim's job. Gives the job that has it then: another one, if it was that one's.
  [[nodiscard]] std::string take(const claim& c, unix_ms now);
  void let_go(const claimed_key& k);
  /// Of a message that is gone without having run.
  void let_go_of(const message& m);

 private:
  struct held {
    std::string job;
    unix_ms expires = 0;
  };
  std::unordered_map<std::string, held> held_;
  std::size_t sweep_at_ = 64;  // so many keys: those that are over are looked for
};

}  // namespace leveret::core::memory
