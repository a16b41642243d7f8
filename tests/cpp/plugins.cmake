# The plugins that plugin_test loads, compiled as a user's are: by the public headers alone, without libleveret; and the
# sources that must not compile, each with its message in its first line.

set(LEVERET_TEST_PLUGINS "${PROJECT_BINARY_DIR}/test_plugins")
set(LEVERET_PLUGIN_SOURCES "${PROJECT_SOURCE_DIR}/tests/cpp/plugins")
set(LEVERET_USER_WARNINGS -Wall -Wextra -Wconversion -Wshadow -pedantic -Werror)

function(leveret_test_plugin name)
  list(TRANSFORM ARGN PREPEND "${LEVERET_PLUGIN_SOURCES}/")
  add_library(plugin_${name} MODULE ${ARGN})
  target_compile_options(plugin_${name} PRIVATE ${LEVERET_USER_WARNINGS})
  target_include_directories(plugin_${name} PRIVATE "${PROJECT_SOURCE_DIR}/include")
  set_target_properties(plugin_${name} PROPERTIES
    PREFIX "" OUTPUT_NAME ${name} LIBRARY_OUTPUT_DIRECTORY "${LEVERET_TEST_PLUGINS}")
  add_dependencies(plugin_test plugin_${name})
endfunction()

foreach(name not_a_plugin other_version other_magic newer_headers missing_symbol missing_library no_tasks bad_tasks
    throwing_tasks same_task)
  leveret_test_plugin(${name} ${name}.cpp)
endforeach()
leveret_test_plugin(good good.cpp good_more.cpp)
leveret_test_plugin(plain plain.c)

# A library that is there when the plugin is linked and not where it is loaded.
add_library(leveret_gone SHARED "${LEVERET_PLUGIN_SOURCES}/gone_library.cpp")
set_target_properties(leveret_gone PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${LEVERET_TEST_PLUGINS}/gone")
target_link_libraries(plugin_missing_library PRIVATE leveret_gone)
set_target_properties(plugin_missing_library PROPERTIES SKIP_BUILD_RPATH TRUE)

# Headers of another version: another inline namespace.
set(LEVERET_OTHER_HEADERS "${PROJECT_BINARY_DIR}/other_headers")
file(GLOB LEVERET_PUBLIC_HEADERS CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/leveret/*")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${LEVERET_PUBLIC_HEADERS})
foreach(header IN LISTS LEVERET_PUBLIC_HEADERS)
  get_filename_component(name "${header}" NAME)
  configure_file("${header}" "${LEVERET_OTHER_HEADERS}/leveret/${name}" COPYONLY)
endforeach()
file(READ "${PROJECT_SOURCE_DIR}/include/leveret/version.hpp" LEVERET_OTHER_VERSION)
string(REGEX REPLACE "(LEVERET_INLINE_NAMESPACE) v[0-9_]+" "\\1 v99_0" LEVERET_OTHER_VERSION "${LEVERET_OTHER_VERSION}")
string(REGEX REPLACE "(LEVERET_VERSION) \"[0-9.]+\"" "\\1 \"99.0.0\"" LEVERET_OTHER_VERSION "${LEVERET_OTHER_VERSION}")
file(CONFIGURE OUTPUT "${LEVERET_OTHER_HEADERS}/leveret/version.hpp" CONTENT "${LEVERET_OTHER_VERSION}" @ONLY)

# The same name in the same namespace, in another layout, and in another namespace. Visible by default: the headers must do
# without -fvisibility=hidden, though `leveret build` gives it.
set(LEVERET_SIZE_first 16)
set(LEVERET_SIZE_second 65536)
set(LEVERET_SIZE_third 4096)
set(fill 1)
foreach(name first second third)
  leveret_test_plugin(${name} versioned.cpp)
  target_compile_definitions(plugin_${name} PRIVATE
    LEVERET_TEST_TASK="${name}" LEVERET_TEST_SIZE=${LEVERET_SIZE_${name}} LEVERET_TEST_FILL=${fill})
  set_target_properties(plugin_${name} PROPERTIES CXX_VISIBILITY_PRESET default VISIBILITY_INLINES_HIDDEN OFF)
  math(EXPR fill "${fill} + 1")
endforeach()
set_target_properties(plugin_third PROPERTIES INCLUDE_DIRECTORIES "${LEVERET_OTHER_HEADERS}")

# One source is a plugin and a program.
add_executable(standalone_worker "${PROJECT_SOURCE_DIR}/examples/quickstart/worker_sim.cpp")
target_compile_options(standalone_worker PRIVATE ${LEVERET_USER_WARNINGS})
target_link_libraries(standalone_worker PRIVATE leveret)
add_dependencies(leveret_tests standalone_worker)
add_test(NAME standalone_worker_describes_its_tasks COMMAND standalone_worker --describe)
set_tests_properties(standalone_worker_describes_its_tasks PROPERTIES PASS_REGULAR_EXPRESSION
  "\"task\":\"work\".*\"name\":\"value\",\"type\":\"integer\",\"required\":false")

# These ask the compiler alone, the same in every build: once is enough.
if(NOT LEVERET_SANITIZE)
  file(GLOB LEVERET_REFUSED_SOURCES CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/refused/*.cpp")
endif()
foreach(source IN LISTS LEVERET_REFUSED_SOURCES)
  get_filename_component(name "${source}" NAME_WE)
  file(STRINGS "${source}" message LIMIT_COUNT 1)
  string(REPLACE "// " "" message "${message}")
  set(what -fsyntax-only)
  if(name STREQUAL "no_library")
    set(what -o "${PROJECT_BINARY_DIR}/refused_${name}")
  endif()
  add_test(NAME compiler_refuses_${name}
    COMMAND "${CMAKE_CXX_COMPILER}" -std=c++17 ${what} "-I${PROJECT_SOURCE_DIR}/include" "${source}")
  set_tests_properties(compiler_refuses_${name} PROPERTIES PASS_REGULAR_EXPRESSION "${message}")
endforeach()

# What process pools start in the tests.
add_executable(pool_child "${PROJECT_SOURCE_DIR}/tests/cpp/children/pool_child.cpp")
target_link_libraries(pool_child PRIVATE leveret_core leveret_warnings)
add_dependencies(leveret_tests pool_child)

# What failpoints_test kills: it has the points of the core that it is linked with.
add_executable(failpoint_worker "${PROJECT_SOURCE_DIR}/tests/cpp/children/failpoint_worker.cpp")
target_link_libraries(failpoint_worker PRIVATE leveret_core leveret_warnings)
add_dependencies(failpoints_test failpoint_worker)
