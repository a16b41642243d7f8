// Registration, binding of arguments, and how attempts end.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <leveret/worker.hpp>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cpp/support/handler_call.hpp"

namespace {

using leveret::arg;
using leveret::test::caller;
using leveret::test::ended;
using leveret::test::one_task;
using leveret::test::register_into;
using namespace std::chrono_literals;

std::string joined(const std::string& path, int width, std::string_view mode) {
  return path + " " + std::to_string(width) + " " + std::string(mode);
}
auto resize() { return one_task(joined, arg("path"), arg("width") = 80, arg("mode") = "fast"); }

void expect_refused(const ended& end, std::string_view why) {
  EXPECT_EQ(end.outcome, LEVERET_BAD_ARGUMENTS);
  EXPECT_EQ(end.failure, why);
}

TEST(binding, positions_names_and_defaults_meet) {
  EXPECT_EQ(resize()(R"(["a"])").result, R"("a 80 fast")");
  EXPECT_EQ(resize()(R"(["a",5,"slow"])").result, R"("a 5 slow")");
  EXPECT_EQ(resize()(R"(["a"])", R"({"mode":"slow"})").result, R"("a 80 slow")");
  EXPECT_EQ(resize()("[]", R"({"mode":"x","width":1,"path":"p"})").result, R"("p 1 x")");
}

TEST(binding, too_many_arguments) {
  expect_refused(resize()(R"(["a",1,"b",4])"), "args: expected at most 3, got 4");
  expect_refused(one_task([] {})("[1]"), "args: expected none, got 1");
}

TEST(binding, missing_arguments) {
  expect_refused(resize()(), "args[0]: missing (path)");
  expect_refused(resize()("[]", R"({"width":1})"), "args[0]: missing (path)");
  expect_refused(one_task([](int, int) {})("[1]"), "args[1]: missing");
}

TEST(binding, unknown_arguments) {
  expect_refused(resize()(R"(["a"])", R"({"widht":1})"), "kwargs.widht: unknown, the arguments are: path, width, mode");
  expect_refused(one_task([](int) {})("[]", R"({"x":1})"),
                 "kwargs.x: unknown, the task's arguments have no names: send them by position");
  expect_refused(one_task([] {})("[]", R"({"x":1})"), "kwargs.x: unknown, the task takes no arguments");
}

TEST(binding, an_argument_given_twice) {
  expect_refused(resize()(R"(["a"])", R"({"path":"b"})"), "kwargs.path: given twice, also as args[0]");
}

TEST(binding, wrong_values_carry_their_path) {
  expect_refused(resize()(R"(["a","b"])"), "args[1]: expected integer, got string");
  expect_refused(resize()(R"(["a"])", R"({"width":[]})"), "kwargs.width: expected integer, got array");
  expect_refused(one_task([](std::uint8_t) {}, arg("width"))("[]", R"({"width":300})"),
                 "kwargs.width: expected integer 0 to 255, got 300");
}

TEST(binding, an_optional_may_be_left_out) {
  const auto handler = [](int x, std::optional<int> y) { return x + y.value_or(100); };
  EXPECT_EQ(one_task(handler)("[1]").result, "101");
  EXPECT_EQ(one_task(handler)("[1,null]").result, "101");
  EXPECT_EQ(one_task(handler)("[1,2]").result, "3");
  EXPECT_EQ(one_task(handler, arg("x"), arg("y") = 7)("[1]").result, "8");
}

TEST(binding, a_default_that_is_a_temporary_string_lives) {
  std::string made(100, 'x');
  one_task task([](std::string_view text) { return text; }, arg("text") = made);
  made.assign(100, 'y');
  EXPECT_EQ(task().result, '"' + std::string(100, 'x') + '"');
}

TEST(binding, references_and_values) {
  EXPECT_EQ(one_task([](std::vector<int>& v, std::string&& s, const std::string& c) {
              v.push_back(9);
              std::string moved = std::move(s);
              return moved + c + std::to_string(v.size());
            })(R"([[1],"a","b"])")
                .result,
            R"("ab2")");
}

TEST(binding, a_foreign_object_is_the_one_argument) {
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) {
    set.add("map", [](const std::map<std::string, int>& all) { return all.at("value"); });
    set.add("int", [](int x) { return x; });
    set.add("inside", [](const std::map<std::string, std::string>&) {});
    set.add(
        "more", [](const leveret::json& job, int n) { return std::string(job.text()) + std::to_string(n); }, arg("job"),
        arg("n") = 2);
    set.add("two", [](const leveret::json&, int) {});
    set.add("none", [] {});
  });
  caller call(tasks);
  const std::string line = R"({"id":1,"value":7,"retry_count":0})";
  EXPECT_EQ(call.call_line(line, "map").result, "7");
  EXPECT_EQ(call.call_line(line, "more").result, R"("{\"id\":1,\"value\":7,\"retry_count\":0}2")");
  expect_refused(call.call_line(line, "int"), "job: expected integer, got object");
  expect_refused(call.call_line(line, "inside"), "job.id: expected string, got integer");
  expect_refused(call.call_line(line, "two"), "args[1]: missing");
  expect_refused(call.call_line(line, "none"), "job: the default task takes no argument");
}

