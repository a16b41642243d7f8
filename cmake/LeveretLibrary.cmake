# libleveret.so: what C++ programs link (producer, standalone workers). It exports the C ABI functions marked
# LEVERET_EXPORT and nothing else, so that it can share a process with any other copy of the core or of its libraries.
# Installed either under a prefix, or inside the Python package (SKBUILD), which then serves as the prefix.

if(SKBUILD)
  set(LEVERET_LIBDIR lib)
  set(LEVERET_INCLUDEDIR include)
else()
  set(LEVERET_LIBDIR "${CMAKE_INSTALL_LIBDIR}")
  set(LEVERET_INCLUDEDIR "${CMAKE_INSTALL_INCLUDEDIR}")
endif()

add_library(leveret SHARED "${PROJECT_SOURCE_DIR}/cmake/empty.cpp")
add_library(leveret::leveret ALIAS leveret)
target_link_libraries(leveret PRIVATE "$<LINK_LIBRARY:WHOLE_ARCHIVE,leveret_core>")
target_link_options(leveret PRIVATE "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/libleveret.map" -Wl,--as-needed -Wl,--no-undefined)
target_include_directories(leveret INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${LEVERET_INCLUDEDIR}>")
target_compile_features(leveret INTERFACE cxx_std_17)
set_target_properties(leveret PROPERTIES
  SOVERSION ${PROJECT_VERSION_MAJOR}
  LINK_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/libleveret.map")
if(NOT SKBUILD)
  set_target_properties(leveret PROPERTIES VERSION ${PROJECT_VERSION})
endif()

install(DIRECTORY include/leveret DESTINATION "${LEVERET_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
if(SKBUILD)
  # A wheel holds no symbolic links, and a second copy of the library under its link name could be loaded beside the first.
  # The linker reads a text file there as well.
  install(TARGETS leveret EXPORT leveretTargets LIBRARY DESTINATION "${LEVERET_LIBDIR}" NAMELINK_SKIP)
  file(WRITE "${PROJECT_BINARY_DIR}/libleveret.so.ld"
    "/* GNU ld script: link the library of this ABI version. */\nINPUT ( libleveret.so.${PROJECT_VERSION_MAJOR} )\n")
  install(FILES "${PROJECT_BINARY_DIR}/libleveret.so.ld" DESTINATION "${LEVERET_LIBDIR}" RENAME libleveret.so)
else()
  install(TARGETS leveret EXPORT leveretTargets LIBRARY DESTINATION "${LEVERET_LIBDIR}")
endif()

include(CMakePackageConfigHelpers)
set(LEVERET_CMAKEDIR "${LEVERET_LIBDIR}/cmake/leveret")
configure_package_config_file(cmake/leveretConfig.cmake.in "${PROJECT_BINARY_DIR}/leveretConfig.cmake"
  INSTALL_DESTINATION "${LEVERET_CMAKEDIR}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/leveretConfigVersion.cmake" COMPATIBILITY SameMajorVersion)
install(FILES "${PROJECT_BINARY_DIR}/leveretConfig.cmake" "${PROJECT_BINARY_DIR}/leveretConfigVersion.cmake"
  DESTINATION "${LEVERET_CMAKEDIR}")
install(EXPORT leveretTargets NAMESPACE leveret:: DESTINATION "${LEVERET_CMAKEDIR}")

# pkg-config files say where they are relative to themselves: the tree can be moved, and a virtual environment is.
set(LEVERET_PKGCONFIGDIR "${LEVERET_LIBDIR}/pkgconfig")
file(RELATIVE_PATH LEVERET_PC_TO_PREFIX "/p/${LEVERET_PKGCONFIGDIR}" "/p")
configure_file(cmake/leveret.pc.in "${PROJECT_BINARY_DIR}/leveret.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/leveret.pc" DESTINATION "${LEVERET_PKGCONFIGDIR}")
