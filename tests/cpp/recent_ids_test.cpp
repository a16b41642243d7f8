#include "recent_ids.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>

using leveret::core::recent_ids;

TEST(recent_ids, the_last_ones_are_there_and_none_before_them) {
  recent_ids ids(3);
  EXPECT_FALSE(ids.contains("a"));
  for (const char* id : {"a", "b", "c"}) ids.add(id);
  EXPECT_TRUE(ids.contains("a"));
  ids.add("d");
  EXPECT_FALSE(ids.contains("a"));
  for (const char* id : {"b", "c", "d"}) EXPECT_TRUE(ids.contains(id));
  ids.add("a");
  EXPECT_TRUE(ids.contains("a"));
  EXPECT_FALSE(ids.contains("b"));
}

TEST(recent_ids, one_that_is_there_stays_where_it_is) {
  recent_ids ids(2);
  for (const char* id : {"a", "b", "a", "c"}) ids.add(id);
  EXPECT_FALSE(ids.contains("a"));
  EXPECT_TRUE(ids.contains("b"));
  EXPECT_TRUE(ids.contains("c"));
}

TEST(recent_ids, none_are_kept_where_none_are_to_be) {
  recent_ids ids(0);
  ids.add("a");
  EXPECT_FALSE(ids.contains("a"));
}

TEST(recent_ids, it_says_what_a_plain_list_says) {
  recent_ids ids(100);
  std::deque<std::string> list;
  std::minstd_rand random(7);
  for (int i = 0; i < 20'000; ++i) {
    const std::string id = "0190-" + std::to_string(random() % 300);
    const bool there = std::find(list.begin(), list.end(), id) != list.end();
    ASSERT_EQ(ids.contains(id), there);
    ids.add(id);
    if (there) continue;
    list.push_back(id);
    if (list.size() > 100) list.pop_front();
  }
}
