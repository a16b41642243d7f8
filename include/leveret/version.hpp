/// The version of these headers. Two plugins of two header versions stay apart in one process by two things: the inline
/// namespace gives their functions and statics other names, and hidden visibility keeps the dynamic linker from merging
/// them where the names are the same.
#pragma once

#define LEVERET_VERSION_MAJOR 0
#define LEVERET_VERSION_MINOR 1
#define LEVERET_VERSION_PATCH 0
#define LEVERET_VERSION "0.1.0"
#ifndef LEVERET_INLINE_NAMESPACE
#define LEVERET_INLINE_NAMESPACE v0_1
#endif
#define LEVERET_HIDDEN __attribute__((visibility("hidden")))
/// For the few types that users keep as members of types of their own: a member of a hidden type would make g++ warn
/// about every such class. Their functions are hidden one by one.
#define LEVERET_VISIBLE_TYPE __attribute__((visibility("default")))
