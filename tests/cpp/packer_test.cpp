#include "packer.hpp"

#include <gtest/gtest.h>

#include <random>

using namespace leveret::core;

TEST(packer, cuts_only_between_lines_and_keeps_their_order_and_number) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::size_t most = 1 + random() % 200;
    const std::uint32_t most_jobs = static_cast<std::uint32_t>(1 + random() % 20);
    packer p(most, most_jobs);
    std::string expected;
    const auto lines = static_cast<std::uint32_t>(random() % 100);
    for (std::uint32_t i = 0; i < lines; ++i) {
      const std::string line(random() % 60, static_cast<char>('a' + i % 26));
      p.add(line);
      expected += line + '\n';
    }
    std::string all;
    std::uint32_t jobs = 0;
    for (const packed& batch : p.take()) {
      EXPECT_TRUE(batch.lines.size() <= most || batch.jobs == 1);
      EXPECT_LE(batch.jobs, most_jobs);
      EXPECT_EQ(batch.lines.back(), '\n');
      all += batch.lines;
      jobs += batch.jobs;
    }
    EXPECT_EQ(all, expected);
    EXPECT_EQ(jobs, lines);
    EXPECT_TRUE(p.take().empty());
  }
}
