# leveret._core, and the plugin that `leveret demo` runs. The install prefix is the Python package's folder.

find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
if(NOT nanobind_DIR)
  # scikit-build-core says where nanobind is; a plain cmake asks the interpreter.
  execute_process(COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
    OUTPUT_VARIABLE nanobind_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
find_package(nanobind CONFIG REQUIRED)

file(GLOB LEVERET_BINDINGS CONFIGURE_DEPENDS bindings/*.cpp)
if(LEVERET_BINDINGS)
  # Neither nanobind's headers nor Python's compile under -Wconversion: both are system headers.
  nanobind_add_module(_core NB_STATIC NOMINSIZE NB_SUPPRESS_WARNINGS ${LEVERET_BINDINGS})
  target_include_directories(_core SYSTEM PRIVATE ${Python_INCLUDE_DIRS})
  target_link_libraries(_core PRIVATE leveret_core leveret_warnings)
  # For `leveret doctor`: the core's libraries, as found when this was built.
  target_compile_definitions(_core PRIVATE
    LEVERET_BUILT_RABBITMQ="${LEVERET_rabbitmq_VERSION}" LEVERET_BUILT_SQLITE="${LEVERET_sqlite_VERSION}"
    LEVERET_BUILT_OPENSSL="${LEVERET_openssl_libssl_VERSION}" LEVERET_BUILT_SIMDJSON="${LEVERET_simdjson_VERSION}"
    LEVERET_BUILT_HIREDIS="${LEVERET_hiredis_VERSION}")
  install(TARGETS _core LIBRARY DESTINATION .)
endif()

if(EXISTS "${PROJECT_SOURCE_DIR}/examples/quickstart/worker_sim.cpp")
  # Compiled as a user's plugin is: by the public headers alone. It links no libleveret, which would bring a second copy
  # of the core into the process of the worker that loads it.
  add_library(leveret_demo MODULE examples/quickstart/worker_sim.cpp)
  target_include_directories(leveret_demo PRIVATE include)
  target_link_libraries(leveret_demo PRIVATE leveret_warnings)
  set_target_properties(leveret_demo PROPERTIES PREFIX "" OUTPUT_NAME demo)
  install(TARGETS leveret_demo LIBRARY DESTINATION plugins)
endif()
