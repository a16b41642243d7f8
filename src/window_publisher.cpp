#include "window_publisher.hpp"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace leveret::core {

void throw_outcome(const publish_outcome& outcome) {
  const errc code = outcome.status == publish_status::refused ? errc::refused : outcome.why.code;
  throw_error(code, outcome.why.text);
}

namespace {

/// Fills messages and keeps at most a window of them unanswered.
class window_publisher final : public batch_publisher {
 public:
  window_publisher(const client_options& options, publish_lines publish)
      : options_(options), publish_(std::move(publish)), shared_(std::make_shared<answers>()) {
    lines_.reserve(options_.batch_bytes + 4'096);
  }
  ~window_publisher() override = default;

  void add(std::string_view line) override { add_lines(line, 1); }

  void add_lines(std::string_view lines, std::uint32_t jobs) override {
    if (jobs_ > 0 && lines_.size() + lines.size() > options_.batch_bytes) send();
    if (lines.size() <= options_.batch_bytes || jobs == 1) {
      lines_.append(lines);
      jobs_ += jobs;
      if (lines_.size() >= options_.batch_bytes) send();
      return;
    }
    while (!lines.empty()) {
      const std::size_t end = lines.find('\n');
      const std::size_t size = end == std::string_view::npos ? lines.size() : end + 1;
      add_lines(lines.substr(0, size), 1);
      lines.remove_prefix(size);
    }
  }

  void finish() override {
    if (jobs_ > 0) send();
    std::unique_lock<std::mutex> lock(shared_->mutex);
    shared_->changed.wait(lock, [this] { return shared_->answered == sent_.size(); });
    collect();
    if (shared_->failed) throw_outcome(*shared_->failed);
  }

  [[nodiscard]] const std::vector<published>& accepted() const override { return accepted_; }

 private:
  struct answers {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t answered = 0;
    std::uint64_t bytes_open = 0;
    std::vector<publish_status> status;
    std::optional<publish_outcome> failed;
    std::size_t first_failed = SIZE_MAX;
  };

  void send() {
    {
      std::unique_lock<std::mutex> lock(shared_->mutex);
      shared_->changed.wait(lock, [this] {
        return shared_->failed || (shared_->bytes_open < options_.lim.confirm_window_bytes &&
                                   sent_.size() - shared_->answered < options_.lim.confirm_window_messages);
      });
      if (shared_->failed) {
        shared_->changed.wait(lock, [this] { return shared_->answered == sent_.size(); });
        collect();
        lines_.clear();
        jobs_ = 0;
        throw_outcome(*shared_->failed);
      }
      shared_->bytes_open += lines_.size();
      shared_->status.push_back(publish_status::unknown);
    }
    const std::size_t index = sent_.size();
    const std::uint64_t bytes = lines_.size();
    const auto answered = [shared = shared_, index, bytes](const publish_outcome& outcome) {
      const std::lock_guard<std::mutex> lock(shared->mutex);
      ++shared->answered;
      shared->bytes_open -= bytes;
      shared->status[index] = outcome.status;
      if (outcome.status != publish_status::accepted && index < shared->first_failed) {
        shared->failed = outcome;
        shared->first_failed = index;
      }
      shared->changed.notify_all();
    };
    try {
      sent_.push_back(publish_(lines_, jobs_, answered));
    } catch (const error& why) {
      // Closed before the transport had it. The answers still to come decide what was accepted.
      sent_.push_back({});
      answered({publish_status::unknown, {why.code(), why.what()}, {}});
    }
    lines_.clear();
    jobs_ = 0;
  }

  void collect() {
    accepted_.clear();
    for (std::size_t i = 0; i < sent_.size() && i < shared_->first_failed; ++i) accepted_.push_back(sent_[i]);
  }

  const client_options& options_;
  publish_lines publish_;
  std::shared_ptr<answers> shared_;
  std::string lines_;
  std::uint32_t jobs_ = 0;
  std::vector<published> sent_;
  std::vector<published> accepted_;
};

}  // namespace

std::unique_ptr<batch_publisher> make_window_publisher(const client_options& options, publish_lines publish) {
  return std::make_unique<window_publisher>(options, std::move(publish));
}

}  // namespace leveret::core
