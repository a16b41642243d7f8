// Dead jobs, listed and revised. Listing: get, and requeue all at the end by closing the channel. A dead queue's
// delivery limit is a million, since each listing counts as a delivery.
//
// Two kinds of messages are in a dead queue: Leveret's own (type "leveret.dead": records, one a line), and originals
// that the broker dead-lettered (a delivery limit reached, a foreign reject), of which each line is made a record here.
#include <algorithm>
#include <chrono>
#include <iterator>
#include <string_view>
#include <utility>

#include "../../claim.hpp"
#include "../../codec.hpp"
#include "operations.hpp"

namespace leveret::core::rabbitmq {
namespace {

constexpr std::size_t kPipelinedGets = 32;
// A quorum queue's client in the broker holds acknowledgements back past 32 that are not applied, and forgets them when
// the channel ends.
constexpr std::size_t kRevisedAtOnce = 16;
constexpr std::chrono::milliseconds kLookAgain{5};
constexpr int kLooks = 200;

struct listing {
  std::string queue;
  std::size_t skip = 0;
  std::size_t limit = 0;
  std::size_t seen = 0;   // records
  std::size_t asked = 0;  // gets without an answer
  std::size_t held = 0;   // messages
  int looks = 0;          // whether they are back
  bool empty = false;
  browse_page page;
  line_codec codec;
  std::function<void(browse_page, maybe_failure)> then;
};
using listing_ptr = std::shared_ptr<listing>;

std::string_view text_field(std::string_view record, std::string_view name) {
  // Records are ours, compact and with the short fields first: a full parse of each line would buy nothing.
  const std::string key = "\"" + std::string(name) + "\":\"";
  const std::size_t at = record.find(key);
  if (at == std::string_view::npos) return {};
  const std::size_t begin = at + key.size();
  const std::size_t end = record.find('"', begin);
  return end == std::string_view::npos ? std::string_view() : record.substr(begin, end - begin);
}

void add(listing& l, std::string id, std::string queue, std::string record) {
  const std::size_t position = l.seen++;
  if (position < l.skip) return;
  if (l.page.entries.size() == l.limit) {
    l.page.more = true;
    return;
  }
  l.page.entries.push_back({std::to_string(position + 1), std::move(id), std::move(queue), std::move(record)});
}

bool wanted(const listing& l) { return l.seen >= l.skip && l.page.entries.size() < l.limit; }

void add_original(listing& l, const incoming& message) {
  const std::string_view data = message.data.view();
  const std::vector<std::uint32_t> offsets = split_lines(data);
  const std::string& queue = message.props.death_queue.empty() ? l.queue : message.props.death_queue;
  std::string reason = message.props.death_reason == "delivery_limit" || message.props.death_reason.empty()
                           ? kReasonDelivery
                           : message.props.death_reason;
  std::string error = "the broker dead-lettered it";
  std::string claim;
  if (!message.props.death_reason.empty()) error += " (" + message.props.death_reason + ")";
  for (const header& h : message.props.headers) {
    if (h.name == kHeaderReason) reason = h.value;
    if (h.name == kHeaderError) error = h.value;
    if (h.name == kHeaderClaim) claim = h.value;
  }
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (!wanted(l)) {
      add(l, {}, {}, {});
      continue;
    }
    const std::string_view line = data.substr(offsets[i], offsets[i + 1] - 1 - offsets[i]);
    decoded_job job;
    refused_line why;
    const bool good = l.codec.decode(line, job, why);
    const std::string_view task = good ? job.task : std::string_view(why.task);
    std::string id(good ? job.id : std::string_view(why.id));
    if (id.empty() || (good && job.foreign)) id = message.props.message_id + "/" + std::to_string(i + 1);
    std::string record = dead_record(id, task, queue, reason, error, nullptr, line);
    if (!claim.empty()) add_claim_to_record(record, claim);
    add(l, std::move(id), queue, std::move(record));
  }
}

void add_message(listing& l, const incoming& message) {
  if (message.props.type != kDeadType) {
    add_original(l, message);
    return;
  }
  std::string_view rest = message.data.view();
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view record = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (record.empty()) continue;
    const std::string_view queue = text_field(record, "queue");
    add(l, std::string(text_field(record, "id")), queue.empty() ? l.queue : std::string(queue), std::string(record));
  }
}

