// The transport on a SQLite file, as `transport.hpp` wants it: hands every call to the writer's thread.
#include "transport.hpp"

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "transports/sqlite/fork.hpp"
#include "transports/sqlite/operations.hpp"
#include "transports/sqlite/writer.hpp"

namespace leveret::core {

namespace {

using namespace sqlite;

class sqlite_transport final : public transport {
 public:
  sqlite_transport(const location& at, loop& l, const limits& lim) : at_(at), loop_(l), writer_(at, l, lim) {}

  [[nodiscard]] capabilities what_it_can() const override {
    capabilities c;
    c.delivery_count = true;
    c.fetch = true;
    c.list_queues = true;
    c.browse_live = true;
    c.job_reports = true;
    c.exactly_one_end = true;
    c.claims = true;
    return c;
  }
  [[nodiscard]] health how_it_is() const override { return writer_.how_it_is(); }
  [[nodiscard]] std::string where() const override { return at_.path; }

  void declare(const std::string& queue, reply<declared> then) override {
    const std::string suffix = kDeadSuffix;
    const bool reserved =
        queue.size() >= suffix.size() && queue.compare(queue.size() - suffix.size(), suffix.size(), suffix) == 0;
    if (queue.empty() || reserved) {
      loop_.post([then, queue] {
        then({}, failure{errc::invalid_argument, "cannot declare \"" + queue +
                                                     "\": a queue's name is not empty and does not end in " +
                                                     kDeadSuffix + ", which names its dead jobs"});
      });
      return;
    }
    declare_op op{queue, then};
    if (writer_.hand_in(write_op(std::move(op)))) return;
    answer_closed("declare \"" + queue + "\"", [then](const failure& why) { then({}, why); });
  }

  void stats(const std::string& queue, reply<std::vector<queue_stats>> then) override {
    if (writer_.hand_in(other_op(stats_op{queue, then}))) return;
    answer_closed("look at \"" + queue + "\"", [then](const failure& why) { then({}, why); });
  }

  void browse_dead(const std::string& queue, const std::string& cursor, std::size_t limit,
                   reply<browse_page> then) override {
    if (writer_.hand_in(other_op(browse_op{queue, cursor, limit, then}))) return;
    answer_closed("list the dead jobs of \"" + queue + "\"", [then](const failure& why) { then({}, why); });
  }

  void purge(const std::string& queue, reply<std::uint64_t> then) override {
    purge_op op;
    op.queue = queue;
    op.then = then;
    if (writer_.hand_in(write_op(std::move(op)))) return;
    answer_closed("purge \"" + queue + "\"", [then](const failure& why) { then(0, why); });
  }

  // Who may open the file may do everything.
  void check_access(const std::string&, done then) override {
    loop_.post([then] { then(std::nullopt); });
  }

  void publish(std::vector<message> messages, loop::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then) override {
    publish_op op;
    const std::size_t count = messages.size();
    for (const message& m : messages) op.bytes += m.data.size();
    op.messages = std::move(messages);
    op.deadline = deadline;
    op.then = then;
    if (writer_.hand_in(write_op(std::move(op)))) return;
    answer_closed("publish", [then, count](const failure& why) {
      then(std::vector<publish_outcome>(count, {publish_status::refused, why, {}}));
    });
  }

  void lend_thread(const std::function<void()>& hand_over) override { writer_.lend_thread(hand_over); }

  subscription_id subscribe(const std::string& queue, window w, subscriber events) override {
    const subscription_id id = ++last_subscription_;
    const auto ended = events.on_ended;
    if (!writer_.hand_in(other_op(subscribe_op{id, queue, w, std::move(events)})) && ended) {
      answer_closed("consume \"" + queue + "\"", ended);
    }
    return id;
  }

  void resize(subscription_id id, window w) override {
    // After the end there is nothing to resize, and nobody to tell.
    static_cast<void>(writer_.hand_in(other_op(resize_op{id, w})));
  }

  void unsubscribe(subscription_id id, done then) override {
    if (writer_.hand_in(other_op(unsubscribe_op{id, then}))) return;
    answer_closed("unsubscribe", then);
  }

  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    settle_op op;
    const std::size_t count = settlements.size();
    op.settlements = std::move(settlements);
    op.then = then;
    if (writer_.hand_in(write_op(std::move(op)))) return;
    answer_closed("settle", [then, count](const failure& why) {
      then(std::vector<settle_outcome>(count, {settle_status::failed, why.text}));
    });
  }

