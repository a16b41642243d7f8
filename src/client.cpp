#include "client.hpp"

#include <algorithm>
#include <deque>
#include <future>
#include <map>
#include <shared_mutex>
#include <stdexcept>
#include <utility>

#include "answer.hpp"
#include "codec.hpp"
#include "ids.hpp"
#include "ordered_publisher.hpp"
#include "relay.hpp"
#include "shards.hpp"
#include "thread_loop.hpp"
#include "window_publisher.hpp"

namespace leveret::core {

struct client::state {
  client_options options;
  random_source random = system_random();
  thread_loop events{"leveret-client"};
  std::unique_ptr<transport> broker;

  /// Held, shared, while a call is handed to the transport, and alone while `closed` is set: what the transport has
  /// before it closes is answered, what comes after would wait for ever. Taken before `mutex`.
  std::shared_mutex gate;
  std::mutex mutex;  // guards what follows; never held while calling the transport
  std::condition_variable results_came;
  std::unordered_set<std::string> declared;
  std::unordered_map<std::string, std::uint32_t> declared_shards;  // how many of a spread queue's
  std::string reply;                                               // made at the first message that wants results
  bool watching = false;
  bool closed = false;
  /// Messages whose results are wanted, with the chunks that nobody has taken yet.
  std::unordered_map<std::string, std::vector<result_chunk>> wanted;
  /// Latest progress of jobs by message and line, where results bring it.
  std::unordered_map<std::string, std::map<std::uint32_t, std::string>> progress;
  std::mutex set_up;  // one thread starts the watch; taken before `mutex`
  /// Who waits for the reply address, while it is being made.
  std::vector<std::function<void(const maybe_failure&)>> wait_for_reply;

  shard_chooser shards;
  relay senders{events};  // who waits for what it sent one by one
  coalescer one_by_one;   // last: its calls use all of the above

  explicit state(client_options o)
      : options(std::move(o)),
        one_by_one(
            events, options.batch_bytes, options.linger,
            {[this](const envelope& e, const std::function<void(maybe_failure)>& then) { return prepare(e, then); },
             [this](const envelope& e, std::string_view lines, std::uint32_t jobs, clock::time_point since,
                    const coalescer::on_answer& then) {
               publish(e, lines, jobs, since + options.publish_deadline, then);
             }}) {}

  [[nodiscard]] clock::time_point publish_deadline() const { return clock::now() + options.publish_deadline; }

  /// One job to the coalescer. Throws closed, and as check_claims.
  void hand_over(const envelope& e, std::string_view group, std::string_view line, coalescer::on_sent then);
  void check_open() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (closed) throw leveret::closed("the connection to " + broker->where() + " was closed; open a new one");
  }

  void check_claims() const {
    if (broker->what_it_can().claims) return;
    throw unsupported("cannot send a job that is to be there once: " + broker->where() +
                      " keeps no keys; name a store that does: ?results=redis://… or ?results=sqlite:///… in the url, "
                      "for workers too");
  }

  /// Hands a call to the transport, which will answer it. Throws closed instead once `close` was called.
  template <class Call>
  void ask(Call&& call) {
    const std::shared_lock<std::shared_mutex> open(gate);
    check_open();
    call(*broker);
  }

  /// As `ask`; once closed, `failed` is called instead. On the loop later, for the caller may hold the coalescer's
  /// lock; elsewhere at once: a loop that has ended runs nothing, and nobody sends one by one to a closed client.
  template <class Call>
  void ask_or_fail(Call&& call, std::function<void(maybe_failure)> failed) {
    try {
      ask(std::forward<Call>(call));
    } catch (const error& why) {
      const failure closed_by{why.code(), why.what()};
      if (!events.on_loop()) {
        failed(closed_by);
        return;
      }
      events.post([failed = std::move(failed), closed_by] { failed(closed_by); });
    }
  }

