#include "send_settings.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <leveret/error.hpp>
#include <leveret/version.hpp>
#include <stdexcept>

#include "abi_text.hpp"
#include "body.hpp"
#include "codec/scanner.hpp"
#include "once.hpp"
#include "ordered.hpp"
#include "shards.hpp"
#include "wall_clock.hpp"
#include "worker.hpp"

namespace leveret::core {
namespace {

/// What the first headers had.
constexpr std::size_t kFirstOptions = offsetof(leveret_send_options, ordered);
constexpr std::int64_t kLongestMs = 3'155'760'000'000;  // a hundred years: what is longer would overflow clocks

leveret_send_options known_options(const leveret_send_options& given) {
  if (given.size < kFirstOptions) {
    throw std::invalid_argument("cannot send: the options have a size of " + std::to_string(given.size) +
                                "; set it to sizeof(leveret_send_options)");
  }
  const char* const bytes = reinterpret_cast<const char*>(&given);
  if (given.size > sizeof given &&
      std::any_of(bytes + sizeof given, bytes + given.size, [](char byte) { return byte != 0; })) {
    throw unsupported("cannot send: the options say what libleveret " LEVERET_VERSION
                      " does not know yet; install the version that the headers are of");
  }
  leveret_send_options known{};
  std::memcpy(&known, bytes, std::min(given.size, sizeof known));
  return known;
}

/// Nothing: none was given. Throws std::invalid_argument for what is no key.
std::optional<std::string> key_text(leveret_string key, const char* what, const std::string& task) {
  if (key.data == nullptr) return std::nullopt;
  const auto refuse = [&](const char* why) {
    throw std::invalid_argument(std::string("the ") + what + " of a job of \"" + task + "\" is " + why);
  };
  if (key.size == 0) refuse("empty: jobs with nothing in common would wait for each other");
  if (!json::is_utf8(view(key))) refuse("not UTF-8; give the text of it, or a hash in hexadecimal digits");
  return std::string(view(key));
}

wanted_claim claim_of_options(const leveret_send_options& options) {
  if (options.unique_until < LEVERET_UNTIL_WINDOW || options.unique_until > LEVERET_UNTIL_END) {
    throw std::invalid_argument(R"(unique_until must be "start" or "end", not )" +
                                std::to_string(options.unique_until));
  }
  const std::int64_t window = options.idempotency_window_ms;
  if (window < 0 || window > kLongestMs) {
    throw std::invalid_argument("idempotency_window must be at least 0 seconds and at most a hundred years, not " +
                                std::to_string(window) + " ms");
  }
  return {{},
          static_cast<held_until>(options.unique_until),
          window == 0 ? kClaimWindow : std::chrono::milliseconds(window)};
}

}  // namespace

send_settings::send_settings(const leveret_send_options& options) {
  const leveret_send_options said = known_options(options);
  task_ = view(said.task);
  to_.queue = said.queue.size == 0 ? std::string(kNativeQueue) : std::string(view(said.queue));
  check_queue_name(to_.queue);
  to_.want_results = said.want_results != 0;
  if (said.delay_ms > 0) to_.due = wall_clock_now() + said.delay_ms;
  if (said.max_retries < -1) throw std::invalid_argument("cannot send: max_retries must be 0 or more");
  if (said.max_retries >= 0) max_retries_ = said.max_retries;
  if (said.shards != 0) {
    check_shards(to_.queue, said.shards);
    to_.shards = said.shards;
  }
  ordered_ = said.ordered != 0;
  if (ordered_) check_queue_name(ordered_queue(to_.queue, kOrderedShards - 1));
  key_ = key_text(said.key, "key", task_);
  if (key_) check_takes_key();
  idempotency_key_ = key_text(said.idempotency_key, "idempotency key", task_);
  to_.once = claim_of_options(said);
}

void send_settings::check_takes_key() const {
  if (ordered_) return;
  throw std::invalid_argument("cannot send \"" + task_ + "\": a key keeps jobs in order; say `ordered` too");
}

void send_settings::check_many() const {
  if (!idempotency_key_) return;
  throw std::invalid_argument("cannot send many jobs of \"" + task_ +
                              "\" with one idempotency key: only the first would be stored; send each with its own");
}

void send_settings::append_line(std::string& out, std::string_view args, std::string_view kwargs,
                                line_codec& codec) const {
  const std::size_t start = out.size();
  append_job(out, {task_, args, kwargs, max_retries_, {}});
  const std::string_view line(out.data() + start, out.size() - start - 1);
  refused_line refused;
  if (!codec.check(line, refused)) {
    throw std::invalid_argument("cannot send \"" + task_ + "\": " + refused.text);
  }
}

std::uint32_t send_settings::shard(leveret_string key) const {
  const std::optional<std::string> own = key_text(key, "key", task_);
  if (!own && !key_) {
    throw std::invalid_argument("cannot send \"" + task_ + "\": it is ordered, and this job has no key; give it one");
  }
  return shard_of(own ? *own : *key_);
}

envelope send_settings::place(leveret_string key, std::string_view line, line_codec& codec) const {
  envelope to = to_;
  if (ordered_) {
    to.queue = ordered_queue(to.queue, shard(key));
    to.shards = 1;
  }
  if (!claims()) return to;
  if (idempotency_key_) {
    to.once.key = claim_key(task_, *idempotency_key_);
    return to;
  }
  const body padded(line.substr(0, line.size() - 1));
  decoded_job job;
  refused_line refused;
  if (!codec.decode(padded.view(), job, refused)) throw std::invalid_argument(refused.text);
  to.once.key = claim_key(task_, job.args, job.kwargs);
  return to;
}

}  // namespace leveret::core
