// A symbol of the right name that is something else.
extern "C" {
extern __attribute__((visibility("default"))) const char leveret_plugin[64];
}
const char leveret_plugin[64] = "something else";