  /// Declares the queue if this client hasn't yet. True: it has, and `then` is dropped.
  bool declare(const std::string& queue, const std::function<void(maybe_failure)>& then) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (declared.count(queue) != 0) return true;
    }
    ask_or_fail(
        [&](transport& t) {
          t.declare(queue, [this, queue, then](const transport::declared&, maybe_failure why) {
            if (!why) {
              const std::lock_guard<std::mutex> lock(mutex);
              declared.insert(queue);
            }
            then(std::move(why));
          });
        },
        then);
    return false;
  }

  /// As `declare`, one after the other, for the queues of an envelope from `shard` on.
  bool declare_shards(const envelope& e, std::uint32_t shard, const std::function<void(maybe_failure)>& then) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      const auto found = declared_shards.find(e.queue);
      if (found != declared_shards.end() && found->second >= e.shards) return true;
    }
    for (; shard < e.shards; ++shard) {
      const auto go_on = [this, e, shard, then](maybe_failure why) {
        if (why || declare_shards(e, shard + 1, then)) then(std::move(why));
      };
      if (!declare(shard_queue(e.queue, shard), go_on)) return false;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    std::uint32_t& known = declared_shards[e.queue];
    known = std::max(known, e.shards);
    return true;
  }

  /// Makes the reply address unless it is there. True: it is, and `then` is dropped.
  bool make_reply(std::function<void(const maybe_failure&)> then) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!reply.empty()) return true;
      wait_for_reply.push_back(std::move(then));
      if (wait_for_reply.size() > 1) return false;
    }
    const auto made = [this](std::string address, const maybe_failure& why) {
      std::vector<std::function<void(const maybe_failure&)>> waiting;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!why) reply = std::move(address);
        waiting.swap(wait_for_reply);
      }
      for (const auto& each : waiting) each(why);
    };
    ask_or_fail([&](transport& t) { t.make_reply(made); }, [made](const maybe_failure& why) { made({}, why); });
    return false;
  }

  /// Makes ready for messages of an envelope. True: it is ready, and `then` is dropped; else it comes on the loop.
  bool prepare(const envelope& e, const std::function<void(maybe_failure)>& then) {
    const bool results = e.want_results;
    const auto with_reply = [this, results, then](maybe_failure why) {
      if (why || !results || make_reply(then)) then(std::move(why));
    };
    return (e.shards == 1 ? declare(e.queue, with_reply) : declare_shards(e, 0, with_reply)) &&
           (!results || make_reply(then));
  }

  /// Blocks. Throws.
  void prepare(const envelope& e) {
    std::promise<maybe_failure> ready;
    if (prepare(e, [&ready](maybe_failure why) { ready.set_value(std::move(why)); })) return;
    if (const maybe_failure why = ready.get_future().get()) throw_error(why->code, why->text);
  }

  [[nodiscard]] std::string reply_of(const envelope& e) {
    if (!e.want_results) return {};
    const std::lock_guard<std::mutex> lock(mutex);
    return reply;
  }

  /// Publishes lines for which all is prepared as one message; `then` comes on the loop.
  void publish(const envelope& e, std::string_view lines, std::uint32_t jobs, clock::time_point deadline,
               const coalescer::on_answer& then) {
    const std::uint32_t shard = take_shard(e);
    const message m = compose(e, shard, lines, jobs);
    if (!m.reply.empty()) want(m.id);
    const published made{m.id, jobs};
    if (e.shards == 1) {
      publish(m, made, deadline, true, then);
      return;
    }
    publish(m, made, deadline, true,
            [this, queue = e.queue, shard, then](const published& message, const publish_outcome& outcome) {
              shards.answered(queue, shard);
              then(message, outcome);
            });
  }

  void publish(const message& m, const published& made, clock::time_point deadline, bool again,
               const coalescer::on_answer& then) {
    const auto failed = [this, made, then](const maybe_failure& why) {
      unwant(made.id);
      then(made, {publish_status::unknown, *why, {}});
    };
    std::vector<message> one{m};  // the body is shared, not copied
    ask_or_fail(
        [&](transport& t) {
          t.publish(std::move(one), deadline,
                    [this, m, made, deadline, again, then, failed](const std::vector<publish_outcome>& outcomes) {
                      const publish_outcome& outcome = outcomes.front();
                      const bool gone =
                          outcome.status == publish_status::refused && outcome.why.code == errc::not_found && again;
                      if (!gone) {
                        const bool stored = outcome.status == publish_status::accepted && outcome.existing.empty();
                        if (!stored) unwant(made.id);
                        if (stored && options.on_publish && claim_of(m)) options.on_publish(m);
                        then(made, outcome);
                        return;
                      }
                      // The queue was declared here and deleted since: declare it once more.
                      {
                        const std::lock_guard<std::mutex> lock(mutex);
                        declared.erase(m.queue);
                      }
                      const auto go_on = [this, m, made, deadline, then, failed](const maybe_failure& why) {
                        why ? failed(why) : publish(m, made, deadline, false, then);
                      };
                      if (declare(m.queue, go_on)) go_on({});
                    });
        },
        failed);
  }

  /// Results stay with the broker until somebody asks for the first time: a program that never does holds none.
  void start_watching() {
    const std::lock_guard<std::mutex> once(set_up);
    std::string address;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (watching || reply.empty()) return;
      address = reply;
    }
    std::promise<maybe_failure> started;
    ask([&](transport& t) {
      t.watch(
          address, [this](result_chunk chunk) { on_result(std::move(chunk)); },
          [&started](maybe_failure why) { started.set_value(std::move(why)); });
    });
    if (maybe_failure why = started.get_future().get()) throw_error(why->code, why->text);
    const std::lock_guard<std::mutex> lock(mutex);
    watching = true;
  }

  void on_result(result_chunk chunk) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (chunk.first_line == 0) {  // progress
      std::string_view message;
      std::uint32_t line = 0;
      if (!split_job_id(chunk.id, message, line) || wanted.count(std::string(message)) == 0) return;
      progress[std::string(message)][line] = std::move(chunk.data);
      results_came.notify_all();
      return;
    }
    const auto found = wanted.find(chunk.id);
    if (found == wanted.end()) return;
    found->second.push_back(std::move(chunk));
    results_came.notify_all();
  }

  void want(const std::string& id) {
    if (!options.takes_results) return;
    const std::lock_guard<std::mutex> lock(mutex);
    wanted.try_emplace(id);
  }

  void unwant(const std::string& id) {
    const std::lock_guard<std::mutex> lock(mutex);
    wanted.erase(id);
  }

  [[nodiscard]] std::uint32_t take_shard(const envelope& e) {
    return e.shards == 1 ? 0 : shards.take(e.queue, e.shards);
  }

  /// A message ready to publish, to a shard of the envelope's queue.
  message compose(const envelope& e, std::uint32_t shard, std::string_view lines, std::uint32_t jobs) {
    message m;
    m.id = make_message_id(events.wall(), random);
    m.queue = shard_queue(e.queue, shard);
    if (e.shards > 1 && shard == 0) m.headers.push_back({kHeaderShards, std::to_string(e.shards)});
    m.data = body(lines);
    m.jobs = jobs;
    m.due = e.due;
    m.priority = e.priority;
    m.reply = reply_of(e);
    if (!e.once.key.empty()) {
      const claim c{e.once.until, events.wall() + e.once.window.count(), make_job_id(m.id, 1), e.once.key};
      m.headers.push_back({kHeaderClaim, claim_text(c)});
    }
    if (options.on_publish && e.once.key.empty()) options.on_publish(m);
    return m;
  }
};

