// leveret: a key is a string or an integer
#include <leveret/producer.hpp>

void send(const leveret::producer& producer) { producer.task("t").key(true).send(); }
