#include "control.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "../../codec.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr const char* kMarkHeader = "x-leveret-mark";
constexpr const char* kIdHeader = "x-leveret-id";
constexpr const char* kTimeHeader = "x-leveret-time";
constexpr const char* kTtlHeader = "x-leveret-ttl";
constexpr const char* kLastMinutes = "5m";  // of what workers report; nothing of theirs is kept for longer
constexpr const char* kFromTheStart = "first";
constexpr std::uint16_t kControlPrefetch = 500;
constexpr std::chrono::seconds kPublishTimeout{10};
constexpr std::chrono::seconds kReadTimeout{30};
constexpr std::size_t kPack = 64u << 10;
// Only whole segments leave a stream.
constexpr std::int64_t kSegmentBytes = 1'000'000;
constexpr std::int64_t kStreamBytes = 100'000'000;

}  // namespace

/// One reading of a stream: until its mark, or for good.
struct control::reading final : channel_events, std::enable_shared_from_this<reading> {
  void on_deliver(incoming&& message) override { owner->deliver(shared_from_this(), message); }
  void on_cancelled() override {
    const auto self = shared_from_this();
    if (ch) ch->close();
    owner->closed(self, AMQP_NOT_FOUND, "the stream was deleted");
  }
  void on_closed(std::uint16_t code, const std::string& text) override {
    owner->closed(shared_from_this(), code, text);
  }

  control* owner = nullptr;
  std::string stream;
  std::string offset;
  bool stays = false;  // goes on behind the mark
  std::function<void(const incoming&)> on_message;
  done then;  // until the mark was seen
  std::string mark;
  bool starting = false;
  bool ended = false;
  std::uint32_t failures = 0;
  std::string problem;
  std::shared_ptr<channel> ch;
  reactor::timer_id timer = 0;
  std::uint64_t last_tag = 0;
  bool ack_armed = false;
};

control::control(reactor& r, link& l, loop& to, operations& ops, sender& s, const limits& lim, random_source random)
    : reactor_(r), link_(l), loop_(to), operations_(ops), sender_(s), limits_(lim), random_(std::move(random)) {
  link::user u;
  u.on_up = [this] { up(); };
  // Perhaps another broker answers next.
  u.on_down = [this](const failure&) { declared_.clear(); };
  link_.add(std::move(u));
}

void control::up() {
  const auto all = readings_;
  for (const auto& r : all) {
    if (!r->ch && !r->starting) read(r);
  }
}

// One that exists with other arguments is used as it is, like every queue.
void control::declare(const std::string& stream, done then) {
  if (declared_.count(stream) != 0) {
    then({});
    return;
  }
  const auto answer = std::make_shared<done>(std::move(then));
  operations_.run(
      "declare the stream \"" + stream + "\"",
      [this, stream, answer](operation& op) {
        table arguments;
        arguments.text("x-queue-type", "stream")
            .text("x-max-age", stream == kWorkersStream ? "1h" : "30D")
            .integer("x-max-length-bytes", kStreamBytes)
            .integer("x-stream-max-segment-size-bytes", kSegmentBytes);
        amqp_queue_declare_t method{};
        method.queue = as_bytes(stream);
        method.durable = 1;
        method.arguments = arguments.raw();
        op.call(AMQP_QUEUE_DECLARE_METHOD, &method, [this, &op, stream, answer](const call_result& r) {
          if (!r.done() && r.code != AMQP_PRECONDITION_FAILED) {
            op.refuse(errc::refused, r, "the user of the url needs permission to configure queues");
            return;
          }
          declared_.insert(stream);
          op.finish();
          (*answer)({});
        });
      },
      [answer](failure why) { (*answer)(std::move(why)); });
}

void control::publish(message m, done then) {
  ++publishing_;
  std::vector<message> one;
  one.push_back(std::move(m));
  sender_.publish(std::move(one), reactor::clock::now() + kPublishTimeout,
                  [this, then = std::move(then)](std::vector<publish_outcome> outcomes) {
                    --publishing_;
                    if (outcomes.front().status == publish_status::accepted) {
                      then({});
                    } else {
                      then(std::move(outcomes.front().why));
                    }
                  });
}

// ---- telling ----

