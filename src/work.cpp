#include "work.hpp"

#include <algorithm>

namespace leveret::core {

result_chunk& result_collector::chunk_for(std::string_view id, std::uint32_t line) {
  // Lines of one message almost always share their first message, so the last chunk is nearly always the one.
  for (auto it = chunks_.rbegin(); it != chunks_.rend(); ++it) {
    if (it->id == id) {
      it->first_line = std::min(it->first_line, line);
      it->last_line = std::max(it->last_line, line);
      return *it;
    }
  }
  result_chunk& fresh = chunks_.emplace_back();
  fresh.id = id;
  fresh.reply = reply_;
  fresh.first_line = fresh.last_line = line;
  return fresh;
}

std::vector<result_chunk> merge_chunks(std::vector<result_chunk> chunks) {
  std::vector<result_chunk> all;
  for (result_chunk& chunk : chunks) {
    const auto same =
        std::find_if(all.begin(), all.end(), [&](const result_chunk& other) { return other.id == chunk.id; });
    if (same == all.end()) {
      all.push_back(std::move(chunk));
    } else {
      same->first_line = std::min(same->first_line, chunk.first_line);
      same->last_line = std::max(same->last_line, chunk.last_line);
      same->data += chunk.data;
    }
  }
  return all;
}

}  // namespace leveret::core
