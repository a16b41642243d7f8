/* The C ABI of Leveret itself, for programs and plugins that send jobs or are workers: one table of functions.
 *
 * A program links libleveret.so, which exports `leveret_get_library` and nothing else. A plugin does not: it gets the
 * same table from its host (`leveret_host.library`). The table grows only at the end; `size` says how much of it is
 * there.
 *
 * Functions that can fail return 0, or one of the numbers of leveret::errc (leveret/error.hpp); `last_error` then gives
 * the text. C++ programs use leveret/producer.hpp and leveret/worker.hpp, which are made of this.
 */
#ifndef LEVERET_LIBRARY_H
#define LEVERET_LIBRARY_H

#include <leveret/abi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open connection to a broker. Thread-safe, except for its closing. */
typedef struct leveret_producer leveret_producer;
/* A stream of jobs being sent. One thread at a time. */
typedef struct leveret_batch leveret_batch;

/* Until when a job that is to be there once holds its key; its window ends it in any case. */
typedef enum leveret_until {
  LEVERET_UNTIL_WINDOW = 0, /* nothing else does */
  LEVERET_UNTIL_START = 1,  /* its handler is about to begin */
  LEVERET_UNTIL_END = 2     /* it has ended; a retry is no end */
} leveret_until;

/* Grows only at the end. Fill it with zeros first: what an older caller does not have counts as zero, which says
 * nothing. A text is not said if its data is NULL. */
typedef struct leveret_send_options {
  size_t size; /* sizeof(leveret_send_options) of the caller's headers */
  leveret_string task;
  leveret_string queue;
  int32_t max_retries;  /* -1: not said */
  int32_t want_results; /* 1: results are kept for whoever asks by the job's id */
  int64_t delay_ms;     /* not handed out before; 0: at once */

  int32_t ordered;      /* 1: the jobs of one key run one after another, in the order sent */
  int32_t unique_until; /* a leveret_until; without an idempotency key, jobs of the same arguments are the same */
  leveret_string key;   /* of ordered jobs, unless each has its own: `add_keyed` */
  leveret_string idempotency_key; /* while a job has it, a send stores nothing and gives that job. Not for batches */
  int64_t idempotency_window_ms;  /* how long it is held, from the sending; 0: a day */

  uint32_t shards; /* how many queues of the broker the queue's messages are spread over, 1 to 256; 0: 1 */
  uint32_t reserved;
} leveret_send_options;

struct leveret_library {
  uint32_t abi_version;
  uint32_t size; /* sizeof(leveret_library) of the library */
  const char* version;

  /* The writer functions of this table work on what `new_value` gives. */
  const leveret_host* (*host)(void);
  /* The text of this thread's last failure; until the next call on this thread. */
  leveret_string (*last_error)(void);

  /* A place to write one JSON value; NULL if there is no memory. `value_text` lives until the next write, clear or
   * delete. */
  leveret_call* (*new_value)(void);
  void (*clear_value)(leveret_call* value);
  leveret_string (*value_text)(leveret_call* value);
  void (*delete_value)(leveret_call* value);

  /* A worker's program: parses the command line, runs until it is told to stop; the exit code. */
  int (*run_worker)(const leveret_plugin_info* tasks, int argc, char** argv);

  /* An empty url: LEVERET_URL, else a file `leveret.db` here. Blocks until connected. */
  int (*open)(leveret_string url, leveret_producer** out);
  /* Waits up to 5 s for what is being sent. NULL is ignored. */
  void (*close)(leveret_producer* producer);
  /* Sends one job and waits until it is durable. `args` is a JSON array or empty, `kwargs` an object or empty.
   * `job_id`, that of the first job where it was there already, lives until the next call on this thread. */
  int (*send)(leveret_producer* producer, const leveret_send_options* options, leveret_string args,
              leveret_string kwargs, leveret_string* job_id);

  /* Many jobs: begin, add each, finish. A batch is ended by `end_batch` in any case; what was added and not finished
   * then is sent or not. */
  int (*begin_batch)(leveret_producer* producer, const leveret_send_options* options, leveret_batch** out);
  int (*add)(leveret_batch* batch, leveret_string args, leveret_string kwargs);
  int (*finish)(leveret_batch* batch);
  /* Message number `index` of those accepted so far, all before the first that was not: 0 past the last. Of ordered
   * jobs ask after `finish`. */
  int (*accepted)(leveret_batch* batch, size_t index, leveret_string* message_id, uint32_t* jobs);
  void (*end_batch)(leveret_batch* batch);

  /* As `add`, for an ordered job with a key of its own. */
  int (*add_keyed)(leveret_batch* batch, leveret_string key, leveret_string args, leveret_string kwargs);
  /* After `finish`: where job number `index` of a batch of ordered jobs is, of those accepted before the first that was
   * not: its message's number and its line there, from 1. 0 past the last. Jobs of other batches are in the order of
   * their messages. */
  int (*place)(leveret_batch* batch, size_t index, size_t* message, uint32_t* line);
  /* After `finish`: how many jobs behind the first that was not accepted were. Ordered jobs, and jobs that are to be
   * there once, do not all wait for each other. */
  uint64_t (*accepted_behind)(leveret_batch* batch);
};

/* The library's table; NULL if it does not speak this version. */
LEVERET_EXPORT const leveret_library* leveret_get_library(uint32_t abi_version);

#ifdef __cplusplus
}
#endif
#endif
