#include "result_collector.hpp"

#include <algorithm>

#include "codec.hpp"

namespace leveret::core {
namespace {

/// Longer ones have lines of their own, which what names them hardly makes longer. So have arrays and objects: inside a
/// run they would be one level deeper than a result may be.
constexpr std::size_t kShort = 256;
/// A run's text, about.
constexpr std::size_t kRunBytes = std::size_t{64} << 10;
/// Of so many lines at least one in four must be there, or they are not looked at for runs.
constexpr std::size_t kSparse = 4;

bool is_short(std::string_view json) { return json.size() <= kShort && json.front() != '[' && json.front() != '{'; }

void widen(result_chunk& chunk, std::uint32_t first, std::uint32_t last) {
  chunk.first_line = std::min(chunk.first_line, first);
  chunk.last_line = std::max(chunk.last_line, last);
}

}  // namespace

result_collector::part& result_collector::part_for(std::string_view id, std::uint32_t line) {
  // Lines of one message almost always share their first message, so the last part is nearly always the one.
  for (auto it = parts_.rbegin(); it != parts_.rend(); ++it) {
    if (it->chunk.id == id) {
      widen(it->chunk, line, line);
      return *it;
    }
  }
  part& fresh = parts_.emplace_back();
  fresh.chunk.id = id;
  fresh.chunk.reply = reply_;
  fresh.chunk.first_line = fresh.chunk.last_line = line;
  return fresh;
}

void result_collector::add(std::string_view id, std::uint32_t line, std::string_view json) {
  part& p = part_for(id, line);
  if (json.empty()) json = "null";
  if (is_short(json) && p.texts.size() < UINT32_MAX - kShort) {
    p.texts.append(json);
    p.results.push_back({line, static_cast<std::uint32_t>(p.texts.size())});
  } else {
    append_result(p.chunk.data, line, json);
  }
}

void result_collector::add_dead(std::string_view id, std::uint32_t line, std::string_view reason,
                                std::string_view error, std::uint32_t attempts) {
  append_dead_result(part_for(id, line).chunk.data, line, reason, error, attempts);
}

void result_collector::add_expired(std::string_view id, std::uint32_t line) {
  append_expired_result(part_for(id, line).chunk.data, line);
}

void result_collector::add_cancelled(std::string_view id, std::uint32_t line) {
  append_cancelled_result(part_for(id, line).chunk.data, line);
}

void result_collector::write_runs(result_chunk& out, const std::vector<const part*>& parts) {
  std::uint32_t first = UINT32_MAX;
  std::uint32_t last = 0;
  std::size_t count = 0;
  for (const part* p : parts) {
    count += p->results.size();
    for (const short_result& r : p->results) {
      first = std::min(first, r.line);
      last = std::max(last, r.line);
    }
  }
  if (count == 0) return;
  const std::size_t range = std::size_t{last} - first + 1;
  // Each in its place, instead of sorted: threads take turns, and a sort would cost more than their jobs.
  std::vector<std::string_view> places(range <= kSparse * count ? range : 0);
  std::string again;  // lines told twice, behind the first
  for (const part* p : parts) {
    std::size_t begin = 0;
    for (const short_result& r : p->results) {
      const std::string_view text(p->texts.data() + begin, r.end - begin);
      begin = r.end;
      if (places.empty()) {
        append_result(out.data, r.line, text);
      } else if (!places[r.line - first].empty()) {
        append_result(again, r.line, text);
      } else {
        places[r.line - first] = text;
      }
    }
  }
  for (std::size_t at = 0; at < places.size();) {
    if (places[at].empty()) {
      ++at;
      continue;
    }
    std::size_t bytes = 0;
    const std::size_t begin = at;
    while (at < places.size() && !places[at].empty() && bytes < kRunBytes) bytes += places[at++].size() + 1;
    append_results(out.data, first + static_cast<std::uint32_t>(begin), &places[begin], at - begin);
  }
  out.data += again;
}

std::vector<result_chunk> result_collector::write(std::vector<result_collector> all) {
  std::vector<result_chunk> out;
  std::vector<std::vector<const part*>> parts;  // of each chunk
  for (result_collector& one : all) {
    for (part& p : one.parts_) {
      const auto same =
          std::find_if(out.begin(), out.end(), [&](const result_chunk& other) { return other.id == p.chunk.id; });
      if (same == out.end()) {
        out.push_back(std::move(p.chunk));
        parts.push_back({&p});
        continue;
      }
      widen(*same, p.chunk.first_line, p.chunk.last_line);
      same->data += p.chunk.data;
      parts[static_cast<std::size_t>(same - out.begin())].push_back(&p);
    }
  }
  for (std::size_t i = 0; i < out.size(); ++i) write_runs(out[i], parts[i]);
  return out;
}

std::vector<result_chunk> merge_chunks(std::vector<result_chunk> chunks) {
  std::vector<result_chunk> all;
  for (result_chunk& chunk : chunks) {
    const auto same =
        std::find_if(all.begin(), all.end(), [&](const result_chunk& other) { return other.id == chunk.id; });
    if (same == all.end()) {
      all.push_back(std::move(chunk));
    } else {
      widen(*same, chunk.first_line, chunk.last_line);
      same->data += chunk.data;
    }
  }
  return all;
}

}  // namespace leveret::core
