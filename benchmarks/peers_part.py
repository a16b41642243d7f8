"""Part `peers`: jobs sent and executed by Python: Leveret beside Celery, Dramatiq, Taskiq, Huey and FlexiQ.

The worker runs and has executed warm-up jobs; the clock goes from the first send to the last execution that its handler
counted; where results are read, to the last that the producer read. Then each job must have been executed once, the
results read be right in sum, and the broker hold nothing any more, or the row is refused.

`N senders at once` are threads of one process, or coroutines of one event loop, of whom each waits for one confirmed
send before its next: as many requests of a web server that each send a job.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import leveret
from environments import environment, version_in
from measure import (
    LEVERET,
    PYTHON,
    Contender,
    NotMeasuredError,
    Row,
    compare,
    last_lines,
    processor_seconds,
    running,
    wait_until,
)
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.rabbitmq_node import RabbitNode

FOLDER = Path(__file__).resolve().parent / "peers"
sys.path.insert(0, str(FOLDER))

from drive import warm_ups  # noqa: E402 - in the peers' folder
from effects import Effects  # noqa: E402 - in the peers' folder: it runs in their environments

PROCESSES = "2"


@dataclass(frozen=True)
class Peer:
    """A peer: what to install, how its worker is started (after `python -m`, or a program beside it), what it says.

    `left` is a query that counts what its SQLite file still holds.
    """

    name: str
    package: str
    extras: tuple[str, ...] = ()
    module: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    left: str = ""
    note: str = ""


CELERY = Peer(
    "celery",
    "celery",
    extras=("celery[redis]",),
    module=("celery", "-A", "celery_peer", "worker", "-c", PROCESSES, "--loglevel", "ERROR", "--without-gossip"),
    note="quorum queue, confirms, acks_late, prefork",
)
DRAMATIQ = Peer(
    "dramatiq",
    "dramatiq",
    extras=("dramatiq[rabbitmq,redis]",),
    module=("dramatiq", "dramatiq_peer", "--processes", PROCESSES, "--threads", "8"),
    note="durable classic queue (its own choice), confirms",
)
TASKIQ = Peer(
    "taskiq",
    "taskiq",
    extras=("taskiq-aio-pika", "taskiq-redis"),
    module=("taskiq", "worker", "taskiq_peer:broker", "--workers", PROCESSES, "--log-level", "ERROR"),
    note="quorum queue, confirms",
)
HUEY = Peer(
    "huey",
    "huey",
    program=("huey_consumer", "huey_peer.huey", "-k", "process", "-w", PROCESSES, "-q"),
    left="select count(*) from task",
    note="SQLite with fsync=True",
)
FLEXIQ = Peer(
    "flexiq",
    "flexiq",
    program=("flexiq", "worker", "--app", "flexiq_peer:queue"),
    left="select count(*) from jobs where status in (0, 1)",
    note="SQLite in WAL with synchronous=NORMAL, which it can't be told otherwise: a power cut may take accepted jobs",
)
OURS = Peer("leveret", "leveret")


@dataclass(frozen=True)
class Servers:
    """What a comparison runs on: a RabbitMQ, else a file; where results are read, a Redis for them, else the broker."""

    node: RabbitNode | None = None
    redis: RedisServer | None = None
    results: bool = False

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [server.pid for server in (self.node, self.redis) if server is not None]


class Round:
    """One measurement of a peer: a queue or file of its own, a worker, a producer, effects counted."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a round depends on
        self,
        peer: Peer,
        python: str,
        servers: Servers,
        folder: Path,
        patience: float = 60.0,
        senders: int = 1,
    ) -> None:
        self._patience = patience
        self._peer = peer
        self._python = python
        self._servers = servers
        self._node = node = servers.node
        self._folder = folder
        self._senders = senders
        self._queue = f"bench-{peer.name}-{uuid.uuid4().hex[:8]}"
        self._file = folder / f"{self._queue}.db"
        self._log = folder / f"{self._queue}.log"
        if node is not None:
            self._url = node.url
        else:
            self._url = f"sqlite:///{self._file}" if peer is OURS else str(self._file)
        if servers.redis is not None and peer is OURS:
            self._url += f"?results={quote(servers.redis.url, safe='')}"
        self._effects = Effects.create(str(folder / f"{self._queue}.effects"))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LEVERET_", "BENCH_"))},
            "BENCH_URL": self._url,
            "BENCH_QUEUE": self._queue,
            "BENCH_EFFECTS": str(folder / f"{self._queue}.effects"),
            "BENCH_RESULTS": servers.redis.url if servers.redis else "broker" if servers.results else "",
            "BENCH_SENDERS": str(senders),
            "PYTHONPATH": str(FOLDER),
        }

    def _worker(self) -> list[str]:
        if self._peer is OURS:
            return [LEVERET, "worker", "leveret_peer:app", "--url", self._url, "--processes", PROCESSES]
        if self._peer.module:
            return [self._python, "-m", *self._peer.module]
        program, *arguments = self._peer.program
        return [str(Path(self._python).parent / program), *arguments]

    @contextlib.contextmanager
    def _producer(self, how: str, jobs: int) -> Iterator[subprocess.Popen[str]]:
        command = [self._python, str(FOLDER / "drive.py"), f"{self._peer.name}_peer", how, str(jobs)]
        with (
            self._log.open("ab") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ,
                cwd=self._folder,
                text=True,
            ) as process,
        ):
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def _executed(self, count: int) -> None:
        if wait_until(lambda: self._effects.read()[0] >= count, self._effects.read, self._patience):
            return
        done = self._effects.read()[0]
        raise NotMeasuredError(f"{done:,} of {count:,} jobs were executed; {last_lines(self._log)}")

    def run(self, how: str, jobs: int) -> tuple[float, float]:
        """Measure: jobs a second from the first send to the last execution, and processor seconds of all that ran.

        Where results are read it is to the last result, by the producer's clock.
        """
        warm_up = warm_ups(how, self._senders)
        if self._servers.redis is not None:
            self._servers.redis.start()
            self._servers.redis.cli("FLUSHALL")
        with (
            running(self._worker(), self._log, self.environ, self._folder) as worker,
            self._producer(how, jobs) as producer,
        ):
            assert producer.stdin is not None  # noqa: S101 - for the type checker
            assert producer.stdout is not None  # noqa: S101 - the same
            if producer.stdout.readline().strip() != "ready":
                raise NotMeasuredError(f"its producer did not start: {last_lines(self._log)}")
            self._executed(warm_up)
            everybody = [worker.pid, producer.pid, *self._servers.pids]
            used = processor_seconds(everybody)
            began = time.perf_counter()
            producer.stdin.write("go\n")
            producer.stdin.flush()
            self._executed(warm_up + jobs)
            seconds = time.perf_counter() - began
            if not self._servers.results:
                used = processor_seconds(everybody) - used
            answer = json.loads(producer.stdout.readline() or "{}")
            if self._servers.results:
                used = processor_seconds(everybody) - used
                seconds = answer.get("seconds", 0)
            if "seconds" not in answer:
                raise NotMeasuredError(f"its producer failed: {last_lines(self._log)}")
        self._check(jobs, warm_up, answer.get("sum"))
        return jobs / seconds, used

    def _check(self, jobs: int, warm_up: int, read: int | None) -> None:
        numbers = jobs * (jobs + 1) // 2
        if self._servers.results and read != numbers:
            raise NotMeasuredError(f"the results read sum up to {read}, not to {numbers}")
        if self._servers.redis is not None and int(self._servers.redis.cli("DBSIZE")) == 0:
            raise NotMeasuredError("Redis holds no results")
        count, total = self._effects.read()
        if count != warm_up + jobs or total != numbers:
            raise NotMeasuredError(
                f"of {jobs:,} jobs each once, {count - warm_up:,} were executed, not all of them once"
            )
        # A quorum queue's figures are some seconds old.
        if not wait_until(lambda: self._left() == 0, lambda: None, patience=15.0):
            raise NotMeasuredError(f"{self._left():,} messages were left in the broker")
        if self._node is not None:
            self._node.ctl("delete_queue", self._queue)

    def _left(self) -> int:
        if self._node is not None:
            rows = self._node.ctl("list_queues", "--no-table-headers", "name", "messages").splitlines()
            return sum(int(row.split("\t")[1]) for row in rows if row.split("\t")[0] == self._queue)
        if self._peer is OURS:
            with leveret.App(self._url) as app:
                return sum((s["ready"] or 0) + (s["running"] or 0) for s in app.client().stats(self._queue))
        with contextlib.closing(sqlite3.connect(self._file)) as file:
            found: int = file.execute(self._peer.left).fetchone()[0]
            return found


