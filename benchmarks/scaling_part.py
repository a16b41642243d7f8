"""Part `scaling`: what a drain's rate depends on: results, the backlog, how many jobs a message has.

Each figure is a run of `leveret bench`, which publishes, drains with C++ handlers that do nothing, and fails unless
every job was run once and the queue is empty.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import leveret
from measure import LEVERET, Contender, NotMeasuredError, Row, answer_of, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

JOB_BYTES = 50
"""Of a job of the benchmark, as Leveret writes it."""
BACKLOGS = (10_000, 1_000_000, 10_000_000)
MESSAGE_BYTES = {"1 job": (1, 50_000), "10 jobs": (10 * JOB_BYTES, 200_000), "100 jobs": (100 * JOB_BYTES, 1_000_000)}
"""Size of a message, which a larger job has for itself, and jobs of the run."""
WHOLE = "64 KiB, as sent"


def drained(url: str, jobs: int, *words: str, message_bytes: int | None = None) -> tuple[float, None]:
    """Run the benchmark; return the drain's rate."""
    environ = dict(os.environ)
    if message_bytes is not None:
        environ["LEVERET_BATCH_BYTES"] = str(message_bytes)
    command = [LEVERET, "bench", "--jobs", str(jobs), "--json", *words, *(["--url", url] if url else [])]
    found = answer_of(command, environ=environ)["drain"]
    if not isinstance(found, dict) or found["jobs"] != jobs:
        raise NotMeasuredError(f"{found} is not the drain of {jobs:,} jobs")
    return float(found["jobs_per_s"]), None


def comparison(
    broker: str, about: str, contenders: dict[str, tuple[int, Callable[[], tuple[float, None]]]], reference: str
) -> list[Contender]:
    """Name the rows of a comparison."""
    out = []
    for name, (jobs, once) in contenders.items():
        row = Row("scaling", f"{about}, {broker}", name, leveret.__version__, "leveret bench --json", jobs)
        row.reference = reference
        out.append(Contender(row, once))
    return out


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    rows: list[Row] = []
    for broker, url, servers in (("SQLite", "", []), ("RabbitMQ", node.url, [node.pid])):

        def run(jobs: int, *words: str, size: int | None = None, at: str = url) -> Callable[[], tuple[float, None]]:
            return lambda: drained(at, jobs, *words, message_bytes=size)

        million = 1_000_000
        results = {
            "results off": (million, run(million, "--results", "off")),
            "results on": (million, run(million, "--results", "on")),
        }
        backlogs = {f"{jobs:,} jobs": (jobs, run(jobs)) for jobs in BACKLOGS}
        sizes = {name: (jobs, run(jobs, size=size)) for name, (size, jobs) in MESSAGE_BYTES.items()}
        sizes[WHOLE] = (million, run(million))
        for about, contenders, reference in (
            ("drained, results", results, "results off"),
            ("drained from a backlog", backlogs, next(iter(backlogs))),
            ("drained, jobs a message", sizes, "1 job"),
        ):
            rows += compare(comparison(broker, about, contenders, reference), rounds, say, servers)
    return rows
