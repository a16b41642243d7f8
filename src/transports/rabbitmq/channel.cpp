#include <utility>

#include "connection.hpp"

namespace leveret::core::rabbitmq {
namespace {

// Written at once past this, else at the end of the round.
constexpr std::size_t kWriteBuffered = 1u << 20;

}  // namespace

void channel::call(amqp_method_number_t id, void* method, on_reply then) {
  if (state_ != state::open) {
    if (then) then({call_result::kind::lost, 0, "the channel is closed", nullptr, nullptr});
    return;
  }
  calls_.push_back(std::move(then));
  owner_->send_method(id_, id, method);
}

void channel::send(amqp_method_number_t id, void* method) {
  if (state_ == state::open) owner_->send_method(id_, id, method);
}

bool channel::publish(std::string_view exchange, std::string_view routing_key, const properties& props,
                      const body& data) {
  if (state_ != state::open) return true;  // `on_closed` has told what became of it
  const bool fits = owner_->out_.publish(id_, exchange, routing_key, props, data, owner_->frame_max_);
  if (owner_->out_.size() > kWriteBuffered) owner_->flush();
  return fits;
}

void channel::ack(std::uint64_t tag, bool multiple) {
  amqp_basic_ack_t method{};
  method.delivery_tag = tag;
  method.multiple = multiple ? 1 : 0;
  send(AMQP_BASIC_ACK_METHOD, &method);
}

void channel::requeue(std::uint64_t tag) {
  amqp_basic_nack_t method{};
  method.delivery_tag = tag;
  method.requeue = 1;
  send(AMQP_BASIC_NACK_METHOD, &method);
}

void channel::close() {
  if (state_ != state::open) return;
  amqp_channel_close_t method{};
  method.reply_code = AMQP_REPLY_SUCCESS;
  method.reply_text = as_bytes("done");
  owner_->send_method(id_, AMQP_CHANNEL_CLOSE_METHOD, &method);
  if (state_ != state::open) return;  // lost while sending
  state_ = state::closing;
  events_.reset();
  // The owner keeps the channel until the broker answers: until then frames of it may come.
  std::deque<on_reply> calls;
  calls.swap(calls_);
  for (on_reply& then : calls) {
    if (then) then({call_result::kind::lost, 0, "the channel is closed", nullptr, nullptr});
  }
}

void channel::end(call_result::kind how, std::uint16_t code, const std::string& text) {
  const auto keep = shared_from_this();
  const bool told = state_ == state::open;
  state_ = state::closed;
  owner_ = nullptr;
  std::deque<on_reply> calls;
  calls.swap(calls_);
  for (on_reply& then : calls) {
    if (then) then({how, code, text, nullptr, nullptr});
  }
  if (!told) return;
  if (const auto events = events_.lock())
    events->on_closed(how == call_result::kind::lost ? std::uint16_t{0} : code, text);
}

void channel::reply(const amqp_method_t* method, incoming* message) {
  if (calls_.empty()) return;  // of a channel that is closing
  const auto keep = shared_from_this();
  const on_reply then = std::move(calls_.front());
  calls_.pop_front();
  if (then) then({call_result::kind::done, 0, {}, method, message});
}

}  // namespace leveret::core::rabbitmq
