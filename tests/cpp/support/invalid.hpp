/// What senseless calls say.
#pragma once

#include <stdexcept>
#include <string>

/// The text of the std::invalid_argument that `f` throws; empty: it throws none.
template <class F>
std::string invalid(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& wrong) {
    return wrong.what();
  }
  return {};
}