client::client(const std::string& url, client_options options) : state_(std::make_unique<state>(std::move(options))) {
  state_->broker = open_transport(url, state_->events, state_->options.lim);
}

client::~client() { close(std::chrono::milliseconds(0)); }

std::string client::where() const { return state_->broker->where(); }
capabilities client::what_it_can() const { return state_->broker->what_it_can(); }
health client::how_it_is() const { return state_->broker->how_it_is(); }

published client::publish(const envelope& e, std::string_view lines, std::uint32_t jobs) {
  state& s = *state_;
  s.check_open();
  s.prepare(e);
  std::promise<std::pair<published, publish_outcome>> answered;
  s.broker->lend_thread([&] {
    s.publish(e, lines, jobs, s.publish_deadline(),
              [&answered](const published& message, const publish_outcome& outcome) {
                answered.set_value({message, outcome});
              });
  });
  auto [message, outcome] = answered.get_future().get();
  if (outcome.status != publish_status::accepted) throw_outcome(outcome);
  return message;
}

sent_job client::send(const envelope& e, std::string_view group, std::string_view line) {
  state& s = *state_;
  struct {
    relay& senders;
    relay::runner sender;
    sent_job job;
    publish_outcome outcome;
  } answer{s.senders, {}, {}, {}};
  // By reference, as all that is not worth an allocation for each job.
  const auto hand_over = [&] {
    s.hand_over(e, group, line,
                [&answer](const published& message, std::uint32_t number, const publish_outcome& outcome) {
                  answer.job = {message, number, outcome.existing};
                  answer.outcome = outcome;
                  answer.senders.answered(answer.sender);
                });
  };
  s.broker->lend_thread(std::cref(hand_over));
  s.senders.wait(answer.sender);
  if (answer.outcome.status != publish_status::accepted) throw_outcome(answer.outcome);
  return std::move(answer.job);
}