int twice(int x) { return 2 * x; }
int overloaded(int x) { return x; }
[[maybe_unused]] double overloaded(double x) { return x; }
int quiet(int x) noexcept { return x; }

struct constant {
  int operator()(int x) const { return x + 1; }
};
struct counting {
  int count = 0;
  int operator()(int x) { return x + ++count; }
};
struct move_only {
  std::unique_ptr<int> held;
  int operator()(int x) const noexcept { return x + *held; }
};

TEST(handlers, functions_lambdas_and_objects) {
  EXPECT_EQ(one_task(twice)("[3]").result, "6");
  EXPECT_EQ(one_task(&twice)("[3]").result, "6");
  EXPECT_EQ(one_task(static_cast<int (*)(int)>(overloaded))("[3]").result, "3");
  EXPECT_EQ(one_task(quiet)("[3]").result, "3");
  EXPECT_EQ(one_task(constant{})("[3]").result, "4");
  EXPECT_EQ(one_task(std::function<int(int)>(twice))("[3]").result, "6");
  EXPECT_EQ(one_task([n = 5](int x) mutable noexcept { return x + n++; })("[3]").result, "8");
}

TEST(handlers, a_mutable_object_keeps_its_state) {
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) { set.add("count", counting{}); });
  caller call(tasks);
  EXPECT_EQ(call.call("count", "[0]").result, "1");
  EXPECT_EQ(call.call("count", "[0]").result, "2");
}

TEST(handlers, a_move_only_object_is_moved_in) {
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) { set.add("m", move_only{std::make_unique<int>(4)}); });
  EXPECT_EQ(caller(tasks).call("m", "[3]").result, "7");
}

TEST(handlers, a_member_function_is_bound_by_a_lambda) {
  struct service {
    int offset = 10;
    [[nodiscard]] int shift(int x) const { return x + offset; }
  };
  auto shared = std::make_shared<service>();
  EXPECT_EQ(one_task([shared](int x) { return shared->shift(x); })("[3]").result, "13");
}

