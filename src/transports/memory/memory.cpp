// The transport object of `memory://` and the list of this process's brokers; what is decided is in broker.cpp.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "transports/memory/broker.hpp"
#include "transports/memory/faults.hpp"

namespace leveret::core {
namespace memory {
namespace {

// ---- the brokers of this process ----

struct named_broker {
  std::shared_ptr<broker> at;
  std::size_t open = 0;
};
struct broker_list {
  std::mutex mutex;
  std::map<std::string, named_broker> by_name;
};

// Never destroyed: a transport with static storage may be closed after it would be.
broker_list& brokers() {
  static broker_list& list = *new broker_list;
  return list;
}

std::string name_in(const std::string& url) {
  constexpr std::string_view kStart = "memory://";
  const bool ours = url.compare(0, kStart.size(), kStart) == 0;
  std::string name = ours ? url.substr(kStart.size()) : std::string();
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  if (!ours || name.size() > 128 || !std::all_of(name.begin(), name.end(), allowed)) {
    throw std::invalid_argument(
        "cannot open \"" + url +
        "\": it is not memory:// and a name; a name is at most 128 letters, digits, '.', '_', '-'");
  }
  return name;
}

class memory_transport final : public transport {
 public:
  memory_transport(const std::string& url, loop& l, const limits& lim) : name_(name_in(url)) {
    broker_list& list = brokers();
    const std::lock_guard lock(list.mutex);
    named_broker& named = list.by_name[name_];
    if (named.at == nullptr) named.at = std::make_shared<broker>("memory://" + name_);
    ++named.open;
    broker_ = named.at;
    c_ = std::make_shared<connection>(broker_, l, lim);
  }

  ~memory_transport() override { end(fate::closed); }

  [[nodiscard]] capabilities what_it_can() const override {
    capabilities can;
    can.delivery_count = true;
    can.fetch = true;
    can.list_queues = true;
    can.browse_live = true;
    can.job_reports = true;
    can.exactly_one_end = true;
    can.claims = true;
    return can;
  }

  [[nodiscard]] health how_it_is() const override {
    const std::lock_guard lock(broker_->mutex);
    if (c_->open) return {health_state::connected, broker_->url + ", in this process"};
    return {health_state::closed, "closed"};
  }

  [[nodiscard]] std::string where() const override { return broker_->url; }

  void declare(const std::string& name, reply<declared> then) override {
    const std::lock_guard lock(broker_->mutex);
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "declare \"" + name + "\"");
    } else if (name.empty() || is_dead_list(name)) {
      why = failure{
          errc::invalid_argument,
          "cannot declare queue \"" + name + "\": " +
              (name.empty() ? "it has no name; give one" : "names that end in '.dead' are dead lists; take another")};
    } else {
      broker_->queues.try_emplace(name).first->second.name = name;
    }
    answer(std::move(then), declared{}, std::move(why));
  }

  void stats(const std::string& name, reply<std::vector<queue_stats>> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<queue_stats> all;
    maybe_failure why;
    const unix_ms now = c_->l.wall();
    if (!c_->open) {
      why = is_closed(*broker_, "look at queues");
    } else if (name.empty()) {
      for (auto& each : broker_->queues) all.push_back(stats_of(*broker_, each.second, now));
    } else if (queue* q = find_queue(*broker_, name)) {
      all.push_back(stats_of(*broker_, *q, now));
    } else {
      why = no_such_queue(*broker_, "look at queue", name);
    }
    answer(std::move(then), std::move(all), std::move(why));
  }

