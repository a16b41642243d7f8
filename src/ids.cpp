#include "ids.hpp"

#include <pthread.h>

#include <atomic>
#include <charconv>
#include <optional>

namespace leveret::core {

namespace {

/// Counts forks on the child's side: a child must not go on with its parent's engine, or both make the same ids.
std::atomic<std::uint64_t> forks{1};

std::mt19937_64 fresh_engine() {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
  return std::mt19937_64(seed);
}

/// Seeded at first use, as after a fork.
struct thread_engine {
  std::uint64_t forks_seen = 0;
  std::optional<std::mt19937_64> engine;
};

}  // namespace

random_source system_random() {
  static const int watching = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(watching);
  return [] {
    thread_local thread_engine mine;
    const std::uint64_t now = forks.load(std::memory_order_relaxed);
    if (mine.forks_seen != now) {
      mine.engine = fresh_engine();
      mine.forks_seen = now;
    }
    return (*mine.engine)();
  };
}

random_source seeded_random(std::uint64_t seed) {
  return [engine = std::mt19937_64(seed)]() mutable { return engine(); };
}

std::string make_message_id(unix_ms now, const random_source& random) {
  // RFC 9562, section 5.7: 48 bits of Unix milliseconds, version 7, 12 random bits, variant 10, 62 random bits.
  const auto time = static_cast<std::uint64_t>(now < 0 ? 0 : now) & 0xffff'ffff'ffffULL;
  const std::uint64_t a = random();
  const std::uint64_t b = random();
  const std::uint64_t high = time << 16 | 0x7000 | (a & 0x0fff);
  const std::uint64_t low = 0x8000'0000'0000'0000ULL | (b & 0x3fff'ffff'ffff'ffffULL);

  static constexpr char kHex[] = "0123456789abcdef";
  std::string text(36, '-');
  std::size_t at = 0;
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20) ++at;
    const std::uint64_t half = digit < 16 ? high : low;
    text[at++] = kHex[half >> (60 - 4 * (digit % 16)) & 15];
  }
  return text;
}

std::string make_job_id(std::string_view message_id, std::uint32_t line) {
  char digits[12];
  const auto end = std::to_chars(digits, digits + sizeof digits, line).ptr;
  std::string id;
  id.reserve(message_id.size() + 12);
  id.append(message_id);
  id.push_back('/');
  id.append(digits, static_cast<std::size_t>(end - digits));
  return id;
}

bool split_job_id(std::string_view job_id, std::string_view& message_id, std::uint32_t& line) {
  // The last slash: another producer's message id may hold slashes itself.
  const std::size_t slash = job_id.rfind('/');
  if (slash == std::string_view::npos || slash == 0) return false;
  const std::string_view digits = job_id.substr(slash + 1);
  if (digits.empty() || digits.front() == '0') return false;  // from 1, and one spelling only
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return false;
  message_id = job_id.substr(0, slash);
  line = number;
  return true;
}

}  // namespace leveret::core
