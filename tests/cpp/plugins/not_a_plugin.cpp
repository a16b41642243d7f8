// A shared object without LEVERET_TASKS.
extern "C" __attribute__((visibility("default"))) int answer() { return 42; }
