#include "transports/memory/result_store.hpp"

#include <algorithm>
#include <utility>

namespace leveret::core::memory {
namespace {

constexpr std::size_t kOverheadBytes = 256;  // of the maps and strings around a chunk, roughly

std::uint64_t cost(const result_chunk& chunk) {
  return kOverheadBytes + chunk.data.size() + chunk.id.size() + chunk.reply.size();
}

// Chunks leave about in the order they came, so that the search is short.
void forget(std::unordered_map<std::string, std::deque<std::uint64_t>>& index, const std::string& key,
            std::uint64_t number) {
  const auto found = index.find(key);
  if (found == index.end()) return;
  std::deque<std::uint64_t>& numbers = found->second;
  const auto place = std::lower_bound(numbers.begin(), numbers.end(), number);
  if (place != numbers.end() && *place == number) numbers.erase(place);
  if (numbers.empty()) index.erase(found);
}

}  // namespace

void result_store::add(result_chunk chunk, bool handed, unix_ms expires, std::uint64_t cap_bytes) {
  const sequence number = ++last_;
  bytes_ += cost(chunk);
  by_id_[chunk.id].push_back(number);
  if (!handed) waiting_[chunk.reply].push_back(number);
  kept& k = all_.emplace(number, kept{std::move(chunk), expires, false}).first->second;
  if (handed) hand(number, k);
  while (bytes_ > cap_bytes && !all_.empty()) drop(all_.begin());
}

std::vector<result_chunk> result_store::take(const std::string& reply) {
  std::vector<result_chunk> chunks;
  const auto found = waiting_.find(reply);
  if (found == waiting_.end()) return chunks;
  const std::deque<sequence> numbers = std::move(found->second);
  waiting_.erase(found);
  for (const sequence number : numbers) chunks.push_back(all_.at(number).chunk);
  for (const sequence number : numbers) {
    const auto which = all_.find(number);
    if (which != all_.end()) hand(number, which->second);  // may drop chunks handed before
  }
  return chunks;
}

std::vector<result_chunk> result_store::find(const std::string& id) const {
  std::vector<result_chunk> chunks;
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return chunks;
  for (const sequence number : found->second) chunks.push_back(all_.at(number).chunk);
  return chunks;
}

void result_store::expire(unix_ms now) {
  // All have the same lifetime (of one process), so that the oldest leave first.
  while (!all_.empty() && all_.begin()->second.expires <= now) drop(all_.begin());
}

void result_store::hand(sequence number, kept& k) {
  k.handed = true;
  handed_.push_back(number);
  handed_bytes_ += cost(k.chunk);
  while (handed_bytes_ > kHandedBytes) {
    const auto oldest = all_.find(handed_.front());
    handed_.pop_front();
    if (oldest != all_.end()) drop(oldest);
  }
}

void result_store::drop(std::map<sequence, kept>::iterator which) {
  const kept& k = which->second;
  bytes_ -= cost(k.chunk);
  if (k.handed) {
    handed_bytes_ -= cost(k.chunk);
    if (!handed_.empty() && handed_.front() == which->first) handed_.pop_front();
  } else {
    forget(waiting_, k.chunk.reply, which->first);
  }
  forget(by_id_, k.chunk.id, which->first);
  all_.erase(which);
}

}  // namespace leveret::core::memory
