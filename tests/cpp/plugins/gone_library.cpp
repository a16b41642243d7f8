// The library that missing_library.cpp needs and that is not found at run time.
__attribute__((visibility("default"))) int gone(int x);
int gone(int x) { return x; }
