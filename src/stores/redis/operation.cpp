#include "operation.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "explain.hpp"

namespace leveret::core::redis {
namespace {

template <class Number>
bool take_number(std::string_view& text, Number& out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), out);
  if (parsed.ec != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(parsed.ptr - text.data()));
  return true;
}

bool take_sign(std::string_view& text, char sign) {
  if (text.empty() || text.front() != sign) return false;
  text.remove_prefix(1);
  return true;
}

// The chunks of one HGETALL, in their places' order; nothing if they are not of Leveret's form.
std::optional<std::vector<result_chunk>> chunks_of(const std::string& id, const reply& got) {
  std::vector<std::pair<std::uint64_t, result_chunk>> placed;
  for (std::size_t i = 0; i + 1 < got.items.size(); i += 2) {
    result_chunk chunk;
    chunk.id = id;
    std::uint64_t place = 0;
    std::string_view field = got.items[i].text;
    std::string_view value = got.items[i + 1].text;
    if (!take_number(field, chunk.first_line) || !take_sign(field, '-') || !take_number(field, chunk.last_line) ||
        !take_sign(field, ' ') || !take_number(value, place) || !value.empty()) {
      return std::nullopt;
    }
    chunk.data = field;
    placed.emplace_back(place, std::move(chunk));
  }
  std::sort(placed.begin(), placed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<result_chunk> out;
  out.reserve(placed.size());
  for (auto& [place, chunk] : placed) out.push_back(std::move(chunk));
  return out;
}

}  // namespace

std::size_t operation::take_next() {
  const std::size_t index = next_++;
  skip_answered();
  return index;
}

void operation::skip_answered() {
  while (next_ < answered_.size() && answered_[next_]) ++next_;
}

void operation::unsend() {
  next_ = 0;
  skip_answered();
}

void operation::answer(std::size_t index, const reply& got, const std::string& where) {
  if (got.is_error()) {
    set_failure(index, errc::storage, explained(got.text), where);
  } else if (exchanges()) {
    value_ = got.text;
  } else if (!keeps()) {
    auto chunks = got.what == reply::kind::list ? chunks_of(ids_[index], got) : std::nullopt;
    if (chunks) {
      std::move(chunks->begin(), chunks->end(), std::back_inserter(found_));
    } else {
      set_failure(index, errc::storage, explained("WRONGTYPE it is no result of Leveret's"), where);
    }
  }
  answered_[index] = true;
  ++count_;
}

void operation::fail(errc code, const std::string& why, const std::string& where) {
  for (std::size_t i = 0; i < answered_.size(); ++i) {
    if (!answered_[i]) set_failure(i, code, why, where);
  }
}

void operation::set_failure(std::size_t index, errc code, const std::string& why, const std::string& where) {
  if (exchanges()) {
    not_found_ = failure{code, "cannot change the key " + exchanged_.key + " in " + where + ": " + why};
    return;
  }
  const std::string& id = keeps() ? chunks_[index].id : ids_[index];
  failure failed{code, std::string(keeps() ? "cannot store" : "cannot look up") + " results of message " + id + " in " +
                           where + ": " + why};
  if (keeps()) {
    outcomes_[index] = std::move(failed);
  } else if (!not_found_) {
    not_found_ = std::move(failed);
  }
}

void operation::tell(loop& to) {
  if (keeps()) {
    to.post([then = std::move(kept_), outcomes = std::move(outcomes_)]() mutable { then(std::move(outcomes)); });
    return;
  }
  if (exchanges()) {
    to.post([then = std::move(exchange_), value = std::move(value_), why = std::move(not_found_)]() mutable {
      then(std::move(value), std::move(why));
    });
    return;
  }
  if (not_found_) found_.clear();
  to.post([then = std::move(fetched_), found = std::move(found_), why = std::move(not_found_)]() mutable {
    then(std::move(found), std::move(why));
  });
}

}  // namespace leveret::core::redis