void client::send_soon(const envelope& e, std::string_view group, std::string_view line,
                       std::function<void(sent_job, std::exception_ptr)> then) {
  state_->hand_over(
      e, group, line,
      [then = std::move(then)](const published& message, std::uint32_t number, const publish_outcome& outcome) {
        std::exception_ptr failed;
        if (outcome.status != publish_status::accepted) {
          try {
            throw_outcome(outcome);
          } catch (...) {
            failed = std::current_exception();
          }
        }
        then({message, number, outcome.existing}, failed);
      });
}

void client::state::hand_over(const envelope& e, std::string_view group, std::string_view line,
                              coalescer::on_sent then) {
  check_open();
  if (!e.once.key.empty()) check_claims();
  if (!one_by_one.send(e, group, line, std::move(then))) {
    throw leveret::closed("the connection to " + broker->where() + " was closed; open a new one");
  }
}

std::unique_ptr<batch_publisher> client::start_batch(const envelope& e) {
  state& s = *state_;
  s.check_open();
  s.prepare(e);
  return make_window_publisher(
      s.options,
      [&s, e](std::string_view lines, std::uint32_t jobs,
              std::function<void(const publish_outcome&)> then) -> published {
        const std::uint32_t shard = s.take_shard(e);
        message m = s.compose(e, shard, lines, jobs);
        published out{m.id, jobs};
        if (!m.reply.empty()) s.want(m.id);
        std::vector<message> one;
        one.push_back(std::move(m));
        s.ask([&](transport& t) {
          t.publish(std::move(one), s.publish_deadline(),
                    [&s, e, shard, then = std::move(then)](const std::vector<publish_outcome>& outcomes) {
                      if (e.shards > 1) s.shards.answered(e.queue, shard);
                      then(outcomes.front());
                    });
        });
        return out;
      });
}

std::unique_ptr<ordered_batch> client::start_ordered_batch(const envelope& e) {
  state& s = *state_;
  s.check_open();
  const auto to = [e](std::uint32_t shard) {
    envelope one = e;
    one.shards = 1;
    one.queue = ordered_queue(e.queue, shard);
    return one;
  };
  return std::make_unique<ordered_batch>(
      s.options.batch_bytes, s.options.lim.confirm_window_bytes,
      [&s, to](std::uint32_t shard) { s.prepare(to(shard)); },
      [&s, to](std::uint32_t shard, std::string_view lines, std::uint32_t jobs,
               std::function<void(const publish_outcome&)> then) {
        const message m = s.compose(to(shard), 0, lines, jobs);
        if (!m.reply.empty()) s.want(m.id);
        s.publish(m, {m.id, jobs}, s.publish_deadline(), true,
                  [then = std::move(then)](const published&, const publish_outcome& outcome) { then(outcome); });
        return m.id;
      });
}

std::vector<result_chunk> client::take_results(const std::vector<std::string>& message_ids,
                                               clock::time_point deadline) {
  state& s = *state_;
  s.check_open();
  s.start_watching();
  std::vector<result_chunk> taken;
  const auto take = [&] {
    for (const std::string& id : message_ids) {
      const auto found = s.wanted.find(id);
      if (found == s.wanted.end() || found->second.empty()) continue;
      std::move(found->second.begin(), found->second.end(), std::back_inserter(taken));
      found->second.clear();
    }
    return !taken.empty() || s.closed;
  };
  std::unique_lock<std::mutex> lock(s.mutex);
  s.results_came.wait_until(lock, deadline, take);
  if (taken.empty() && s.closed) throw leveret::closed("closed while waiting for results from " + s.broker->where());
  return taken;
}

void client::forget_results(const std::vector<std::string>& message_ids) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  for (const std::string& id : message_ids) {
    state_->wanted.erase(id);
    state_->progress.erase(id);
  }
}

std::vector<result_chunk> client::fetch_results(const std::vector<std::string>& message_ids) {
  const auto wait = answer<std::vector<result_chunk>>::make();
  state_->ask([&](transport& t) { t.fetch(message_ids, wait->callback(wait)); });
  return wait->get();
}

void client::declare(const std::string& queue) {
  state_->check_open();
  state_->prepare({queue, 0, 0, false});
}

std::vector<queue_stats> client::stats(const std::string& queue) {
  const auto wait = answer<std::vector<queue_stats>>::make();
  state_->ask([&](transport& t) { t.stats(queue, wait->callback(wait)); });
  return wait->get();
}

browse_page client::dead(const std::string& queue, const std::string& cursor, std::size_t limit) {
  const auto wait = answer<browse_page>::make();
  state_->ask([&](transport& t) { t.browse_dead(queue, cursor, limit, wait->callback(wait)); });
  return wait->get();
}

