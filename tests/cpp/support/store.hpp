/// A results store with a loop of its own and calls that wait for their answers. Throws std::runtime_error (which fails
/// a test) when an answer does not come.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "results_store.hpp"
#include "thread_loop.hpp"

namespace leveret::test {

inline core::result_chunk chunk(const std::string& id, std::uint32_t first, std::uint32_t last,
                                const std::string& data) {
  core::result_chunk out;
  out.id = id;
  out.first_line = first;
  out.last_line = last;
  out.data = data;
  return out;
}

/// "first-last data", joined by " | ".
inline std::string shown(const std::vector<core::result_chunk>& chunks) {
  std::string out;
  for (const core::result_chunk& c : chunks) {
    out += (out.empty() ? "" : " | ") + std::to_string(c.first_line) + "-" + std::to_string(c.last_line) + " " + c.data;
  }
  return out;
}

class store_session {
 public:
  explicit store_session(const std::string& url, const core::limits& lim = {})
      : store_(core::open_results_store(url, loop_, lim)) {}
  ~store_session() { close(); }
  store_session(const store_session&) = delete;
  store_session& operator=(const store_session&) = delete;

  core::results_store& store() { return *store_; }
  core::thread_loop& loop() { return loop_; }

  std::future<std::vector<core::maybe_failure>> start_keep(std::vector<core::result_chunk> chunks) {
    auto promise = std::make_shared<std::promise<std::vector<core::maybe_failure>>>();
    store_->keep(std::move(chunks),
                 [promise](std::vector<core::maybe_failure> why) { promise->set_value(std::move(why)); });
    return promise->get_future();
  }
  std::vector<core::maybe_failure> try_keep(std::vector<core::result_chunk> chunks) {
    return got(start_keep(std::move(chunks)));
  }
  void keep(std::vector<core::result_chunk> chunks) {
    for (const core::maybe_failure& why : try_keep(std::move(chunks))) {
      if (why) throw std::runtime_error(why->text);
    }
  }
  std::pair<std::vector<core::result_chunk>, core::maybe_failure> try_fetch(std::vector<std::string> ids) {
    using answer = std::pair<std::vector<core::result_chunk>, core::maybe_failure>;
    auto promise = std::make_shared<std::promise<answer>>();
    store_->fetch(std::move(ids), [promise](std::vector<core::result_chunk> found, core::maybe_failure why) {
      promise->set_value({std::move(found), std::move(why)});
    });
    return got(promise->get_future());
  }
  std::vector<core::result_chunk> fetch(std::vector<std::string> ids) {
    auto [found, why] = try_fetch(std::move(ids));
    if (why) throw std::runtime_error(why->text);
    return found;
  }
  void close(std::chrono::milliseconds grace = std::chrono::seconds(60)) { store_->close(loop_.now() + grace); }

  template <class T>
  static T got(std::future<T> answer) {
    if (answer.wait_for(std::chrono::seconds(60)) != std::future_status::ready) {
      throw std::runtime_error("no answer of the store");
    }
    return answer.get();
  }

 private:
  core::thread_loop loop_;
  std::unique_ptr<core::results_store> store_;
};

}  // namespace leveret::test
