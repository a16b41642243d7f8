#include "results_store.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "forwarding_transport.hpp"
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

class storing_transport final : public forwarding_transport {
 public:
  storing_transport(std::unique_ptr<transport> broker, std::unique_ptr<results_store> store)
      : forwarding_transport(std::move(broker)), store_(std::move(store)) {}

  [[nodiscard]] capabilities what_it_can() const override {
    capabilities can = broker_->what_it_can();
    can.fetch = true;
    return can;
  }
  [[nodiscard]] health how_it_is() const override {
    const health broker = broker_->how_it_is();
    return broker.state == health_state::connected ? store_->how_it_is() : broker;
  }
  [[nodiscard]] std::string where() const override { return broker_->where() + ", results in " + store_->where(); }

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
      (settlements[i].results.empty() ? without : with).add(i, std::move(settlements[i]));
    }
    all->open = with.places.empty() ? 1 : 2;
    // These wait for no store.
    settle_at_broker(std::move(without), all);
    if (with.places.empty()) return;
    // The store first: a delivery whose results are not stored is not settled, and tried again.
    auto waiting = std::make_shared<part>(std::move(with));
    store_->keep(std::move(results), [this, waiting, all](const std::vector<maybe_failure>& kept) {
      settle_at_broker(stored_of(std::move(*waiting), kept, *all), all);
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
  void close(loop::clock::time_point deadline) override {
    broker_->close(deadline);
    store_->close(deadline);
  }

 private:
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

  std::unique_ptr<results_store> store_;
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

std::unique_ptr<transport> with_results(std::unique_ptr<transport> broker, std::unique_ptr<results_store> store) {
  return std::make_unique<storing_transport>(std::move(broker), std::move(store));
}

std::unique_ptr<results_store> results_in(std::unique_ptr<transport> store) {
  return std::make_unique<results_in_transport>(std::move(store));
}

}  // namespace leveret::core
