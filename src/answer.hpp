/// A blocking call over a transport's callback.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <utility>

#include "transport.hpp"

namespace leveret::core {

/// Where a blocking call waits for its callback. Shared with the callback, which may come after the waiter gave up.
template <class T>
struct answer {
  std::promise<std::pair<T, maybe_failure>> promise;

  static std::shared_ptr<answer> make() { return std::make_shared<answer>(); }
  std::function<void(T, maybe_failure)> callback(const std::shared_ptr<answer>& self) {
    return [self](T value, maybe_failure why) { self->promise.set_value({std::move(value), std::move(why)}); };
  }
  T get() {
    auto [value, why] = promise.get_future().get();
    if (why) throw_error(why->code, why->text);
    return std::move(value);
  }
};

}  // namespace leveret::core