  void release(std::vector<delivery_token> tokens, done then) override {
    if (writer_.hand_in(write_op(release_op{std::move(tokens), then}))) return;
    answer_closed("release deliveries", then);
  }

  void watch(const std::string& reply, std::function<void(result_chunk)> on_result, done then) override {
    if (writer_.hand_in(other_op(watch_op{reply, std::move(on_result), then}))) return;
    answer_closed("watch results", then);
  }

  void unwatch(const std::string& reply, done then) override {
    if (writer_.hand_in(other_op(unwatch_op{reply, then}))) return;
    answer_closed("unwatch results", then);
  }

  void make_reply(reply<std::string> then) override {
    if (writer_.closed()) {
      answer_closed("make a reply address", [then](const failure& why) { then({}, why); });
      return;
    }
    // An address is a name that nobody else has: results carry it, so there is nothing to store first.
    unsigned char bits[16];
    while (::getrandom(bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    }
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string address = "reply-";
    for (const unsigned char byte : bits) {
      address.push_back(kDigits[byte >> 4]);
      address.push_back(kDigits[byte & 15]);
    }
    loop_.post([then, address] { then(address, std::nullopt); });
  }

  void fetch(std::vector<std::string> message_ids, reply<std::vector<result_chunk>> then) override {
    if (writer_.hand_in(other_op(fetch_op{std::move(message_ids), then}))) return;
    answer_closed("fetch results", [then](const failure& why) { then({}, why); });
  }

  void browse(browse_query query, reply<message_page> then) override {
    const std::string queue = query.queue;
    if (writer_.hand_in(other_op(browse_messages_op{std::move(query), then}))) return;
    answer_closed("list the jobs of \"" + queue + "\"", [then](const failure& why) { then({}, why); });
  }

  void revise_dead(const std::string& queue, dead_decision decide, reply<std::uint64_t> then) override {
    revise_op op;
    op.queue = queue;
    op.decide = std::move(decide);
    op.then = then;
    if (writer_.hand_in(write_op(std::move(op)))) return;
    answer_closed("change the dead jobs of \"" + queue + "\"", [then](const failure& why) { then(0, why); });
  }

  void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) override {
    if (writer_.hand_in(write_op(cancel_op{std::move(jobs), then, {}}))) return;
    answer_closed("cancel jobs", [then](const failure& why) { then({}, why); });
  }

  void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) override {
    if (writer_.hand_in(other_op(watch_cancelled_op{std::move(on_cancelled), then}))) return;
    answer_closed("watch for cancelled jobs", then);
  }

  void keep_results(std::vector<result_chunk> results, done then) override {
    if (writer_.hand_in(write_op(keep_op{std::move(results), then}))) return;
    answer_closed("store results", then);
  }

  void make_known(report r, done then) override {
    if (writer_.hand_in(write_op(report_op{std::move(r), then}))) return;
    answer_closed("make a report known", then);
  }

  void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) override {
    if (writer_.hand_in(other_op(known_op{kind, id, then}))) return;
    answer_closed("read reports", [then](const failure& why) { then({}, why); });
  }

  void exchange(exchanged_value what, reply<std::string> then) override {
    const std::string doing = "change the key " + what.key;
    if (writer_.hand_in(write_op(exchange_op{std::move(what), then, {}}))) return;
    answer_closed(doing, [then](const failure& why) { then({}, why); });
  }

  void close(loop::clock::time_point deadline) override { writer_.close(deadline); }

 private:
  template <class F>
  void answer_closed(const std::string& doing, F then) {
    failure why{errc::closed, "cannot " + doing + " on " + at_.path + ": the transport is closed; open it again"};
    loop_.post([then = std::move(then), why = std::move(why)] { then(why); });
  }

  const location at_;
  loop& loop_;
  std::atomic<subscription_id> last_subscription_{0};
  writer writer_;
};

}  // namespace

std::unique_ptr<transport> open_sqlite(const std::string& url, loop& l, const limits& lim) {
  // One at a time in a process: making the file opens and closes it, which would drop locks taken meanwhile.
  static std::mutex opening;
  location at = parse_url(url);
  const inside_sqlite inside;  // first: a child must not find the mutex held
  const std::lock_guard lock(opening);
  prepare_file(at);
  note_open(at.path);
  return std::make_unique<sqlite_transport>(at, l, lim);
}

}  // namespace leveret::core
