// Workers killed at every failpoint (faults.hpp), on every broker and in every pool where it can be reached, at a given
// hit amid a few hundred jobs: what had been settled does not run again, what was started and not settled runs once
// more, nothing is lost, and every sender hears what its job came to.
//
// When nothing of the killed worker is left, the test looks at what the broker holds, and a clean worker does the rest.
// So it is known exactly how often each job must have run in the end, however fast or slow anybody was.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <ostream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/program.hpp"
#include "cpp/support/rabbitmq_side.hpp"
#include "cpp/support/results.hpp"
#include "ids.hpp"
#include "thread_loop.hpp"
#include "transport.hpp"

extern char** environ;

namespace leveret::core {
namespace {

using namespace std::chrono_literals;
using test::folder;
using testing_support::becomes;
using testing_support::kPatience;
using testing_support::quick;
using testing_support::rabbitmq_node;
using testing_support::unique;
using testing_support::wait;

constexpr int kThreads = 2;
constexpr int kPrefetch = 8;
// In this order: messages of one job each that is tried twice, of many jobs of which a fifth are, of one job each.
constexpr int kTriedTwice = 50;
constexpr int kBatches = 4;
constexpr int kLines = 50;
constexpr int kSingles = 50;

struct moment {
  std::string point;
  int hit = 0;  // whoever runs all jobs reaches it
  std::string broker;
  std::string pool;
};

std::string name_of(const ::testing::TestParamInfo<moment>& info) {
  return info.param.point + "_" + info.param.broker + "_" + info.param.pool;
}

void PrintTo(const moment& m, std::ostream* out) { *out << m.point << ":KILL:" << m.hit; }

/// One run of a job: its id, and how often it had been tried before.
using run_of_job = std::pair<std::string, std::uint32_t>;
using counted = std::map<run_of_job, int>;

// ---- the broker ----

/// A sender's side of a broker, with calls that wait.
class side {
 public:
  explicit side(const std::string& url) : transport_(open_transport(url, loop_, quick())) {}
  ~side() {
    transport_->close(loop_.now() + 60s);
    loop_.stop();
  }
  side(const side&) = delete;
  side& operator=(const side&) = delete;

  transport& broker() { return *transport_; }

  void declare(const std::string& queue) {
    std::promise<maybe_failure> p;
    transport_->declare(queue, [&](transport::declared, maybe_failure why) { p.set_value(std::move(why)); });
    must(wait(p.get_future(), "declare"));
  }
  std::string make_reply() {
    std::promise<std::pair<std::string, maybe_failure>> p;
    transport_->make_reply(
        [&](std::string reply, maybe_failure why) { p.set_value({std::move(reply), std::move(why)}); });
    auto [reply, why] = wait(p.get_future(), "make_reply");
    must(why);
    return reply;
  }
  void publish(std::vector<message> messages) {
    std::promise<std::vector<publish_outcome>> p;
    transport_->publish(std::move(messages), loop_.now() + 60s,
                        [&](std::vector<publish_outcome> o) { p.set_value(std::move(o)); });
    for (const publish_outcome& o : wait(p.get_future(), "publish")) {
      if (o.status != publish_status::accepted) throw std::runtime_error(o.why.text);
    }
  }
  queue_stats stats(const std::string& queue) {
    std::promise<std::pair<std::vector<queue_stats>, maybe_failure>> p;
    transport_->stats(queue, [&](std::vector<queue_stats> s, maybe_failure why) { p.set_value({std::move(s), why}); });
    const auto [found, why] = wait(p.get_future(), "stats");
    must(why);
    return found.at(0);
  }
  void watch(const std::string& reply, std::function<void(result_chunk)> on_result) {
    std::promise<maybe_failure> p;
    transport_->watch(reply, std::move(on_result), [&](maybe_failure why) { p.set_value(std::move(why)); });
    must(wait(p.get_future(), "watch"));
  }

 private:
  static void must(const maybe_failure& why) {
    if (why) throw std::runtime_error(why->text);
  }

