"""A cluster of three that breaks while jobs are sent and run: nothing that was accepted is lost."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import leveret as library
import pytest
from support.effects import Effects
from support.processes import Broker, Worker, until
from support.rabbitmq_node import can_log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.rabbitmq_cluster import RabbitCluster

BATCH = 20
PAUSE = 0.02
"""Seconds between batches: about 1,000 jobs a second."""


class Load:
    """A producer and two workers on a queue of their own, past all of the cluster's nodes."""

    def __init__(self, cluster: RabbitCluster, folder: Path, plugin: Path, shards: int = 1) -> None:
        self.shards = shards
        self.queue = f"cluster-{uuid.uuid4().hex[:12]}"
        self.broker = Broker(cluster.url, self.queue, folder)
        self.accepted: set[int] = set()
        self.sent = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._producer = threading.Thread(target=self._produce)
        self._plugin = plugin
        self._workers: list[Worker] = []

    def _produce(self) -> None:
        with library.App(self.broker.url) as app:
            effect = Effects(app, self.queue, ignore_result=True).effect.options(shards=self.shards)
            while not self._over.is_set():
                numbers = range(self.sent, self.sent + BATCH)
                self.sent += BATCH
                try:
                    effect.send_many((str(self.broker.effects_file), n) for n in numbers)
                except library.Error as error:
                    self.failures.append(str(error))  # perhaps accepted, perhaps not
                else:
                    self.accepted.update(numbers)
                self._over.wait(PAUSE)

    def start(self) -> None:
        """Begin, and wait until jobs run."""
        for _ in range(2):
            self._workers.append(self.broker.worker(self._plugin))
        self._producer.start()
        self.wait_runs()

    def wait_runs(self) -> float:
        """Wait until jobs that are sent from now on run; return the seconds."""
        began, mark = time.monotonic(), self.sent + BATCH
        until(lambda: any(effect.n >= mark for effect in self.broker.effects()[-200:]), "new jobs run")
        return time.monotonic() - began

    def finish(self) -> None:
        """End the producer; every accepted job must have run, and none that was not sent."""
        self._over.set()
        self._producer.join()
        until(lambda: self.accepted <= self.broker.times_run().keys(), "every accepted job has run")
        for worker in self._workers:
            worker.stop()
        times = self.broker.times_run()
        assert times.keys() <= set(range(self.sent))
        again = sum(times.values()) - len(times)
        print(f"\n{self.queue}: {len(self.accepted):,} accepted, 0 lost, {again:,} run again, {self.failures[:1]}")

    def end(self) -> None:
        """End everything, however the test ended."""
        self._over.set()
        if self._producer.ident is not None:
            self._producer.join()
        for worker in self._workers:
            worker.__exit__()


@pytest.fixture
def load(request: pytest.FixtureRequest, cluster: RabbitCluster, tmp_path: Path, effects: Path) -> Iterator[Load]:
    """Jobs that are sent and run before, while and after the test breaks something; checked at its end."""
    made = Load(cluster, tmp_path, effects, shards=getattr(request, "param", 1))
    try:
        made.start()
        yield made
        made.finish()
    finally:
        made.end()


def test_the_leaders_node_is_killed(cluster: RabbitCluster, load: Load) -> None:
    leader = cluster.leader_of(load.queue)
    leader.kill()
    assert load.wait_runs() < 30
    leader.start()
    load.wait_runs()


@pytest.mark.parametrize("load", [6], indirect=True)
def test_a_node_that_leads_some_of_the_shards_is_killed(cluster: RabbitCluster, load: Load) -> None:
    names = [load.queue, *(f"{load.queue}.shard.{shard}" for shard in range(1, load.shards))]
    leaders = Counter(cluster.leader_of(name).name for name in names)
    assert len(leaders) > 1, f"RabbitMQ balances leaders over its nodes, other queues' included: {leaders}"
    victim = cluster.leader_of(names[-1])
    victim.kill()
    assert load.wait_runs() < 30
    victim.start()
    load.wait_runs()
    assert all(load.broker.stats(name)["consumers"] == 2 for name in names), "both workers take from every shard"


def test_the_majority_is_lost_and_comes_back(cluster: RabbitCluster, load: Load) -> None:
    gone = cluster.nodes[1:]
    for node in gone:
        node.kill()
    before = len(load.broker.effects())
    until(lambda: len(load.failures) > 0 or len(load.broker.effects()) == before, "nothing is accepted any more")
    starting = [threading.Thread(target=node.start) for node in gone]
    for each in starting:
        each.start()
    for each in starting:
        each.join()
    load.wait_runs()


def test_the_leader_is_cut_off_with_a_minority(cluster: RabbitCluster, load: Load) -> None:
    leader = cluster.leader_of(load.queue)
    cluster.cut_off(leader)
    try:
        until(lambda: not can_log_in(leader.port), "the node that is alone takes no more clients")
        assert load.wait_runs() < 30
        assert cluster.leader_of(load.queue, asked=cluster.others(leader)[0]) is not leader
    finally:
        cluster.join_again(leader)
    until(lambda: can_log_in(leader.port), "the node is back")
    load.wait_runs()


def test_the_nodes_are_restarted_one_after_the_other(cluster: RabbitCluster, load: Load) -> None:
    for node in cluster.nodes:
        node.stop_node()
        load.wait_runs()
        node.start()
        load.wait_runs()


@pytest.mark.parametrize("alarm", ["memory", "disk"])
def test_a_node_raises_an_alarm(cluster: RabbitCluster, load: Load, alarm: str) -> None:
    node = cluster.nodes[1]
    limits = {
        "memory": ["set_vm_memory_high_watermark absolute 1MB", "set_vm_memory_high_watermark absolute 1500MB"],
        "disk": ["set_disk_free_limit 900000GB", "set_disk_free_limit 50MB"],
    }
    raised, lifted = limits[alarm]
    node.ctl(*raised.split())
    try:
        # Publishers wait, in the whole cluster; consumers go on to the end of what is there.
        until(lambda: load.accepted <= load.broker.times_run().keys(), "what was accepted runs")
        accepted = len(load.accepted)
        node.ctl("status")
        assert len(load.accepted) <= accepted + BATCH
    finally:
        node.ctl(*lifted.split())
    load.wait_runs()
