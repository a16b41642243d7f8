/* The C ABI between a host (the worker, libleveret) and a plugin.
 *
 * A plugin is a shared object that exports one symbol, `leveret_plugin`. The host reads the version first and refuses
 * another LEVERET_ABI_VERSION with a sentence; then it hands over its function table, and the plugin registers its
 * tasks. No C++ type crosses: plugins built by another compiler, another C++ library or another version of these
 * headers run side by side in one worker. Both tables grow only at the end; `size` says how much of one is there.
 *
 * Threads: `call` of a shared handler is called from every pool thread at once; a per-thread handler is called only by
 * the thread that made it. All views and values live until `call` returns.
 */
#ifndef LEVERET_ABI_H
#define LEVERET_ABI_H

#include <stddef.h>
#include <stdint.h>

/* What a plugin or libleveret exports, whatever -fvisibility says. */
#define LEVERET_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define LEVERET_ABI_VERSION 1u
#define LEVERET_PLUGIN_SYMBOL "leveret_plugin"

/* A view of UTF-8 bytes, not terminated. */
typedef struct leveret_string {
  const char* data;
  size_t size;
} leveret_string;

/* A handle on a JSON value inside the line being run. Copied freely; opaque to the plugin. */
typedef struct leveret_value {
  const void* document;
  size_t index;
} leveret_value;

typedef enum leveret_kind {
  LEVERET_NULL = 0,
  LEVERET_BOOLEAN = 1,
  LEVERET_INTEGER = 2,  /* fits int64_t */
  LEVERET_UNSIGNED = 3, /* above 2^63-1, fits uint64_t */
  LEVERET_DOUBLE = 4,
  LEVERET_STRING = 5,
  LEVERET_ARRAY = 6,
  LEVERET_OBJECT = 7
} leveret_kind;

/* What `arguments` gives for a job that has none of its own. */
#define LEVERET_FOREIGN SIZE_MAX

/* The position of an iteration over an array or object; written by `begin`, opaque to the plugin. */
typedef struct leveret_iterator {
  size_t opaque[4];
} leveret_iterator;

typedef enum leveret_log_level {
  LEVERET_DEBUG = 0,
  LEVERET_INFO = 1,
  LEVERET_WARNING = 2,
  LEVERET_ERROR = 3
} leveret_log_level;

/* What `call` returns. */
typedef enum leveret_outcome {
  LEVERET_SUCCEEDED = 0,     /* the result, if any, was written */
  LEVERET_FAILED = 1,        /* an exception: retried up to max_retries, then dead; text set by `fail` */
  LEVERET_REJECTED = 2,      /* dead at once, by the handler's own decision */
  LEVERET_RETRY_AFTER = 3,   /* retried after the delay set by `fail` */
  LEVERET_BAD_ARGUMENTS = 4, /* dead at once: the arguments do not fit the signature */
  LEVERET_BAD_RESULT = 5     /* dead at once: the result has no JSON form (NaN, bytes that are not UTF-8) */
} leveret_outcome;

/* One attempt. Owned by the host; valid during `call`. */
typedef struct leveret_call leveret_call;
/* Where tasks are registered. Owned by the host; valid during `register_tasks`. */
typedef struct leveret_registry leveret_registry;
/* What a program or plugin can ask of Leveret itself: leveret/library.h. */
typedef struct leveret_library leveret_library;

/* A task. Copied by `add_task`; strings too. Once added, `state` is the host's, who ends it by `destroy_state`; a task
 * that was refused stays the plugin's. */
typedef struct leveret_task {
  size_t size; /* sizeof(leveret_task) of the plugin's headers */
  leveret_string name;
  leveret_string queue; /* empty: the default of native tasks */
  int32_t max_retries;  /* -1: not said */
  int32_t per_thread;   /* 1: `make` is called once on each pool thread, at the thread's first job of this task */
  void* state;          /* shared handler: passed to `call` as `self`; per-thread: passed to `make` */
  leveret_string
      signature; /* JSON for people and `--describe`: {"args":[{"name","type","required"}…],"returns":type} */
  /* Makes a thread's own handler; called by several threads at once. NULL on failure, after the host's `fail`. */
  void* (*make)(void* state, leveret_call* call);
  leveret_outcome (*call)(void* self, leveret_call* call);
  void (*destroy_self)(void* self);   /* a thread's own handler; NULL for shared ones */
  void (*destroy_state)(void* state); /* when the registry ends; may be NULL */
} leveret_task;

