#include <leveret/producer.hpp>

#include "good.hpp"

// A handler that sends a job itself, through the worker that loaded it: this plugin links no libleveret.
static std::string send_more(const std::string& url, int value) {
  const leveret::producer producer(url);
  return producer.task("add").queue("more").send(value, leveret::arg("y") = 2);
}

void add_more(leveret::task_set& tasks) { tasks.add("send_more", send_more); }
