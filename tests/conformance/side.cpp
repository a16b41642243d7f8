#include "conformance/side.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "ids.hpp"

namespace leveret::conformance {

using core::delivery;
using core::failure;
using core::maybe_failure;
using core::message;
using core::result_chunk;

// ---- side ----

side::side(harness& h, const core::limits& lim) : transport_(h.open(loop_, lim)) {}

side::~side() {
  close();
  drain_and_stop();  // before the transport goes: callbacks may call it
  transport_.reset();
  for (const auto& record : records_) {
    EXPECT_EQ(record->calls, 1) << "callback of " << record->what << ": times called";
    EXPECT_EQ(record->off_loop, 0) << "callback of " << record->what
                                   << ": times called on another thread than the loop's";
  }
  for (const auto& record : many_records_) {
    EXPECT_EQ(record->off_loop, 0) << record->what << ": times called on another thread than the loop's";
  }
}

std::shared_ptr<call_record> side::many(const std::string& what) {
  many_records_.push_back(std::make_shared<call_record>(what));
  return many_records_.back();
}

std::vector<core::publish_outcome> side::publish(std::vector<message> messages) {
  const std::size_t count = messages.size();
  auto [then, answered] = once<std::vector<core::publish_outcome>>("publish");
  transport_->publish(std::move(messages), soon(), std::move(then));
  auto [outcomes] = answered.get();
  if (outcomes.size() != count) throw std::runtime_error("publish: other outcomes than messages");
  return outcomes;
}

void side::must_publish(std::vector<message> messages) {
  for (const core::publish_outcome& outcome : publish(std::move(messages))) {
    EXPECT_EQ(outcome.status, core::publish_status::accepted) << outcome.why.text;
  }
}

void side::must_declare(const std::string& queue) {
  auto [then, answered] = once<core::transport::declared, maybe_failure>("declare");
  transport_->declare(queue, std::move(then));
  const auto [declared, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  EXPECT_TRUE(declared.ours);
}

core::queue_stats side::must_stats(const std::string& queue) {
  auto [then, answered] = once<std::vector<core::queue_stats>, maybe_failure>("stats");
  transport_->stats(queue, std::move(then));
  const auto [stats, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  if (stats.size() != 1) throw std::runtime_error("stats of one queue gave " + std::to_string(stats.size()));
  EXPECT_EQ(stats.front().queue, queue);
  return stats.front();
}

bool side::stats_become(const std::string& queue, const std::function<bool(const core::queue_stats&)>& good) {
  // Polled: counts of a broker are not events. The pause keeps it from being asked all the time.
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!good(must_stats(queue))) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::promise<void> pause;
    loop_.after(std::chrono::milliseconds(20), [&pause] { pause.set_value(); });
    pause.get_future().wait();
  }
  return true;
}

std::vector<core::settle_outcome> side::settle(std::vector<core::settlement> settlements) {
  const std::size_t count = settlements.size();
  auto [then, answered] = once<std::vector<core::settle_outcome>>("settle");
  transport_->settle(std::move(settlements), std::move(then));
  auto [outcomes] = answered.get();
  if (outcomes.size() != count) throw std::runtime_error("settle: other outcomes than settlements");
  return outcomes;
}

void side::must_settle(core::settlement s) {
  std::vector<core::settlement> one;
  one.push_back(std::move(s));
  const core::settle_outcome outcome = settle(std::move(one)).front();
  EXPECT_EQ(outcome.status, core::settle_status::settled) << outcome.why;
}

void side::must_settle(core::delivery_token token) {
  core::settlement s;
  s.token = token;
  must_settle(std::move(s));
}

void side::must_release(std::vector<core::delivery_token> tokens) {
  auto [then, answered] = once<maybe_failure>("release");
  transport_->release(std::move(tokens), std::move(then));
  const auto [why] = answered.get();
  EXPECT_FALSE(why) << why->text;
}

std::string side::must_make_reply() {
  auto [then, answered] = once<std::string, maybe_failure>("make_reply");
  transport_->make_reply(std::move(then));
  auto [reply, why] = answered.get();
  EXPECT_FALSE(why) << why->text;
  EXPECT_FALSE(reply.empty());
  return reply;
}

std::pair<core::browse_page, maybe_failure> side::browse_dead(const std::string& queue, const std::string& cursor,
                                                              std::size_t limit) {
  auto [then, answered] = once<core::browse_page, maybe_failure>("browse_dead");
  transport_->browse_dead(queue, cursor, limit, std::move(then));
  auto [page, why] = answered.get();
  return {std::move(page), std::move(why)};
}

std::pair<std::uint64_t, maybe_failure> side::purge(const std::string& queue) {
  auto [then, answered] = once<std::uint64_t, maybe_failure>("purge");
  transport_->purge(queue, std::move(then));
  auto [removed, why] = answered.get();
  return {removed, std::move(why)};
}

void side::close() { transport_->close(soon()); }

// ---- consumer ----

consumer::consumer(side& s, const std::string& queue, core::window w) : side_(s) {
  core::subscriber events;
  const auto record = side_.many("an event of a subscription to " + queue);
  const auto on_loop = [&l = side_.loop(), record] {
    if (!l.on_loop()) ++record->off_loop;
  };
  events.on_delivery = [on_loop, st = state_, &t = side_.transport(), &side = side_](delivery d) {
    on_loop();
    bool settle = false;
    const core::delivery_token token = d.token;
    {
      const std::lock_guard lock(st->mutex);
      st->most_held = std::max(st->most_held, ++st->held);
      st->bytes += d.msg.data.size();
      st->most_bytes = std::max(st->most_bytes, st->bytes);
      settle = st->settling;
      if (settle) {
        --st->held;
        st->bytes -= d.msg.data.size();
      }
      st->got.push_back(std::move(d));
      st->changed.notify_all();
    }
    if (settle) {
      core::settlement s;
      s.token = token;
      std::vector<core::settlement> one;
      one.push_back(std::move(s));
      t.settle(std::move(one), [on_loop](const std::vector<core::settle_outcome>&) { on_loop(); });
    }
  };
  events.on_lost = [on_loop, st = state_](const std::vector<core::delivery_token>& tokens) {
    on_loop();
    const std::lock_guard lock(st->mutex);
    st->lost.insert(st->lost.end(), tokens.begin(), tokens.end());
    st->changed.notify_all();
  };
  events.on_ended = [on_loop, st = state_](failure why) {
    on_loop();
    const std::lock_guard lock(st->mutex);
    st->ended.push_back(std::move(why));
    st->changed.notify_all();
  };
  id_ = side_.transport().subscribe(queue, w, std::move(events));
}

delivery consumer::next() {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, kPatience, [this] { return state_->got.size() > state_->read; })) {
    throw std::runtime_error("no delivery came; " + std::to_string(state_->read) + " had come before");
  }
  return state_->got[state_->read++];
}