/* The host's functions. */
typedef struct leveret_host {
  uint32_t abi_version;
  uint32_t size; /* sizeof(leveret_host) of the host */

  /* Registering. Returns NULL, or why not (lives until the next call on this thread). */
  const char* (*add_task)(leveret_registry* registry, const leveret_task* task);
  /* Says why `register_tasks` is about to return 0. */
  void (*refuse)(leveret_registry* registry, const char* text, size_t n);

  /* The arguments: an array and an object; either may be empty. */
  leveret_value (*args)(leveret_call* call);
  leveret_value (*kwargs)(leveret_call* call);
  /* 1 for a job of a producer that does not know Leveret, handed to a default task: its whole object is the handler's
   * one argument. 0 for all others. */
  int (*foreign)(leveret_call* call, leveret_value* whole);

  /* Reading a value. A getter of another kind returns 0 and leaves *out alone; `integer` also refuses what does not
   * fit. */
  leveret_kind (*kind)(leveret_value value);
  int (*get_integer)(leveret_value value, int64_t* out);
  int (*get_unsigned)(leveret_value value, uint64_t* out);
  int (*get_double)(leveret_value value, double* out); /* integers too, converted */
  int (*get_boolean)(leveret_value value, int* out);
  int (*get_string)(leveret_value value, leveret_string* out);
  size_t (*size_of)(leveret_value value); /* elements or members; 0 for scalars */
  void (*begin)(leveret_value value, leveret_iterator* out);
  /* 1 and the next element (and its key, in an object), or 0 at the end. `key` may be NULL. */
  int (*next)(leveret_iterator* iterator, leveret_string* key, leveret_value* out);
  /* The value as JSON text without white space, until `call` returns. */
  leveret_string (*raw)(leveret_call* call, leveret_value value);

  /* Writing the result: one value. Commas are the host's. A second top-level value is ignored. */
  void (*write_null)(leveret_call* call);
  void (*write_boolean)(leveret_call* call, int value);
  void (*write_integer)(leveret_call* call, int64_t value);
  void (*write_unsigned)(leveret_call* call, uint64_t value);
  int (*write_double)(leveret_call* call, double value);               /* 0: NaN and infinities are not JSON */
  int (*write_string)(leveret_call* call, const char* data, size_t n); /* 0: not UTF-8 */
  int (*write_raw)(leveret_call* call, const char* data, size_t n);    /* 0: not one JSON value */
  void (*begin_array)(leveret_call* call);
  void (*end_array)(leveret_call* call);
  void (*begin_object)(leveret_call* call);
  int (*write_key)(leveret_call* call, const char* data, size_t n);
  void (*end_object)(leveret_call* call);

  /* Says why, before `call` returns something other than LEVERET_SUCCEEDED. `delay_ms` counts for LEVERET_RETRY_AFTER.
   * Texts are cut at 4 KiB. */
  void (*fail)(leveret_call* call, const char* text, size_t n, int64_t delay_ms);

  /* The job. */
  leveret_string (*job_id)(leveret_call* call);
  leveret_string (*task_name)(leveret_call* call);
  leveret_string (*queue)(leveret_call* call);
  uint32_t (*retry_count)(leveret_call* call);
  int64_t (*deadline_ms)(leveret_call* call); /* Unix time in ms; 0: none */
  int (*stopping)(leveret_call* call);        /* 1 once the worker was asked to stop */
  void (*log)(leveret_call* call, leveret_log_level level, const char* text, size_t n);

  /* For handlers that send jobs themselves: the library inside the host, so that no plugin links libleveret. */
  const leveret_library* (*library)(void);

  int (*cancelled)(leveret_call* call); /* 1 once somebody wished that the job ends */
  /* How far the job is, from 0 to 1, or less than 0 where nobody knows. The latest of each 100 ms is told on. 0: the
   * fraction is more than 1, the text is not UTF-8 or has more than 1,000 bytes. */
  int (*set_progress)(leveret_call* call, double fraction, const char* text, size_t n);

  /* What `foreign`, `args`, `kwargs`, `size_of`, `begin` and `next` say, in one call: the number of positional
   * arguments, the first `most` of them in `values`, and the number of keyword arguments. LEVERET_FOREIGN: the job is
   * foreign, and nothing is written. */
  size_t (*arguments)(leveret_call* call, leveret_value* values, size_t most, size_t* keywords);
} leveret_host;

/* What the symbol `leveret_plugin` is. */
typedef struct leveret_plugin_info {
  char magic[8]; /* "leveret" and a NUL */
  uint32_t abi_version;
  uint32_t size;              /* sizeof(leveret_plugin_info) of the plugin */
  const char* header_version; /* the headers' own version, for messages */
  /* Registers all tasks. 1, or 0 after the host's `refuse`. */
  int (*register_tasks)(const leveret_host* host, leveret_registry* registry);
} leveret_plugin_info;

#ifdef __cplusplus
}
#endif
#endif
