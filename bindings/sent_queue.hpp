/// What became of jobs that were sent without waiting, for an event loop: the core's threads put it in, the loop takes
/// it out when the file descriptor says so. No thread of the core's ever takes the GIL for it.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "bindings.hpp"
#include "client.hpp"

namespace leveret::bindings {

/// Where a job that was sent is: its message, with 0 jobs if nothing was stored because the job is there already.
[[nodiscard]] core::published place_of(const core::sent_job& sent);

class sent_queue {
 public:
  struct answer {
    std::uint64_t ticket = 0;
    core::sent_job job;
    std::exception_ptr failed;
  };
  /// The part that outlives the Python object while answers are on their way.
  class content {
   public:
    content();  // throws std::system_error
    ~content();
    content(const content&) = delete;
    content& operator=(const content&) = delete;
    void put(answer a);
    [[nodiscard]] std::vector<answer> take();
    [[nodiscard]] int file() const noexcept { return file_; }

   private:
    int file_;
    std::mutex mutex_;  // a leaf
    std::vector<answer> answers_;
  };

  [[nodiscard]] const std::shared_ptr<content>& shared() const noexcept { return content_; }

 private:
  std::shared_ptr<content> content_ = std::make_shared<content>();
};

}  // namespace leveret::bindings
