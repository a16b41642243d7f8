/// The fixture of all conformance tests: a fresh broker of the kind under test.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "conformance/side.hpp"

namespace leveret::conformance {

inline void PrintTo(const kind& k, std::ostream* out) { *out << k.name; }  // NOLINT(readability-identifier-naming)

class conformance : public testing::TestWithParam<kind> {
 protected:
  [[nodiscard]] harness& broker() { return *harness_; }
  [[nodiscard]] const traits& promises() const { return GetParam().promises; }
  /// A queue that exists.
  std::string declared(side& s, const std::string& name = "work") {
    const std::string queue = broker().unique(name);
    s.must_declare(queue);
    return queue;
  }
  /// What `returns` is after `returns` unclean ends.
  [[nodiscard]] static std::int32_t counted(side& s, std::int32_t returns) {
    return s.transport().what_it_can().delivery_count ? returns : -1;
  }

 private:
  const std::unique_ptr<harness> harness_ = GetParam().make();
};

}  // namespace leveret::conformance
