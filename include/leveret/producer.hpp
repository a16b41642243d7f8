/// Sending jobs from C++.
///
///     #include <leveret/producer.hpp>
///
///     leveret::producer producer("sqlite:///jobs.db");
///     std::string id = producer.send("resize", "a.png", leveret::arg("width") = 80);
///     auto work = producer.task("work").max_retries(5);
///     work.send_many(std::vector<std::tuple<int, int>>{{1, 7}, {2, 7}});
///     producer.task("book").key("ann").send("ann", 5);              // after the jobs of this key that were sent
///     before producer.task("ship").idempotency_key("order 17").send(17);   // once, however often it is sent
///
/// In a program it needs libleveret (`leveret config --cflags --libs`); in a plugin it uses the worker that loaded it.
#pragma once

#include <chrono>
#include <cstdint>
#include <leveret/arg.hpp>
#include <leveret/encode.hpp>
#include <leveret/library.hpp>
#include <leveret/outcome.hpp>
#include <memory>
#include <optional>

namespace leveret {
inline namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN {

/// What `send_many` sent: a message id and a number of jobs for each message, so that a million jobs take little
/// memory. Of jobs with keys also where each of them is: they are in several messages at a time.
class LEVERET_VISIBLE_TYPE sent_jobs {
 public:
  struct LEVERET_VISIBLE_TYPE message {
    std::string id;
    std::uint32_t jobs;
  };

  [[nodiscard]] LEVERET_HIDDEN std::size_t size() const noexcept { return size_; }
  /// The id of job `index`, in the order given. Throws std::out_of_range. Costs a walk over the messages.
  [[nodiscard]] LEVERET_HIDDEN std::string id(std::size_t index) const {
    if (index >= size_) throw std::out_of_range("only " + std::to_string(size_) + " jobs were sent");
    if (!places_.empty()) {
      return messages_[places_[index].message].id + "/" + std::to_string(places_[index].line);
    }
    std::size_t before = 0;
    for (const message& each : messages_) {
      if (index < before + each.jobs) return each.id + "/" + std::to_string(index - before + 1);
      before += each.jobs;
    }
    return {};
  }
  [[nodiscard]] LEVERET_HIDDEN const std::vector<message>& messages() const noexcept { return messages_; }

  LEVERET_HIDDEN void append(std::string_view id, std::uint32_t jobs) {
    messages_.push_back({std::string(id), jobs});
    size_ += jobs;
  }
  /// Where the next job is, its message counted from 0: jobs with keys.
  LEVERET_HIDDEN void append_place(std::size_t index, std::uint32_t line) {
    places_.push_back({static_cast<std::uint32_t>(index), line});
    size_ = places_.size();
  }

 private:
  struct place {
    std::uint32_t message;
    std::uint32_t line;
  };
  std::vector<message> messages_;
  std::vector<place> places_;
  std::size_t size_ = 0;
};

/// Until when a key that `unique_until` is about is held.
enum class until {
  start = LEVERET_UNTIL_START,  ///< the job's handler is about to begin
  end = LEVERET_UNTIL_END       ///< the job has ended; a retry is no end
};

/// `send_many` failed on the way: all jobs of `accepted` are durable. The next ones may be stored if the code is
/// `unknown_outcome`; nothing after them was sent. Jobs with keys, and those that are to be there once, do not all wait
/// for each other: the text says how many of them were sent behind the one that failed.
class send_many_error : public error {
 public:
  send_many_error(errc code, const std::string& text, sent_jobs accepted)
      : error(code, text), accepted_(std::make_shared<const sent_jobs>(std::move(accepted))) {}
  [[nodiscard]] const sent_jobs& accepted() const noexcept { return *accepted_; }

 private:
  std::shared_ptr<const sent_jobs> accepted_;  // shared, so that copying the exception cannot throw
};

namespace detail {

/// The text of a key, as Python makes it: a string is its own, an integer has decimal digits.
template <class K>
std::string key_text(const K& key) {
  if constexpr (std::is_convertible_v<const K&, std::string_view>) {
    return std::string(static_cast<std::string_view>(key));
  } else {
    static_assert(kIsInteger<K>, "leveret: a key is a string or an integer");
    return std::to_string(key);
  }
}

/// Says text to the C ABI; nothing if there is none.
inline leveret_string said(const std::optional<std::string>& text) noexcept {
  return text ? leveret_string{text->data(), text->size()} : leveret_string{nullptr, 0};
}

inline std::string last_error(const leveret_library& library) {
  const leveret_string text = library.last_error();
  return {text.data, text.size};
}

/// Throws what a failed call of the library means.
inline void check(const leveret_library& library, int code) {
  if (code != 0) throw_error(static_cast<errc>(code), last_error(library));
}

/// The arguments of one job as JSON, written by the library. Reused job after job.
class argument_writer {
 public:
  explicit argument_writer(const leveret_library& library)
      : library_(library), args_(make(library), deleter{&library}), kwargs_(make(library), deleter{&library}) {}

  template <class... A>
  void write(const A&... each) {
    const leveret_host* host = library_.host();
    library_.clear_value(args_.get());
    library_.clear_value(kwargs_.get());
    writer args{host, args_.get()};
    writer kwargs{host, kwargs_.get()};
    count_ = 0;
    names_.clear();
    host->begin_array(args_.get());
    (write_one(args, kwargs, each), ...);
    host->end_array(args_.get());
    if (!names_.empty()) host->end_object(kwargs_.get());
  }
  [[nodiscard]] leveret_string args() const {
    return count_ == 0 ? leveret_string{nullptr, 0} : library_.value_text(args_.get());
  }
  [[nodiscard]] leveret_string kwargs() const {
    return names_.empty() ? leveret_string{nullptr, 0} : library_.value_text(kwargs_.get());
  }

 private:
  struct deleter {
    const leveret_library* library;
    void operator()(leveret_call* value) const { library->delete_value(value); }
  };
  using value_ptr = std::unique_ptr<leveret_call, deleter>;

  static leveret_call* make(const leveret_library& library) {
    leveret_call* made = library.new_value();
    if (made == nullptr) throw std::bad_alloc();
    return made;
  }

  template <class A>
  void write_one(writer& args, writer& kwargs, const A& value) {
    using type = std::decay_t<const A&>;
    if constexpr (is_named_value<type>::value) {
      for (const std::string_view known : names_) {
        if (known == value.name) throw std::invalid_argument("kwargs." + std::string(known) + ": given twice");
      }
      if (names_.empty()) kwargs.host->begin_object(kwargs.call);
      names_.emplace_back(value.name);
      if (!write_key(kwargs, value.name) || !leveret::detail::write(kwargs, value.value)) {
        kwargs.why.in_member(value.name);
        kwargs.why.in_root("kwargs");
        throw std::invalid_argument(kwargs.why.text());
      }
    } else {
      if (!names_.empty()) throw std::invalid_argument("a positional argument follows a named one");
      const type& decayed = value;
      if (!leveret::detail::write(args, decayed)) {
        args.why.in_index(count_);
        args.why.in_root("args");
        throw std::invalid_argument(args.why.text());
      }
      ++count_;
    }
  }

  const leveret_library& library_;
  value_ptr args_;
  value_ptr kwargs_;
  std::size_t count_ = 0;
  std::vector<std::string_view> names_;
};

struct producer_deleter {
  const leveret_library* library;
  void operator()(leveret_producer* open) const { library->close(open); }
};

}  // namespace detail

/// A task as a producer sees it: its name and how to send it. Cheap to copy; holds its producer open. Thread-safe once
/// set.
class LEVERET_VISIBLE_TYPE task_sender {
 public:
  LEVERET_HIDDEN task_sender(std::shared_ptr<leveret_producer> producer, const leveret_library& library,
                             std::string task)
      : producer_(std::move(producer)), library_(&library), task_(std::move(task)) {}

  /// Where to send. Default: `native`.
  LEVERET_HIDDEN task_sender& queue(std::string name) {
    queue_ = std::move(name);
    return *this;
  }
  /// How often a failed job is tried again. Default: what the task or the worker says. Throws std::invalid_argument if
  /// negative.
  LEVERET_HIDDEN task_sender& max_retries(int count) {
    if (count < 0) throw std::invalid_argument("max_retries must be 0 or more");
    max_retries_ = count;
    return *this;
  }
  /// Not handed to a worker before this time has passed. Rounded up to milliseconds.
  template <class Rep, class Period>
  LEVERET_HIDDEN task_sender& delay(std::chrono::duration<Rep, Period> time) {
    delay_ = detail::to_milliseconds(time);
    return *this;
  }
  /// Jobs of one key run one after another, in the order sent, however many workers there are: Python's
  /// `ordered=True, key=…`, and one order with what Python sends by the key. A string or an integer.
  template <class K>
  LEVERET_HIDDEN task_sender& key(const K& key) {
    key_ = detail::key_text(key);
    return *this;
  }
  /// While a job of the task that was sent with this key is not older than the window, `send` stores nothing and gives
  /// that job's id. A string or an integer, of at most 255 bytes.
  template <class K>
  LEVERET_HIDDEN task_sender& idempotency_key(const K& key) {
    idempotency_key_ = detail::key_text(key);
    return *this;
  }
  /// How long an idempotency key holds, from the sending. Default: a day. Rounded up to milliseconds. Throws
  /// std::invalid_argument unless it is more than 0.
  template <class Rep, class Period>
  LEVERET_HIDDEN task_sender& idempotency_window(std::chrono::duration<Rep, Period> time) {
    const std::chrono::milliseconds window = detail::to_milliseconds(time);
    if (window.count() == 0) throw std::invalid_argument("idempotency_window must be more than 0 seconds");
    idempotency_window_ = window;
    return *this;
  }
  /// As an idempotency key, but only until the first job begins or has ended, at most for the window. Without a key,
  /// jobs of the same arguments, given in the same way, are the same.
  LEVERET_HIDDEN task_sender& unique_until(until end) noexcept {
    until_ = static_cast<std::int32_t>(end);
    return *this;
  }
  /// Spreads the queue's messages over so many queues of the broker, 1 to 256: for more than one queue carries. Each is
  /// a FIFO, the queue as a whole is none. Workers find out how many there are. Give it after `queue`, and the same
  /// number in all programs. Jobs with a key are kept in order as without it. Python's `shards=`.
  LEVERET_HIDDEN task_sender& shards(std::uint32_t number) {
    if (number < 1) throw std::invalid_argument("a queue has 1 to 256 shards, not 0");
    shards_ = number;
    return *this;
  }
  /// Keep results for others to fetch by the job's id, where the broker can. Default: no, since nobody may ask.
  LEVERET_HIDDEN task_sender& keep_results(bool wanted = true) {
    keep_results_ = wanted;
    return *this;
  }

  // NOLINTBEGIN(modernize-use-nodiscard): many senders never ask for the id

  /// Sends one job and waits until it is durable; its id, or that of the job that was there already. `args` are of the
  /// types that leveret/kinds.hpp lists, positional first, then named: `leveret::arg("width") = 80`. Blocks up to the
  /// publish deadline (30 s). Throws std::invalid_argument (nothing was sent), broker_unavailable, publish_refused,
  /// publish_unknown, closed; unsupported for a job that is to be there once, if the broker keeps no keys (RabbitMQ
  /// without a store).
  template <class... A>
  LEVERET_HIDDEN std::string send(const A&... args) const {
    detail::argument_writer written(*library_);
    written.write(args...);
    const leveret_send_options how = options();
    leveret_string id{};
    detail::check(*library_, library_->send(producer_.get(), &how, written.args(), written.kwargs(), &id));
    return {id.data, id.size};
  }

  /// Sends one job for each element of `rows`: a std::tuple or std::pair is a job's arguments, anything else its only
  /// one. Packs them into messages, sends these as they fill, holds a bounded number in memory, and waits until all are
  /// durable. Jobs that are to be there once have a message each; one idempotency key for all of them is refused.
  /// Throws send_many_error, also for an element that has no JSON form; std::invalid_argument for wrong options.
  template <class Range>
  LEVERET_HIDDEN sent_jobs send_many(const Range& rows) const {
    return send_rows(rows, options(),
                     [this](leveret_batch* batch, const auto& /*row*/, leveret_string args, leveret_string kwargs) {
                       return library_->add(batch, args, kwargs);
                     });
  }
  /// The same with a key for each job: `key_of(row)` is a string or an integer, in the place of `key`.
  template <class Range, class KeyOf>
  LEVERET_HIDDEN sent_jobs send_many(const Range& rows, KeyOf&& key_of) const {
    leveret_send_options how = options();
    how.ordered = 1;
    return send_rows(
        rows, how, [this, &key_of](leveret_batch* batch, const auto& row, leveret_string args, leveret_string kwargs) {
          const std::string key = detail::key_text(key_of(row));
          return library_->add_keyed(batch, {key.data(), key.size()}, args, kwargs);
        });
  }

  // NOLINTEND(modernize-use-nodiscard)

 private:
  template <class Range, class Add>
  LEVERET_HIDDEN sent_jobs send_rows(const Range& rows, const leveret_send_options& how, const Add& add) const {
    detail::argument_writer written(*library_);
    leveret_batch* begun = nullptr;
    detail::check(*library_, library_->begin_batch(producer_.get(), &how, &begun));
    const std::unique_ptr<leveret_batch, void (*)(leveret_batch*)> batch(begun, library_->end_batch);
    int code = 0;
    std::string text;
    for (const auto& row : rows) {
      try {
        write_row(written, row);
        code = add(begun, row, written.args(), written.kwargs());
      } catch (const std::invalid_argument& wrong) {
        code = static_cast<int>(errc::invalid_argument);
        text = wrong.what();
      }
      if (code != 0) break;
    }
    if (code != 0 && text.empty()) text = detail::last_error(*library_);
    // Also after a bad row: what was added before it is sent, and the error says how much that is.
    if (const int finished = library_->finish(begun); finished != 0 && code == 0) {
      code = finished;
      text = detail::last_error(*library_);
    }
    const sent_jobs sent = accepted(begun);
    if (code == 0) return sent;
    std::string after = "after " + std::to_string(sent.size()) + " jobs";
    if (const std::uint64_t behind = library_->accepted_behind(begun); behind != 0) {
      after += ", and " + std::to_string(behind) + " behind the one that failed";
    }
    throw send_many_error(static_cast<errc>(code), after + ": " + text, sent);
  }
  [[nodiscard]] LEVERET_HIDDEN sent_jobs accepted(leveret_batch* batch) const {
    sent_jobs sent;
    leveret_string id{};
    std::uint32_t jobs = 0;
    for (std::size_t i = 0; library_->accepted(batch, i, &id, &jobs) != 0; ++i) sent.append({id.data, id.size}, jobs);
    std::size_t message = 0;
    std::uint32_t line = 0;
    for (std::size_t i = 0; library_->place(batch, i, &message, &line) != 0; ++i) sent.append_place(message, line);
    return sent;
  }
  template <class Row>
  LEVERET_HIDDEN static void write_row(detail::argument_writer& written, const Row& row) {
    if constexpr (detail::is_tuple<Row>::value) {
      std::apply([&](const auto&... each) { written.write(each...); }, row);
    } else {
      written.write(row);
    }
  }
  [[nodiscard]] LEVERET_HIDDEN leveret_send_options options() const noexcept {
    leveret_send_options how{};
    how.size = sizeof how;
    how.task = {task_.data(), task_.size()};
    how.queue = {queue_.data(), queue_.size()};
    how.max_retries = max_retries_;
    how.want_results = keep_results_ ? 1 : 0;
    how.delay_ms = delay_.count();
    how.ordered = key_ ? 1 : 0;
    how.key = detail::said(key_);
    how.idempotency_key = detail::said(idempotency_key_);
    how.idempotency_window_ms = idempotency_window_.count();
    how.unique_until = until_;
    how.shards = shards_;
    return how;
  }

  std::shared_ptr<leveret_producer> producer_;
  const leveret_library* library_;
  std::string task_;
  std::string queue_;
  std::int32_t max_retries_ = -1;
  bool keep_results_ = false;
  std::chrono::milliseconds delay_{0};
  std::optional<std::string> key_;
  std::optional<std::string> idempotency_key_;
  std::chrono::milliseconds idempotency_window_{0};  // a day
  std::int32_t until_ = LEVERET_UNTIL_WINDOW;
  std::uint32_t shards_ = 1;
};

/// A connection to a broker, for sending. Thread-safe. Closed by its destructor, which waits up to 5 s for what is
/// being sent, once no task_sender of it is left.
class LEVERET_VISIBLE_TYPE producer {
 public:
  /// Connects: `sqlite:///PATH`, `amqp://HOST`; empty: LEVERET_URL, else `leveret.db` beside the nearest
  /// pyproject.toml, else here. Blocks until connected (10 s). Throws std::invalid_argument, broker_unavailable,
  /// unsupported.
  LEVERET_HIDDEN explicit producer(std::string_view url = {}) : library_(&detail::need_library()) {
    leveret_producer* opened = nullptr;
    detail::check(*library_, library_->open({url.data(), url.size()}, &opened));
    open_.reset(opened, detail::producer_deleter{library_});
  }

  [[nodiscard]] LEVERET_HIDDEN task_sender task(std::string name) const { return {open_, *library_, std::move(name)}; }
  // NOLINTBEGIN(modernize-use-nodiscard): as above

  /// As task(name).send(args…).
  template <class... A>
  LEVERET_HIDDEN std::string send(std::string_view name, const A&... args) const {
    return task(std::string(name)).send(args...);
  }
  /// As task(name).send_many(rows).
  template <class Range>
  LEVERET_HIDDEN sent_jobs send_many(std::string_view name, const Range& rows) const {
    return task(std::string(name)).send_many(rows);
  }

  // NOLINTEND(modernize-use-nodiscard)

 private:
  const leveret_library* library_;
  std::shared_ptr<leveret_producer> open_;
};

}  // namespace LEVERET_INLINE_NAMESPACE LEVERET_HIDDEN
}  // namespace leveret
