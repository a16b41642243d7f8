#pragma once

#include <leveret/worker.hpp>

void add_more(leveret::task_set& tasks);