  void browse_dead(const std::string& name, const std::string& cursor, std::size_t limit,
                   reply<browse_page> then) override {
    const std::lock_guard lock(broker_->mutex);
    browse_page page;
    std::uint64_t after = 0;
    const char* end = cursor.data() + cursor.size();
    const auto [parsed, wrong] = std::from_chars(cursor.data(), end, after);
    if (!c_->open) {
      answer(std::move(then), std::move(page), is_closed(*broker_, "list dead jobs"));
      return;
    }
    if (!cursor.empty() && (wrong != std::errc() || parsed != end)) {
      answer(std::move(then), std::move(page),
             failure{errc::invalid_argument, "cannot list dead jobs of \"" + name + "\" after \"" + cursor +
                                                 "\": that is no cursor; pass one of an earlier page, or none"});
      return;
    }
    const auto found = broker_->dead.find(name);
    if (found == broker_->dead.end()) {
      maybe_failure why;
      if (find_queue(*broker_, name) == nullptr) why = no_such_queue(*broker_, "list dead jobs of", name);
      answer(std::move(then), std::move(page), std::move(why));
      return;
    }
    const std::deque<dead_entry>& list = found->second;
    auto entry = std::upper_bound(list.begin(), list.end(), after,
                                  [](std::uint64_t number, const dead_entry& e) { return number < e.number; });
    for (; entry != list.end() && page.entries.size() < limit; ++entry) {
      page.entries.push_back({std::to_string(entry->number), entry->job.id, entry->job.queue, entry->job.record});
    }
    page.more = entry != list.end();
    answer(std::move(then), std::move(page), std::nullopt);
  }

