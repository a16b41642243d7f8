# The system libraries, each as leveret::<name>. A missing one stops the configure step with the Debian package's name,
# since that is what a reader of the message can act on.

function(leveret_missing library package)
  message(FATAL_ERROR "leveret needs ${library}: install ${package} (Debian, Ubuntu: apt-get install ${package}), "
    "or run scripts/setup, which installs what is missing")
endfunction()

find_package(Threads REQUIRED)
find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
  leveret_missing("pkg-config" "pkg-config")
endif()

function(leveret_need name library package)
  pkg_check_modules(LEVERET_${name} QUIET IMPORTED_TARGET GLOBAL ${ARGN})
  if(NOT LEVERET_${name}_FOUND)
    leveret_missing("${library}" "${package}")
  endif()
  add_library(leveret::${name} ALIAS PkgConfig::LEVERET_${name})
endfunction()

leveret_need(rabbitmq "librabbitmq" "librabbitmq-dev" "librabbitmq>=0.11")
leveret_need(hiredis "libhiredis" "libhiredis-dev" "hiredis>=0.14")
leveret_need(simdjson "libsimdjson" "libsimdjson-dev" "simdjson>=3")
leveret_need(sqlite "libsqlite3" "libsqlite3-dev" "sqlite3>=3.40")
leveret_need(openssl "OpenSSL" "libssl-dev" "libssl>=3" "libcrypto>=3")

# Headers only, and Debian's CMake package for it moved between releases.
find_path(LEVERET_CLI11_INCLUDE CLI/CLI.hpp)
if(NOT LEVERET_CLI11_INCLUDE)
  leveret_missing("CLI11" "libcli11-dev")
endif()
add_library(leveret_cli11 INTERFACE)
add_library(leveret::cli11 ALIAS leveret_cli11)
if(NOT LEVERET_CLI11_INCLUDE STREQUAL "/usr/include")
  target_include_directories(leveret_cli11 SYSTEM INTERFACE "$<BUILD_INTERFACE:${LEVERET_CLI11_INCLUDE}>")
endif()