@dataclass(frozen=True)
class Entry:
    """A peer in a comparison: how it sends (see drive.py), and how many jobs a round has.

    `name` and `note` are the row's, where they are not the peer's.
    """

    peer: Peer
    how: str
    jobs: int
    name: str = ""
    note: str = ""
    senders: int = 1


def contender(entry: Entry, comparison: str, servers: Servers, folder: Path) -> Contender:
    """Prepare a peer for a comparison."""
    peer = entry.peer
    if entry.name == BY_BROKER:
        servers = replace(servers, redis=None)
    row = Row(
        part="peers",
        comparison=comparison,
        name=entry.name or peer.name,
        version=leveret.__version__ if peer is OURS else "",
        command="python benchmarks/suite.py peers",
        jobs=entry.jobs,
        note=entry.note or peer.note,
        reference="celery" if servers.node is not None else "huey",
    )
    python = PYTHON
    if peer is not OURS:
        try:
            python = environment(peer.name, [peer.package, *peer.extras])
            row.version = version_in(python, peer.package)
        except NotMeasuredError as why:
            row.not_measured = str(why)
    return Contender(
        row, lambda: Round(peer, python, servers, folder, senders=entry.senders).run(entry.how, entry.jobs)
    )


def at_once(peer: Peer, jobs: int, note: str, how: str = "threads", name: str = "") -> Entry:
    """Return a peer with SENDERS senders at once."""
    return Entry(peer, how, jobs, name, f"{SENDERS} {note}", SENDERS)


