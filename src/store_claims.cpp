#include "store_claims.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "faults.hpp"

namespace leveret::core {
namespace {

constexpr std::chrono::milliseconds kFirstPause{10};
constexpr std::chrono::milliseconds kLongestPause{200};

constexpr char kSending = '?';
constexpr char kSent = '!';

std::string sent_value(const std::string& job) { return kSent + job; }

/// The job of a key's value; empty: it is none of Leveret's.
std::string job_of(const std::string& value) {
  if (value.size() < 2 || (value.front() != kSending && value.front() != kSent)) return {};
  std::string job = value.substr(1, value.find(' ') - 1);
  std::string_view message;
  std::uint32_t line = 0;
  return split_job_id(job, message, line) && line == 1 ? job : std::string();
}

}  // namespace

struct store_claims::attempt {
  claim what;
  std::string own;  // the job to be sent
  loop::clock::time_point deadline;
  std::function<void(reserved)> then;
  std::string mine;               // the value that makes the key this sender's
  std::string seen;               // another sender's
  loop::clock::time_point since;  // when it was seen first
  loop::clock::time_point asked;  // when the store was asked last
  std::chrono::milliseconds pause = kFirstPause;
  loop::timer_id timer = 0;
  bool waits = false;
};

store_claims::store_claims(results_store& store, loop& l, const limits& lim)
    : store_(store),
      loop_(l),
      lease_(lim.sending_lease),
      random_(lim.seed != 0 ? seeded_random(lim.seed) : system_random()) {}

std::string store_claims::new_value(const std::string& job) {
  return kSending + job + " " + make_message_id(loop_.wall(), random_);
}

void store_claims::reserve(const claim& c, loop::clock::time_point deadline, std::function<void(reserved)> then) {
  auto a = std::make_shared<attempt>();
  a->what = c;
  a->deadline = deadline;
  a->then = std::move(then);
  a->own = c.job;
  a->mine = new_value(c.job);
  open_.insert(a);
  if (closed_) {
    refuse(a, errc::closed, "the transport is closed; open it again");
  } else {
    ask(a);
  }
}

void store_claims::ask(const attempt_ptr& a) {
  a->asked = loop_.now();
  const std::chrono::milliseconds ttl(std::max<unix_ms>(1, a->what.expires - loop_.wall()));
  store_.exchange({a->what.key, {}, a->mine, ttl},
                  [this, a](const std::string& value, const maybe_failure& why) { found(a, value, why); });
}

void store_claims::take_over(const attempt_ptr& a, const std::string& value, const std::string& job) {
  a->asked = loop_.now();
  a->what.job = job;
  a->mine = new_value(job);
  store_.exchange({a->what.key, value, a->mine, {}},
                  [this, a](const std::string& now, const maybe_failure& why) { found(a, now, why); });
}

void store_claims::found(const attempt_ptr& a, const std::string& value, const maybe_failure& why) {
  if (open_.count(a) == 0) return;  // closed meanwhile
  if (why) {
    refuse(a, why->code, why->text);
    return;
  }
  if (value.empty()) {  // let go in the moment in which it was to be taken over
    a->what.job = a->own;
    a->mine = new_value(a->own);
    ask(a);
    return;
  }
  if (value == a->mine) {
    // Stopped for so long that another one may have taken it over by now: asked once more.
    if (loop_.now() - a->asked >= lease_) {
      take_over(a, value, a->what.job);
      return;
    }
    reserved r;
    r.publish = true;
    r.value = value;
    faults::hit(faults::point::after_reserve);
    end(a, std::move(r));
    return;
  }
  const std::string job = job_of(value);
  if (job.empty()) {
    refuse(a, errc::storage,
           "the store " + store_.where() + " has something else under that key: \"" + value +
               "\"; remove it, or name another store");
  } else if (value.front() == kSent) {
    reserved r;
    r.outcome.status = publish_status::accepted;
    a->what.job = job;
    end(a, std::move(r));
  } else {
    wait(a, value, job);
  }
}

void store_claims::wait(const attempt_ptr& a, const std::string& value, const std::string& job) {
  const loop::clock::time_point now = loop_.now();
  if (value != a->seen) {
    a->seen = value;
    a->since = now;
  }
  if (now - a->since >= lease_) {
    take_over(a, value, job);
    return;
  }
  if (now >= a->deadline) {
    refuse(a, errc::broker_unavailable,
           "another sender has taken the key for job " + job + ", and has not told whether it is sent; send again");
    return;
  }
  a->waits = true;
  a->timer = loop_.after(a->pause, [this, a] {
    a->waits = false;
    if (open_.count(a) != 0) ask(a);
  });
  a->pause = std::min(a->pause * 2, kLongestPause);
}

void store_claims::end(const attempt_ptr& a, reserved r) {
  open_.erase(a);
  r.what = std::move(a->what);
  std::exchange(a->then, nullptr)(std::move(r));
}

void store_claims::refuse(const attempt_ptr& a, errc code, const std::string& why) {
  reserved r;
  r.outcome = {publish_status::refused, {code, "cannot take the key " + a->what.key + ": " + why}, {}};
  end(a, std::move(r));
}

void store_claims::settle(const reserved& r, const publish_outcome& published, std::function<void()> then) {
  if (published.status == publish_status::unknown) {
    // Perhaps it is there. Whoever sends with this key next publishes it again, under its id.
    then();
    return;
  }
  const bool accepted = published.status == publish_status::accepted;
  if (accepted) faults::hit(faults::point::before_mark);
  // A job that has started or ended meanwhile has let its key go: it stays so.
  store_.exchange({r.what.key, r.value, accepted ? sent_value(r.what.job) : std::string(), {}},
                  [then = std::move(then)](const std::string&, const maybe_failure&) { then(); });
}

void store_claims::let_go(const std::vector<claimed_key>& keys, std::function<void(maybe_failure)> then) {
  if (keys.empty()) {
    then(std::nullopt);
    return;
  }
  struct all {
    std::size_t open = 0;
    maybe_failure first;
    std::function<void(maybe_failure)> then;
  };
  const auto answers = std::make_shared<all>(all{keys.size(), {}, std::move(then)});
  for (const claimed_key& key : keys) {
    let_go_one(key, sent_value(key.job), [answers](maybe_failure why) {
      if (why && !answers->first) answers->first = std::move(why);
      if (--answers->open == 0) answers->then(std::move(answers->first));
    });
  }
}

void store_claims::let_go_one(const claimed_key& key, const std::string& expected,
                              const std::function<void(maybe_failure)>& then) {
  store_.exchange({key.key, expected, {}, {}}, [this, key, then](const std::string& value, maybe_failure why) {
    // Its sender may not have noted yet that it is sent.
    if (!why && !value.empty() && job_of(value) == key.job) {
      let_go_one(key, value, then);
    } else {
      then(std::move(why));
    }
  });
}

void store_claims::close() {
  closed_ = true;
  while (!open_.empty()) {
    const attempt_ptr a = *open_.begin();
    if (a->waits) loop_.cancel(a->timer);
    refuse(a, errc::closed, "the transport was closed first");
  }
}

}  // namespace leveret::core
