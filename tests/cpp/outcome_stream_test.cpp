/// The rings that bring outcomes from a child to the I/O process: what is written arrives, also through a ring that is
/// full most of the time.
#include "pools/outcome_stream.hpp"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

namespace leveret::core {
namespace {

TEST(outcome_stream, a_writer_that_waits_for_space_is_woken_whenever_some_is_made) {
  constexpr int kRecords = 3'000'000;
  shared_state state(shared_state::shape{});
  const int news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT_GE(news, 0);
  std::thread writing([&] {
    outcome_writer writer(state, 0, news);
    for (int i = 0; i < kRecords; ++i) {
      job_identity who;
      who.result_id = "message";
      who.result_line = static_cast<std::uint32_t>(i);
      writer.result(1, who, std::string(static_cast<std::size_t>(i % 1'000), 'x'));
    }
  });
  outcome_reader reader;
  child_description said;
  int next = 0;
  const auto read = [&] {
    reader.read(
        state, 0,
        [&](outcome_record& r) {
          ASSERT_EQ(r.result_line, static_cast<std::uint32_t>(next));
          ASSERT_EQ(r.json.size(), static_cast<std::size_t>(next % 1'000));
          ++next;
        },
        said);
  };
  // As the pool looks: when it is told to, and at any other time, for others write too.
  auto moved = std::chrono::steady_clock::now();
  for (int before = 0; next < kRecords; before = next) {
    std::uint64_t count = 0;
    (void)!::read(news, &count, sizeof count);
    state.header().news.store(0, std::memory_order_seq_cst);
    // So that the ring is at times full, at times nearly so, when it is read.
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(next % 200);
    while (std::chrono::steady_clock::now() < until) {
    }
    read();
    const auto now = std::chrono::steady_clock::now();
    if (next != before) moved = now;
    // The program ends there: the thread can't.
    ASSERT_LT(now - moved, std::chrono::seconds(120)) << "the writer is stuck behind " << next << " records";
  }
  writing.join();
  EXPECT_EQ(next, kRecords);
  close(news);
}

}  // namespace
}  // namespace leveret::core
