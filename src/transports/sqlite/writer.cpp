#include "transports/sqlite/writer.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "faults.hpp"
#include "signals_blocked.hpp"
#include "transports/sqlite/fork.hpp"
#include "transports/sqlite/schema.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::milliseconds kRetryPause{500};
constexpr std::chrono::milliseconds kLastTry{250};  // for giving leases back at the end, past any deadline
constexpr std::chrono::seconds kTrimLook{60};
constexpr std::chrono::microseconds kLinger{60};
const bool kMayLinger = std::thread::hardware_concurrency() > 1;

store_options options_of(const limits& lim) {
  store_options o;
  o.lease = lim.lease;
  o.result_ttl = lim.result_ttl;
  o.result_cap_bytes = lim.result_cap_bytes;
  o.client_name = lim.client_name;
  o.seed = 0;  // never shared by two processes: it makes the fencing tokens
  o.patience_ms = static_cast<int>(std::min<std::int64_t>(lim.connect_timeout.count(), 600'000));
  return o;
}

}  // namespace

writer::writer(const location& at, loop& l, const limits& lim)
    : loop_(l),
      limits_(lim),
      at_(at),
      store_(at, options_of(lim)),
      seat_(at.path),
      random_(lim.seed != 0 ? lim.seed : std::random_device()()),
      kick_(std::make_shared<kick>()) {
  if (!identify(at_.path, file_)) throw storage_failed("cannot open the SQLite file " + at_.path + ": it was removed");
  kick_->at = &seat_;
  const signals_blocked blocked;
  thread_ = std::thread([this] { run(); });
}

writer::~writer() { close(loop_.now()); }

bool writer::hand_in(operation&& op) {
  {
    const std::lock_guard lock(inbox_mutex_);
    if (closing_) return false;
    inbox_.push_back(std::move(op));
    if (inbox_.size() > 1) return true;  // the first one rang
    if (lender_.load(std::memory_order_relaxed) == std::this_thread::get_id()) return true;
  }
  seat_.ring_self();
  return true;
}

void writer::lend_thread(const std::function<void()>& hand_over) {
  std::unique_lock in_round(round_mutex_, std::defer_lock);
  if (loop_.on_loop() || thread_wants_round_ || !in_round.try_lock() || !only_publishes()) {
    if (in_round.owns_lock()) in_round.unlock();
    hand_over();
    return;
  }
  // Whatever is left, also by an exception, is the thread's.
  struct hand_back {
    writer& w;
    ~hand_back() {
      w.lender_ = std::thread::id();
      bool more = !w.only_publishes() || !w.writes_.empty();
      {
        const std::lock_guard lock(w.inbox_mutex_);
        more = more || w.closing_ || !w.inbox_.empty();
      }
      if (more) w.seat_.ring_self();
    }
  };
  const hand_back at_end{*this};
  lender_ = std::this_thread::get_id();
  hand_over();
  lender_ = std::thread::id();
  {
    const std::lock_guard lock(inbox_mutex_);
    if (inbox_.empty()) return;
  }
  const signals_blocked blocked;  // as in the thread: no handler amid a commit
  const inside_sqlite inside;
  round();
  published_ = false;
}

// Nobody consumes and nothing waits: a round is one transaction, and changes nothing of when the next one is due.
bool writer::only_publishes() const { return active_subs_ == 0 && held_.empty() && acks_.empty(); }

bool writer::closed() const {
  const std::lock_guard lock(inbox_mutex_);
  return closing_;
}

health writer::how_it_is() const {
  const std::lock_guard lock(health_mutex_);
  return health_;
}

void writer::close(loop::clock::time_point deadline) {
  {
    const std::lock_guard lock(inbox_mutex_);
    close_by_ = closing_ ? std::min(close_by_, deadline) : deadline;
    closing_ = true;
  }
  kick_->ring();
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

bool writer::ending() const {
  const std::lock_guard lock(inbox_mutex_);
  return closing_ && loop_.now() >= close_by_;
}

void writer::set_health(health_state state, const std::string& detail) {
  const std::lock_guard lock(health_mutex_);
  health_.state = state;
  health_.detail = detail;
}

void writer::run() {
  ::pthread_setname_np(::pthread_self(), "leveret-sqlite");
  std::unique_lock in_round(round_mutex_);
  const inside_sqlite inside;
  while (true) {
    const std::uint32_t seen = seat_.word();
    const bool worked = round();
    bool closing = false;
    {
      const std::lock_guard lock(inbox_mutex_);
      closing = closing_ && inbox_.empty();
    }
    if (closing && ((writes_.empty() && acks_.empty()) || ending())) break;
    // After a transaction there may be more at once: a claim or a purge goes in steps.
    if (!worked) sleep(seen, in_round);
  }
  finish();
}

bool writer::round() {
  faults::hit(faults::point::round);
  note_rings(seat_.take_rung());
  take_inbox();
  bool worked = false;
  try {
    tick();
  } catch (const database_error& e) {
    on_database_error(e);
  }
  try {
    if (acks_are_due()) join_acks();
    worked = needs_transaction();
    if (worked) transact();
  } catch (const database_error& e) {
    on_database_error(e);
  }
  serve_others();
  serve_cancelled();
  deliver();
  serve_watchers();
  flush();
  return worked;
}

void writer::take_inbox() {
  std::vector<operation> taken;
  {
    const std::lock_guard lock(inbox_mutex_);
    taken.swap(inbox_);
  }
  for (operation& op : taken) {
    if (auto* write = std::get_if<write_op>(&op)) {
      if (may_wait(*write)) {
        if (acks_.empty()) acks_due_ = steady::now() + ack_patience();
        acked_ += std::get<settle_op>(*write).settlements.size();
        acks_.push_back(std::move(*write));
      } else {
        writes_.push_back(std::move(*write));
      }
      continue;
    }
    auto& other = std::get<other_op>(op);
    // At once: they take room away from the claims of this round.
    if (auto* resize = std::get_if<resize_op>(&other)) {
      serve(*resize);
    } else if (auto* unsubscribe = std::get_if<unsubscribe_op>(&other)) {
      serve(*unsubscribe);
    } else {
      others_.push_back(std::move(other));
    }
  }
}

void writer::note_rings(std::uint64_t rung) {
  if (rung == 0) return;
  for (auto& [id, s] : subs_) {
    if (!s.active || (queue_interest(s.key) & rung) == 0) continue;
    s.maybe_ready = true;
    look_for_due_ = true;
  }
  for (auto& [reply, w] : watchers_) {
    if ((reply_interest(reply) & rung) != 0) w.maybe = true;
  }
  if ((reply_interest(kCancelledBell) & rung) != 0) maybe_cancelled_ = true;
}

void writer::tick() {
  const steady::time_point now = steady::now();
  if (now < next_tick_) return;
  // Jittered, so that the processes of a file don't look all at once.
  next_tick_ = now + kTick - std::chrono::milliseconds(random_() % 51);
  seat_.beat();
  if (file_replaced()) throw moved_error();
  if (seat_.lost() && seat_.rebind()) {
    owner_moved_ = owner_ != 0;
    update_interest();
  }
  for (auto& [id, s] : subs_) s.maybe_ready = true;
  for (auto& [reply, w] : watchers_) w.maybe = true;
  maybe_cancelled_ = true;
  look_for_due_ = true;
  share_out();
  if (active_subs_ > 0 || !held_.empty()) {
    if (owner_ != 0 && !store_.has_owner(owner_)) lose_everything();
    gone_ = observer_.look(store_, seat_, owner_, boot_time());
  }
  if (now >= next_trim_look_) {
    next_trim_look_ = now + kTrimLook;
    trim_ = store_.results_to_trim(loop_.wall());
  }
}

void writer::sleep(std::uint32_t seen, std::unique_lock<std::mutex>& in_round) {
  const steady::time_point now = steady::now();
  std::chrono::nanoseconds time = next_tick_ - now;
  if (first_due_ && active_subs_ > 0) {
    const std::chrono::milliseconds due(*first_due_ - loop_.wall());
    time = std::min<std::chrono::nanoseconds>(time, std::max(due, std::chrono::milliseconds(0)));
  }
  if (!acks_.empty()) time = std::min<std::chrono::nanoseconds>(time, acks_due_ - now);
  if (now < retry_at_) time = std::max<std::chrono::nanoseconds>(time, std::chrono::milliseconds(1));
  if (time.count() <= 0) {
    const outside_sqlite let_forks_through;
    return;
  }
  const bool linger = std::exchange(published_, false) && kMayLinger;
  const outside_sqlite outside;
  in_round.unlock();
  // Who sends one job after the other has the next one ready before this thread would be asleep and awake again.
  if (!linger || !seat_.linger(seen, std::min<std::chrono::nanoseconds>(time, kLinger))) seat_.wait(seen, time);
  thread_wants_round_ = true;
  in_round.lock();
  thread_wants_round_ = false;
}

void writer::flush() {
  if (out_.empty()) return;
  auto tasks = std::make_shared<std::vector<std::function<void()>>>(std::move(out_));
  out_.clear();
  auto run = [tasks] {
    for (auto& task : *tasks) task();
  };
  if (!out_is_short_) {
    loop_.post(std::move(run));
    return;
  }
  const outside_sqlite outside;
  loop_.post_or_run(std::move(run));
}

void writer::finish() {
  join_acks();
  for (write_op& op : writes_) refuse(op, closed_failure("finish what was begun"), false);
  writes_.clear();
  take_inbox();
  join_acks();
  for (write_op& op : writes_) refuse(op, closed_failure("begin"), false);
  writes_.clear();
  for (other_op& op : others_) refuse(op, closed_failure("begin"));
  others_.clear();
  // Deliveries go back uncharged. If even that is impossible, the others see the end of this transport by its lock, and
  // charge them.
  if (owner_ != 0) {
    const steady::time_point give_up = steady::now() + kLastTry;
    try {
      {
        const outside_sqlite outside;
        seat_.take_turn(kLastTry);
      }
      bool got = store_.begin(false);
      while (!got && (steady::now() < give_up || !ending())) {
        {
          const outside_sqlite outside;
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        got = store_.begin(false);
      }
      if (got) {
        store_.remove_owner(owner_, false);
        store_.commit();
        seat_.ring(store_.take_rings());
      }
    } catch (const database_error&) {
      store_.rollback();
    }
    seat_.end_turn();
  }
  for (auto& [id, s] : subs_) {
    if (!s.active) continue;
    const auto events = s.events;
    const failure why = closed_failure("consume \"" + s.queue + "\"");
    if (events->on_ended) post([events, why] { events->on_ended(why); });
  }
  subs_.clear();
  active_subs_ = 0;
  watchers_.clear();
  held_.clear();
  unread_.clear();
  set_health(health_state::closed, "closed");
  flush();
  store_.close();
  const std::lock_guard lock(kick_->mutex);
  kick_->at = nullptr;
}

failure writer::closed_failure(const std::string& doing) const {
  return {errc::closed, "cannot " + doing + " on " + at_.path + ": the transport is closed; open it again"};
}

failure writer::describe(const database_error& e, const std::string& doing) const {
  std::string text = "cannot " + doing + ": ";
  if (e.corrupt()) {
    text += corrupt_text(at_.path, e.what());
  } else if (e.disk_full()) {
    text += "the disk of " + at_.path + " is full (" + e.what() + "); free some space";
  } else {
    text += "the file " + at_.path + " failed (" + e.what() + "); look at its disk and permissions";
  }
  return {errc::storage, text};
}

void writer::on_database_error(const database_error& e) {
  retry_at_ = steady::now() + kRetryPause;
  blocked_ = true;
  set_health(e.corrupt() ? health_state::failed : health_state::blocked, describe(e, "use the queues").text);
}

bool writer::file_replaced() {
  file_identity now;
  return !identify(at_.path, now) || !(now == file_);
}

}  // namespace leveret::core::sqlite
