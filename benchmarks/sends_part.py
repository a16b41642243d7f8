"""Part `sends`: durable sends a second, from one thread and from many at once, which share messages.

A producer in a process of its own sends one by one: threads, or coroutines of one event loop, of whom each waits for
its send before its next. No worker runs meanwhile. The rate is of sends that returned; afterwards a worker drains the
queue, and each job must have been there once, or the row is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from measure import LEVERET, PYTHON, Contender, NotMeasuredError, Row, answer_of, compare, last_lines
from peers_part import FOLDER, Effects, warm_ups

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

ONE = "1 thread"
SENDERS = {
    ONE: ("threads", 1, 2_000),
    "8 threads": ("threads", 8, 10_000),
    "16 threads": ("threads", 16, 20_000),
    "64 threads": ("threads", 64, 30_000),
    "1,000 coroutines": ("coroutines", 1_000, 60_000),
}
"""How each row's senders send, how many they are, and the jobs of a round."""


class Sending:
    """One measurement: a queue, a producer, and a worker that counts what was there."""

    def __init__(self, url: str, folder: Path) -> None:
        self._queue = f"bench-sends-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._log = folder / f"{self._queue}.log"
        self._url = url or f"sqlite:///{folder / self._queue}.db"
        effects = str(folder / f"{self._queue}.effects")
        self._effects = Effects.create(effects)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LEVERET_", "BENCH_"))},
            "BENCH_URL": self._url,
            "BENCH_QUEUE": self._queue,
            "BENCH_EFFECTS": effects,
            "PYTHONPATH": str(FOLDER),
        }

    def run(self, how: str, senders: int, jobs: int) -> tuple[float, None]:
        """Return the sends a second."""
        command = [PYTHON, str(FOLDER / "drive.py"), "leveret_peer", how, str(jobs)]
        environ = {**self.environ, "BENCH_SENDERS": str(senders)}
        with self._log.open("ab") as log:
            done = subprocess.run(
                command,
                input="go\n",
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                cwd=self._folder,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise NotMeasuredError(f"its producer failed: {last_lines(self._log)}")
        answer = json.loads(done.stdout.splitlines()[-1])
        if answer["sent"] != jobs:
            raise NotMeasuredError(f"of {jobs:,} sends {answer['sent']:,} returned")
        self._drain(jobs, jobs + warm_ups(how, senders))
        return jobs / answer["seconds"], None

    def _drain(self, jobs: int, all_jobs: int) -> None:
        """Have a worker take all that is in the queue; each job must have been there once."""
        worker = [LEVERET, "worker", "leveret_peer:app", "--url", self._url, "--threads", "1", "--processes", "1"]
        answer_of([*worker, "--burst", "--json"], environ=self.environ)
        count, total = self._effects.read()
        if (count, total) != (all_jobs, jobs * (jobs + 1) // 2):
            raise NotMeasuredError(
                f"of {jobs:,} jobs {count - all_jobs + jobs:,} were in the queue, not all of them once"
            )
        with leveret.App(self._url) as app:
            left = sum((stats["ready"] or 0) + (stats["running"] or 0) for stats in app.client().stats(self._queue))
        if left:
            raise NotMeasuredError(f"{left:,} messages were left in the broker")


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as temporary:
        for broker, url, servers in (("SQLite", "", []), ("RabbitMQ", node.url, [node.pid])):
            contenders = []
            for name, (how, senders, jobs) in SENDERS.items():
                row = Row(
                    "sends", f"durable sends at once, {broker}", name, leveret.__version__, "suite.py sends", jobs
                )
                row.reference, row.x = ONE, senders

                def once(how: str = how, senders: int = senders, jobs: int = jobs, at: str = url) -> tuple[float, None]:
                    return Sending(at, Path(temporary)).run(how, senders, jobs)

                contenders.append(Contender(row, once))
            rows += compare(contenders, rounds, say, servers)
    return rows
