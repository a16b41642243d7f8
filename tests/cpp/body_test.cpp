#include "body.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <vector>

using leveret::core::body;

namespace {

constexpr std::size_t kFullBatch = std::size_t{64} << 10;

// Sizes on both sides of those whose memory is used again.
std::size_t some_size(std::mt19937& random) {
  constexpr std::size_t kAround[] = {0, 100, 16'000, 32'600, 40'000, kFullBatch, 69'400, 100'000};
  return kAround[random() % std::size(kAround)] + random() % 300;
}

bool is_padded(const body& b) {
  const char* const behind = b.data() + b.size();
  return std::all_of(behind, behind + body::kPadding, [](char c) { return c == '\0'; });
}

bool is_all(const body& b, char c) {
  return std::all_of(b.data(), b.data() + b.size(), [c](char each) { return each == c; });
}

}  // namespace

TEST(body, of_any_size_keeps_its_bytes_while_others_come_and_go) {
  std::mt19937 random(7);
  std::vector<body> held;
  std::vector<char> filled_with;
  for (int i = 0; i < 3'000; ++i) {
    const auto c = static_cast<char>('a' + i % 26);
    held.emplace_back(std::string(some_size(random), c));
    filled_with.push_back(c);
    ASSERT_TRUE(is_padded(held.back())) << held.back().size();
    if (held.size() < 200) continue;
    const std::size_t gone = random() % held.size();
    ASSERT_TRUE(is_all(held[gone], filled_with[gone]));
    std::swap(held[gone], held.back());
    std::swap(filled_with[gone], filled_with.back());
    held.pop_back();
    filled_with.pop_back();
  }
  for (std::size_t i = 0; i < held.size(); ++i) ASSERT_TRUE(is_all(held[i], filled_with[i]));
}

TEST(body, is_zero_behind_its_end_where_a_longer_one_was) {
  for (const std::size_t size : {kFullBatch, std::size_t{20'000}, kFullBatch - 1}) {
    const body b(std::string(size, 'x'));
    EXPECT_TRUE(is_padded(b)) << size;
  }
}

#if !defined(__SANITIZE_ADDRESS__)  // there each body has memory of its own, so that who reads one that is gone is seen
TEST(body, of_a_full_batch_has_the_memory_of_one_that_is_gone) {
  const char* memory = nullptr;
  std::vector<std::string> others;  // would have it otherwise
  for (int i = 0; i < 100; ++i) {
    others.emplace_back(kFullBatch, 'y');
    const body b(std::string(kFullBatch - static_cast<std::size_t>(i), 'x'));
    if (i == 0) memory = b.data();
    ASSERT_EQ(b.data(), memory) << i;
  }
}
#endif

TEST(body, goes_from_thread_to_thread) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      std::mt19937 random(t);
      const auto c = static_cast<char>('a' + t);
      for (int i = 0; i < 2'000; ++i) {
        body mine(std::string(some_size(random), c));
        std::thread other;
        if (i % 100 == 0) other = std::thread([copy = mine] { EXPECT_TRUE(is_padded(copy)); });
        if (!is_all(mine, c)) ADD_FAILURE() << "another thread's bytes";
        mine = body();
        if (other.joinable()) other.join();
        if (testing::Test::HasFailure()) return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}