std::uint64_t client::purge(const std::string& queue) {
  const auto wait = answer<std::uint64_t>::make();
  state_->ask([&](transport& t) { t.purge(queue, wait->callback(wait)); });
  return wait->get();
}

void client::check_access(const std::string& queue) {
  std::promise<maybe_failure> told;
  state_->ask(
      [&](transport& t) { t.check_access(queue, [&told](maybe_failure why) { told.set_value(std::move(why)); }); });
  if (const maybe_failure why = told.get_future().get()) throw_error(why->code, why->text);
}

message_page client::browse(const browse_query& query) {
  const auto wait = answer<message_page>::make();
  state_->ask([&](transport& t) { t.browse(query, wait->callback(wait)); });
  return wait->get();
}

std::uint64_t client::replay(const std::string& queue, const std::vector<std::string>& ids, bool all) {
  state& s = *state_;
  s.prepare({queue, 0, 0, false});
  const auto wanted = std::make_shared<std::unordered_set<std::string>>(ids.begin(), ids.end());
  const auto decide = [wanted, all, queue, &s](const browse_entry& entry) {
    dead_fate fate;
    if (!all && wanted->count(entry.id) == 0) return fate;
    const std::optional<replayed_job> job = replay_record(entry.record);
    if (!job) return fate;
    fate.stays = false;
    message m;
    m.id = make_message_id(s.events.wall(), s.random);
    m.queue = queue;
    m.data = body(job->line + "\n");
    m.jobs = 1;
    if (!job->claim.empty()) m.headers.push_back({kHeaderClaim, job->claim});
    fate.publish = std::move(m);
    return fate;
  };
  const auto wait = answer<std::uint64_t>::make();
  s.ask([&](transport& t) { t.revise_dead(queue, decide, wait->callback(wait)); });
  return wait->get();
}

std::uint64_t client::drop_dead(const std::string& queue, const std::vector<std::string>& ids, bool all) {
  const auto wanted = std::make_shared<std::unordered_set<std::string>>(ids.begin(), ids.end());
  const auto decide = [wanted, all](const browse_entry& entry) {
    dead_fate fate;
    fate.stays = !all && wanted->count(entry.id) == 0;
    return fate;
  };
  const auto wait = answer<std::uint64_t>::make();
  state_->ask([&](transport& t) { t.revise_dead(queue, decide, wait->callback(wait)); });
  return wait->get();
}

std::vector<bool> client::cancel(const std::vector<std::string>& job_ids, bool terminate) {
  std::vector<cancellation> jobs;
  jobs.reserve(job_ids.size());
  for (const std::string& id : job_ids) {
    cancellation job;
    job.id = id;
    job.terminate = terminate;
    std::string_view root;
    if (!split_job_id(id, root, job.line)) {
      throw std::invalid_argument("cannot cancel \"" + id + "\": that is no job's id (<message id>/<line>)");
    }
    job.message_id = root;
    append_cancelled_result(job.result, job.line);
    jobs.push_back(std::move(job));
  }
  const auto wait = answer<std::vector<cancel_outcome>>::make();
  state_->ask([&](transport& t) { t.cancel(std::move(jobs), wait->callback(wait)); });
  std::vector<bool> ended;
  for (const cancel_outcome outcome : wait->get()) ended.push_back(outcome == cancel_outcome::ended);
  return ended;
}

std::string client::progress(const std::string& job_id) {
  state& s = *state_;
  if (what_it_can().job_reports) {
    const std::vector<report> found = known(kReportProgress, job_id);
    return found.empty() ? std::string() : found.front().body;
  }
  std::string_view message;
  std::uint32_t line = 0;
  if (!split_job_id(job_id, message, line)) {
    throw std::invalid_argument("\"" + job_id + "\" is no job's id (<message id>/<line>)");
  }
  s.check_open();
  s.start_watching();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const auto found = s.progress.find(std::string(message));
  if (found == s.progress.end()) return {};
  const auto told = found->second.find(line);
  return told == found->second.end() ? std::string() : told->second;
}

std::vector<report> client::known(const std::string& kind, const std::string& id) {
  const auto wait = answer<std::vector<report>>::make();
  state_->ask([&](transport& t) { t.known(kind, id, wait->callback(wait)); });
  return wait->get();
}

void client::close(std::chrono::milliseconds grace) {
  state& s = *state_;
  s.one_by_one.close();
  {
    const std::unique_lock<std::shared_mutex> nobody_asks(s.gate);
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.closed) return;
    s.closed = true;
    s.results_came.notify_all();
  }
  s.broker->close(clock::now() + grace);
  s.events.stop();
}

}  // namespace leveret::core
