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
constexpr std::string_view kNothing = "null";

bool is_short(std::string_view json) { return json.size() <= kShort && json.front() != '[' && json.front() != '{'; }

/// `null,` so many times.
template <std::size_t kCount>
struct nothings {
  static constexpr std::size_t kEach = kNothing.size() + 1;
  char text[kCount * kEach];

  nothings() noexcept {
    for (std::size_t i = 0; i < kCount; ++i) {
      kNothing.copy(text + i * kEach, kNothing.size());
      text[i * kEach + kNothing.size()] = ',';
    }
  }
  [[nodiscard]] std::string_view of(std::uint32_t count) const noexcept { return {text, count * kEach}; }
};

}  // namespace

result_collector::part& result_collector::part_of(std::string_view id) {
  if (id == own_id_) return own_;
  for (auto it = others_.rbegin(); it != others_.rend(); ++it) {
    if (it->id == id) return *it;
  }
  part& fresh = others_.emplace_back();
  fresh.id = id;
  return fresh;
}

std::string& result_collector::lines_of(part& p, std::uint32_t line) {
  p.first_line = std::min(p.first_line, line);
  p.last_line = std::max(p.last_line, line);
  return p.lines;
}

void result_collector::add_to(part& p, std::uint32_t line, std::string_view json) {
  const bool nothing = json.empty() || json == kNothing;
  if (!nothing && (!is_short(json) || p.bytes >= UINT32_MAX - kShort)) {
    append_result(lines_of(p, line), line, json);
    return;
  }
  if (p.runs.empty() || !p.runs.back().goes_on(line, nothing)) {
    p.runs.push_back({line, 0, static_cast<std::uint32_t>(p.bytes), nothing});
  }
  run& last = p.runs.back();
  ++last.count;
  if (nothing) return;
  if (p.texts.size() - p.bytes <= kShort) p.texts.resize(2 * p.texts.size() + 4 * kShort);
  json.copy(&p.texts[p.bytes], json.size());
  p.bytes += json.size();
  p.texts[p.bytes++] = ',';
  last.end = static_cast<std::uint32_t>(p.bytes);
}

void result_collector::add_dead(std::string_view id, std::uint32_t line, std::string_view reason,
                                std::string_view error, std::uint32_t attempts) {
  append_dead_result(lines_of(part_of(id), line), line, reason, error, attempts);
}

void result_collector::add_expired(std::string_view id, std::uint32_t line) {
  append_expired_result(lines_of(part_of(id), line), line);
}

void result_collector::add_cancelled(std::string_view id, std::uint32_t line) {
  append_cancelled_result(lines_of(part_of(id), line), line);
}

/// Each run in its place, instead of sorted: threads take turns, and a sort would cost more than their jobs. False: a
/// line was told twice, and nothing is written.
bool result_collector::write_in_order(std::string& out, const std::vector<told_run>& told, std::uint32_t first,
                                      std::uint32_t last, std::size_t bytes) {
  std::vector<std::uint32_t> places(std::size_t{last} - first + 1);  // where a run begins, its number from 1
  for (std::size_t i = 0; i < told.size(); ++i) places[told[i].line - first] = static_cast<std::uint32_t>(i + 1);
  const auto next = [&](std::size_t at) {
    while (at < places.size() && places[at] == 0) ++at;
    return at;
  };
  std::size_t seen = 0;  // not one that begins where another does, or inside of it
  for (std::size_t at = next(0); at < places.size(); at = next(at)) {
    at += told[places[at] - 1].count;
    ++seen;
  }
  if (seen != told.size()) return false;
  std::string text(bytes, '\0');  // of runs without a gap between them
  for (std::size_t at = next(0); at < places.size(); at = next(at)) {
    const std::size_t begin = at;
    std::size_t size = 0;
    while (at < places.size() && places[at] != 0 && size < kRunBytes) {
      const told_run& one = told[places[at] - 1];
      size += one.text.copy(&text[size], one.text.size());
      at += one.count;
    }
    append_results(out, first + static_cast<std::uint32_t>(begin), std::string_view(text).substr(0, size), at - begin);
  }
  return true;
}

result_chunk result_collector::write_chunk(std::string_view id, std::string_view reply,
                                           const std::vector<const part*>& parts) {
  static const nothings<kRunLines> all_nothings;
  result_chunk out;
  out.id = id;
  out.reply = reply;
  out.first_line = UINT32_MAX;
  std::size_t runs = 0;
  for (const part* p : parts) runs += p->runs.size();
  std::vector<told_run> told;
  told.reserve(runs);
  std::uint32_t first = UINT32_MAX;
  std::uint32_t last = 0;
  std::size_t count = 0;
  std::size_t bytes = 0;
  for (const part* p : parts) {
    out.data += p->lines;
    out.first_line = std::min(out.first_line, p->first_line);
    out.last_line = std::max(out.last_line, p->last_line);
    std::size_t begin = 0;
    for (const run& r : p->runs) {
      told.push_back({r.line, r.count,
                      r.nothings ? all_nothings.of(r.count) : std::string_view(p->texts).substr(begin, r.end - begin)});
      begin = r.end;
      first = std::min(first, r.line);
      last = std::max(last, r.line + r.count - 1);
      count += r.count;
      bytes += told.back().text.size();
    }
  }
  if (told.empty()) return out;
  out.first_line = std::min(out.first_line, first);
  out.last_line = std::max(out.last_line, last);
  if (std::size_t{last} - first >= kSparse * count || !write_in_order(out.data, told, first, last, bytes)) {
    for (const told_run& r : told) append_results(out.data, r.line, r.text, r.count);
  }
  return out;
}

std::vector<result_chunk> result_collector::write(const std::vector<result_collector>& all) {
  struct gathered {
    std::string_view id;
    std::string_view reply;
    std::vector<const part*> parts;
  };
  std::vector<gathered> messages;
  const auto gather = [&](std::string_view id, std::string_view reply, const part& p) {
    if (p.lines.empty() && p.runs.empty()) return;
    const auto same =
        std::find_if(messages.begin(), messages.end(), [&](const gathered& other) { return other.id == id; });
    if (same == messages.end()) {
      messages.push_back({id, reply, {&p}});
    } else {
      same->parts.push_back(&p);
    }
  };
  for (const result_collector& one : all) {
    gather(one.own_id_, one.reply_, one.own_);
    for (const part& p : one.others_) gather(p.id, one.reply_, p);
  }
  std::vector<result_chunk> out;
  out.reserve(messages.size());
  for (const gathered& m : messages) out.push_back(write_chunk(m.id, m.reply, m.parts));
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
      same->first_line = std::min(same->first_line, chunk.first_line);
      same->last_line = std::max(same->last_line, chunk.last_line);
      same->data += chunk.data;
    }
  }
  return all;
}

}  // namespace leveret::core