std::vector<delivery> consumer::next(std::size_t count) {
  std::vector<delivery> all;
  all.reserve(count);
  while (all.size() < count) all.push_back(next());
  return all;
}

void consumer::settle_all_by_itself() {
  std::vector<delivery> held;
  {
    const std::lock_guard lock(state_->mutex);
    state_->settling = true;
    held.assign(state_->got.begin() + static_cast<std::ptrdiff_t>(state_->read), state_->got.end());
  }
  for (const delivery& d : held) settle(d);
}

void consumer::no_longer_held(const delivery& d) {
  const std::lock_guard lock(state_->mutex);
  --state_->held;
  state_->bytes -= d.msg.data.size();
}

void consumer::settle(const delivery& d) {
  no_longer_held(d);  // before: the next one may come before the answer
  side_.must_settle(d.token);
}

void consumer::release(const std::vector<delivery>& ds) {
  std::vector<core::delivery_token> tokens;
  tokens.reserve(ds.size());
  for (const delivery& d : ds) {
    no_longer_held(d);
    tokens.push_back(d.token);
  }
  side_.must_release(std::move(tokens));
}

void consumer::unsubscribe() {
  auto [then, answered] = side_.once<maybe_failure>("unsubscribe");
  side_.transport().unsubscribe(id_, std::move(then));
  const auto [why] = answered.get();
  EXPECT_FALSE(why) << why->text;
}

