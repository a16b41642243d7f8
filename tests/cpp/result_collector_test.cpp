/// Results of several threads become the chunks that senders read.
#include "result_collector.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "cpp/support/results.hpp"

namespace leveret::core {
namespace {

std::vector<result_chunk> write(std::vector<result_collector>& threads) {
  std::vector<result_collector> taken;
  for (result_collector& each : threads) taken.push_back(each.take());
  return result_collector::write(taken);
}

std::map<std::uint32_t, std::string> outcomes_of(const result_chunk& chunk) {
  std::map<std::uint32_t, std::string> found;
  for_each_outcome(chunk.data, [&](std::uint32_t line, const std::string& outcome) {
    EXPECT_TRUE(found.emplace(line, outcome).second) << "twice: " << line << " in " << chunk.data;
  });
  return found;
}

std::vector<result_collector> some_threads(std::size_t count) {
  return std::vector<result_collector>(count, result_collector("m", "reply"));
}

TEST(result_collector, threads_that_take_turns_write_one_run) {
  std::vector<result_collector> threads = some_threads(2);
  threads[0].add("m", 1, "10");
  threads[1].add("m", 2, "");
  threads[0].add("m", 3, "\"a,\\\"b]\"");
  threads[1].add("m", 4, "true");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"results\":[10,null,\"a,\\\"b]\",true]}\n");
  EXPECT_EQ(chunks[0].id, "m");
  EXPECT_EQ(chunks[0].reply, "reply");
  EXPECT_EQ(chunks[0].first_line, 1U);
  EXPECT_EQ(chunks[0].last_line, 4U);
  EXPECT_TRUE(write(threads).empty());  // they were taken
}

TEST(result_collector, gaps_end_runs_and_one_result_is_no_run) {
  std::vector<result_collector> threads = some_threads(1);
  for (const std::uint32_t line : {5U, 7U, 8U, 11U}) threads[0].add("m", line, std::to_string(line));
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data, "{\"line\":5,\"result\":5}\n{\"line\":7,\"results\":[7,8]}\n{\"line\":11,\"result\":11}\n");
}

// Inside a run they would be one level deeper than a result may be.
TEST(result_collector, arrays_objects_and_long_results_have_lines_of_their_own) {
  const std::string text = "\"" + std::string(300, 'x') + "\"";
  std::vector<result_collector> threads = some_threads(1);
  threads[0].add("m", 1, "1");
  threads[0].add("m", 2, "[2]");
  threads[0].add("m", 3, R"({"a":3})");
  threads[0].add("m", 4, text);
  threads[0].add("m", 5, "5");
  threads[0].add("m", 6, "6");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data, "{\"line\":2,\"result\":[2]}\n{\"line\":3,\"result\":{\"a\":3}}\n{\"line\":4,\"result\":" +
                                text + "}\n{\"line\":1,\"result\":1}\n{\"line\":5,\"results\":[5,6]}\n");
}

TEST(result_collector, what_did_not_succeed_is_between_them) {
  std::vector<result_collector> threads = some_threads(2);
  threads[0].add("m", 1, "1");
  threads[1].add_dead("m", 2, "rejected", "no", 1);
  threads[0].add("m", 3, "3");
  threads[1].add_expired("m", 4);
  threads[0].add_cancelled("m", 9);
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].last_line, 9U);
  const std::map<std::uint32_t, std::string> found = outcomes_of(chunks[0]);
  ASSERT_EQ(found.size(), 5U);
  EXPECT_EQ(found.at(1), "\"result\":1}");
  EXPECT_EQ(found.at(2), R"("state":"dead","reason":"rejected","error":"no","attempts":1})");
  EXPECT_EQ(found.at(4), R"("state":"expired"})");
  EXPECT_EQ(found.at(9), R"("state":"cancelled"})");
}

TEST(result_collector, messages_are_kept_apart) {
  std::vector<result_collector> threads = some_threads(2);
  for (std::uint32_t line = 1; line <= 3; ++line) {
    threads[line % 2].add("a", line, std::to_string(line));
    threads[line % 2].add("b", line + 1, std::to_string(line + 10));
  }
  std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_EQ(chunks[0].id, "a");
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"results\":[1,2,3]}\n");
  EXPECT_EQ(chunks[1].id, "b");
  EXPECT_EQ(chunks[1].data, "{\"line\":2,\"results\":[11,12,13]}\n");
}

// Retried jobs of a message that was mostly done: looking at each line between them would cost more than it saves.
TEST(result_collector, lines_far_apart_cost_no_room) {
  std::vector<result_collector> threads = some_threads(2);
  threads[0].add("m", UINT32_MAX, "2");
  threads[1].add("m", 1, "1");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(outcomes_of(chunks[0]).at(UINT32_MAX), "\"result\":2}");
  EXPECT_EQ(outcomes_of(chunks[0]).at(1), "\"result\":1}");
}

