"""The quickstart's worker in Python: the same task as worker_sim.cpp, on the same queue; run either, or both.

    cd examples/quickstart
    leveret worker worker:app --processes 2

The broker is LEVERET_URL, or a SQLite file: leveret.db beside the nearest pyproject.toml, else in the working folder.
"""

from __future__ import annotations

import leveret

app = leveret.App()


@app.task(queue="native")  # where the producer sends it; Python tasks have the queue "default" otherwise
def work(id: int, value: int = 3) -> int:  # noqa: A002, ARG001 - the contract's names; the id only tells jobs apart
    """Take a thousand steps of a linear congruential generator from `value`, as worker_sim.cpp does."""
    x = value % 2**32
    for _ in range(1000):
        x = (x * 1664525 + 1013904223) % 2**32
    return x