  thread_loop loop_;
  std::unique_ptr<transport> transport_;
};

std::uint64_t messages_in(const queue_stats& s) { return s.ready + s.delayed.value_or(0) + s.running.value_or(0); }

/// What follows `key` in a line, up to the next comma, quotation mark or brace; nothing if it is not there.
std::string field(std::string_view line, std::string_view key) {
  const std::size_t at = line.find(key);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = line.substr(at + key.size());
  return std::string(rest.substr(0, rest.find_first_of(",\"}")));
}

/// The runs that a queue holds: takes everything, and gives it back by leaving.
counted held_by(const std::string& url, const std::string& queue, side& s) {
  // What a dead worker had is back when the broker has noticed its death.
  if (!becomes([&] { return s.stats(queue).consumers.value_or(0) == 0; }))
    throw std::runtime_error("it still consumes");
  const std::uint64_t all = messages_in(s.stats(queue));
  counted held;
  {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::string, message> taken;
    side taker(url);
    subscriber events;
    events.on_delivery = [&](delivery d) {
      const std::lock_guard lock(mutex);
      const std::string id = d.msg.id;
      taken[id] = std::move(d.msg);
      changed.notify_all();
    };
    events.on_lost = [](const std::vector<delivery_token>&) {};
    events.on_ended = [](const failure&) {};
    taker.broker().subscribe(queue, window{1000, 1ull << 30}, std::move(events));
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, kPatience, [&] { return taken.size() >= all; })) {
      throw std::runtime_error("the queue has " + std::to_string(all) + " messages and hands out " +
                               std::to_string(taken.size()));
    }
    for (const auto& [id, m] : taken) {
      std::istringstream lines{std::string(m.data.view())};
      std::uint32_t number = 0;
      for (std::string line; std::getline(lines, line);) {
        ++number;
        std::string job = field(line, "\"id\":\"");
        if (job.empty()) job = make_job_id(id, number);
        ++held[{job, static_cast<std::uint32_t>(std::stoul(field(line, "\"retry_count\":")))}];
      }
    }
  }
  if (!becomes([&] {
        const queue_stats now = s.stats(queue);
        return now.consumers.value_or(0) == 0 && messages_in(now) >= all;
      })) {
    throw std::runtime_error("what was looked at did not go back");
  }
  return held;
}

// ---- the worker ----

