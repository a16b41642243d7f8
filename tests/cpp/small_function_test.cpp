#include "small_function.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

using leveret::core::small_function;

TEST(small_function, calls_what_it_was_made_of_and_owns_what_cannot_be_copied) {
  small_function<int(int)> empty;
  EXPECT_FALSE(empty);
  small_function<int(int)> add = [two = std::make_unique<int>(2)](int n) { return n + *two; };
  ASSERT_TRUE(add);
  EXPECT_EQ(add(3), 5);
  empty = std::move(add);
  EXPECT_EQ(empty(4), 6);
  EXPECT_FALSE(add);  // NOLINT(bugprone-use-after-move): it says that it is empty
}

TEST(small_function, ends_what_it_holds_once_whatever_its_size) {
  const auto counted = std::make_shared<int>(0);
  const auto small = [counted] { ++*counted; };
  const auto large = [counted, more = std::array<char, 100>{}] { *counted += 1 + more[0]; };
  {
    std::vector<small_function<void()>> all;
    for (int i = 0; i < 100; ++i) {
      all.emplace_back(small);
      all.emplace_back(large);
    }
    for (const auto& each : all) each();
    EXPECT_EQ(*counted, 200);
    EXPECT_EQ(counted.use_count(), 203);
    all[0] = nullptr;
    all[1] = nullptr;
    EXPECT_FALSE(all[0]);
    EXPECT_EQ(counted.use_count(), 201);
    all[2] = std::move(all[3]);
    all[2]();
    EXPECT_EQ(counted.use_count(), 200);
  }
  EXPECT_EQ(counted.use_count(), 3);
}

TEST(small_function, hands_arguments_on_without_copying_them) {
  const small_function<std::unique_ptr<int>(std::unique_ptr<int>)> same = [](std::unique_ptr<int> p) { return p; };
  EXPECT_EQ(*same(std::make_unique<int>(7)), 7);
}