TEST(handlers, state_is_destroyed_with_the_registry) {
  auto held = std::make_shared<int>(0);
  {
    leveret::core::registry tasks;
    register_into(tasks, [&](leveret::task_set& set) { set.add("t", [held] { return *held; }); });
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(outcomes, an_exception_is_a_failure_with_its_text) {
  const ended end = one_task([] { throw std::runtime_error("disk full"); })();
  EXPECT_EQ(end.outcome, LEVERET_FAILED);
  EXPECT_EQ(end.failure, "disk full");
  // NOLINTNEXTLINE(bugprone-std-exception-baseclass): that is the point
  const ended odd = one_task([] { throw 5; })();
  EXPECT_EQ(odd.outcome, LEVERET_FAILED);
  EXPECT_EQ(odd.failure, "unknown exception");
}

TEST(outcomes, a_long_text_is_cut_between_characters) {
  std::string text;
  while (text.size() < 5000) text += "é";
  const ended end = one_task([text] { throw std::runtime_error("x" + text); })();
  EXPECT_EQ(end.failure.size(), 4095U + 3U);
  EXPECT_EQ(end.failure.substr(4093), "é…");
}

TEST(outcomes, reject_passes_a_handlers_own_catch) {
  const ended end = one_task([] {
    try {
      leveret::reject("no such user");
    } catch (const std::exception&) {
      return 0;
    }
  })();
  EXPECT_EQ(end.outcome, LEVERET_REJECTED);
  EXPECT_EQ(end.failure, "no such user");
}

template <class Duration>
std::int64_t delay_of(Duration delay) {
  const ended end = one_task([delay] { leveret::retry_after(delay, "busy"); })();
  EXPECT_EQ(end.outcome, LEVERET_RETRY_AFTER);
  EXPECT_EQ(end.failure, "busy");
  return end.delay_ms;
}

TEST(outcomes, retry_after_takes_any_duration) {
  EXPECT_EQ(delay_of(5s), 5000);
  EXPECT_EQ(delay_of(2min), 120'000);
  EXPECT_EQ(delay_of(1us), 1);
  EXPECT_EQ(delay_of(0ms), 0);
  EXPECT_EQ(delay_of(-3s), 0);
  EXPECT_EQ(delay_of(std::chrono::duration<double>(0.0015)), 2);
  EXPECT_EQ(delay_of(std::chrono::duration<double>(1e300)), 3'155'760'000'000);
  EXPECT_EQ(delay_of(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())), 0);
  EXPECT_EQ(delay_of(std::chrono::hours::max()), 3'155'760'000'000);
  EXPECT_FALSE(one_task([] { leveret::retry_after(1s); })().failure.empty());
}

class recording_log : public leveret::core::log_sink {
 public:
  void log(leveret_log_level level, std::string_view event, std::string_view job, std::string_view text) override {
    lines.push_back(std::to_string(level) + " " + std::string(event) + " " + std::string(job) + " " +
                    std::string(text));
  }
  std::vector<std::string> lines;
};

TEST(context, tells_of_the_job) {
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) {
    set.add("about", [](leveret::context& job, int x) {
      job.log("running");
      job.log(leveret::log_level::warning, "odd");
      return std::make_tuple(job.job_id(), job.task(), job.queue(), job.retry_count(), job.stopping(),
                             job.deadline().has_value(), x);
    });
    set.add("const", [](const leveret::context& job) { return job.deadline()->time_since_epoch() / 1ms; });
  });
  caller call(tasks);
  std::atomic<bool> stopping{false};
  recording_log log;
  call.frame().job_id = "0193/4";
  call.frame().queue = "native";
  call.frame().stopping = &stopping;
  call.frame().log = &log;
  EXPECT_EQ(call.call("about", "[5]").result, R"(["0193/4","about","native",2,false,false,5])");
  stopping = true;
  call.frame().deadline = 1234;
  EXPECT_EQ(call.call("about", "[5]").result, R"(["0193/4","about","native",2,true,true,5])");
  EXPECT_EQ(call.call("const").result, "1234");
  ASSERT_EQ(log.lines.size(), 4U);
  EXPECT_EQ(log.lines[0], "1 task_log 0193/4 running");
  EXPECT_EQ(log.lines[1], "2 task_log 0193/4 odd");
}

