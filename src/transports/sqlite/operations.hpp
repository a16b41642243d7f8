/// What the transport's functions hand to its thread. Each is answered exactly once.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "transport.hpp"
#include "transports/sqlite/store.hpp"

namespace leveret::core::sqlite {

// Steps of a transaction. The outcomes are filled in by its steps, and given away after the commit.
struct publish_op {
  std::vector<message> messages;
  loop::clock::time_point deadline;
  std::function<void(std::vector<publish_outcome>)> then;
  std::size_t bytes = 0;
  std::vector<publish_outcome> outcomes;
};
struct declare_op {
  std::string queue;
  transport::reply<transport::declared> then;
};
struct settle_op {
  std::vector<settlement> settlements;
  std::function<void(std::vector<settle_outcome>)> then;
  std::vector<settle_outcome> outcomes;
};
struct release_op {
  std::vector<delivery_token> tokens;
  transport::done then;
};
struct purge_op {
  std::string queue;
  transport::reply<std::uint64_t> then;
  purge_state state;
  purge_state before;  // of the running transaction: what a rollback goes back to
  bool found = false;
  bool finished = false;
};
struct revise_op {
  std::string queue;
  dead_decision decide;
  transport::reply<std::uint64_t> then;
  revise_state state;
  revise_state before;  // as purge_op's
  bool found = false;
  bool finished = false;
};
struct cancel_op {
  std::vector<cancellation> jobs;
  transport::reply<std::vector<cancel_outcome>> then;
  std::vector<cancel_outcome> outcomes;
};
struct keep_op {
  std::vector<result_chunk> results;
  transport::done then;
};
struct report_op {
  report what;
  transport::done then;
};
struct exchange_op {
  exchanged_value what;
  transport::reply<std::string> then;
  std::string found;
};
using write_op = std::variant<publish_op, declare_op, settle_op, release_op, purge_op, revise_op, cancel_op, keep_op,
                              report_op, exchange_op>;

// No transaction needed; done after the writes that were handed in with them.
struct subscribe_op {
  subscription_id id = 0;
  std::string queue;
  window w;
  subscriber events;
};
struct resize_op {
  subscription_id id = 0;
  window w;
};
struct unsubscribe_op {
  subscription_id id = 0;
  transport::done then;
};
struct watch_op {
  std::string reply;
  std::function<void(result_chunk)> on_result;
  transport::done then;
};
struct unwatch_op {
  std::string reply;
  transport::done then;
};
struct stats_op {
  std::string queue;
  transport::reply<std::vector<queue_stats>> then;
};
struct browse_op {
  std::string queue;
  std::string cursor;
  std::size_t limit = 0;
  transport::reply<browse_page> then;
};
struct fetch_op {
  std::vector<std::string> ids;
  transport::reply<std::vector<result_chunk>> then;
};
struct browse_messages_op {
  browse_query query;
  transport::reply<message_page> then;
};
struct watch_cancelled_op {
  std::function<void(cancelled_job)> on_cancelled;
  transport::done then;
};
struct known_op {
  std::string kind;
  std::string id;
  transport::reply<std::vector<report>> then;
};
using other_op = std::variant<subscribe_op, resize_op, unsubscribe_op, watch_op, unwatch_op, stats_op, browse_op,
                              fetch_op, browse_messages_op, watch_cancelled_op, known_op>;

using operation = std::variant<write_op, other_op>;

}  // namespace leveret::core::sqlite
