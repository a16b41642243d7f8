"""Part `latency`: from the call of `send` to the start of the handler, in another process, where nothing else goes on.

Beside it what cannot be undercut: a synced write of 4 KiB on the same disk, a message of plain rabbitmq-c through a
quorum queue. Unlike the other parts' figures these are microseconds: less is better.
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from measure import LEVERET, Contender, NotMeasuredError, Row, compare, compiled, last_lines, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

FOLDER = Path(__file__).resolve().parent
JOBS = 300
WARM_UP = 20
PAUSE = 0.01
"""Seconds between two jobs."""
PATIENCE = 30.0
SLOW = 99
"""The percentile beside the median."""


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile of values; 50 is the median."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def started(path: Path, number: int) -> int:
    """Wait for a handler's note; return its nanoseconds."""
    deadline = time.monotonic() + PATIENCE
    with path.open("rb", buffering=0) as file:
        while time.monotonic() < deadline:
            file.seek(8 * number)
            (found,) = struct.unpack("q", file.read(8))
            if found:
                return int(found)
            time.sleep(0.0005)
    raise NotMeasuredError(f"job {number} did not start within {PATIENCE:.0f} s")


def sent_to_started(plugin: str, url: str, folder: Path) -> list[float]:
    """Send jobs one by one to a worker in another process; return the microseconds of each."""
    queue = f"bench-latency-{uuid.uuid4().hex[:8]}"
    path, log = folder / f"{queue}.stamps", folder / f"{queue}.log"
    path.write_bytes(bytes(8 * (JOBS + WARM_UP)))
    command = [LEVERET, "worker", plugin, "--url", url, "--queue", queue, "--pool", "threads", "--threads", "2"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    took = []
    with running(command, log, environ, folder), leveret.App(url) as app:

        @app.native(queue=queue, ignore_result=True)
        def stamp(path: str, number: int) -> None:
            raise NotImplementedError

        for number in range(JOBS + WARM_UP):
            time.sleep(PAUSE)
            began = time.monotonic_ns()
            stamp.send(str(path), number)
            try:
                took.append((started(path, number) - began) / 1000)
            except NotMeasuredError as why:
                raise NotMeasuredError(f"{why}; {last_lines(log)}") from None
    return took[WARM_UP:]


def synced(folder: Path) -> list[float]:
    """Append 4 KiB and sync, again and again; return the microseconds of each."""
    took = []
    file = os.open(folder / "synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(JOBS):
            time.sleep(PAUSE)
            began = time.monotonic_ns()
            os.write(file, bytes(4096))
            os.fdatasync(file)
            took.append((time.monotonic_ns() - began) / 1000)
    finally:
        os.close(file)
    return took


def pinged(node: RabbitNode) -> list[float]:
    """Send messages through a quorum queue by plain rabbitmq-c; return the microseconds of each."""
    queue = f"bench-ping-{uuid.uuid4().hex[:8]}"
    with leveret.App(node.url) as app:
        app.client().declare(queue)
    try:
        program = compiled(FOLDER / "plain/ping.cpp", "-O2", "-lrabbitmq", "-pthread")
        command = [program, str(node.port), queue, str(JOBS), str(int(PAUSE * 1000))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise NotMeasuredError(f"ping: {done.stderr.strip()}")
        return [float(each) for each in json.loads(done.stdout)]
    finally:
        node.ctl("delete_queue", queue)


def distribution(values: list[float]) -> dict[str, float]:
    """Return the percentiles 1 to 99 and 99.9 of values."""
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    return {f"{cut / 10:g}": round(cuts[cut - 1], 1) for cut in (*range(10, 1000, 10), 999)}


class Twice:
    """One measurement, of which two rows take a percentile each; `percentiles` is of all rounds so far."""

    def __init__(self, measure: Callable[[], list[float]]) -> None:
        self.percentiles: dict[str, float] = {}
        self._measure = measure
        self._left: list[float] | None = None
        self._all: list[float] = []

    def median(self) -> tuple[float, None]:
        """Measure; return the median."""
        self._left = self._measure()
        self._all += self._left
        self.percentiles.update(distribution(self._all))
        return percentile(self._left, 50), None

    def slow(self) -> tuple[float, None]:
        """Return the slow percentile of the last measurement."""
        if self._left is None:
            raise NotMeasuredError("its median was not measured")
        found, self._left = self._left, None
        return percentile(found, SLOW), None


def contenders(
    broker: str, ours: Callable[[], list[float]], bound: str, bounds: Callable[[], list[float]]
) -> list[Contender]:
    """Return the four rows of a broker."""
    out = []
    for name, version, measure in (("leveret", leveret.__version__, ours), (bound, "", bounds)):
        both = Twice(measure)
        for what, once in (("p50", both.median), (f"p{SLOW}", both.slow)):
            row = Row("latency", f"send to start, idle, {broker}", f"{name}, {what}", version, "suite.py latency", JOBS)
            row.unit, row.reference = "µs", f"{bound}, {what}"
            if once == both.median:
                row.percentiles = both.percentiles
            out.append(Contender(row, once))
    return out


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as temporary:
        folder = Path(temporary)
        plugin = str(folder / "stamp.so")
        built = subprocess.run(
            [LEVERET, "build", str(FOLDER / "latency/stamp.cpp"), "-o", plugin],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise RuntimeError(built.stderr)
        file = f"sqlite:///{folder / 'queue.db'}"
        sqlite = contenders(
            "SQLite", lambda: sent_to_started(plugin, file, folder), "4 KiB synced", lambda: synced(folder)
        )
        rabbit = contenders(
            "RabbitMQ", lambda: sent_to_started(plugin, node.url, folder), "rabbitmq-c", lambda: pinged(node)
        )
        return compare(sqlite, rounds, say) + compare(rabbit, rounds, say)