  void purge(const std::string& name, reply<std::uint64_t> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::uint64_t removed = 0;
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "purge \"" + name + "\"");
    } else if (is_dead_list(name)) {
      const std::string base = name.substr(0, name.size() - std::string_view(kDeadSuffix).size());
      const auto found = broker_->dead.find(base);
      if (found != broker_->dead.end()) {
        removed = found->second.size();
        broker_->dead.erase(found);
      } else if (find_queue(*broker_, base) == nullptr) {
        why = no_such_queue(*broker_, "purge the dead jobs of", base);
      }
    } else if (queue* q = find_queue(*broker_, name)) {
      removed = memory::purge(*broker_, *q);
    } else {
      why = no_such_queue(*broker_, "purge queue", name);
    }
    answer(std::move(then), removed, std::move(why));
  }

  void publish(std::vector<message> messages, loop::clock::time_point /*deadline: answered at once*/,
               std::function<void(std::vector<publish_outcome>)> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<publish_outcome> outcomes;
    outcomes.reserve(messages.size());
    touched_queues touched;
    const unix_ms now = c_->l.wall();
    for (message& m : messages) {
      outcomes.push_back(
          c_->open
              ? accept(*c_, std::move(m), now, touched)
              : publish_outcome{publish_status::refused, is_closed(*broker_, "publish to \"" + m.queue + "\""), {}});
    }
    c_->call([then = std::move(then), outcomes = std::move(outcomes)]() mutable { then(std::move(outcomes)); });
    hand_out(*broker_, touched, now);
  }

  subscription_id subscribe(const std::string& name, window w, subscriber events) override {
    const std::lock_guard lock(broker_->mutex);
    const subscription_id id = ++c_->last_subscription;
    auto s = std::make_shared<subscription>();
    s->owner = c_.get();
    s->most = w;
    s->events = std::move(events);
    s->from = find_queue(*broker_, name);
    if (!c_->open) {
      ended(std::move(s), is_closed(*broker_, "consume \"" + name + "\""));
    } else if (s->from == nullptr) {
      ended(std::move(s), no_such_queue(*broker_, "consume", name));
    } else {
      queue& q = *s->from;
      c_->subscriptions.emplace(id, s);
      q.consumers.push_back(std::move(s));
      hand_out(*broker_, q, c_->l.wall());
    }
    return id;
  }

  void resize(subscription_id id, window w) override {
    const std::lock_guard lock(broker_->mutex);
    const auto found = c_->subscriptions.find(id);
    if (found == c_->subscriptions.end()) return;
    found->second->most = w;
    hand_out(*broker_, *found->second->from, c_->l.wall());
  }

  void unsubscribe(subscription_id id, done then) override {
    const std::lock_guard lock(broker_->mutex);
    subscription_ptr s;
    const auto found = c_->subscriptions.find(id);
    if (found != c_->subscriptions.end()) {
      s = std::move(found->second);
      c_->subscriptions.erase(found);
      remove_consumer(*s->from, *s);
      // What the consumer has not seen yet goes back now; the rest stays its own.
      for (auto each = c_->leases.begin(); each != c_->leases.end();) {
        const auto which = each++;
        if (which->second.by == s && !which->second.seen) give_back(*c_, which, false);
      }
    }
    queue* q = s == nullptr ? nullptr : s->from;
    c_->call([then = std::move(then), s = std::move(s)] { then(std::nullopt); });
    if (q != nullptr) hand_out(*broker_, *q, c_->l.wall());
  }

  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<settle_outcome> outcomes;
    outcomes.reserve(settlements.size());
    touched_queues touched;
    const unix_ms now = c_->l.wall();
    broker_->results.expire(now);
    for (settlement& s : settlements) {
      outcomes.push_back(c_->open ? settle_one(*c_, s, now, touched)
                                  : settle_outcome{settle_status::failed, is_closed(*broker_, "settle").text});
    }
    c_->call([then = std::move(then), outcomes = std::move(outcomes)]() mutable { then(std::move(outcomes)); });
    hand_out(*broker_, touched, now);
  }

  void release(std::vector<delivery_token> tokens, done then) override {
    const std::lock_guard lock(broker_->mutex);
    touched_queues touched;
    for (const delivery_token token : tokens) {
      const auto found = c_->leases.find(token);
      if (found != c_->leases.end()) touched.add(give_back(*c_, found, false));
    }
    maybe_failure why;
    if (!c_->open) why = is_closed(*broker_, "release deliveries");
    c_->call([then = std::move(then), why = std::move(why)] { then(why); });
    hand_out(*broker_, touched, c_->l.wall());
  }

  void watch(const std::string& address, std::function<void(result_chunk)> on_result, done then) override {
    const std::lock_guard lock(broker_->mutex);
    if (!c_->open) {
      auto why = is_closed(*broker_, "watch results");
      c_->call([then = std::move(then), on_result = std::move(on_result), why = std::move(why)] { then(why); });
      return;
    }
    broker_->results.expire(c_->l.wall());
    const auto to = std::make_shared<std::function<void(result_chunk)>>(std::move(on_result));
    watcher before = std::exchange(broker_->watchers[address], watcher{c_.get(), to});
    c_->call([then = std::move(then), before = std::move(before.on_result)] { then(std::nullopt); });
    for (result_chunk& chunk : broker_->results.take(address)) {
      c_->call([to, chunk = std::move(chunk)] { (*to)(chunk); });
    }
  }

  void check_access(const std::string&, done then) override {
    c_->call([then = std::move(then)] { then(std::nullopt); });
  }

  void unwatch(const std::string& address, done then) override {
    const std::lock_guard lock(broker_->mutex);
    watcher before;
    const auto found = broker_->watchers.find(address);
    if (found != broker_->watchers.end() && found->second.owner == c_.get()) {
      before = std::move(found->second);
      broker_->watchers.erase(found);
    }
    c_->call([then = std::move(then), before = std::move(before.on_result)] { then(std::nullopt); });
  }

  void make_reply(reply<std::string> then) override {
    static std::atomic<std::uint64_t> last{0};  // an address is not used again in this process
    const std::lock_guard lock(broker_->mutex);
    maybe_failure why;
    if (!c_->open) why = is_closed(*broker_, "make a reply address");
    answer(std::move(then), "memory-reply-" + std::to_string(++last), std::move(why));
  }

  void fetch(std::vector<std::string> message_ids, reply<std::vector<result_chunk>> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<result_chunk> chunks;
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "look up results");
    } else {
      broker_->results.expire(c_->l.wall());
      for (const std::string& id : message_ids) {
        for (result_chunk& chunk : broker_->results.find(id)) chunks.push_back(std::move(chunk));
      }
    }
    answer(std::move(then), std::move(chunks), std::move(why));
  }

  void keep_results(std::vector<result_chunk> results, done then) override {
    const std::lock_guard lock(broker_->mutex);
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "store results");
    } else {
      const unix_ms now = c_->l.wall();
      for (result_chunk& chunk : results) store_result(*c_, std::move(chunk), now);
    }
    c_->call([then = std::move(then), why = std::move(why)] { then(why); });
  }

  void browse(browse_query query, reply<message_page> then) override {
    const std::lock_guard lock(broker_->mutex);
    message_page page;
    std::uint64_t after = 0;
    const char* end = query.cursor.data() + query.cursor.size();
    const auto [parsed, wrong] = std::from_chars(query.cursor.data(), end, after);
    const std::string what = "list the jobs of";
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, what + " \"" + query.queue + "\"");
    } else if (queue* q = find_queue(*broker_, query.queue); q == nullptr) {
      why = no_such_queue(*broker_, what, query.queue);
    } else if (!query.cursor.empty() && (wrong != std::errc() || parsed != end)) {
      why = failure{errc::invalid_argument, "cannot " + what + " \"" + query.queue + "\" after \"" + query.cursor +
                                                "\": that is no cursor; pass one of an earlier page, or none"};
    } else {
      page = memory::browse(*broker_, *q, query, after, c_->l.wall());
    }
    answer(std::move(then), std::move(page), std::move(why));
  }

  void revise_dead(const std::string& name, dead_decision decide, reply<std::uint64_t> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::uint64_t left = 0;
    maybe_failure why;
    touched_queues touched;
    const unix_ms now = c_->l.wall();
    if (!c_->open) {
      why = is_closed(*broker_, "change the dead jobs of \"" + name + "\"");
    } else if (broker_->dead.count(name) == 0 && find_queue(*broker_, name) == nullptr) {
      why = no_such_queue(*broker_, "change the dead jobs of", name);
    } else {
      left = memory::revise_dead(*c_, name, decide, now, touched);
    }
    answer(std::move(then), left, std::move(why));
    hand_out(*broker_, touched, now);
  }

  void cancel(std::vector<cancellation> jobs, reply<std::vector<cancel_outcome>> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<cancel_outcome> outcomes;
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "cancel jobs");
    } else {
      for (const cancellation& job : jobs) outcomes.push_back(memory::cancel(*c_, job, c_->l.wall()));
    }
    answer(std::move(then), std::move(outcomes), std::move(why));
  }

  void watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) override {
    const std::lock_guard lock(broker_->mutex);
    maybe_failure why;
    const auto to = std::make_shared<std::function<void(cancelled_job)>>(std::move(on_cancelled));
    if (!c_->open) {
      why = is_closed(*broker_, "watch for cancelled jobs");
    } else {
      c_->call([to, jobs = broker_->cancelled] {
        for (const cancelled_job& job : jobs) (*to)(job);
      });
      broker_->listeners.push_back({c_.get(), to});
    }
    c_->call([then = std::move(then), why = std::move(why)] { then(why); });
  }

  void make_known(report r, done then) override {
    const std::lock_guard lock(broker_->mutex);
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "make a report known");
    } else {
      const unix_ms now = c_->l.wall();
      drop_reports(*broker_, now);
      r.time = now;
      const unix_ms expires = now + r.ttl.count();
      auto place = std::make_pair(r.kind, r.id);
      broker_->reports[std::move(place)] = {std::move(r), expires};
    }
    c_->call([then = std::move(then), why = std::move(why)] { then(why); });
  }

  void known(const std::string& kind, const std::string& id, reply<std::vector<report>> then) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<report> found;
    maybe_failure why;
    if (!c_->open) {
      why = is_closed(*broker_, "read reports");
    } else {
      drop_reports(*broker_, c_->l.wall());
      for (const auto& [place, kept] : broker_->reports) {
        if (place.first == kind && (id.empty() || place.second == id)) found.push_back(kept.what);
      }
    }
    answer(std::move(then), std::move(found), std::move(why));
  }

  void close(loop::clock::time_point /*deadline: nothing is ever under way*/) override { end(fate::closed); }

  void kill() { end(fate::killed); }

  void lose_deliveries() {
    const std::lock_guard lock(broker_->mutex);
    std::vector<std::pair<subscription_ptr, std::vector<delivery_token>>> lost;
    for (const auto& [token, held] : c_->leases) {
      if (!held.seen) continue;
      const auto place = std::find_if(lost.begin(), lost.end(), [&s = held.by](const auto& l) { return l.first == s; });
      if (place == lost.end()) {
        lost.push_back({held.by, {token}});
      } else {
        place->second.push_back(token);
      }
    }
    touched_queues touched;
    give_back_all(*c_, true, touched);
    for (auto& [s, tokens] : lost) {
      std::sort(tokens.begin(), tokens.end());
      c_->call([s = s, tokens = std::move(tokens)] {
        if (s->events.on_lost) s->events.on_lost(tokens);
      });
    }
    hand_out(*broker_, touched, c_->l.wall());
  }

 private:
  enum class fate { closed, killed };

  static bool is_dead_list(const std::string& name) {
    const std::string_view suffix = kDeadSuffix;
    return name.size() >= suffix.size() && std::string_view(name).substr(name.size() - suffix.size()) == suffix;
  }

  template <class T>
  void answer(reply<T> then, T value, maybe_failure why) {
    c_->call([then = std::move(then), value = std::move(value), why = std::move(why)]() mutable {
      then(std::move(value), std::move(why));
    });
  }

  void ended(subscription_ptr s, failure why) {
    c_->call([s = std::move(s), why = std::move(why)] {
      if (s->events.on_ended) s->events.on_ended(why);
    });
  }

  void end(fate how) {
    // Callbacks that nobody calls any more: destroyed without the mutex, what they own may call back into here.
    std::vector<loop::task> dropped;
    std::map<subscription_id, subscription_ptr> subscriptions;
    std::vector<watcher> watchers;
    std::vector<listener> listeners;
    {
      const std::lock_guard lock(broker_->mutex);
      if (!c_->open) return;
      c_->open = false;
      if (c_->timer_due != 0) c_->l.cancel(c_->timer);
      if (how == fate::killed) {
        c_->killed = true;
        dropped.swap(c_->outbox);
      }
      subscriptions.swap(c_->subscriptions);
      for (const auto& [id, s] : subscriptions) {
        remove_consumer(*s->from, *s);
        ended(s, is_closed(*broker_, "consume \"" + s->from->name + "\""));
      }
      for (auto each = broker_->watchers.begin(); each != broker_->watchers.end();) {
        if (each->second.owner == c_.get()) {
          watchers.push_back(std::move(each->second));
          each = broker_->watchers.erase(each);
        } else {
          ++each;
        }
      }
      for (auto each = broker_->listeners.begin(); each != broker_->listeners.end();) {
        if (each->owner == c_.get()) {
          listeners.push_back(std::move(*each));
          each = broker_->listeners.erase(each);
        } else {
          ++each;
        }
      }
      touched_queues touched;
      give_back_all(*c_, how == fate::killed, touched);
      hand_out(*broker_, touched, c_->l.wall());
    }
    broker_list& list = brokers();
    std::shared_ptr<broker> last;  // destroyed without the list's mutex
    const std::lock_guard lock(list.mutex);
    const auto named = list.by_name.find(name_);
    if (--named->second.open == 0) {
      last = std::move(named->second.at);
      list.by_name.erase(named);
    }
  }

  const std::string name_;
  std::shared_ptr<broker> broker_;
  std::shared_ptr<connection> c_;
};

memory_transport& memory_transport_of(transport& t) {
  auto* found = dynamic_cast<memory_transport*>(&t);
  if (found == nullptr)
    throw std::invalid_argument("cannot fault the transport to " + t.where() + ": it is not memory://");
  return *found;
}

}  // namespace
}  // namespace memory

std::unique_ptr<transport> open_memory(const std::string& url, loop& l, const limits& lim) {
  return std::make_unique<memory::memory_transport>(url, l, lim);
}

void kill_memory_transport(transport& t) { memory::memory_transport_of(t).kill(); }

void lose_memory_deliveries(transport& t) { memory::memory_transport_of(t).lose_deliveries(); }

}  // namespace leveret::core
