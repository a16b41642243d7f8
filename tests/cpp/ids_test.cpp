#include "ids.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <thread>
#include <vector>

namespace leveret::core {
namespace {

TEST(Ids, AMessageIdIsAVersion7Uuid) {
  const random_source random = seeded_random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::string id = make_message_id(1'700'000'000'000 + i, random);
    ASSERT_EQ(id.size(), 36u);
    for (std::size_t at = 0; at < id.size(); ++at) {
      if (at == 8 || at == 13 || at == 18 || at == 23) {
        ASSERT_EQ(id[at], '-');
      } else {
        ASSERT_NE(std::string("0123456789abcdef").find(id[at]), std::string::npos) << id;
      }
    }
    ASSERT_EQ(id[14], '7');
    ASSERT_NE(std::string("89ab").find(id[19]), std::string::npos) << id;
  }
}

TEST(Ids, TheTimeLeadsAMessageId) {
  const random_source zero = [] { return std::uint64_t{0}; };
  const random_source ones = [] { return ~std::uint64_t{0}; };
  EXPECT_EQ(make_message_id(0x017f22e279b0, zero), "017f22e2-79b0-7000-8000-000000000000");
  EXPECT_EQ(make_message_id(0x017f22e279b0, ones), "017f22e2-79b0-7fff-bfff-ffffffffffff");
  EXPECT_LT(make_message_id(1000, ones), make_message_id(1001, zero));
  EXPECT_EQ(make_message_id(-1, zero), "00000000-0000-7000-8000-000000000000");
}

TEST(Ids, ASeedRepeatsAndSeedsDiffer) {
  const random_source a = seeded_random(7);
  const random_source b = seeded_random(7);
  const random_source c = seeded_random(8);
  EXPECT_EQ(make_message_id(1, a), make_message_id(1, b));
  EXPECT_NE(make_message_id(1, a), make_message_id(1, c));
}

TEST(Ids, ThreadsMakeDistinctIds) {
  std::vector<std::vector<std::string>> made(4);
  std::vector<std::thread> threads;
  const random_source random = system_random();
  for (std::vector<std::string>& mine : made) {
    threads.emplace_back([&mine, &random] {
      for (int i = 0; i < 2000; ++i) mine.push_back(make_message_id(1, random));
    });
  }
  for (std::thread& t : threads) t.join();
  std::set<std::string> all;
  for (const auto& mine : made) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), 8000u);
}

// A forked producer that went on with its parent's engine would publish other jobs under the same ids.
TEST(Ids, AForkedChildDoesNotRepeatItsParent) {
  const random_source random = system_random();
  static_cast<void>(random());
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string id = make_message_id(1, random);
    _exit(write(ends[1], id.data(), id.size()) == 36 ? 0 : 1);
  }
  const std::string mine = make_message_id(1, random);
  char theirs[36] = {};
  ASSERT_EQ(read(ends[0], theirs, sizeof theirs), 36);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_NE(mine, std::string(theirs, sizeof theirs));
  close(ends[0]);
  close(ends[1]);
}

TEST(Ids, AJobIdIsItsMessageAndLine) {
  EXPECT_EQ(make_job_id("m", 1), "m/1");
  EXPECT_EQ(make_job_id("a/b", 4294967295u), "a/b/4294967295");
  std::string_view message;
  std::uint32_t line = 0;
  ASSERT_TRUE(split_job_id("a/b/4294967295", message, line));
  EXPECT_EQ(message, "a/b");
  EXPECT_EQ(line, 4294967295u);
}

TEST(Ids, WhatIsNoJobIdIsNotSplit) {
  std::string_view message;
  std::uint32_t line = 0;
  for (const char* text : {"", "m", "m/", "/1", "m/0", "m/01", "m/-1", "m/+1", "m/1x", "m/ 1", "m/4294967296"}) {
    EXPECT_FALSE(split_job_id(text, message, line)) << text;
  }
}

}  // namespace
}  // namespace leveret::core
