"""Part `publish`: `send_many`, confirmed on a quorum queue, beside the page's producer.

The page's producer is a pika loop: one persistent message a job, no confirms. Its jobs must all be in the queue in the
end; so must the batches.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import leveret
import pika
from measure import Contender, NotMeasuredError, Row, compare
from publish import drop, pika_loop, send_many

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

JOBS = 10_000
LOOP = "the page's pika loop"


def looped(url: str) -> tuple[float, None]:
    """Publish by the loop; count what arrived."""
    queue = f"benchmark-loop-{uuid.uuid4().hex[:8]}"
    seconds = pika_loop(url, queue, JOBS)
    if (there := drop(url, queue, JOBS)) != JOBS:
        raise NotMeasuredError(f"of {JOBS:,} messages {there:,} are in the queue")
    return JOBS / seconds, None


def batched(url: str) -> tuple[float, None]:
    """Publish by `send_many`; look for the batches."""
    queue = f"benchmark-batch-{uuid.uuid4().hex[:8]}"
    with leveret.App(url) as app:
        seconds = send_many(app, queue, JOBS)
    if drop(url, queue, 2) < 2:  # noqa: PLR2004 - the first job alone, and at least one batch
        raise NotMeasuredError("the batches are not in the queue")
    return JOBS / seconds, None


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    named = f"{JOBS:,} jobs from Python"
    command = "python benchmarks/suite.py publish"
    ours = Row("publish", named, "leveret", leveret.__version__, command, JOBS, note="confirmed by a quorum queue")
    ours.reference = LOOP
    loop = Row("publish", named, LOOP, f"pika {pika.__version__}", command, JOBS, note="classic durable, no confirms")
    contenders = [Contender(ours, lambda: batched(node.url)), Contender(loop, lambda: looped(node.url))]
    return compare(contenders, rounds, say, [node.pid])
