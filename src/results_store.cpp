#include "results_store.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "claim.hpp"
#include "forwarding_transport.hpp"
#include "ids.hpp"
#include "store_claims.hpp"
#include "stores/redis/url.hpp"

namespace leveret::core {
namespace {

bool begins(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

constexpr std::chrono::seconds kLoopPatience{5};  // for a loop that has ended and runs nothing any more

class storing_transport final : public forwarding_transport {
 public:
  storing_transport(std::unique_ptr<transport> broker, std::unique_ptr<results_store> store, loop& l, const limits& lim)
      : forwarding_transport(std::move(broker)), loop_(l), store_(std::move(store)), claims_(*store_, l, lim) {}

  [[nodiscard]] capabilities what_it_can() const override {
    capabilities can = broker_->what_it_can();
    can.fetch = true;
    can.claims = true;
    return can;
  }
  [[nodiscard]] health how_it_is() const override {
    const health broker = broker_->how_it_is();
    return broker.state == health_state::connected ? store_->how_it_is() : broker;
  }
  [[nodiscard]] std::string where() const override { return broker_->where() + ", results in " + store_->where(); }

  void publish(std::vector<message> messages, loop::clock::time_point deadline,
               std::function<void(std::vector<publish_outcome>)> then) override {
    const bool claims = std::any_of(messages.begin(), messages.end(), [](const message& m) { return !!claim_of(m); });
    if (!claims) {
      broker_->publish(std::move(messages), deadline, std::move(then));
      return;
    }
    {
      const std::lock_guard lock(sending_mutex_);
      ++sending_;
    }
    const auto all = std::make_shared<sending>(std::move(messages), deadline, std::move(then));
    loop_.post([this, all] { reserve_next(all); });
  }
  void settle(std::vector<settlement> settlements, std::function<void(std::vector<settle_outcome>)> then) override {
    if (settlements.empty()) {
      broker_->settle({}, std::move(then));
      return;
    }
    const auto all = std::make_shared<parts>(settlements.size(), std::move(then));
    part without;
    part with;
    std::vector<result_chunk> results;
    for (std::size_t i = 0; i < settlements.size(); ++i) {
      results.insert(results.end(), settlements[i].results.begin(), settlements[i].results.end());
      (settlements[i].results.empty() && settlements[i].let_go.empty() ? without : with)
          .add(i, std::move(settlements[i]));
    }
    all->open = with.places.empty() ? 1 : 2;
    // These wait for no store.
    settle_at_broker(std::move(without), all);
    if (with.places.empty()) return;
    // The store first: a delivery whose results are not stored is not settled, and tried again.
    auto waiting = std::make_shared<part>(std::move(with));
    store_->keep(std::move(results), [this, waiting, all](const std::vector<maybe_failure>& kept) {
      let_go(stored_of(std::move(*waiting), kept, *all), all);
    });
  }
  void fetch(std::vector<std::string> message_ids, reply<std::vector<result_chunk>> then) override {
    store_->fetch(std::move(message_ids), std::move(then));
  }
  void keep_results(std::vector<result_chunk> results, done then) override {
    store_->keep(std::move(results), [then = std::move(then)](const std::vector<maybe_failure>& kept) {
      const auto failed = std::find_if(kept.begin(), kept.end(), [](const maybe_failure& why) { return !!why; });
      then(failed == kept.end() ? maybe_failure() : *failed);
    });
  }
  void exchange(exchanged_value what, reply<std::string> then) override {
    store_->exchange(std::move(what), std::move(then));
  }
  void close(loop::clock::time_point deadline) override {
    // Waited for: the loop may run what is posted when this object is gone.
    if (!closing_.exchange(true)) {
      const auto done = std::make_shared<std::promise<void>>();
      loop_.post([this, done] {
        claims_.close();
        done->set_value();
      });
      done->get_future().wait_until(std::max(deadline, loop_.now() + kLoopPatience));
    }
    broker_->close(deadline);
    {
      // What the broker has accepted by now is still to be noted in the store.
      std::unique_lock lock(sending_mutex_);
      none_sending_.wait_for(lock, std::max(loop::clock::duration::zero(), deadline - loop_.now()),
                             [this] { return sending_ == 0; });
    }
    store_->close(deadline);
  }

 private:
  // One call's messages, of which some claim keys. These one after another: their order counts.
  struct sending {
    sending(std::vector<message> all, loop::clock::time_point until,
            std::function<void(std::vector<publish_outcome>)> answer)
        : messages(std::move(all)), outcomes(messages.size()), deadline(until), then(std::move(answer)) {}

    std::vector<message> messages;
    std::vector<publish_outcome> outcomes;
    loop::clock::time_point deadline;
    std::function<void(std::vector<publish_outcome>)> then;
    std::size_t next = 0;             // to be looked at
    std::vector<std::size_t> places;  // of those to be published
    std::map<std::size_t, store_claims::reserved> reserved;
    std::map<std::size_t, std::size_t> same;  // those of a key that an earlier one of the call has, and that one
    std::size_t open = 1;
  };
  using sending_ptr = std::shared_ptr<sending>;
  // One call's settlements go different ways, and are answered as one.
  struct parts {
    parts(std::size_t size, std::function<void(std::vector<settle_outcome>)> answer)
        : outcomes(size), then(std::move(answer)) {}
    void end() {
      if (--open == 0) then(std::move(outcomes));
    }

    std::vector<settle_outcome> outcomes;
    std::function<void(std::vector<settle_outcome>)> then;
    int open = 0;
  };
  struct part {
    void add(std::size_t place, settlement s) {
      places.push_back(place);
      settlements.push_back(std::move(s));
    }

    std::vector<std::size_t> places;  // in the call
    std::vector<settlement> settlements;
  };

  void reserve_next(const sending_ptr& all) {
    while (all->next < all->messages.size()) {
      const std::size_t place = all->next++;
      if (const std::optional<claim> c = claim_of(all->messages[place])) {
        const auto earlier = std::find_if(all->reserved.begin(), all->reserved.end(),
                                          [&](const auto& each) { return each.second.what.key == c->key; });
        if (earlier != all->reserved.end()) {
          all->same.emplace(place, earlier->first);
          continue;
        }
        claims_.reserve(*c, all->deadline, [this, all, place](store_claims::reserved r) {
          has_reserved(*all, place, std::move(r));
          reserve_next(all);
        });
        return;
      }
      all->places.push_back(place);
    }
    if (all->places.empty()) {
      end_sending(all);
      return;
    }
    std::vector<message> going;
    for (const std::size_t place : all->places) going.push_back(std::move(all->messages[place]));
    broker_->publish(std::move(going), all->deadline,
                     [this, all](const std::vector<publish_outcome>& outcomes) { published(all, outcomes); });
  }

  static void has_reserved(sending& all, std::size_t place, store_claims::reserved r) {
    message& m = all.messages[place];
    const std::string own = make_job_id(m.id, 1);
    publish_outcome& outcome = all.outcomes[place];
    outcome = r.outcome;
    if (r.what.job != own) outcome.existing = r.what.job;
    if (!r.publish) return;
    if (r.what.job != own) {
      // In the place of a sender that is gone: under that one's id it is that one's job.
      std::string_view id;
      std::uint32_t line = 0;
      static_cast<void>(split_job_id(r.what.job, id, line));
      m.id = id;
      for (header& h : m.headers) {
        if (h.name == kHeaderClaim) h.value = claim_text(r.what);
      }
    }
    all.places.push_back(place);
    all.reserved.emplace(place, std::move(r));
  }

  void published(const sending_ptr& all, const std::vector<publish_outcome>& outcomes) {
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      publish_outcome& outcome = all->outcomes[all->places[i]];
      outcome.status = outcomes[i].status;
      outcome.why = outcomes[i].why;
    }
    for (const auto& [place, earlier] : all->same) {
      all->outcomes[place] = all->outcomes[earlier];
      all->outcomes[place].existing = all->reserved.at(earlier).what.job;
    }
    all->open += all->reserved.size();
    for (const auto& [place, r] : all->reserved) {
      claims_.settle(r, all->outcomes[place], [this, all] { end_sending(all); });
    }
    end_sending(all);
  }

  void end_sending(const sending_ptr& all) {
    if (--all->open > 0) return;
    all->then(std::move(all->outcomes));
    const std::lock_guard lock(sending_mutex_);
    --sending_;
    none_sending_.notify_all();
  }

  // The keys after the results and before the acknowledgement: a worker that dies between leaves a job that runs again
  // and holds no key, and never a key that no job holds.
  void let_go(part what, const std::shared_ptr<parts>& all) {
    std::vector<claimed_key> keys;
    for (const settlement& s : what.settlements) keys.insert(keys.end(), s.let_go.begin(), s.let_go.end());
    auto waiting = std::make_shared<part>(std::move(what));
    claims_.let_go(keys, [this, waiting, all](const maybe_failure& why) {
      part free;
      for (std::size_t i = 0; i < waiting->places.size(); ++i) {
        if (why && !waiting->settlements[i].let_go.empty()) {
          all->outcomes[waiting->places[i]] = {settle_status::failed, why->text};
        } else {
          free.add(waiting->places[i], std::move(waiting->settlements[i]));
        }
      }
      settle_at_broker(std::move(free), all);
    });
  }

  // Those whose results are all stored; the others have failed. What is wrong with one message's key must not hold up
  // other messages.
  static part stored_of(part waiting, const std::vector<maybe_failure>& kept, parts& all) {
    part stored;
    std::size_t chunk = 0;
    for (std::size_t i = 0; i < waiting.places.size(); ++i) {
      const failure* failed = nullptr;
      for (const std::size_t end = chunk + waiting.settlements[i].results.size(); chunk < end; ++chunk) {
        const maybe_failure& why = kept[chunk];
        if (why && failed == nullptr) failed = &*why;
      }
      if (failed == nullptr) {
        stored.add(waiting.places[i], std::move(waiting.settlements[i]));
      } else {
        all.outcomes[waiting.places[i]] = {settle_status::failed, failed->text};
      }
    }
    return stored;
  }

  void settle_at_broker(part what, const std::shared_ptr<parts>& all) {
    if (what.places.empty()) {
      all->end();
      return;
    }
    broker_->settle(std::move(what.settlements),
                    [places = std::move(what.places), all](std::vector<settle_outcome> settled) {
                      for (std::size_t i = 0; i < settled.size(); ++i) all->outcomes[places[i]] = std::move(settled[i]);
                      all->end();
                    });
  }

  loop& loop_;
  std::unique_ptr<results_store> store_;
  store_claims claims_;
  std::atomic<bool> closing_{false};
  std::mutex sending_mutex_;  // a leaf; guards the next
  std::size_t sending_ = 0;   // calls of `publish` with claims that are not answered
  std::condition_variable none_sending_;
};

class results_in_transport final : public results_store {
 public:
  explicit results_in_transport(std::unique_ptr<transport> store) : store_(std::move(store)) {}

