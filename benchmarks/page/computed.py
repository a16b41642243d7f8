"""A worker on memory:// that runs the quickstart's jobs, 1,000 steps each: `computed.py PLUGIN THREADS JOBS`."""

import json
import sys

import leveret
from leveret import _core

plugin, threads, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with leveret.App("memory://") as app:

    @app.native(name="work", queue="bench", ignore_result=True)
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's signature
        """Run in C++."""
        raise NotImplementedError

    work.send_many((number, number % 25) for number in range(jobs))
    # From the first delivery to the last settlement: a burst looks at its empty queues twice before it ends.
    worker = _core.Worker([plugin], "memory://", ["bench"], threads, burst=True, log_level="warning")
    worker.start()
    worker.wait_finished(600.0)
    counts = worker.stop(10.0)
    if counts["succeeded"] != jobs:
        sys.exit(f"of {jobs} jobs {counts['succeeded']} succeeded")
    print(json.dumps({"seconds": counts["seconds"]}))
