# What holds the C++ and the Python codec together, and measures the C++ one: `codec_verdicts` and its test, the
# benchmark; and the fuzz targets: their corpora are tests, libFuzzer and the benchmark are built only by name.

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

foreach(target IN ITEMS properties rows pages)
  add_executable(${target}_corpus fuzz/replay.cpp fuzz/${target}.cpp)
  target_link_libraries(${target}_corpus PRIVATE leveret_core leveret_warnings leveret::rabbitmq)
  add_dependencies(leveret_tests ${target}_corpus)
  add_test(NAME ${target}_corpus COMMAND ${target}_corpus "${PROJECT_SOURCE_DIR}/fuzz/corpus/${target}")
  set_tests_properties(${target}_corpus PROPERTIES TIMEOUT 120)
endforeach()

# What is fuzzed is compiled once more: the fuzzers need its coverage. Only the objects that a target needs are linked.
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(LEVERET_FUZZ_OPTIONS -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
  file(GLOB LEVERET_FUZZED_SOURCES CONFIGURE_DEPENDS src/codec/*.cpp)
  list(APPEND LEVERET_FUZZED_SOURCES src/body.cpp src/ids.cpp src/redelivery.cpp src/transports/rabbitmq/wire.cpp)
  foreach(name IN ITEMS bell database location pages salvage schema store store_control store_records)
    list(APPEND LEVERET_FUZZED_SOURCES src/transports/sqlite/${name}.cpp)
  endforeach()
  add_library(leveret_fuzzed STATIC EXCLUDE_FROM_ALL ${LEVERET_FUZZED_SOURCES})
  target_include_directories(leveret_fuzzed PUBLIC src include)
  target_link_libraries(leveret_fuzzed
    PUBLIC leveret_warnings leveret::simdjson leveret::sqlite leveret::rabbitmq Threads::Threads)
  target_compile_options(leveret_fuzzed PRIVATE -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  foreach(target IN ITEMS codec:decode properties rows pages)
    string(REGEX REPLACE ":.*" "" name "${target}")
    string(REGEX REPLACE ".*:" "" source "${target}")
    add_executable(${name}_fuzzer EXCLUDE_FROM_ALL fuzz/${source}.cpp)
    target_link_libraries(${name}_fuzzer PRIVATE leveret_fuzzed)
    target_compile_options(${name}_fuzzer PRIVATE -g -O1 ${LEVERET_FUZZ_OPTIONS})
    target_link_options(${name}_fuzzer PRIVATE ${LEVERET_FUZZ_OPTIONS})
  endforeach()
endif()
