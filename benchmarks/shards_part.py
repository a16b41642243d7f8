"""Part `shards`: a queue spread over several, on a cluster of three nodes on this machine.

Each round publishes and drains by `leveret bench --shards`, which fails unless every job was run once and all shards
are empty. All nodes, the producer and the worker share this machine's cores, so what is seen here is what shards cost;
what they bring, more cores for one queue, needs more machines (`benchmarks/scale/`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import leveret
from measure import Contender, InAndOut, Row, bench_rates, compare
from support.rabbitmq_cluster import RabbitCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

SHARDS = (1, 3, 6)
SIZES = {"messages of 64 KiB": (None, 2_000_000), "messages of one job": (1, 20_000)}
"""Bytes of a message (None: as Leveret sends), and jobs of a run."""


def run(url: str, shards: int, jobs: int, message_bytes: int | None) -> tuple[float, float]:
    """Publish and drain; return both rates."""
    environ = dict(os.environ)
    if message_bytes is not None:
        environ["LEVERET_BATCH_BYTES"] = str(message_bytes)
    return bench_rates(["--url", url, "--jobs", str(jobs), "--shards", str(shards)], jobs, environ)


def measure(_node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    rows: list[Row] = []
    say("shards: a cluster of three starts")
    with RabbitCluster() as cluster:
        servers = [node.pid for node in cluster.nodes]
        for size, (message_bytes, jobs) in SIZES.items():
            published, drained = [], []
            for shards in SHARDS:
                name = f"{shards} shard{'s' * (shards > 1)}"
                runs = InAndOut(partial(run, cluster.url, shards, jobs, message_bytes))
                for about, members, once in (
                    ("published and confirmed", published, runs.publish),
                    ("drained", drained, runs.drain),
                ):
                    row = Row(
                        "shards",
                        f"{size}, {about}, three nodes",
                        name,
                        leveret.__version__,
                        "python benchmarks/suite.py shards",
                        jobs,
                        reference="1 shard",
                    )
                    members.append(Contender(row, once))
            # In turn: each number of shards publishes, then drains.
            turns = [contender for pair in zip(published, drained, strict=True) for contender in pair]
            found = compare(turns, rounds, say, servers)
            rows += [row for row in found if "published" in row.comparison]
            rows += [row for row in found if "drained" in row.comparison]
    return rows