TEST(result_collector, a_line_told_twice_is_written_twice_and_the_first_stands_first) {
  std::vector<result_collector> threads = some_threads(1);
  threads[0].add("m", 1, "1");
  threads[0].add("m", 2, "2");
  threads[0].add("m", 2, "3");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  std::vector<std::string> of_two;
  for_each_outcome(chunks[0].data, [&](std::uint32_t line, const std::string& outcome) {
    if (line == 2) of_two.push_back(outcome);
  });
  EXPECT_EQ(of_two, (std::vector<std::string>{"\"result\":2}", "\"result\":3}"}));
}

// The first told counts, wherever its run begins.
TEST(result_collector, runs_that_overlap_are_written_as_they_were_told) {
  for (const bool nothing_else : {true, false}) {
    std::vector<result_collector> threads = some_threads(2);
    for (const std::uint32_t line : {6U, 7U, 5U, 6U}) threads[0].add("m", line, std::to_string(threads.size()));
    if (!nothing_else) threads[1].add("m", 8, "");
    threads[1].add("m", 7, "\"late\"");
    const std::vector<result_chunk> chunks = write(threads);
    ASSERT_EQ(chunks.size(), 1U);
    EXPECT_EQ(chunks[0].data, std::string("{\"line\":6,\"results\":[2,2]}\n{\"line\":5,\"results\":[2,2]}\n") +
                                  (nothing_else ? "" : "{\"line\":8,\"result\":null}\n") +
                                  "{\"line\":7,\"result\":\"late\"}\n");
    EXPECT_EQ(chunks[0].first_line, 5U);
    EXPECT_EQ(chunks[0].last_line, nothing_else ? 7U : 8U);
  }
}

TEST(result_collector, nothings_are_counted_and_stand_between_the_others) {
  std::vector<result_collector> threads = some_threads(2);
  for (const std::uint32_t line : {1U, 2U}) threads[0].add("m", line, "");
  threads[0].add("m", 3, "null");
  threads[0].add("m", 4, "4");
  for (const std::uint32_t line : {5U, 8U}) threads[0].add("m", line, "");
  for (const std::uint32_t line : {6U, 7U}) threads[1].add("m", line, "");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"results\":[null,null,null,4,null,null,null,null]}\n");
}

TEST(result_collector, more_nothings_than_a_run_counts_are_one_line) {
  std::vector<result_collector> threads = some_threads(1);
  constexpr std::uint32_t kLines = 1'000;
  for (std::uint32_t line = 1; line <= kLines; ++line) threads[0].add("m", line, "");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(std::count(chunks[0].data.begin(), chunks[0].data.end(), '\n'), 1);
  const std::map<std::uint32_t, std::string> found = outcomes_of(chunks[0]);
  ASSERT_EQ(found.size(), kLines);
  for (const auto& [line, outcome] : found) ASSERT_EQ(outcome, "\"result\":null}") << line;
}

// A line that came back names its message by its own id's text.
TEST(result_collector, a_message_is_known_by_its_id_wherever_that_is_kept) {
  const std::string own = "m";
  std::string elsewhere = "m";
  std::vector<result_collector> threads(1, result_collector(own, "reply"));
  threads[0].add(elsewhere, 2, "");
  elsewhere = "n";
  threads[0].add(elsewhere, 3, "");
  threads[0].add(own, 1, "");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_EQ(chunks[0].id, "m");
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"results\":[null,null]}\n");
  EXPECT_EQ(chunks[1].id, "n");
  EXPECT_EQ(chunks[1].data, "{\"line\":3,\"result\":null}\n");
}

TEST(result_collector, a_line_told_under_both_texts_of_its_message_keeps_its_order) {
  const std::string own = "m";
  const std::string elsewhere = "m";
  std::vector<result_collector> threads(1, result_collector(own, "reply"));
  threads[0].add(elsewhere, 1, "1");
  threads[0].add(own, 1, "2");
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data, "{\"line\":1,\"result\":1}\n{\"line\":1,\"result\":2}\n");
}

TEST(result_collector, long_runs_are_cut) {
  std::vector<result_collector> threads = some_threads(3);
  constexpr std::uint32_t kLines = 50'000;
  for (std::uint32_t line = 1; line <= kLines; ++line) threads[line % 3].add("m", line, std::to_string(line));
  const std::vector<result_chunk> chunks = write(threads);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_GT(std::count(chunks[0].data.begin(), chunks[0].data.end(), '\n'), 1);
  const std::map<std::uint32_t, std::string> found = outcomes_of(chunks[0]);
  ASSERT_EQ(found.size(), kLines);
  for (const auto& [line, outcome] : found) ASSERT_EQ(outcome, "\"result\":" + std::to_string(line) + "}");
}

}  // namespace
}  // namespace leveret::core
