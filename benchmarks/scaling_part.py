"""Part `scaling`: what a drain's rate depends on: results, the backlog, how many jobs a message has, processes.

Each figure is a run of `leveret bench`, which publishes, drains with C++ handlers that do nothing, and fails unless
every job was run once and the queue is empty; that of processes one of `leveret worker`, whose jobs compute.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import leveret
from leveret.cli.demo import demo_plugin
from measure import LEVERET, Contender, NotMeasuredError, Row, answer_of, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

JOB_BYTES = 32
"""Of a job of the benchmark, as Leveret writes it."""
BACKLOGS = (10_000, 1_000_000, 10_000_000)
MESSAGES = {"1 job": (1, 50_000), "10 jobs": (10, 200_000), "100 jobs": (100, 1_000_000)}
"""Jobs of a message, and of the run."""
WHOLE, WHOLE_JOBS = "64 KiB, as sent", (64 << 10) // JOB_BYTES
STEPPED = 400_000
"""Jobs of a run that compute 1,000 steps each."""


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


def stepped(processes: int, jobs: int) -> tuple[float, None]:
    """Have a worker with some processes compute; return its rate."""
    queue = "bench-steps"
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder, leveret.App(f"sqlite:///{folder}/q.db") as app:

        @app.native(queue=queue, ignore_result=True)
        def work(id: int, value: int = 3) -> int:  # noqa: A002 - the plugin's own name
            raise NotImplementedError

        work.send_many((number, number % 25) for number in range(jobs))
        command = [LEVERET, "worker", str(demo_plugin()), "--url", app.broker_url(), "--queue", queue]
        answer = answer_of([*command, "--processes", str(processes), "--threads", "1", "--burst", "--json"])
        left = sum((stats["ready"] or 0) + (stats["running"] or 0) for stats in app.client().stats(queue))
    if answer["succeeded"] != jobs or left:
        raise NotMeasuredError(f"of {jobs:,} jobs {answer['succeeded']:,} succeeded, {left:,} messages were left")
    return jobs / float(str(answer["seconds"])), None


def comparison(
    named: str,
    contenders: dict[str, tuple[int, Callable[[], tuple[float, None]]]],
    reference: str,
    axis: dict[str, int] | None = None,
) -> list[Contender]:
    """Name the rows of a comparison; `axis` says where they stand in a plot."""
    out = []
    for name, (jobs, once) in contenders.items():
        row = Row("scaling", named, name, leveret.__version__, "python benchmarks/suite.py scaling", jobs)
        row.reference, row.x = reference, (axis or {}).get(name)
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
        sizes = {name: (jobs, run(jobs, size=many * JOB_BYTES)) for name, (many, jobs) in MESSAGES.items()}
        sizes[WHOLE] = (million, run(million))
        waiting = {name: jobs for name, (jobs, _) in backlogs.items()}
        a_message = {name: many for name, (many, _) in MESSAGES.items()} | {WHOLE: WHOLE_JOBS}
        for about, contenders, axis in (
            ("drained, results", results, None),
            ("drained from a backlog", backlogs, waiting),
            ("drained, jobs a message", sizes, a_message),
        ):
            named = f"{about}, {broker}"
            rows += compare(comparison(named, contenders, next(iter(contenders)), axis), rounds, say, servers)
    processes = {
        "1 process": (STEPPED, lambda: stepped(1, STEPPED)),
        "2 processes": (STEPPED, lambda: stepped(2, STEPPED)),
    }
    return rows + compare(comparison("1,000 steps a job, C++, SQLite", processes, "1 process"), rounds, say)