TEST(context, tells_how_far_the_job_is_and_hears_that_it_was_cancelled) {
  struct noting final : leveret::core::job_control {
    [[nodiscard]] bool is_cancelled(std::string_view job) const override { return job == "0193/4"; }
    void progress(std::string_view job, std::string_view reply, std::string_view body) override {
      told.push_back(std::string(job) + " " + std::string(reply) + " " + std::string(body));
    }
    std::vector<std::string> told;
  } control;
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) {
    set.add("far", [](leveret::context& job) {
      job.set_progress(0.25, "one \"quarter\"");
      job.set_progress({});
      return job.cancelled();
    });
    set.add("wrong", [](leveret::context& job, double fraction, const std::string& text) {
      try {
        job.set_progress(fraction, text);
      } catch (const std::invalid_argument&) {
        return true;
      }
      return false;
    });
  });
  caller call(tasks);
  EXPECT_EQ(call.call("far").result, "false") << "nobody to ask";
  call.frame().control = &control;
  call.frame().job_id = "0193/4";
  call.frame().reply = "r";
  EXPECT_EQ(call.call("far").result, "true");
  EXPECT_EQ(control.told, (std::vector<std::string>{R"(0193/4 r {"progress":0.25,"text":"one \"quarter\""})",
                                                    R"(0193/4 r {"progress":null,"text":""})"}));
  for (const char* args : {R"([1.5,""])", R"([-0.5,""])"}) EXPECT_EQ(call.call("wrong", args).result, "true") << args;
  EXPECT_EQ(call.call("wrong", "[0.5,\"" + std::string(1001, 'x') + "\"]").result, "true");
  EXPECT_EQ(call.call("wrong", "[1,\"" + std::string(1000, 'x') + "\"]").result, "false");
}

TEST(registration, names_must_be_sound) {
  const auto why = [](auto&& define) {
    leveret::core::registry tasks;
    try {
      register_into(tasks, define);
    } catch (const std::invalid_argument& wrong) {
      return std::string(wrong.what());
    }
    return std::string();
  };
  using set = leveret::task_set;
  EXPECT_EQ(why([](set& s) { s.add("t", twice, arg("")); }), "task \"t\": argument 0 has an empty name");
  EXPECT_EQ(why([](set& s) { s.add("t", [](int, int) {}, arg("x"), arg("x")); }),
            "task \"t\": two arguments are named \"x\"");
  EXPECT_EQ(why([](set& s) { s.add("t", [](std::uint8_t) {}, arg("x") = 300); }),
            "task \"t\": the default of \"x\" must be integer 0 to 255, not 300");
  EXPECT_EQ(why([](set& s) { s.add("t", [](std::uint64_t) {}, arg("x") = -1); }),
            "task \"t\": the default of \"x\" must be integer 0 to 18446744073709551615, not -1");
  EXPECT_EQ(why([](set& s) { s.add("t", twice).max_retries(-1); }), "task \"t\": max_retries must be 0 or more");
  EXPECT_EQ(why([](set& s) { s.add("", twice); }), "a task's name is empty");
  EXPECT_EQ(why([](set& s) { s.add("a\nb", twice); }), R"(a task's name has control characters: "a\nb")");
  EXPECT_EQ(why([](set& s) { s.add("\xff", twice); }), "a task's name is not UTF-8");
  EXPECT_EQ(why([](set& s) { s.add(std::string(256, 'x'), twice); }),
            "a task's name has 256 bytes, at most 255 are allowed");
  EXPECT_EQ(why([](set& s) { s.add(std::string(255, 'x'), twice); }), "");
  EXPECT_NE(why([](set& s) { s.add("t", twice).queue("no spaces"); }).find("no spaces"), std::string::npos);
  EXPECT_EQ(why([](set& s) {
              s.add("t", twice);
              s.add("t", twice);
            }),
            "task \"t\" is registered twice; rename one");
}

