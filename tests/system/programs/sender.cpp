// Sends one job, or the same one several times, as a user's program does: URL QUEUE TASK ARGUMENT [SETTING=VALUE]…, the
// argument being JSON. Prints the ids, or what went wrong.
#include <iostream>
#include <leveret/producer.hpp>
#include <stdexcept>
#include <string>

int main(int argc, char** argv) {
  try {
    if (argc < 5) throw std::invalid_argument("URL QUEUE TASK ARGUMENT [SETTING=VALUE]…");
    const leveret::producer producer(argv[1]);
    unsigned long times = 1;
    leveret::task_sender task = producer.task(argv[3]).queue(argv[2]);
    for (int i = 5; i < argc; ++i) {
      const std::string word = argv[i];
      const std::string name = word.substr(0, word.find('='));
      const std::string value = word.substr(name.size() + 1);
      if (name == "key") {
        task.key(value);
      } else if (name == "times") {
        times = std::stoul(value);
      } else if (name == "shards") {
        task.shards(static_cast<std::uint32_t>(std::stoul(value)));
      } else if (name == "idempotency_key") {
        task.idempotency_key(value);
      } else if (name == "unique_until") {
        task.unique_until(value == "start" ? leveret::until::start : leveret::until::end);
      } else {
        throw std::invalid_argument("no setting " + name);
      }
    }
    for (; times > 0; --times) std::cout << task.send(leveret::json(std::string(argv[4]))) << "\n";
    return 0;
  } catch (const std::exception& wrong) {
    std::cerr << wrong.what() << "\n";
    return 1;
  }
}
