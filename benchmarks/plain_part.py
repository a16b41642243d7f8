"""Part `plain`: the RabbitMQ transport beside plain rabbitmq-c on a quorum queue, which decodes and settles nothing.

Messages of many jobs are drained by a C++ worker that validates, dispatches and settles each job, and by the plain
program, which only reads and acknowledges the messages. Messages of one job are published with confirms, and drained.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
import pika
from leveret.cli.demo import demo_plugin
from measure import LEVERET, Contender, NotMeasuredError, Row, answer_of, compare, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

SOURCE = Path(__file__).resolve().parent / "plain/rabbitmq_c.cpp"
PLAIN = "rabbitmq-c"
BATCHED = 10_000_000
SINGLE = 200_000
THREADS = "4"
PREFETCH = "1000"
"""As the plain program's."""
SIZE = 32
"""Bytes of a job that does nothing, as Leveret writes it."""


class Bench:
    """A broker, and the plain program for it."""

    def __init__(self, node: RabbitNode) -> None:
        self._node = node

    def fill(self, queue: str, jobs: int, batch_bytes: int | None) -> tuple[int, float]:
        """Send jobs that do nothing; return how many messages they are in, and the seconds that took."""
        with leveret.App(self._node.url, batch_bytes=batch_bytes) as app:

            @app.native(name="noop", queue=queue, ignore_result=True)
            def noop() -> None:
                raise NotImplementedError

            app.client().declare(queue)
            began = time.perf_counter()
            sent = len(noop.send_many(() for _ in range(jobs)))
            seconds = time.perf_counter() - began
        if sent != jobs:
            raise NotMeasuredError(f"of {jobs:,} jobs {sent:,} were accepted")
        return self.left(queue), seconds

    def left(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        connection = pika.BlockingConnection(pika.URLParameters(self._node.url))
        count: int = connection.channel().queue_declare(queue, passive=True).method.message_count
        connection.close()
        return count

    def drop(self, queue: str) -> None:
        """Delete a queue; what is left in it makes the round invalid."""
        left = self.left(queue)
        self._node.ctl("delete_queue", queue)
        if left:
            raise NotMeasuredError(f"{left:,} messages were left in the broker")

    def plain(self, mode: str, queue: str, messages: int, size: int = 0) -> float:
        """Run the plain program; return its seconds."""
        command = [compiled(SOURCE, "-O2", "-lrabbitmq"), mode, str(self._node.port), queue, str(messages), str(size)]
        return float(str(answer_of(command)["seconds"]))

    def worker(self, queue: str, jobs: int) -> float:
        """Drain a queue by a C++ worker; return the seconds from its first delivery to the last settlement."""
        answer = answer_of(
            [
                *(LEVERET, "worker", str(demo_plugin()), "--url", self._node.url, "--queue", queue),
                *("--threads", THREADS, "--pool", "threads", "--prefetch", PREFETCH, "--burst", "--json"),
            ]
        )
        if answer["succeeded"] != jobs:
            raise NotMeasuredError(f"of {jobs:,} jobs {answer['succeeded']:,} succeeded")
        return float(str(answer["seconds"]))


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    bench = Bench(node)

    def drain(jobs: int, batch_bytes: int | None, *, ours: bool) -> tuple[float, None]:
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        messages, _ = bench.fill(queue, jobs, batch_bytes)
        seconds = bench.worker(queue, jobs) if ours else bench.plain("consume", queue, messages)
        bench.drop(queue)
        return jobs / seconds, None

    def publish(*, ours: bool) -> tuple[float, None]:
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        if ours:
            messages, seconds = bench.fill(queue, SINGLE, 1)
        else:
            bench.fill(queue, 1, 1)
            seconds = bench.plain("publish", queue, SINGLE, SIZE)
            messages = bench.left(queue) - 1
        node.ctl("delete_queue", queue)
        if messages != SINGLE:
            raise NotMeasuredError(f"of {SINGLE:,} messages {messages:,} are in the queue")
        return SINGLE / seconds, None

    command = "python benchmarks/suite.py plain"
    rows: list[Row] = []
    for named, jobs, batch in (
        (f"{BATCHED:,} jobs in messages of 64 KiB drained, RabbitMQ", BATCHED, None),
        (f"{SINGLE:,} messages of one job drained, RabbitMQ", SINGLE, 1),
    ):
        ours = Row("plain", named, "leveret", leveret.__version__, command, jobs, reference=PLAIN)
        ours.note = f"C++ worker, {THREADS} threads: validated, dispatched, settled"
        plain = Row("plain", named, PLAIN, "", command, jobs, note="reads and acknowledges, decodes nothing")
        rows += compare(
            [
                Contender(ours, lambda jobs=jobs, batch=batch: drain(jobs, batch, ours=True)),
                Contender(plain, lambda jobs=jobs, batch=batch: drain(jobs, batch, ours=False)),
            ],
            rounds,
            say,
            [node.pid],
        )
    named = f"{SINGLE:,} messages of one job published and confirmed, RabbitMQ"
    ours = Row("plain", named, "leveret", leveret.__version__, command, SINGLE, reference=PLAIN)
    ours.note = "send_many from Python, batch_bytes=1"
    plain = Row("plain", named, PLAIN, "", command, SINGLE, note=f"{SIZE} bytes each")
    contenders = [Contender(ours, lambda: publish(ours=True)), Contender(plain, lambda: publish(ours=False))]
    return rows + compare(contenders, rounds, say, [node.pid])