  void keep(std::vector<result_chunk> results, kept then) override {
    const std::size_t count = results.size();
    store_->keep_results(std::move(results), [count, then = std::move(then)](const maybe_failure& why) {
      then(std::vector<maybe_failure>(count, why));  // one transaction for all of them
    });
  }
  void fetch(std::vector<std::string> message_ids, transport::reply<std::vector<result_chunk>> then) override {
    store_->fetch(std::move(message_ids), std::move(then));
  }
  void exchange(exchanged_value what, transport::reply<std::string> then) override {
    store_->exchange(std::move(what), std::move(then));
  }
  [[nodiscard]] health how_it_is() const override { return store_->how_it_is(); }
  [[nodiscard]] std::string where() const override { return store_->where(); }
  void close(loop::clock::time_point deadline) override { store_->close(deadline); }

 private:
  std::unique_ptr<transport> store_;
};

}  // namespace

broker_and_results split_results(const std::string& url) {
  constexpr std::string_view kParameter = "results=";
  broker_and_results split{url, {}};
  std::size_t at = url.find("?" + std::string(kParameter));
  if (at == std::string::npos) at = url.find("&" + std::string(kParameter), std::min(url.find('?'), url.size()));
  if (at == std::string::npos) return split;
  if (!begins(url, "amqp://") && !begins(url, "amqps://")) {
    throw std::invalid_argument("cannot keep results beside the broker " + url.substr(0, url.find(':')) +
                                "://…: results= is for RabbitMQ, the others keep results themselves; leave it out");
  }
  const std::size_t value = at + 1 + kParameter.size();
  const std::size_t end = std::min(url.find('&', value), url.size());
  split.results = decoded(std::string_view(url).substr(value, end - value));
  // "?results=…&x=1" becomes "?x=1", "?x=1&results=…" becomes "?x=1".
  split.broker = url.substr(0, url[at] == '?' && end < url.size() ? at + 1 : at) +
                 (end < url.size() ? url.substr(url[at] == '?' ? end + 1 : end) : std::string());
  (void)display_results_url(split.results);
  return split;
}

std::string display_results_url(const std::string& url) {
  if (begins(url, "sqlite:///")) return display_url(url);
  if (begins(url, "redis://") || begins(url, "rediss://")) return redis::parse_url(url).where();
  // Not repeated: it may hold a password.
  throw std::invalid_argument(
      "cannot keep results: the value of results= names neither a SQLite file nor a Redis server; write "
      "results=sqlite:///path or results=redis://user:password@host:port/db");
}

std::unique_ptr<transport> with_results(std::unique_ptr<transport> broker, std::unique_ptr<results_store> store,
                                        loop& l, const limits& lim) {
  return std::make_unique<storing_transport>(std::move(broker), std::move(store), l, lim);
}

std::unique_ptr<results_store> results_in(std::unique_ptr<transport> store) {
  return std::make_unique<results_in_transport>(std::move(store));
}

}  // namespace leveret::core