TEST(registration, a_refused_set_destroys_its_states_once) {
  auto held = std::make_shared<int>(0);
  {
    leveret::core::registry tasks;
    EXPECT_THROW(register_into(tasks,
                               [&](leveret::task_set& set) {
                                 set.add("a", [held] {});
                                 set.add("a", [held] {});
                               }),
                 std::invalid_argument);
    EXPECT_EQ(held.use_count(), 2);  // the first is the registry's
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(registration, options_reach_the_registry) {
  leveret::core::registry tasks;
  register_into(tasks, [](leveret::task_set& set) {
    set.add("a", twice).max_retries(5).queue("images");
    set.add("b", twice);
  });
  EXPECT_EQ(tasks.find("a")->max_retries, 5);
  EXPECT_EQ(tasks.find("a")->queue, "images");
  EXPECT_EQ(tasks.find("b")->max_retries, -1);
  EXPECT_EQ(tasks.find("b")->queue, "");
  EXPECT_EQ(tasks.find("c"), nullptr);
  EXPECT_EQ(tasks.names(), "a, b");
}

struct leaf {
  std::uint8_t size = 0;
  std::optional<std::vector<std::string>> tags;
  std::string kind;
};

}  // namespace

template <>
struct leveret::fields<leaf> {
  static constexpr auto list = std::make_tuple(leveret::field("size", &leaf::size), leveret::field("tags", &leaf::tags),
                                               leveret::field("kind", &leaf::kind).or_default());
};

namespace {

TEST(registration, the_signature_is_for_people) {
  EXPECT_EQ(resize().signature(), R"({"args":[{"name":"path","type":"string","required":true},)"
                                  R"({"name":"width","type":"integer -2147483648 to 2147483647","required":false},)"
                                  R"({"name":"mode","type":"string","required":false}],"returns":"string"})");
  EXPECT_EQ(one_task([](leveret::context&, const leaf&, std::optional<double>) {}).signature(),
            R"({"args":[{"name":null,"type":"object {size: integer 0 to 255, )"
            R"(tags?: array of string or null, kind?: string}","required":true},)"
            R"({"name":null,"type":"number or null","required":false}],"returns":"null"})");
}

struct per_thread_model {
  std::thread::id made_by = std::this_thread::get_id();
  std::shared_ptr<std::atomic<int>> alive;

  explicit per_thread_model(std::shared_ptr<std::atomic<int>> counter) : alive(std::move(counter)) { ++*alive; }
  per_thread_model(const per_thread_model&) = delete;  // neither copied nor moved
  per_thread_model& operator=(const per_thread_model&) = delete;
  ~per_thread_model() { --*alive; }

  bool operator()(int) { return made_by == std::this_thread::get_id(); }
};

TEST(per_thread, each_thread_makes_and_ends_its_own) {
  auto alive = std::make_shared<std::atomic<int>>(0);
  std::atomic<int> made{0};
  leveret::core::registry tasks;
  register_into(tasks, [&](leveret::task_set& set) {
    set.add_per_thread(
        "infer",
        [alive, &made] {
          ++made;
          return per_thread_model(alive);
        },
        arg("v"));
  });
  EXPECT_EQ(made, 0);  // describing it makes none
  EXPECT_NE(tasks.find("infer")->signature.find(R"("name":"v")"), std::string::npos);
  constexpr int kThreads = 4;
  std::atomic<int> right{0};
  {
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        caller call(tasks);
        for (int n = 0; n < 100; ++n) {
          if (call.call("infer", "[1]").result == "true") ++right;
        }
      });
    }
    for (std::thread& each : threads) each.join();
  }
  EXPECT_EQ(right, 100 * kThreads);
  EXPECT_EQ(made, kThreads);
  EXPECT_EQ(*alive, 0);
}

TEST(per_thread, a_factory_that_throws_fails_the_attempt_and_is_asked_again) {
  int asked = 0;
  leveret::core::registry tasks;
  register_into(tasks, [&](leveret::task_set& set) {
    set.add_per_thread("t", [&asked] {
      if (++asked == 1) throw std::runtime_error("no weights.bin");
      return [](int x) { return x; };
    });
  });
  caller call(tasks);
  const ended first = call.call("t", "[1]");
  EXPECT_EQ(first.outcome, LEVERET_FAILED);
  EXPECT_EQ(first.failure, "no weights.bin");
  EXPECT_EQ(call.call("t", "[1]").result, "1");
  EXPECT_EQ(call.call("t", "[1]").result, "1");
  EXPECT_EQ(asked, 2);
}

TEST(shared, a_handler_is_called_by_all_threads_at_once) {
  constexpr int kThreads = 4;
  std::atomic<int> inside{0};
  std::atomic<bool> together{false};
  leveret::core::registry tasks;
  register_into(tasks, [&](leveret::task_set& set) {
    set.add("meet", [&] {
      ++inside;
      while (inside < kThreads) std::this_thread::yield();
      together = true;
    });
  });
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(caller(tasks).call("meet").outcome, LEVERET_SUCCEEDED); });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_TRUE(together);
}

}  // namespace
