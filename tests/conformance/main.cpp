// The conformance suite: a transport is accepted when all of it passes. `--gtest_filter='*/sqlite'` runs one transport.
#include "conformance/fixture.hpp"
#include "cpp/support/puppet.hpp"

namespace leveret::conformance {
INSTANTIATE_TEST_SUITE_P(transports, conformance, testing::Values(memory_kind(), sqlite_kind(), rabbitmq_kind()),
                         [](const testing::TestParamInfo<kind>& of) { return of.param.name; });

}  // namespace leveret::conformance

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
