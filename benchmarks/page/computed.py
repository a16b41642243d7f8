"""A worker on memory:// that runs the quickstart's jobs, 1,000 steps each: `computed.py PLUGIN THREADS JOBS`."""

import json
import sys
import time

import leveret

plugin, threads, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with leveret.App("memory://") as app:

    @app.native(name="work", queue="bench", ignore_result=True)
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's signature
        """Run in C++."""
        raise NotImplementedError

    work.send_many((number, number % 25) for number in range(jobs))
    worker = app.worker(threads=threads, plugins=[plugin], queues=["bench"])
    began = time.perf_counter()
    counts = worker.run_until_idle()
    seconds = time.perf_counter() - began
    if counts.succeeded != jobs:
        sys.exit(f"of {jobs} jobs {counts.succeeded} succeeded")
    print(json.dumps({"seconds": seconds}))