void control::cancel(std::vector<cancellation> jobs, done then) {
  const auto held = std::make_shared<std::vector<cancellation>>(std::move(jobs));
  declare(kControlStream, [this, held, then = std::move(then)](maybe_failure why) {
    if (why || held->empty()) {
      then(std::move(why));
      return;
    }
    std::vector<message> messages;
    std::string text;
    std::uint32_t count = 0;
    const auto close_pack = [&] {
      message m;
      m.id = make_message_id(loop_.wall(), random_);
      m.queue = kControlStream;
      m.data = body(text);
      m.jobs = std::exchange(count, 0);
      messages.push_back(std::move(m));
      text.clear();
    };
    json_writer line;
    for (const cancellation& job : *held) {
      line.clear();
      line.begin_object();
      (void)line.key("task");
      (void)line.string(job.terminate ? kTerminateTask : kCancelTask);
      (void)line.key("id");
      line.string_lossy(job.id);
      (void)line.key("retry_count");
      line.integer(0);
      line.end_object();
      if (!text.empty() && text.size() + line.text().size() >= kPack) close_pack();
      text += line.text();
      text += '\n';
      ++count;
    }
    close_pack();
    ++publishing_;
    sender_.publish(std::move(messages), reactor::clock::now() + kPublishTimeout,
                    [this, then](const std::vector<publish_outcome>& outcomes) {
                      --publishing_;
                      for (const publish_outcome& o : outcomes) {
                        if (o.status == publish_status::accepted) continue;
                        then(failure{o.why.code, "cannot cancel jobs: " + o.why.text});
                        return;
                      }
                      then({});
                    });
  });
}

void control::make_known(report r, done then) {
  const auto held = std::make_shared<report>(std::move(r));
  const auto tell = [this, held, then = std::move(then)](maybe_failure why) {
    if (why) {
      then(std::move(why));
      return;
    }
    message m;
    m.id = make_message_id(loop_.wall(), random_);
    m.queue = held->kind == kReportProgress ? held->reply : kWorkersStream;
    m.data = body(held->body + "\n");
    m.jobs = 1;
    if (held->kind == kReportProgress) {
      m.headers.push_back({kProgressHeader, held->id});
    } else {
      m.headers = {{kIdHeader, held->id},
                   {kTimeHeader, std::to_string(loop_.wall())},
                   {kTtlHeader, std::to_string(held->ttl.count())}};
    }
    publish(std::move(m), then);
  };
  if (held->kind != kReportProgress) {
    declare(kWorkersStream, tell);
  } else if (held->reply.empty()) {
    tell(failure{errc::unsupported, "nobody can see the job's progress: it was sent without asking for results"});
  } else {
    tell({});
  }
}

// ---- reading ----

void control::watch_cancelled(std::function<void(cancelled_job)> on_cancelled, done then) {
  const auto r = std::make_shared<reading>();
  r->owner = this;
  r->stream = kControlStream;
  r->offset = kFromTheStart;
  r->stays = true;
  r->then = std::move(then);
  const auto to = std::make_shared<std::function<void(cancelled_job)>>(std::move(on_cancelled));
  const auto codec = std::make_shared<line_codec>();
  r->on_message = [this, to, codec](const incoming& m) {
    const std::string_view data = m.data.view();
    const std::vector<std::uint32_t> offsets = split_lines(data);
    std::vector<cancelled_job> jobs;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      decoded_job job;
      refused_line why;
      const std::string_view line = data.substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
      if (!codec->decode(line, job, why) || job.foreign) continue;
      const bool terminate = job.task == kTerminateTask;
      if (terminate || job.task == kCancelTask) jobs.push_back({std::string(job.id), terminate});
    }
    if (jobs.empty()) return;
    loop_.post([to, jobs = std::move(jobs)]() mutable {
      for (cancelled_job& job : jobs) (*to)(std::move(job));
    });
  };
  readings_.insert(r);
  read(r);
}

void control::known(std::string id, std::function<void(std::vector<report>, maybe_failure)> then) {
  const auto r = std::make_shared<reading>();
  const auto latest = std::make_shared<std::map<std::string, std::pair<report, unix_ms>>>();
  r->owner = this;
  r->stream = kWorkersStream;
  r->offset = kLastMinutes;
  r->on_message = [latest, id = std::move(id)](const incoming& m) {
    report one;
    one.kind = kReportWorker;
    one.id = text_header(m.props, kIdHeader);
    one.time = number_header(m.props, kTimeHeader);
    one.body = std::string(m.data.view());
    while (!one.body.empty() && one.body.back() == '\n') one.body.pop_back();
    if (one.id.empty() || (!id.empty() && one.id != id)) return;
    // Whoever may publish there may write what they like.
    constexpr unix_ms kMost = INT64_MAX / 2;
    one.time = std::clamp<unix_ms>(one.time, 0, kMost);
    const unix_ms over = one.time + std::clamp<unix_ms>(number_header(m.props, kTtlHeader), 0, kMost);
    auto name = one.id;
    (*latest)[std::move(name)] = {std::move(one), over};
  };
  r->then = [this, latest, then = std::move(then)](maybe_failure why) {
    std::vector<report> found;
    for (auto& entry : *latest) {
      if (entry.second.second > loop_.wall()) found.push_back(std::move(entry.second.first));
    }
    then(std::move(found), std::move(why));
  };
  readings_.insert(r);
  read(r);
}