// No dead queue: no dead jobs, if there is such a queue at all.
void without_dead_queue(operation& op, const listing_ptr& l) {
  op.fresh_channel();
  declaration d = declaration::passive(l->queue);
  op.call(AMQP_QUEUE_DECLARE_METHOD, d.method(), [&op, l](const call_result& r) {
    if (!r.done()) {
      op.refuse(r.code == AMQP_NOT_FOUND ? errc::not_found : errc::refused, r);
      return;
    }
    op.finish();
    l->then(std::move(l->page), {});
  });
}

// The end of a channel returns what it held a little after the broker has answered: whoever looks next is to see all.
void answer_when_back(operation& op, const listing_ptr& l) {
  op.count(dead_queue_of(l->queue), [&op, l](const call_result& r, const queue_counts& found) {
    const bool back = !r.done() || found.messages >= l->held;
    if (back || ++l->looks > kLooks) {  // somebody else may hold some
      op.finish();
      l->then(std::move(l->page), {});
      return;
    }
    op.later(kLookAgain, [l](operation& same) { answer_when_back(same, l); });
  });
}

void get_more(operation& op, const listing_ptr& l) {
  op.progressed();
  while (l->asked < kPipelinedGets && !l->empty && !l->page.more) {
    amqp_basic_get_t method{};
    const std::string name = dead_queue_of(l->queue);
    method.queue = as_bytes(name);
    ++l->asked;
    op.call(AMQP_BASIC_GET_METHOD, &method, [&op, l](const call_result& r) {
      --l->asked;
      if (!r.done()) {
        if (r.code == AMQP_NOT_FOUND) {
          without_dead_queue(op, l);
        } else {
          op.refuse(errc::refused, r);
        }
        return;
      }
      if (r.message != nullptr) {
        ++l->held;
        add_message(*l, *r.message);
      } else {
        l->empty = true;
      }
      get_more(op, l);
    });
    if (op.ended()) return;
  }
  if (l->asked == 0) {
    op.fresh_channel();  // the end of the old one: all goes back to its place
    answer_when_back(op, l);
  }
}

// ---- revising ----

struct revision {
  std::string queue;
  dead_decision decide;
  replace_dead replace;
  std::uint64_t left = 0;      // dead jobs that left
  std::uint64_t messages = 0;  // still to be looked at: what comes behind them meanwhile is not
  // What is gathered from several messages and takes their place by one wait for confirms.
  std::size_t asked = 0;  // gets without an answer
  std::size_t bytes = 0;
  std::uint64_t leaving = 0;
  std::vector<message> instead;
  std::vector<dead_job> stay;
  std::vector<std::uint64_t> tags;
  line_codec codec;
  std::function<void(std::uint64_t, maybe_failure)> then;
};
using revision_ptr = std::shared_ptr<revision>;

constexpr std::size_t kRevisedBytes = 1u << 20;

void finish_revision(operation& op, const revision_ptr& r) {
  op.finish();  // closes the channel: what stays goes back to its place
  r->then(r->left, {});
}

void revise_message(const revision_ptr& r, const incoming& got) {
  listing all;
  all.queue = r->queue;
  all.limit = SIZE_MAX;
  add_message(all, got);
  std::vector<message> instead;
  std::vector<dead_job> stay;
  std::uint64_t leaving = 0;
  for (browse_entry& e : all.page.entries) {
    dead_fate fate = r->decide(e);
    if (fate.stays) {
      stay.push_back({e.queue, std::move(e.id), std::move(e.record)});
      continue;
    }
    ++leaving;
    if (fate.publish) instead.push_back(std::move(*fate.publish));
  }
  if (leaving == 0) return;  // it stays as it is
  r->leaving += leaving;
  r->bytes += got.data.size();
  r->tags.push_back(got.tag);
  std::move(instead.begin(), instead.end(), std::back_inserter(r->instead));
  std::move(stay.begin(), stay.end(), std::back_inserter(r->stay));
}

void revise_more(operation& op, const revision_ptr& r);

