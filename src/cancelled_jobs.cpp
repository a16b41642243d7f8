#include "cancelled_jobs.hpp"

#include <mutex>
#include <utility>

namespace leveret::core {

void cancelled_jobs::add(std::string id) {
  const std::unique_lock lock(mutex_);
  const auto [place, fresh] = ids_.insert(std::move(id));
  if (!fresh) return;
  order_.push_back(&*place);
  if (order_.size() > kMost) {
    ids_.erase(*order_.front());
    order_.pop_front();
  }
  any_.store(true, std::memory_order_release);
}

bool cancelled_jobs::find(std::string_view id) const {
  const std::shared_lock lock(mutex_);
  return ids_.count(std::string(id)) != 0;
}

}  // namespace leveret::core