class worker_process {
 public:
  /// `point`: what LEVERET_FAULT_POINT says; empty: a clean worker.
  worker_process(const std::string& point, const std::vector<std::string>& words, const folder& f)
      : log_(f.file(point.empty() ? "clean.log" : "killed.log")) {
    std::vector<std::string> arguments{std::string(LEVERET_BINARY_DIR) + "/failpoint_worker"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    std::vector<std::string> variables;
    for (char** e = environ; *e != nullptr; ++e) {
      if (std::strncmp(*e, "LEVERET_", 8) != 0) variables.emplace_back(*e);
    }
    variables.push_back("LEVERET_TEST_EFFECTS=" + f.file("effects"));
    variables.push_back("LEVERET_TEST_ONCE=" + f.file("once"));
    if (!point.empty()) variables.push_back("LEVERET_FAULT_POINT=" + point);
    int alive[2];
    if (::pipe2(alive, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    // Open in the worker and in all that it starts: its end tells that all of them have ended.
    ::posix_spawn_file_actions_adddup2(&actions, alive[1], kAlive);
    const int status = ::posix_spawn(&pid_, arguments[0].c_str(), &actions, nullptr, pointers(arguments).data(),
                                     pointers(variables).data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(alive[1]);
    alive_ = alive[0];
    if (status != 0) throw std::runtime_error("cannot start failpoint_worker");
    started_as_ = pid_;
  }
  ~worker_process() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(alive_);
  }
  worker_process(const worker_process&) = delete;
  worker_process& operator=(const worker_process&) = delete;

  [[nodiscard]] pid_t pid() const { return started_as_; }
  void signal(int number) const { ::kill(pid_, number); }
  /// Waits until it and its children have ended; its status, as waitpid gives it.
  int wait_ended() {
    pollfd p{alive_, POLLIN, 0};
    if (::poll(&p, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) {
      throw std::runtime_error("the worker did not end:\n" + log());
    }
    int status = 0;
    ::waitpid(std::exchange(pid_, 0), &status, 0);
    return status;
  }
  /// What it and its children have said.
  [[nodiscard]] std::string log() const {
    std::ostringstream text;
    text << std::ifstream(log_).rdbuf();
    return text.str();
  }

 private:
  static constexpr int kAlive = 9;

  static std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> all;
    for (std::string& word : words) all.push_back(word.data());
    all.push_back(nullptr);
    return all;
  }

  std::string log_;
  int alive_ = -1;
  pid_t pid_ = 0;
  pid_t started_as_ = 0;
};

// ---- the test ----

struct job {
  std::int64_t number = 0;
  bool tried_twice = false;
};

class failpoints : public ::testing::TestWithParam<moment> {
 protected:
  failpoints()
      : moment_(GetParam()),
        rabbitmq_(moment_.broker == "rabbitmq"),
        url_(rabbitmq_ ? rabbitmq_node::shared().url() : folder_.url()),
        queue_(unique("failpoints")),
        side_(url_) {}

  void publish_jobs() {
    side_.declare(queue_);
    reply_ = side_.make_reply();
    side_.watch(reply_, [this](const result_chunk& chunk) { take(chunk); });
    std::vector<message> messages;
    for (int i = 0; i < kTriedTwice; ++i) messages.push_back(make(1, 1));
    for (int i = 0; i < kBatches; ++i) messages.push_back(make(kLines, 5));
    for (int i = 0; i < kSingles; ++i) messages.push_back(make(1, 0));
    side_.publish(std::move(messages));
  }

  [[nodiscard]] std::string kill_here() const { return moment_.point + ":KILL:" + std::to_string(moment_.hit); }
  /// Who was killed as asked, by what it has said; 0: nobody.
  [[nodiscard]] pid_t killed_here(const std::string& log) const {
    const std::string said =
        "leveret: KILL at " + moment_.point + ", hit " + std::to_string(moment_.hit) + ", process ";
    const std::size_t at = log.find(said);
    return at == std::string::npos ? 0 : static_cast<pid_t>(std::stol(log.substr(at + said.size())));
  }

  [[nodiscard]] std::unique_ptr<worker_process> start(const std::string& point) const {
    std::vector<std::string> words;
    if (moment_.pool == "children") words.emplace_back("--children");
    for (const std::string& word :
         {std::string("--quiet"), std::string("--url"), url_, std::string("--queue"), queue_, std::string("--threads"),
          std::to_string(kThreads), std::string("--prefetch"), std::to_string(kPrefetch)}) {
      words.push_back(word);
    }
    return std::make_unique<worker_process>(point, words, folder_);
  }

  /// Each line that was written whole.
  [[nodiscard]] counted effects() const {
    counted all;
    std::ifstream file(folder_.file("effects"));
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string id;
      std::string mark;
      std::int64_t number = -1;
      std::uint32_t retry_count = 0;
      if (!(words >> id >> number >> retry_count >> mark) || mark != ".") continue;
      const auto known = jobs_.find(id);
      EXPECT_TRUE(known != jobs_.end() && known->second.number == number) << "a job that nobody sent: " << line;
      ++all[{id, retry_count}];
    }
    return all;
  }

  void wait_for_results() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return results_.size() >= jobs_.size(); })) {
      throw std::runtime_error(std::to_string(results_.size()) + " of " + std::to_string(jobs_.size()) +
                               " results came");
    }
  }

  void check_results() {
    wait_for_results();
    const std::lock_guard lock(mutex_);
    for (const auto& [id, said] : results_) {
      const auto known = jobs_.find(id);
      ASSERT_NE(known, jobs_.end()) << "the result of a job that nobody sent: " << id;
      EXPECT_EQ(said, std::set<std::string>{"\"result\":" + std::to_string(3 * known->second.number) + "}"}) << id;
    }
  }

  /// Ends a worker that has all done, or will: every sender has heard, and nothing is left.
  void finish(worker_process& w) {
    check_results();
    EXPECT_TRUE(becomes([this] { return messages_in(side_.stats(queue_)) == 0; })) << w.log();
    w.signal(SIGTERM);
    EXPECT_EQ(w.wait_ended(), 0) << w.log();
    EXPECT_TRUE(becomes([this] { return side_.stats(queue_).consumers.value_or(0) == 0; }));
    EXPECT_EQ(messages_in(side_.stats(queue_)), 0u);
    EXPECT_EQ(side_.stats(queue_).dead.value_or(0), 0u);
  }

  const moment moment_;
  const bool rabbitmq_;
  const folder folder_;
  const std::string url_;
  const std::string queue_;
  std::map<std::string, job> jobs_;  // by id

 private:
  /// A message of `lines` jobs; every so many are tried twice, 0: none.
  message make(int lines, int twice) {
    static const random_source random = system_random();
    message m;
    m.id = make_message_id(1'700'000'000'000, random);
    m.queue = queue_;
    m.reply = reply_;
    m.jobs = static_cast<std::uint32_t>(lines);
    std::string text;
    for (int i = 1; i <= lines; ++i) {
      const job one{static_cast<std::int64_t>(jobs_.size()), twice != 0 && i % twice == 0};
      text += R"({"task":")" + std::string(one.tried_twice ? "triple_later" : "triple") + R"(","args":[)" +
              std::to_string(one.number) + R"(],"retry_count":0})" + "\n";
      jobs_.emplace(make_job_id(m.id, static_cast<std::uint32_t>(i)), one);
    }
    m.data = body(text);
    return m;
  }

  void take(const result_chunk& chunk) {
    if (chunk.first_line == 0) return;  // progress
    const std::lock_guard lock(mutex_);
    for_each_outcome(chunk.data, [&](std::uint32_t number, const std::string& outcome) {
      results_[make_job_id(chunk.id, number)].insert(outcome);
    });
    changed_.notify_all();
  }

  std::string reply_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::set<std::string>> results_;  // what was said of each job

 protected:
  side side_;
};

