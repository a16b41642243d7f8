# What holds the C++ and the Python codec together, and measures the C++ one: `codec_verdicts` and its test, the libFuzzer
# target, the benchmark. The last two are built only by name.

add_executable(codec_verdicts fuzz/verdicts.cpp)
target_link_libraries(codec_verdicts PRIVATE leveret_core leveret_warnings)
add_dependencies(leveret_tests codec_verdicts)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME codec_differential
  COMMAND Python3::Interpreter "${PROJECT_SOURCE_DIR}/fuzz/differential.py" --program $<TARGET_FILE:codec_verdicts>
          --seconds 4)
set_tests_properties(codec_differential PROPERTIES TIMEOUT 120)

add_executable(codec_benchmark EXCLUDE_FROM_ALL benchmarks/codec.cpp)
target_link_libraries(codec_benchmark PRIVATE leveret_core leveret_warnings)

# The codec is compiled once more: the fuzzer needs its coverage.
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  file(GLOB LEVERET_CODEC_SOURCES CONFIGURE_DEPENDS src/codec/*.cpp)
  add_executable(codec_fuzzer EXCLUDE_FROM_ALL fuzz/decode.cpp ${LEVERET_CODEC_SOURCES})
  target_include_directories(codec_fuzzer PRIVATE src include)
  target_link_libraries(codec_fuzzer PRIVATE leveret_warnings leveret::simdjson)
  target_compile_options(codec_fuzzer PRIVATE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
  target_link_options(codec_fuzzer PRIVATE -fsanitize=fuzzer,address,undefined)
endif()