std::size_t consumer::delivered() const {
  const std::lock_guard lock(state_->mutex);
  return state_->got.size();
}

std::size_t consumer::most_held() const {
  const std::lock_guard lock(state_->mutex);
  return state_->most_held;
}

std::uint64_t consumer::most_bytes_held() const {
  const std::lock_guard lock(state_->mutex);
  return state_->most_bytes;
}

void consumer::wait_delivered(std::size_t count) {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, kPatience, [&] { return state_->got.size() >= count; })) {
    throw std::runtime_error("only " + std::to_string(state_->got.size()) + " of " + std::to_string(count) +
                             " deliveries came");
  }
}

failure consumer::wait_ended() {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, kPatience, [this] { return !state_->ended.empty(); })) {
    throw std::runtime_error("on_ended was not called");
  }
  return state_->ended.front();
}

std::vector<core::delivery_token> consumer::wait_lost(std::size_t count) {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, kPatience, [&] { return state_->lost.size() >= count; })) {
    throw std::runtime_error("on_lost named " + std::to_string(state_->lost.size()) + " of " + std::to_string(count) +
                             " deliveries");
  }
  std::vector<core::delivery_token> tokens = state_->lost;
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

int consumer::ended() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int>(state_->ended.size());
}

std::vector<std::string> consumer::ids() const {
  const std::lock_guard lock(state_->mutex);
  return ids_of(state_->got);
}

// ---- result_reader ----

result_reader::result_reader(side& s, const std::string& reply) {
  const auto record = s.many("a result of " + reply);
  auto [then, answered] = s.once<maybe_failure>("watch");
  s.transport().watch(
      reply,
      [st = state_, record, &l = s.loop()](result_chunk chunk) {
        if (!l.on_loop()) ++record->off_loop;
        const std::lock_guard lock(st->mutex);
        st->got.push_back(std::move(chunk));
        st->changed.notify_all();
      },
      std::move(then));
  const auto [why] = answered.get();
  EXPECT_FALSE(why) << why->text;
}

std::vector<result_chunk> result_reader::wait(std::size_t count) {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, kPatience, [&] { return state_->got.size() >= count; })) {
    throw std::runtime_error("only " + std::to_string(state_->got.size()) + " of " + std::to_string(count) +
                             " result chunks came");
  }
  return state_->got;
}

std::size_t result_reader::count() const {
  const std::lock_guard lock(state_->mutex);
  return state_->got.size();
}

// ---- messages ----

message make_message(const std::string& queue, const std::string& lines) {
  static const core::random_source random = core::system_random();
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch());
  message m;
  m.id = core::make_message_id(now.count(), random);
  m.queue = queue;
  m.data = core::body(lines);
  m.jobs = static_cast<std::uint32_t>(std::count(lines.begin(), lines.end(), '\n'));
  return m;
}

std::vector<message> make_messages(const std::string& queue, std::size_t count, std::size_t first) {
  std::vector<message> all;
  all.reserve(count);
  for (std::size_t i = first; i < first + count; ++i) all.push_back(make_message(queue, std::to_string(i) + "\n"));
  return all;
}

std::vector<std::string> ids_of(const std::vector<message>& messages) {
  std::vector<std::string> ids;
  ids.reserve(messages.size());
  for (const message& m : messages) ids.push_back(m.id);
  return ids;
}

std::vector<std::string> ids_of(const std::vector<delivery>& deliveries) {
  std::vector<std::string> ids;
  ids.reserve(deliveries.size());
  for (const delivery& d : deliveries) ids.push_back(d.msg.id);
  return ids;
}

result_chunk make_chunk(const std::string& id, const std::string& reply, std::uint32_t line,
                        const std::string& result) {
  result_chunk chunk;
  chunk.id = id;
  chunk.reply = reply;
  chunk.first_line = chunk.last_line = line;
  chunk.data = "{\"line\":" + std::to_string(line) + ",\"result\":" + result + "}\n";
  return chunk;
}

}  // namespace leveret::conformance
