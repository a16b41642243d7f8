"""Part `shards`: a queue spread over several, on a cluster of three nodes on this machine.

Each round publishes and drains by `leveret bench --shards`, which fails unless every job was run once and all shards
are empty. All nodes, the producer and the worker share this machine's cores, so what is seen here is what shards cost;
what they bring, more cores for one queue, needs more machines (`benchmarks/scale/`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import leveret
from measure import LEVERET, Contender, NotMeasuredError, Row, answer_of, compare
from support.rabbitmq_cluster import RabbitCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

SHARDS = (1, 3, 6)
SIZES = {"messages of 64 KiB": (None, 2_000_000), "messages of one job": (1, 20_000)}
"""Bytes of a message (None: as Leveret sends), and jobs of a run."""


class Runs:
    """The runs of one number of shards: each gives the rates of publishing and of draining."""

    def __init__(self, url: str, shards: int, jobs: int, message_bytes: int | None) -> None:
        self._command = [LEVERET, "bench", "--url", url, "--jobs", str(jobs), "--shards", str(shards), "--json"]
        self._environ = dict(os.environ)
        if message_bytes is not None:
            self._environ["LEVERET_BATCH_BYTES"] = str(message_bytes)
        self._jobs = jobs
        self._drained: list[float] = []

    def publish(self) -> tuple[float, None]:
        """Run; return the rate of publishing and keep that of draining."""
        answer = answer_of(self._command, environ=self._environ)
        rates = []
        for stage in ("publish", "drain"):
            found = answer[stage]
            if not isinstance(found, dict) or found["jobs"] != self._jobs:
                raise NotMeasuredError(f"{stage}: {found} is not that of {self._jobs:,} jobs")
            rates.append(float(found["jobs_per_s"]))
        self._drained.append(rates[1])
        return rates[0], None

    def drain(self) -> tuple[float, float]:
        """Return what the last run drained; its processor time is counted with its publishing."""
        if not self._drained:
            raise NotMeasuredError("its jobs were not published")
        return self._drained.pop(), 0.0


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
                runs = Runs(cluster.url, shards, jobs, message_bytes)
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
            for row in found:
                if "drained" in row.comparison:
                    row.cpu_s_per_million = None
            rows += [row for row in found if "published" in row.comparison]
            rows += [row for row in found if "drained" in row.comparison]
    return rows
