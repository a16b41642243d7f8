// Loading plugins: those that work, and one sentence for each that does not.
#include "plugin.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "client.hpp"
#include "cpp/support/handler_call.hpp"

namespace {

namespace fs = std::filesystem;
using leveret::core::load_plugin;
using leveret::core::registry;
using leveret::test::caller;
using leveret::test::ended;

std::string plugin(const std::string& name) {
  return fs::canonical(LEVERET_BINARY_DIR "/test_plugins/" + name + ".so").string();
}

/// The sentence that the file is refused with; empty if it was loaded.
std::string refusal(const std::string& path) {
  registry tasks;
  try {
    load_plugin(path, tasks);
  } catch (const std::invalid_argument& wrong) {
    return wrong.what();
  }
  return {};
}

void expect_refused(const std::string& path, const std::string& why) {
  EXPECT_EQ(refusal(path), "cannot load plugin " + path + ": " + why);
}

/// A folder of this test's own, gone with it.
class folder {
 public:
  folder() {
    std::string pattern = (fs::temp_directory_path() / "leveret-plugin-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = fs::canonical(pattern);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() { fs::remove_all(path_); }

  [[nodiscard]] std::string file(const std::string& name, const std::string& content = "") const {
    const fs::path made = path_ / name;
    std::ofstream(made, std::ios::binary) << content;
    ::chmod(made.c_str(), 0644);
    return made.string();
  }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

TEST(plugin, tasks_of_all_its_sources_run) {
  registry tasks;
  load_plugin(plugin("good"), tasks);
  EXPECT_EQ(tasks.names(), "add, infer, mirror, reject, send_more");
  EXPECT_EQ(tasks.find("add")->max_retries, 5);
  EXPECT_EQ(tasks.find("mirror")->queue, "points");
  EXPECT_EQ(tasks.find("add")->source, fs::canonical(plugin("good")));
  caller call(tasks);
  EXPECT_EQ(call.call("add", "[2]", R"({"y":3})").result, "5");
  EXPECT_EQ(call.call("mirror", R"([{"x":1,"y":2}])").result, R"({"x":2,"y":1})");
  EXPECT_EQ(call.call("infer", R"(["cat"])").result, "\"m(cat)\"");
  const ended rejected = call.call("reject", R"(["no"])");
  EXPECT_EQ(rejected.outcome, LEVERET_REJECTED);
  EXPECT_EQ(rejected.failure, "no");
}

TEST(plugin, a_relative_path_is_no_search_in_the_library_path) {
  registry tasks;
  load_plugin(fs::relative(plugin("good")).string(), tasks);
  EXPECT_NE(tasks.find("add"), nullptr);
}

TEST(plugin, a_handler_sends_jobs_through_its_host) {
  leveret::core::client keeps_it_open("memory://plugin-test");
  registry tasks;
  load_plugin(plugin("good"), tasks);
  const ended end = caller(tasks).call("send_more", R"(["memory://plugin-test",5])");
  EXPECT_EQ(end.outcome, LEVERET_SUCCEEDED) << end.failure;
  EXPECT_EQ(end.result.substr(end.result.size() - 3), "/1\"");
  const auto stats = keeps_it_open.stats("more");
  ASSERT_EQ(stats.size(), 1U);
  EXPECT_EQ(stats[0].ready, 1U);
}

TEST(plugin, c_is_enough) {
  registry tasks;
  load_plugin(plugin("plain"), tasks);
  caller call(tasks);
  EXPECT_EQ(call.call("sum", "[1,2,3]").result, "6");
  EXPECT_EQ(call.call("sum", "[]").result, "0");
  EXPECT_EQ(call.call("sum", R"(["x"])").failure, "only integers");
}

TEST(plugin, header_versions_do_not_share_statics) {
  registry tasks;
  for (const char* name : {"first", "second", "third"}) load_plugin(plugin(name), tasks);
  caller call(tasks);
  for (const char* name : {"first", "second", "third"}) {
    EXPECT_EQ(call.call(name, "[true]").result, "[1,1,1,true]") << name;
  }
  for (const char* name : {"third", "first", "second"}) {
    EXPECT_EQ(call.call(name, "[false]").result, "[2,2,2,true]") << name;
  }
  EXPECT_EQ(call.call("first.reject").failure, LEVERET_VERSION);
  EXPECT_EQ(call.call("third.reject").failure, "99.0.0");
  EXPECT_EQ(call.call("third", R"(["x"])").failure, "args[0]: expected boolean, got string");
}

TEST(plugin, two_plugins_with_one_task_name_are_refused_with_both_files) {
  registry tasks;
  load_plugin(plugin("good"), tasks);
  try {
    load_plugin(plugin("same_task"), tasks);
    FAIL() << "loaded";
  } catch (const std::invalid_argument& wrong) {
    EXPECT_EQ(wrong.what(), "cannot load plugin " + plugin("same_task") + ": task \"add\" is already registered by " +
                                plugin("good") + "; rename one");
  }
}

TEST(refusal, a_missing_file) {
  expect_refused("no/such/plugin.so", "there is no such file; build it first: leveret build");
  expect_refused("tasks", "there is no such file");
}

TEST(refusal, other_files) {
  const folder here;
  expect_refused(here.path(), "it is a folder");
  expect_refused(here.file("empty.so"), "it is not a shared object; build one from C++ source: leveret build");
  expect_refused(here.file("text.so", "#!/bin/sh\necho a script, longer than an ELF header is\n"),
                 "it is not a shared object; build one from C++ source: leveret build");
  const std::string source = here.file("work.cpp", "int main() {}");
  expect_refused(source, "it is a source file; build it first: leveret build " + source);
  const std::string fifo = here.path() + "/fifo.so";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0644), 0);
  expect_refused(fifo, "it is not a regular file");
}

TEST(refusal, objects_of_another_kind) {
  const folder here;
  std::ifstream original(plugin("good"), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(original)), std::istreambuf_iterator<char>());
  const auto with = [&](std::size_t at, char value) {
    std::string changed = bytes;
    changed[at] = value;
    return here.file("changed.so", changed);
  };
  expect_refused(with(4, bytes[4] == 1 ? '\2' : '\1'), "it was built for another kind of processor");
  expect_refused(with(18, '\x08'), "it was built for another kind of processor");
  expect_refused(with(16, '\1'), "it is an object file, not linked yet; leveret build makes a plugin of it");
  expect_refused(with(16, '\2'),
                 "it is a program, not a plugin: run it, or build a plugin from its source: leveret build");
  EXPECT_NE(refusal(here.file("cut.so", bytes.substr(0, 100))), "");
}

TEST(refusal, a_program) {
  expect_refused(fs::canonical("/proc/self/exe").string(),
                 "it is a program, not a plugin: run it, or build a plugin from its source: leveret build");
}

TEST(refusal, a_file_that_everyone_may_write) {
  const folder here;
  const std::string copy = here.path() + "/good.so";
  fs::copy_file(plugin("good"), copy);
  ASSERT_EQ(::chmod(copy.c_str(), 0666), 0);
  expect_refused(copy, "everyone may write to it; chmod o-w it first");
  ASSERT_EQ(::chmod(copy.c_str(), 0664), 0);
  EXPECT_EQ(refusal(copy), "");
}

TEST(refusal, a_file_in_a_folder_that_everyone_may_write) {
  const folder here;
  fs::create_directories(here.path() + "/outer/inner");
  const std::string copy = here.path() + "/outer/inner/good.so";
  fs::copy_file(plugin("good"), copy);
  const auto why = [&](const std::string& open) {
    return "everyone may write to the folder " + open +
           ", and put another file in its place; chmod o-w that folder first";
  };
  for (const std::string open : {"/outer", "/outer/inner"}) {
    ASSERT_EQ(::chmod((here.path() + open).c_str(), 0777), 0);
    expect_refused(copy, why(here.path() + open));
    ASSERT_EQ(::chmod((here.path() + open).c_str(), 01777), 0);
    EXPECT_EQ(refusal(copy), "") << "with the sticky bit nobody can replace it";
    ASSERT_EQ(::chmod((here.path() + open).c_str(), 0755), 0);
  }
  EXPECT_EQ(refusal(here.path() + "/outer/inner/../inner/good.so"), "");
}

// Whoever may replace a link on the way says what is loaded.
TEST(refusal, a_path_through_a_link_in_a_folder_that_everyone_may_write) {
  const folder here;
  fs::create_directories(here.path() + "/open");
  fs::create_directories(here.path() + "/closed");
  fs::copy_file(plugin("good"), here.path() + "/closed/good.so");
  fs::create_symlink("../closed", here.path() + "/open/link");
  fs::create_symlink(here.path() + "/open/link/good.so", here.path() + "/closed/work.so");
  EXPECT_EQ(refusal(here.path() + "/closed/work.so"), "");
  ASSERT_EQ(::chmod((here.path() + "/open").c_str(), 0777), 0);
  for (const std::string path : {"/open/link/good.so", "/closed/work.so"}) {
    EXPECT_NE(refusal(here.path() + path).find("everyone may write to the folder " + here.path() + "/open,"),
              std::string::npos)
        << path << ": " << refusal(here.path() + path);
  }
  EXPECT_EQ(refusal(here.path() + "/closed/good.so"), "");
}

TEST(refusal, a_shared_object_that_is_no_plugin) {
  expect_refused(
      plugin("not_a_plugin"),
      "it is a shared object, but no plugin: it defines no leveret_plugin; write LEVERET_TASKS(tasks) {…} in "
      "one of its sources");
  expect_refused(plugin("other_magic"), "its leveret_plugin is not what LEVERET_TASKS defines");
}

TEST(refusal, a_plugin_of_another_version) {
  expect_refused(plugin("other_version"), "it was built for plugin version 8, this worker (" LEVERET_VERSION
                                          ") has version 1; build it again with this worker's leveret build");
  expect_refused(plugin("newer_headers"),
                 "it was compiled with headers " LEVERET_VERSION ", which are newer than this worker");
}

TEST(refusal, missing_symbols_and_libraries) {
  expect_refused(
      plugin("missing_symbol"),
      "it needs \"images::decode(int)\", which neither it nor its libraries define; build it with the source "
      "or library that does: leveret build FILE… -- -lNAME");
  expect_refused(
      plugin("missing_library"),
      "it needs the library libleveret_gone.so, which was not found; install it, or say where it is: leveret "
      "build FILE… -- -Wl,-rpath,FOLDER");
}

TEST(refusal, tasks_that_cannot_be_registered) {
  expect_refused(plugin("no_tasks"), "it registers no task; call tasks.add in its LEVERET_TASKS");
  expect_refused(plugin("bad_tasks"), R"(task "narrow": the default of "width" must be integer 0 to 255, not 1000)");
  expect_refused(plugin("throwing_tasks"), "its LEVERET_TASKS threw an unknown exception");
}

}  // namespace