int count(const counted& all, const std::string& id, std::uint32_t retry_count) {
  const auto found = all.find({id, retry_count});
  return found == all.end() ? 0 : found->second;
}

int total(const counted& all) {
  int sum = 0;
  for (const auto& [run, times] : all) sum += times;
  return sum;
}

std::string message_of(const std::string& job_id) { return job_id.substr(0, job_id.find('/')); }

// ---- a worker is killed ----

class killed_workers : public failpoints {};

TEST_P(killed_workers, lose_no_job_and_only_what_was_not_settled_runs_again) {
  publish_jobs();
  const std::unique_ptr<worker_process> killed = start(kill_here());
  const int status = killed->wait_ended();
  ASSERT_TRUE(WIFSIGNALED(status)) << status << "\n" << killed->log();
  ASSERT_EQ(WTERMSIG(status), SIGKILL) << killed->log();
  ASSERT_EQ(killed_here(killed->log()), killed->pid()) << killed->log();
  const counted started = effects();
  const counted held = held_by(url_, queue_, side_);

  // What has run and what is still there make known what will have run.
  counted expected;
  int runs = 0;
  for (const auto& [id, what] : jobs_) {
    const int first = count(started, id, 0) + count(held, id, 0);
    const int second = count(started, id, 1) + count(held, id, 1) + (what.tried_twice ? count(held, id, 0) : 0);
    expected[{id, 0}] = first;
    expected[{id, 1}] = second;
    runs += first + second;
    EXPECT_GE(first, 1) << "a job is lost: " << id;
    EXPECT_GE(second, what.tried_twice ? 1 : 0) << "a retry is lost: " << id;
  }
  ASSERT_FALSE(HasFailure());  // else what is lost would be waited for
  const std::unique_ptr<worker_process> clean = start({});
  ASSERT_TRUE(becomes([&] { return total(effects()) >= runs; })) << total(effects()) << " of " << runs << " runs";
  finish(*clean);

  const counted all = effects();
  std::set<std::string> sent;
  std::set<std::string> settled;
  std::set<std::string> unsettled;  // and started
  int published_twice = 0;
  for (const auto& [id, what] : jobs_) {
    const int first = count(started, id, 0);
    const int first_held = count(held, id, 0);
    const int second = count(started, id, 1);
    const int second_held = count(held, id, 1);
    sent.insert(message_of(id));
    if (first_held == 0) settled.insert(message_of(id));
    if (first > 0 && first_held > 0) unsettled.insert(message_of(id));
    if (first_held > 0 && second_held > 0) ++published_twice;

    EXPECT_EQ(count(all, id, 0), count(expected, id, 0)) << id;
    // RabbitMQ takes what a connection brought before it ended, perhaps after another one was seen to end: a retry may
    // have been published that was not there when the queue was looked at.
    const bool on_its_way = rabbitmq_ && what.tried_twice && first > 0 && first_held > 0 && second + second_held == 0;
    EXPECT_GE(count(all, id, 1), count(expected, id, 1)) << id;
    EXPECT_LE(count(all, id, 1), count(expected, id, 1) + (on_its_way ? 1 : 0)) << id;
  }
  for (const auto& [run, times] : all) {
    EXPECT_LE(run.second, jobs_.at(run.first).tried_twice ? 1u : 0u) << run.first << " " << times;
  }
  EXPECT_LE(unsettled.size(), std::size_t{kPrefetch});

  // That the kill came at such a moment at all.
  const std::string& point = moment_.point;
  EXPECT_LT(settled.size(), sent.size());
  if (point == "after_effect" || point == "after_result" || point == "in_io_process" || point == "before_settle" ||
      point == "before_ack") {
    EXPECT_FALSE(unsettled.empty());
  }
  // The first messages are jobs that are tried twice, in this order.
  if (point == "before_ack") {
    EXPECT_GE(published_twice, 1);
  }
  if (point == "after_settle") {
    // Nobody confirms an acknowledgement; but the broker hands out the next message when it has taken one.
    EXPECT_GE(settled.size(), static_cast<std::size_t>(moment_.hit - (rabbitmq_ ? kPrefetch : 0)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    on_sqlite, killed_workers,
    ::testing::Values(
        moment{"after_claim", 30, "sqlite", "threads"}, moment{"after_effect", 100, "sqlite", "threads"},
        moment{"after_result", 100, "sqlite", "threads"}, moment{"before_settle", 20, "sqlite", "threads"},
        moment{"before_commit", 12, "sqlite", "threads"}, moment{"after_commit", 12, "sqlite", "threads"},
        moment{"after_settle", 20, "sqlite", "threads"}, moment{"after_claim", 30, "sqlite", "children"},
        moment{"in_io_process", 100, "sqlite", "children"}, moment{"before_settle", 20, "sqlite", "children"},
        moment{"before_commit", 12, "sqlite", "children"}, moment{"after_commit", 12, "sqlite", "children"},
        moment{"after_settle", 20, "sqlite", "children"}),
    name_of);
INSTANTIATE_TEST_SUITE_P(on_rabbitmq, killed_workers,
                         ::testing::Values(moment{"after_claim", 30, "rabbitmq", "threads"},
                                           moment{"after_effect", 100, "rabbitmq", "threads"},
                                           moment{"after_result", 100, "rabbitmq", "threads"},
                                           moment{"before_settle", 20, "rabbitmq", "threads"},
                                           moment{"before_ack", 20, "rabbitmq", "threads"},
                                           moment{"after_settle", 20, "rabbitmq", "threads"},
                                           moment{"after_claim", 30, "rabbitmq", "children"},
                                           moment{"in_io_process", 100, "rabbitmq", "children"},
                                           moment{"before_settle", 20, "rabbitmq", "children"},
                                           moment{"before_ack", 20, "rabbitmq", "children"},
                                           moment{"after_settle", 20, "rabbitmq", "children"}),
                         name_of);

// ---- a child is killed ----

class killed_children : public failpoints {};

TEST_P(killed_children, cost_no_job_and_their_worker_nothing_but_what_ran_in_them) {
  publish_jobs();
  const std::unique_ptr<worker_process> worker = start(kill_here());
  finish(*worker);

  const pid_t child = killed_here(worker->log());
  EXPECT_NE(child, 0) << worker->log();
  EXPECT_NE(child, worker->pid());
  EXPECT_NE(worker->log().find("process " + std::to_string(child) + " was killed by SIGKILL"), std::string::npos)
      << worker->log();
  const counted all = effects();
  int again = 0;
  for (const auto& [id, what] : jobs_) {
    int runs = 0;
    for (std::uint32_t retry_count = 0; retry_count <= 3; ++retry_count) runs += count(all, id, retry_count);
    EXPECT_GE(runs, 1) << "a job is lost: " << id;
    if (runs > (what.tried_twice ? 2 : 1)) ++again;
  }
  EXPECT_LE(again, kThreads) << "as many jobs ran in it";
}

INSTANTIATE_TEST_SUITE_P(of_a_pool, killed_children,
                         ::testing::Values(moment{"in_claim", 100, "sqlite", "children"},
                                           moment{"in_child", 100, "sqlite", "children"},
                                           moment{"after_effect", 100, "sqlite", "children"},
                                           moment{"after_result", 100, "sqlite", "children"},
                                           moment{"in_claim", 100, "rabbitmq", "children"},
                                           moment{"in_child", 100, "rabbitmq", "children"},
                                           moment{"after_effect", 100, "rabbitmq", "children"},
                                           moment{"after_result", 100, "rabbitmq", "children"}),
                         name_of);

// ---- the variable ----

TEST(failpoint_names, that_are_misspelt_end_the_process_and_say_so) {
  const folder f;
  for (const std::string wrong :
       {"after_efect:KILL", "after_effect", "after_effect:KIL", "after_effect:kill", "after_effect:", ":KILL",
        "after_effect:SKIP", "checkpoint_lock:KILL", "after_effect:KILL:", "after_effect:KILL:0", "after_effect:KILL:x",
        "after_effect:KILL:5:6", "after_effect:KILL:-1"}) {
    worker_process w(wrong, {"--describe"}, f);
    const int status = w.wait_ended();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << wrong << ": " << status;
    EXPECT_NE(w.log().find("LEVERET_FAULT_POINT=" + wrong + ": "), std::string::npos) << w.log();
  }
  for (const std::string right :
       {"after_effect:KILL:5", "after_effect:PAUSE", "checkpoint_lock:SKIP", "round:STOP:3"}) {
    worker_process w(right, {"--describe"}, f);
    EXPECT_EQ(w.wait_ended(), 0) << right;
  }
}

}  // namespace
}  // namespace leveret::core
