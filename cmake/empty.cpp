// CMake wants a source for a shared library that is made of a static one.
