// Permissions: configure, write and read, three patterns a user and vhost; rabbitmqctl set_permissions makes them.
#include "operations.hpp"

namespace leveret::core::rabbitmq {

// From RabbitMQ 3.12 on the text says which: "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/'
// refused for user 'u'"; before, "access to exchange …". Of exchanges a declaration needs the permission to write alone
// (it dead-letters to the default one), of the queue itself to configure and to read.
std::string access_remedy(std::uint16_t code, std::string_view text, std::string_view permission) {
  if (code != AMQP_ACCESS_REFUSED) return {};
  for (const std::string_view named : {"configure", "write", "read"}) {
    if (text.find(" - " + std::string(named) + " access to") != std::string_view::npos) permission = named;
  }
  if (text.find(" - access to exchange") != std::string_view::npos) permission = "write";
  return "the user of the url needs the " + std::string(permission) +
         " permission for it: rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ, three patterns of names";
}

namespace {

struct access_check {
  std::string queue;
  std::string name;
  std::function<void(maybe_failure)> then;
};
using checking = std::shared_ptr<access_check>;

void may_not(operation& op, const checking& c, const char* verb, const char* permission, const call_result& r) {
  const std::string remedy = access_remedy(r.code, r.text, permission);
  op.fail({errc::refused, std::string("the user of the url may not ") + verb + " queues like \"" + c->queue + "\": " +
                              r.text + " (" + std::to_string(r.code) + ")" + (remedy.empty() ? "" : "; " + remedy)});
}

void try_write(operation& op, const checking& c) {
  // Publishing has no answer: a refusal is the next call's.
  op.publish(c->name);
  amqp_queue_delete_t remove{};
  remove.queue = as_bytes(c->name);
  op.call(AMQP_QUEUE_DELETE_METHOD, &remove, [&op, c](const call_result& r) {
    if (!r.done()) return may_not(op, c, "publish to", "write", r);
    op.finish();
    c->then({});
  });
}

void try_read(operation& op, const checking& c) {
  amqp_basic_get_t get{};
  get.queue = as_bytes(c->name);
  op.call(AMQP_BASIC_GET_METHOD, &get, [&op, c](const call_result& r) {
    if (!r.done()) return may_not(op, c, "consume", "read", r);
    try_write(op, c);
  });
}

}  // namespace

void check_queue_access(operations& ops, const std::string& queue, const std::string& ending,
                        std::function<void(maybe_failure)> then) {
  const auto c = std::make_shared<access_check>(access_check{queue, queue + ending, std::move(then)});
  ops.run(
      "try what this user may do with queue \"" + queue + "\"",
      [c](operation& op) {
        amqp_queue_declare_t declare{};
        declare.queue = as_bytes(c->name);
        declare.exclusive = 1;
        op.call(AMQP_QUEUE_DECLARE_METHOD, &declare, [&op, c](const call_result& r) {
          if (!r.done()) return may_not(op, c, "declare", "configure", r);
          try_read(op, c);
        });
      },
      [c](failure why) { c->then(std::move(why)); });
}

}  // namespace leveret::core::rabbitmq
