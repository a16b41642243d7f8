"""Publishing from Python: confirmed `send_many` to a quorum queue beside a per-message pika loop to a durable queue.

    python benchmarks/publish.py [--url amqp://…] [--jobs 10000] [--rounds 5] [--json]

Both sides publish the same quickstart jobs in the same run, round by round in turn, on one broker (a private node,
unless --url names another). The pika loop is the usual one: persistent messages, one `basic_publish` a job, no
confirms. Leveret's side has every message confirmed by a quorum queue when the clock stops. After each round the queue
is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import uuid
from pathlib import Path

import leveret
import pika

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.rabbitmq_node import RabbitNode

ARRIVAL = 30.0
"""Seconds that messages published without confirms get to arrive before they count as lost."""


def pika_loop(url: str, queue: str, jobs: int) -> float:
    """Publish one by one, and return the seconds that it took."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    persistent = pika.BasicProperties(delivery_mode=2)
    start = time.perf_counter()
    for number in range(jobs):
        body = json.dumps({"task": "work", "args": [number, number % 25], "retry_count": 0})
        channel.basic_publish("", queue, body, persistent)
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def send_many(app: leveret.App, queue: str, jobs: int) -> float:
    """Publish in batches, confirmed, and return the seconds that it took."""

    @app.native(name="work", queue=queue, ignore_result=True)
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's signature
        raise NotImplementedError

    work.send(0, 0)  # connects and declares: the loop's connection stands, too, when its clock starts
    start = time.perf_counter()
    sent = work.send_many((number, number % 25) for number in range(jobs))
    seconds = time.perf_counter() - start
    if len(sent) != jobs:
        sys.exit(f"publish: {len(sent)} of {jobs} jobs were accepted")
    return seconds


def drop(url: str, queue: str, wanted: int) -> int:
    """Delete a queue and return how many messages were in it.

    Without confirms some are still on their way when the loop has ended: they get a while to arrive.
    """
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    deadline = time.monotonic() + ARRIVAL
    while True:
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        if count >= wanted or time.monotonic() > deadline:
            break
        connection.sleep(0.05)
    channel.queue_delete(queue)
    connection.close()
    return count


def measure(url: str, jobs: int, rounds: int) -> dict[str, object]:
    """Run the rounds, both sides in turn."""
    loop, batch = [], []
    for _ in range(rounds):
        queue = f"benchmark-loop-{uuid.uuid4().hex[:8]}"
        loop.append(pika_loop(url, queue, jobs))
        if (there := drop(url, queue, jobs)) != jobs:
            sys.exit(f"publish: the pika loop left {there} messages of {jobs}")
        queue = f"benchmark-batch-{uuid.uuid4().hex[:8]}"
        with leveret.App(url) as app:
            batch.append(send_many(app, queue, jobs))
        if drop(url, queue, 2) < 2:  # noqa: PLR2004 - the first job alone, and at least one batch
            sys.exit("publish: the batches are not in the queue")
    return {
        "jobs": jobs,
        "rounds": rounds,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "command": f"python {sys.argv[0]} --jobs {jobs} --rounds {rounds}",
        "url": leveret.App(url).url,
        "pika_loop": row(loop, jobs),
        "send_many": row(batch, jobs),
        "ratio": {
            "median": round(statistics.median(loop) / statistics.median(batch), 1),
            "best": round(min(loop) / min(batch), 1),
        },
    }


def row(seconds: list[float], jobs: int) -> dict[str, object]:
    """Return seconds and rates, best and median."""
    return {
        "seconds": [round(s, 5) for s in seconds],
        "median_s": round(statistics.median(seconds), 5),
        "best_s": round(min(seconds), 5),
        "jobs_per_s": round(jobs / statistics.median(seconds)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a RabbitMQ to use (default: a private node)")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.url:
        result = measure(chosen.url, chosen.jobs, chosen.rounds)
    else:
        with RabbitNode() as node:
            result = measure(node.url, chosen.jobs, chosen.rounds)
    if chosen.json:
        print(json.dumps(result))
        return
    print(f"{chosen.jobs} jobs, {chosen.rounds} rounds in turn, {result['machine']}")
    for name in ("pika_loop", "send_many"):
        figures = result[name]
        assert isinstance(figures, dict)  # noqa: S101 - for the type checker
        times = f"median {figures['median_s']:.4f} s, best {figures['best_s']:.4f} s"
        print(f"{name:10} {times}, {figures['jobs_per_s']:>10,} jobs/s")
    print(f"ratio      {result['ratio']}")


if __name__ == "__main__":
    main()
