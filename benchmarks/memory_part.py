"""Part `memory`: what a worker holds after many jobs, beside what it held after the first of them.

One `leveret worker`, its default pool of processes, C++ handlers that do nothing, a SQLite file. The suite publishes
portions; when a portion's queue is empty, the resident memory of the worker and of all its processes is added up. Less
is better, and a ratio of 1 is flat. One measurement, however many rounds the others have.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from leveret.cli.demo import demo_plugin
from measure import LEVERET, Contender, NotMeasuredError, Row, compare, last_lines, running, tree, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

JOBS = 100_000_000
PORTIONS = 10
QUEUE = "bench-memory"


def resident(process: int) -> float:
    """Return the megabytes that a process and its descendants hold; what they share counts for each of them."""
    kilobytes = 0
    for each in tree(process):
        with contextlib.suppress(OSError, StopIteration):  # it has ended
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            kilobytes += int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
    return kilobytes * 1024 / 1e6


def drained(jobs: int, say: Callable[[str], None]) -> list[tuple[float, float]]:
    """Have one worker drain jobs, portion by portion; return jobs and megabytes after each."""
    points: list[tuple[float, float]] = []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as temporary:
        folder, log = Path(temporary), Path(temporary) / "worker.log"
        url = f"sqlite:///{folder / 'queue.db'}"
        command = [LEVERET, "worker", str(demo_plugin()), "--url", url, "--queue", QUEUE, "--quiet", "--json"]
        with running(command, log, environ, folder) as worker, leveret.App(url) as app:

            @app.native(queue=QUEUE, ignore_result=True)
            def noop() -> None:
                raise NotImplementedError

            def left() -> int:
                time.sleep(0.02)
                return sum((stats["ready"] or 0) + (stats["running"] or 0) for stats in app.client().stats(QUEUE))

            for portion in range(1, PORTIONS + 1):
                say(f"memory: portion {portion} of {PORTIONS}")
                noop.send_many(() for _ in range(jobs // PORTIONS))
                if not wait_until(lambda: left() == 0, left):
                    raise NotMeasuredError(f"{left():,} messages were left in the broker; {last_lines(log)}")
                points.append((portion * (jobs // PORTIONS), round(resident(worker.pid), 1)))
        counts = json.loads(last_lines(log, 1))
    if counts["succeeded"] != jobs:
        raise NotMeasuredError(f"of {jobs:,} jobs {counts['succeeded']:,} succeeded")
    return points


def contenders(jobs: int, say: Callable[[str], None]) -> list[Contender]:
    """Return the two rows of one measurement: after the first portion, after the last."""
    named = f"resident memory of a worker, {jobs:,} jobs, SQLite"
    first, last = (
        Row("memory", named, f"leveret, after {after:,} jobs", leveret.__version__, "suite.py memory", jobs, unit="MB")
        for after in (jobs // PORTIONS, jobs)
    )
    first.note = "leveret worker and its pool of one process together"
    last.reference = first.name

    def begin() -> tuple[float, None]:
        last.points = drained(jobs, say)
        return last.points[0][1], None

    def end() -> tuple[float, None]:
        if not last.points:
            raise NotMeasuredError("its beginning was not measured")
        return last.points[-1][1], None

    return [Contender(first, begin), Contender(last, end)]


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:  # noqa: ARG001 - as every part
    """Run the part."""
    return compare(contenders(JOBS, say), 1, say)
