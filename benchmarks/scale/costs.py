"""What a job and a message cost each process: measured on this machine, for `model.py`.

    python benchmarks/scale/costs.py [--rounds 3] [--output benchmarks/scale/costs.json]

Publishes and drains on one private RabbitMQ node, and on a cluster of three, in messages of several sizes, each job
once and nothing left. Of each run: wall seconds, and the processor seconds of producer, worker, and all broker nodes
together, and the bytes that the nodes wrote. The medians of the rounds are kept. Sizes marked `fit` are what the
model's costs come from; the others are what it is checked against.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import leveret  # noqa: E402 - after the path
from leveret import _core  # noqa: E402 - the same
from leveret.cli.demo import demo_plugin  # noqa: E402 - the same
from measure import machine, processor_seconds  # noqa: E402 - the same
from support.rabbitmq_cluster import RabbitCluster  # noqa: E402 - the same
from support.rabbitmq_node import RabbitNode  # noqa: E402 - the same

FIT = {1: 60_000, 64 << 10: 20_000_000}
CHECK = {1 << 10: 1_000_000, 8 << 10: 5_000_000}
"""Bytes of a message (1: one job), and jobs of a run."""
PATIENCE = 600.0
THREADS = 2


@dataclass
class Stage:
    """Publishing or draining: the clock's seconds, processor seconds, and what the brokers wrote to their disks."""

    seconds: float
    client: float
    brokers: float
    written: float
    """Bytes."""


@dataclass
class Run:
    """What was measured of one size on one number of nodes: medians of rounds."""

    nodes: int
    message_bytes: int
    fit: bool
    jobs: int
    messages: int
    job_bytes: float
    publish: Stage
    drain: Stage


def written(servers: list[int]) -> int:
    """Return the bytes that processes have had written to disks so far."""
    told = (Path(f"/proc/{pid}/io").read_text() for pid in servers)
    return sum(int(text.partition("\nwrite_bytes:")[2].split()[0]) for text in told)


def publish_and_drain(url: str, servers: list[int], message_bytes: int, jobs: int) -> tuple[int, Stage, Stage]:
    """Send jobs in messages of so many bytes and drain them; return how many messages they were, and both stages."""
    queue = f"scale-{message_bytes}"
    stages = []

    def now() -> tuple[float, ...]:
        return time.perf_counter(), time.process_time(), processor_seconds(servers), written(servers)

    def measured(began: tuple[float, ...]) -> Stage:
        return Stage(*(after - before for before, after in zip(began, now(), strict=True)))

    with leveret.App(url, batch_bytes=message_bytes) as app:

        @app.native(queue=queue, ignore_result=True)
        def noop() -> None:
            raise NotImplementedError

        app.client().declare(queue)
        began = now()
        noop.send_many(() for _ in range(jobs))
        stages.append(measured(began))
        messages = sum(stats["ready"] for stats in app.client().stats(queue))

        worker = _core.Worker([str(demo_plugin())], url, [queue], THREADS, burst=True, log_level="warning")
        began = now()
        worker.start()
        finished = worker.wait_finished(PATIENCE)
        counts = worker.stop(10.0)
        stages.append(measured(began))
        left = sum(stats["ready"] for stats in app.client().stats(queue))
    if not finished or counts["succeeded"] != jobs or left:
        raise RuntimeError(f"of {jobs:,} jobs {counts['succeeded']:,} succeeded; {left:,} messages are left")
    return messages, stages[0], stages[1]


def median_stage(stages: list[Stage]) -> Stage:
    """Return the medians of the rounds."""
    return Stage(*(statistics.median(values) for values in zip(*(asdict(s).values() for s in stages), strict=True)))


def measure(rounds: int) -> list[Run]:
    """Measure all sizes on one node, then on three."""
    runs = []
    for number in (1, 3):
        with ExitStack() as stack:
            if number == 1:
                nodes = [stack.enter_context(RabbitNode())]
                url = nodes[0].url
            else:
                cluster = stack.enter_context(RabbitCluster())
                nodes, url = cluster.nodes, cluster.url
            servers = [node.pid for node in nodes]
            for message_bytes, jobs in (FIT | CHECK).items():
                publish_and_drain(url, servers, message_bytes, jobs // 10)  # the first of a queue makes it
                found = [publish_and_drain(url, servers, message_bytes, jobs) for _ in range(rounds)]
                messages = found[0][0]
                line = b'{"task":"noop","retry_count":0}\n'
                run = Run(
                    number,
                    message_bytes,
                    message_bytes in FIT,
                    jobs,
                    messages,
                    len(line),
                    median_stage([publish for _, publish, _ in found]),
                    median_stage([drain for _, _, drain in found]),
                )
                runs.append(run)
                print(
                    f"{number} nodes, {jobs / messages:,.0f} jobs a message: {run.publish}, {run.drain}",
                    file=sys.stderr,
                )
    return runs


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("costs.json"))
    chosen = parser.parse_args()
    runs = measure(chosen.rounds)
    result = {"machine": machine(), "rounds": chosen.rounds, "runs": [asdict(run) for run in runs]}
    chosen.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
