#include "ordered.hpp"

#include <array>

namespace leveret::core {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() noexcept {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1u) != 0 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

}  // namespace

std::uint32_t shard_of(std::string_view key) noexcept {
  std::uint32_t crc = ~0u;
  for (const char c : key) crc = crc >> 8 ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xffu];
  return ~crc % kOrderedShards;
}

std::string ordered_queue(std::string_view queue, std::uint32_t shard) {
  return std::string(queue) + kOrderedInfix + std::to_string(shard);
}

std::vector<std::string> ordered_queues(std::string_view queue) {
  std::vector<std::string> all;
  all.reserve(kOrderedShards);
  for (std::uint32_t shard = 0; shard < kOrderedShards; ++shard) all.push_back(ordered_queue(queue, shard));
  return all;
}

std::string_view unordered_queue(std::string_view queue) noexcept {
  const std::string_view infix = kOrderedInfix;
  const std::size_t dot = queue.rfind('.');
  if (dot == std::string_view::npos || dot + 1 < infix.size()) return queue;
  const std::size_t start = dot + 1 - infix.size();
  if (start == 0 || queue.substr(start, infix.size()) != infix) return queue;
  const std::string_view number = queue.substr(dot + 1);
  std::uint32_t shard = 0;
  if (number.empty() || number.size() > 2 || (number.size() == 2 && number[0] == '0')) return queue;
  for (const char c : number) {
    if (c < '0' || c > '9') return queue;
    shard = shard * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return shard < kOrderedShards ? queue.substr(0, start) : queue;
}

bool is_ordered(std::string_view queue) noexcept { return unordered_queue(queue).size() != queue.size(); }

}  // namespace leveret::core