// Puts what was gathered in its messages' place, and goes on.
void replace_gathered(operation& op, const revision_ptr& r) {
  if (r->tags.empty()) {
    finish_revision(op, r);
    return;
  }
  r->bytes = 0;
  r->replace(std::exchange(r->instead, {}), std::exchange(r->stay, {}),
             [r, held = op.shared_from_this()](maybe_failure why) {
               if (held->ended()) return;
               if (why) {
                 held->fail(std::move(*why));
                 return;
               }
               for (const std::uint64_t tag : std::exchange(r->tags, {})) held->ack(tag);
               r->left += std::exchange(r->leaving, 0);
               revise_more(*held, r);
             });
}

void revise_more(operation& op, const revision_ptr& r) {
  op.progressed();
  while (r->asked + r->tags.size() < kRevisedAtOnce && r->messages > 0 && r->bytes < kRevisedBytes) {
    --r->messages;
    ++r->asked;
    const std::string name = dead_queue_of(r->queue);
    amqp_basic_get_t method{};
    method.queue = as_bytes(name);
    op.call(AMQP_BASIC_GET_METHOD, &method, [&op, r](const call_result& answer) {
      --r->asked;
      if (!answer.done()) {
        op.refuse(errc::refused, answer);
        return;
      }
      if (answer.message == nullptr) {
        r->messages = 0;
      } else {
        revise_message(r, *answer.message);
      }
      if (r->bytes < kRevisedBytes && r->tags.size() < kRevisedAtOnce && r->messages > 0) {
        revise_more(op, r);
      } else if (r->asked == 0) {
        replace_gathered(op, r);
      }
    });
    if (op.ended()) return;
  }
  if (r->asked == 0) replace_gathered(op, r);
}
}  // namespace

void revise_dead_queue(operations& ops, const std::string& queue, dead_decision decide, replace_dead replace,
                       std::function<void(std::uint64_t, maybe_failure)> then) {
  const auto r = std::make_shared<revision>();
  r->queue = queue;
  r->decide = std::move(decide);
  r->replace = std::move(replace);
  r->then = std::move(then);
  ops.run(
      "change the dead jobs of \"" + queue + "\"",
      [r](operation& op) {
        op.needs("read");
        op.count(dead_queue_of(r->queue), [&op, r](const call_result& answer, const queue_counts& found) {
          if (answer.done()) {
            // After a lost connection all that was gathered comes again.
            r->asked = r->bytes = 0;
            r->leaving = 0;
            r->instead.clear();
            r->stay.clear();
            r->tags.clear();
            r->messages = found.messages;
            revise_more(op, r);
            return;
          }
          if (answer.code != AMQP_NOT_FOUND) {
            op.refuse(errc::refused, answer);
            return;
          }
          // No dead queue: no dead jobs, if there is such a queue at all.
          op.fresh_channel();
          declaration base = declaration::passive(r->queue);
          op.call(AMQP_QUEUE_DECLARE_METHOD, base.method(), [&op, r](const call_result& there) {
            if (there.done()) {
              finish_revision(op, r);
            } else {
              op.refuse(there.code == AMQP_NOT_FOUND ? errc::not_found : errc::refused, there);
            }
          });
        });
      },
      [r](failure why) { r->then(r->left, std::move(why)); });
}

void browse_dead_queue(operations& ops, const std::string& queue, const std::string& cursor, std::size_t limit,
                       std::function<void(browse_page, maybe_failure)> then) {
  const auto l = std::make_shared<listing>();
  l->queue = queue;
  l->limit = std::max<std::size_t>(limit, 1);
  l->then = std::move(then);
  for (const char c : cursor) {
    if (c < '0' || c > '9' || cursor.size() > 18) {
      std::string text = "cannot list dead jobs of \"";
      text.append(queue).append("\": \"").append(cursor).append("\" is no cursor of an earlier page");
      l->then({}, failure{errc::invalid_argument, std::move(text)});
      return;
    }
    l->skip = l->skip * 10 + static_cast<std::size_t>(c - '0');
  }
  ops.run(
      "list dead jobs of \"" + queue + "\"",
      [l](operation& op) {
        op.needs("read");
        l->seen = 0;
        l->asked = l->held = 0;
        l->looks = 0;
        l->empty = false;
        l->page = {};
        get_more(op, l);
      },
      [l](failure why) { l->then({}, std::move(why)); });
}

}  // namespace leveret::core::rabbitmq
