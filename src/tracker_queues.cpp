// Which queues a tracker consumes: those that it was told, their suspects, and the shards that it finds.

#include <algorithm>
#include <utility>

#include "ordered.hpp"
#include "shards.hpp"
#include "tracker.hpp"

namespace leveret::core {

void tracker::start(std::function<void(maybe_failure)> ready) {
  for (const std::string& name : settings_.queues) add_queue(name);
  starting_ = true;
  subscribe_next(0, [this, ready = std::move(ready)](maybe_failure why) {
    starting_ = false;
    if (!why) schedule_burst_check();
    ready(std::move(why));
  });
}

tracker::consumed_queue& tracker::add_queue(std::string name) {
  auto queue = std::make_unique<consumed_queue>();
  queue->name = std::move(name);
  queue->ordered = is_ordered(queue->name);
  queue->size = start_window(settings_.most.messages, pool_.threads());
  queue->most = settings_.most.messages;
  return *queues_.emplace_back(std::move(queue));
}

void tracker::subscribe_next(std::size_t index, std::function<void(maybe_failure)> ready) {
  if (index == queues_.size()) {
    ready(std::nullopt);
    return;
  }
  const std::string name = queues_[index]->name;
  transport_.declare(name, [this, index, ready = std::move(ready)](transport::declared is, maybe_failure why) mutable {
    if (why) {
      ready(std::move(why));
      return;
    }
    consumed_queue& queue = *queues_[index];
    if (queue.ordered && !is.ours) {
      ready(failure{errc::refused, "cannot consume \"" + queue.name +
                                       "\" in order: there is a queue of that name with other properties than "
                                       "Leveret declares; delete it, or send to another queue"});
      return;
    }
    const auto go_on = [this, index, is, ready = std::move(ready)]() mutable {
      // Stopped meanwhile: whoever subscribes now is never unsubscribed, and gives back for ever what comes.
      if (stopping_) {
        ready(std::nullopt);
        return;
      }
      subscribe_declared(*queues_[index], is);
      subscribe_next(index + 1, std::move(ready));
    };
    may_have_shards(queue) ? find_shards(queue, 1, go_on) : std::function<void()>(go_on)();
  });
}

bool tracker::may_have_shards(const consumed_queue& queue) noexcept {
  return !queue.suspects && !queue.ordered && queue.shard_of == nullptr;
}

void tracker::find_shards(consumed_queue& queue, std::uint32_t shard, std::function<void()> then) {
  if (shard == kMostShards || stopping_) {
    then();
    return;
  }
  transport_.stats(
      shard_queue(queue.name, shard),
      [this, &queue, shard, then = std::move(then)](const std::vector<queue_stats>&, const maybe_failure& why) mutable {
        if (!why) {
          add_shards(queue, shard + 1);
          find_shards(queue, shard + 1, std::move(then));
          return;
        }
        if (why->code != errc::not_found) log_.log(LEVERET_WARNING, "shards_unknown", {}, why->text);
        then();
      });
}

void tracker::add_shards(consumed_queue& queue, std::uint32_t shards) {
  for (; queue.shards < shards; ++queue.shards) {
    std::string name = shard_queue(queue.name, queue.shards);
    const bool told = std::any_of(queues_.begin(), queues_.end(), [&](const auto& each) { return each->name == name; });
    if (!told) add_queue(std::move(name)).shard_of = &queue;
  }
}

void tracker::hear_of_shards(consumed_queue& queue, const message& m) {
  if (!may_have_shards(queue)) return;
  const std::uint32_t shards = shards_said(m);
  if (shards <= queue.shards) return;
  log_.log(LEVERET_INFO, "shards", {},
           "\"" + queue.name + "\" has " + std::to_string(shards) + " shards; this worker consumes all of them");
  const std::size_t first = queues_.size();
  add_shards(queue, shards);
  if (starting_) return;  // `subscribe_next` comes to them
  if (queue.subscription != 0) transport_.resize(queue.subscription, window_of(queue));
  for (std::size_t i = first; i < first + shards && i < queues_.size(); ++i) consume(*queues_[i]);
}

window tracker::window_of(const consumed_queue& queue) const {
  if (queue.suspects || queue.ordered) return {1, settings_.most.bytes, 1};
  // What a worker holds of a queue is the same however many shards it has.
  const std::uint32_t shards = queue.shard_of == nullptr ? queue.shards : queue.shard_of->shards;
  return {std::max(queue.size.size() / shards, 1u), std::max<std::uint64_t>(settings_.most.bytes / shards, 1),
          queue.most};
}

void tracker::subscribe(consumed_queue& queue) {
  subscriber events;
  events.on_delivery = [this, &queue](delivery d) { on_delivery(queue, std::move(d)); };
  events.on_lost = [this, &queue](const std::vector<delivery_token>& tokens) { on_lost(queue, tokens); };
  events.on_ended = [this, &queue](const failure& why) { on_subscription_ended(queue, why); };
  queue.subscription = transport_.subscribe(queue.name, window_of(queue), std::move(events));
  ++subscribed_;
}

tracker::consumed_queue* tracker::subscribe_declared(consumed_queue& queue, const transport::declared& is) {
  consumed_queue* suspects = nullptr;
  if (queue.shard_of != nullptr) queue.isolate = is.ours && queue.shard_of->isolate;  // with the suspects of that one
  // A queue found as it is keeps its own rules: no suspects beside it. Without a count nobody knows what came back.
  if (is.ours && !queue.isolate && may_have_shards(queue) && transport_.what_it_can().delivery_count) {
    queue.isolate = true;
    suspects = &add_queue(queue.name + kSuspectsSuffix);
    suspects->suspects = true;
  }
  if (queue.subscription == 0) {
    const std::uint32_t shards = queue.shard_of == nullptr ? queue.shards : queue.shard_of->shards;
    queue.most = std::max(settings_.most.messages / shards, 1u);
    subscribe(queue);
  }
  return suspects;
}

void tracker::consume(consumed_queue& queue) {
  transport_.declare(queue.name, [this, &queue](transport::declared is, maybe_failure failed) {
    if (stopping_) return;
    if (failed) {
      ++subscribed_;  // on_subscription_ended takes it back
      on_subscription_ended(queue, *failed);
      return;
    }
    if (consumed_queue* const suspects = subscribe_declared(queue, is)) consume(*suspects);
  });
}

void tracker::on_subscription_ended(consumed_queue& queue, const failure& why) {
  if (subscribed_ > 0) --subscribed_;
  queue.subscription = 0;
  if (stopping_ || why.code == errc::closed) {
    check_drained();
    return;
  }
  log_.log(LEVERET_ERROR, "subscription_ended", {}, why.text);
  loop_.after(std::chrono::seconds(1), [this, &queue] {
    if (!stopping_ && queue.subscription == 0) consume(queue);
  });
}

}  // namespace leveret::core