SENDERS = 64
"""Of the comparisons with several: a web server's usual number of threads is 40 to 64."""
BY_COROUTINES = "leveret, coroutines"
BY_BROKER = "leveret, no store"
STORED = "each result stored in Redis before its job is done, and pushed to its sender by RabbitMQ, who reads that"
PUSHED = "its default: results are pushed to their sender by RabbitMQ, and kept nowhere else"

ON_RABBITMQ = (Entry(CELERY, "one", 3_000), Entry(DRAMATIQ, "one", 3_000), Entry(TASKIQ, "one", 3_000))

COMPARISONS = {
    "one by one, RabbitMQ": (
        Entry(OURS, "one", 10_000),
        *ON_RABBITMQ,
    ),
    "one by one, SQLite": (Entry(OURS, "one", 10_000), Entry(HUEY, "one", 5_000), Entry(FLEXIQ, "one", 3_000)),
    f"one by one, {SENDERS} senders at once, RabbitMQ": (
        at_once(OURS, 50_000, "threads of one process, which share messages without being told to"),
        at_once(OURS, 50_000, "send_async in coroutines of one event loop", how="coroutines", name=BY_COROUTINES),
        at_once(CELERY, 5_000, f"threads, broker_pool_limit={SENDERS}, a connection for each; else as one by one"),
        at_once(DRAMATIQ, 5_000, "threads, of which it gives each a connection; else as one by one"),
        at_once(TASKIQ, 5_000, "coroutines of one event loop, for which its API is; else as one by one", "coroutines"),
    ),
    f"one by one, {SENDERS} senders at once, SQLite": (
        at_once(OURS, 50_000, "threads of one process, which share messages without being told to"),
        at_once(OURS, 50_000, "send_async in coroutines of one event loop", how="coroutines", name=BY_COROUTINES),
        at_once(HUEY, 5_000, "threads, of which it gives each a connection, that wait for SQLite up to 60 s"),
        at_once(FLEXIQ, 3_000, "threads; synchronous=NORMAL, as one by one"),
    ),
    "as many at once as it can, RabbitMQ": (
        Entry(OURS, "many", 1_000_000),
        *ON_RABBITMQ,
    ),
    "as many at once as it can, SQLite": (
        Entry(OURS, "many", 1_000_000),
        Entry(HUEY, "one", 5_000),
        Entry(FLEXIQ, "many", 10_000),
    ),
    "one by one, results read, RabbitMQ": (
        Entry(OURS, "one", 3_000, note=STORED),
        Entry(OURS, "one", 3_000, BY_BROKER, PUSHED),
        *ON_RABBITMQ,
    ),
    "as many at once as it can, results read, RabbitMQ": (
        Entry(OURS, "many", 1_000_000, note=STORED),
        Entry(OURS, "many", 1_000_000, BY_BROKER, PUSHED),
        *ON_RABBITMQ,
    ),
}


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    redis = RedisServer()
    try:
        with tempfile.TemporaryDirectory(prefix="leveret-bench-") as temporary:
            rows: list[Row] = []
            for comparison, entries in COMPARISONS.items():
                read = "results read" in comparison
                servers = Servers(node if "RabbitMQ" in comparison else None, redis if read else None, read)
                rows += compare([contender(e, comparison, servers, Path(temporary)) for e in entries], rounds, say)
            return rows
    finally:
        redis.stop()