void control::read(const std::shared_ptr<reading>& r) {
  if (r->ended || closing_) return;
  r->starting = true;
  if (r->then && r->timer == 0) {
    r->timer = reactor_.after(kReadTimeout, [this, r] {
      r->timer = 0;
      const std::string why = !r->problem.empty()     ? r->problem
                              : link_.up() == nullptr ? "there is no connection (" + link_.detail() + ")"
                                                      : std::string("the broker did not answer");
      finish(r, failure{errc::broker_unavailable, "cannot read the stream \"" + r->stream + "\" within " +
                                                      std::to_string(kReadTimeout.count()) + " s: " + why});
    });
  }
  declare(r->stream, [this, r](maybe_failure why) {
    r->starting = false;
    if (r->ended || closing_) return;
    if (why && why->code != errc::broker_unavailable) {
      finish(r, std::move(why));
    } else if (!why) {
      consume(r);
    }
  });
}

void control::consume(const std::shared_ptr<reading>& r) {
  connection* const c = link_.up();
  if (c == nullptr) return;  // `up` begins again
  r->ch = c->open_channel(r);
  if (!r->ch) {
    closed(r, AMQP_CHANNEL_ERROR, "no channel of the connection is free");
    return;
  }
  amqp_basic_qos_t qos{};
  qos.prefetch_count = kControlPrefetch;
  r->ch->call(AMQP_BASIC_QOS_METHOD, &qos, nullptr);
  table arguments;
  arguments.text("x-stream-offset", r->offset);
  amqp_basic_consume_t method{};
  method.queue = as_bytes(r->stream);
  method.consumer_tag = as_bytes("leveret");
  method.arguments = arguments.raw();
  r->ch->call(AMQP_BASIC_CONSUME_METHOD, &method, [this, r](const call_result& answer) {
    if (!answer.done() || r->ended || !r->then) return;
    message mark;
    mark.id = r->mark = make_message_id(loop_.wall(), random_);
    mark.queue = r->stream;
    mark.data = body(std::string_view("{}\n"));
    mark.headers = {{kMarkHeader, "1"}};
    publish(std::move(mark), [this, r](maybe_failure why) {
      if (why && r->then) finish(r, std::move(why));
    });
  });
}

void control::deliver(const std::shared_ptr<reading>& r, const incoming& message) {
  if (r->ended) return;
  r->failures = 0;
  const bool marked = !r->mark.empty() && message.props.message_id == r->mark;
  if (!marked && text_header(message.props, kMarkHeader).empty()) r->on_message(message);
  // On a stream an acknowledgement is credit for more, no more.
  r->last_tag = message.tag;
  if (!r->ack_armed) {
    r->ack_armed = true;
    reactor_.at_round_end([r] {
      r->ack_armed = false;
      if (r->ch) r->ch->ack(r->last_tag, true);
    });
  }
  if (marked) finish(r, {});
}

void control::closed(const std::shared_ptr<reading>& r, std::uint16_t code, const std::string& text) {
  r->ch = nullptr;
  r->mark.clear();
  if (r->ended || closing_ || code == 0) return;  // a lost connection: `up` begins again
  if (code == AMQP_ACCESS_REFUSED && r->then) {
    finish(r, failure{errc::refused, "cannot read the stream \"" + r->stream + "\": " + text + " (" +
                                         std::to_string(code) + "); " + access_remedy(code, text, "read")});
    return;
  }
  r->problem = text;
  declared_.erase(r->stream);
  r->starting = true;
  reactor_.after(full_jitter(r->failures++, limits_.reconnect_min, limits_.reconnect_max, random_),
                 [this, r] { read(r); });
}

// A watch that failed at its start ends: whoever asked knows.
void control::finish(const std::shared_ptr<reading>& r, maybe_failure why) {
  if (r->timer != 0) reactor_.cancel(std::exchange(r->timer, 0));
  const auto then = std::exchange(r->then, nullptr);
  if (!r->stays || why) {
    r->ended = true;
    readings_.erase(r);
    if (r->ch) {
      // Not from within its own callback's frame: the channel may be on the stack.
      reactor_.at_round_end([ch = std::exchange(r->ch, nullptr)] { ch->close(); });
    }
  }
  if (then) then(std::move(why));
}

void control::close() {
  closing_ = true;
  const auto all = readings_;
  for (const auto& r : all) {
    if (r->timer != 0) reactor_.cancel(std::exchange(r->timer, 0));
    r->ended = true;
    const auto then = std::exchange(r->then, nullptr);
    if (then) then(failure{errc::closed, "cannot read the stream \"" + r->stream + "\": closed"});
  }
  readings_.clear();
}

}  // namespace leveret::core::rabbitmq
