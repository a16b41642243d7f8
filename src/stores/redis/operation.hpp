/// One call of the store: a command for each chunk or message id, and what came of them. The I/O thread's own.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "../../results_store.hpp"
#include "net/reactor.hpp"
#include "resp.hpp"

namespace leveret::core::redis {

// Everything that Leveret keeps in Redis. A message's chunks are the fields of one hash:
//
//   leveret:result:<message id>    "<first line>-<last line> <chunk>" -> its place, counted from 0
//
//   leveret:once:<key>             the job that holds the key: see store_claims.hpp
//
// The chunk is the field and not the value, so that one that is stored again is found, whole, and changes nothing: a
// range of lines alone names no chunk, since a delivery that was cut short leaves one with few of its lines. Places
// keep the order in which chunks came, for lines that ended twice. The key expires as a whole, result_ttl after its
// newest chunk. See docs/adr/0017-results-in-redis.md.
inline constexpr const char* kKeyPrefix = "leveret:result:";
inline constexpr const char* kClaimPrefix = "leveret:once:";

class operation {
 public:
  operation(std::vector<result_chunk> chunks, results_store::kept then)
      : chunks_(std::move(chunks)), kept_(std::move(then)), outcomes_(chunks_.size()), answered_(chunks_.size()) {}
  operation(exchanged_value what, transport::reply<std::string> then)
      : exchanged_(std::move(what)), exchange_(std::move(then)), answered_(1) {}
  operation(std::vector<std::string> ids, transport::reply<std::vector<result_chunk>> then)
      : ids_(std::move(ids)), fetched_(std::move(then)), answered_(ids_.size()) {}

  /// The index of the next command to send, which counts as sent then. Only if `all_sent` is false.
  [[nodiscard]] std::size_t take_next();
  [[nodiscard]] bool all_sent() const noexcept { return next_ == answered_.size(); }
  [[nodiscard]] bool all_answered() const noexcept { return count_ == answered_.size(); }
  /// What is sent and unanswered goes back to be sent again: each command may be given twice.
  void unsend();

  template <class Send>
  void encode(std::size_t index, const std::string& ttl_seconds, Send&& send) const;
  void answer(std::size_t index, const reply& got, const std::string& where);
  /// Fails what has no answer.
  void fail(errc code, const std::string& why, const std::string& where);

  /// Calls back, on the loop.
  void tell(loop& to);

  net::reactor::timer_id deadline = 0;
  bool ended = false;

 private:
  [[nodiscard]] bool keeps() const noexcept { return kept_ != nullptr; }
  [[nodiscard]] bool exchanges() const noexcept { return exchange_ != nullptr; }
  void skip_answered();
  void set_failure(std::size_t index, errc code, const std::string& why, const std::string& where);

  std::vector<result_chunk> chunks_;
  results_store::kept kept_;
  std::vector<maybe_failure> outcomes_;

  std::vector<std::string> ids_;
  transport::reply<std::vector<result_chunk>> fetched_;
  std::vector<result_chunk> found_;
  maybe_failure not_found_;

  exchanged_value exchanged_;
  transport::reply<std::string> exchange_;
  std::string value_;

  std::vector<bool> answered_;
  std::size_t count_ = 0;  // answered
  std::size_t next_ = 0;   // everything before it is sent or answered
};

// Redis 2.6 and newer. One script, since a field's place must be counted in the step that stores it.
inline constexpr const char* kKeepScript =
    "if redis.call('HSETNX', KEYS[1], ARGV[1], redis.call('HLEN', KEYS[1])) == 1 then "
    "redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 1";

// A value that was changed in time keeps its time to live. Given twice it changes nothing more: marks differ.
inline constexpr const char* kExchangeScript =
    "local value = redis.call('GET', KEYS[1]) or '' if value ~= ARGV[1] then return value end "
    "if ARGV[2] == '' then redis.call('DEL', KEYS[1]) "
    "elseif value == '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) "
    "else local left = redis.call('PTTL', KEYS[1]) "
    "if left > 0 then redis.call('SET', KEYS[1], ARGV[2], 'PX', left) end end return ARGV[2]";

template <class Send>
void operation::encode(std::size_t index, const std::string& ttl_seconds, Send&& send) const {
  if (keeps()) {
    const result_chunk& chunk = chunks_[index];
    const std::string key = kKeyPrefix + chunk.id;
    const std::string field =
        std::to_string(chunk.first_line) + "-" + std::to_string(chunk.last_line) + " " + chunk.data;
    send(command{"EVAL", kKeepScript, "1", key, field, ttl_seconds});
  } else if (exchanges()) {
    const std::string key = kClaimPrefix + exchanged_.key;
    const std::string ttl = std::to_string(exchanged_.ttl.count());
    send(command{"EVAL", kExchangeScript, "1", key, exchanged_.expected, exchanged_.value, ttl});
  } else {
    const std::string key = kKeyPrefix + ids_[index];
    send(command{"HGETALL", key});
  }
}

}  // namespace leveret::core::redis
