# One program per tests/cpp/*_test.cpp, and one for the conformance suite, which is told transports by its own sources.
# ctest runs whole programs: what is dear to start (a broker) is started once a program. Other sources of tests/cpp are
# helpers of all tests.

find_package(GTest QUIET)
if(NOT GTest_FOUND)
  leveret_missing("GoogleTest" "libgtest-dev")
endif()

file(GLOB LEVERET_TEST_SOURCES CONFIGURE_DEPENDS tests/cpp/*_test.cpp)
file(GLOB LEVERET_CONFORMANCE_SOURCES CONFIGURE_DEPENDS tests/conformance/*.cpp)
file(GLOB LEVERET_TEST_HELPERS CONFIGURE_DEPENDS tests/cpp/*.cpp tests/cpp/support/*.cpp)
if(LEVERET_TEST_SOURCES)
  list(REMOVE_ITEM LEVERET_TEST_HELPERS ${LEVERET_TEST_SOURCES})
endif()

add_library(leveret_test_base INTERFACE)
target_link_libraries(leveret_test_base INTERFACE leveret_core leveret_warnings GTest::gtest GTest::gtest_main)
target_include_directories(leveret_test_base INTERFACE "${PROJECT_SOURCE_DIR}/tests")
target_compile_definitions(leveret_test_base INTERFACE
  LEVERET_SOURCE_DIR="${PROJECT_SOURCE_DIR}" LEVERET_BINARY_DIR="${PROJECT_BINARY_DIR}")
# Compiling is what tests cost. Their own code is not what is to be fast, and the two checks that make up most of
# UndefinedBehaviorSanitizer's code stay for the core and the plugins.
target_compile_options(leveret_test_base INTERFACE -O0)
if("undefined" IN_LIST LEVERET_SANITIZERS)
  target_compile_options(leveret_test_base INTERFACE -fno-sanitize=null,alignment)
endif()
if(LEVERET_TEST_HELPERS)
  add_library(leveret_test_helpers STATIC ${LEVERET_TEST_HELPERS})
  target_link_libraries(leveret_test_helpers PUBLIC leveret_test_base)
  if(LEVERET_SANITIZE)
    # As for the core: no cache helps there, so GoogleTest's headers are read once. Position-independent as programs are,
    # not as libraries are, because these share them.
    set_target_properties(leveret_test_helpers PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(leveret_test_helpers PRIVATE -fPIE)
    target_precompile_headers(leveret_test_helpers PRIVATE
      <gtest/gtest.h> <algorithm> <atomic> <chrono> <condition_variable> <deque> <functional> <map> <memory> <mutex>
      <optional> <string> <string_view> <thread> <unordered_map> <vector>)
  endif()
endif()

# What a stage of `make test` builds: no library that no test needs.
add_custom_target(leveret_tests)

function(leveret_test name)
  add_executable(${name} ${ARGN})
  add_dependencies(leveret_tests ${name})
  target_link_libraries(${name} PRIVATE leveret_test_base)
  if(TARGET leveret_test_helpers)
    target_link_libraries(${name} PRIVATE leveret_test_helpers)
    if(LEVERET_SANITIZE)
      target_precompile_headers(${name} REUSE_FROM leveret_test_helpers)
    endif()
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()

# What takes longest starts first, so that no core is left with it at the end.
function(leveret_test_is_long cost)
  foreach(name IN LISTS ARGN)
    if(TEST ${name})
      set_tests_properties(${name} PROPERTIES COST ${cost})
    endif()
  endforeach()
endfunction()

foreach(source IN LISTS LEVERET_TEST_SOURCES)
  get_filename_component(name "${source}" NAME_WE)
  leveret_test(${name} "${source}")
endforeach()
if(LEVERET_CONFORMANCE_SOURCES)
  leveret_test(conformance_test ${LEVERET_CONFORMANCE_SOURCES})
endif()

# Ten thousand runs are worth a slower build; sanitizers see fewer.
if(NOT LEVERET_SANITIZE)
  set_property(SOURCE tests/cpp/simulation_test.cpp APPEND PROPERTY COMPILE_OPTIONS -O2)
endif()

leveret_test_is_long(90 rabbitmq_test simulation_test)
leveret_test_is_long(60 conformance_test)
leveret_test_is_long(30 sqlite_upkeep_test sqlite_power_cut_test sqlite_processes_test sqlite_test)

include("${PROJECT_SOURCE_DIR}/tests/cpp/plugins.cmake" OPTIONAL)
