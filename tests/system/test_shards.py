"""Queues that are spread over shards: workers find them without being told, and nothing of them is left behind."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import leveret
from support.effects import Effects
from support.processes import Broker, until
from support.processes import leveret as run_cli

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = 4
JOBS = 2_000


def names(broker: Broker, number: int = SHARDS) -> list[str]:
    """Return the names of a queue's shards."""
    return [broker.queue, *(f"{broker.queue}.shard.{shard}" for shard in range(1, number))]


def waiting(broker: Broker) -> dict[str, int]:
    """Return how many messages wait in each of a queue's shards, as the command line says."""
    answer = run_cli("queues", broker.queue, "--url", broker.url, "--json")
    return {each["queue"]: each["ready"] for each in json.loads(answer.stdout)["queues"]}


def spread(app: leveret.App, broker: Broker) -> Any:
    """Return the task of effects.cpp, as its senders know it."""
    return Effects(app, broker.queue).effect.options(queue=broker.queue, shards=SHARDS)


def numbers(broker: Broker, first: int, jobs: int = JOBS) -> list[tuple[str, int]]:
    """Return the arguments of jobs."""
    return [(str(broker.effects_file), n) for n in range(first, first + jobs)]


def test_a_worker_finds_the_shards_that_are_there(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url, batch_bytes=1_000) as app:
        jobs = spread(app, broker).send_many(numbers(broker, 0))
        before = waiting(broker)
        assert list(before) == names(broker)
        assert min(before.values()) > 0
        assert max(before.values()) - min(before.values()) <= 1, "in turn"
        counts = broker.drain(effects)
        assert counts["succeeded"] == JOBS
        assert sorted(jobs.results(timeout=60)) == list(range(JOBS))
    assert broker.times_run() == Counter(range(JOBS))
    assert set(waiting(broker).values()) == {0}


def test_a_worker_that_came_first_hears_of_them(broker: Broker, effects: Path) -> None:
    with broker.worker(effects) as worker, leveret.App(broker.url, batch_bytes=1_000) as app:
        first = spread(app, broker)
        jobs = first.send_many(numbers(broker, 0))
        assert sorted(jobs.results(timeout=60)) == list(range(JOBS))
        # More of them later, while it runs.
        more = first.options(shards=SHARDS + 3).send_many(numbers(broker, JOBS))
        assert sorted(more.results(timeout=60)) == list(range(JOBS, 2 * JOBS))
        assert list(waiting(broker)) == names(broker, SHARDS + 3)
        heard = [line for line in worker.log if " shards " in line]
        assert len(heard) == 2, worker.log
        counts = worker.stop()
    assert counts["succeeded"] == 2 * JOBS
    assert broker.times_run() == Counter(range(2 * JOBS))


def test_one_job_is_enough_to_be_heard(broker: Broker, effects: Path) -> None:
    """Each new sender's first job goes where every worker looks."""
    with broker.worker(effects):
        for n in range(3):
            with leveret.App(broker.url) as app:
                assert spread(app, broker).send(str(broker.effects_file), n).result(timeout=60) == n


def test_what_a_killed_worker_held_of_any_shard_runs_again(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url, batch_bytes=1_000) as app:
        slow = Effects(app, broker.queue).spin.options(shards=SHARDS)
        with broker.worker(effects) as victim:
            jobs = slow.send_many((*each, 500) for each in numbers(broker, 0))
            until(lambda: len(broker.effects()) > JOBS // 10, "it runs")
            victim.kill()
        # Nobody tells this one either: what is left may be in any of them.
        with broker.worker(effects) as heir:
            assert sorted(jobs.results(timeout=120)) == list(range(JOBS))
            heir.stop()
    assert set(broker.times_run()) == set(range(JOBS))


def test_workers_share_what_is_in_the_shards(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url, batch_bytes=1_000) as app:
        first, second = broker.worker(effects), broker.worker(effects)
        task = spread(app, broker)
        try:
            sent = 0

            def both() -> bool:
                nonlocal sent
                list(task.send_many(numbers(broker, sent)).results(timeout=120))
                sent += JOBS
                return len({effect.pid for effect in broker.effects()}) == 2

            until(both, "both run jobs")
            counts = [worker.stop() for worker in (first, second)]
        finally:
            for worker in (first, second):
                worker.__exit__()
    assert sum(each["succeeded"] for each in counts) == sent


def test_dead_jobs_of_all_shards_are_listed_replayed_and_dropped_by_the_queues_name(
    broker: Broker, effects: Path
) -> None:
    with leveret.App(broker.url) as app:
        wrong = Effects(app, broker.queue).reject.options(shards=SHARDS)
        for n in range(2 * SHARDS):
            wrong.send(f"number {n}")
    assert broker.drain(effects)["dead"] == 2 * SHARDS
    dead = broker.dead()
    assert Counter(job["queue"] for job in dead) == dict.fromkeys(names(broker), 2)
    where = ["--url", broker.url, "--queue", broker.queue]
    shown = json.loads(run_cli("dead", "show", dead[-1]["id"], *where, "--json").stdout)
    assert shown["job"]["id"] == dead[-1]["id"]
    replayed = run_cli("dead", "replay", dead[0]["id"], dead[-1]["id"], *where, "--yes", "--json")
    assert json.loads(replayed.stdout)["replayed"] == 2
    dropped = run_cli("dead", "drop", "--all", *where, "--yes", "--json")
    assert json.loads(dropped.stdout)["dropped"] == 2 * SHARDS - 2
    assert broker.dead() == []
    purged = run_cli("purge", broker.queue, "--url", broker.url, "--yes", "--json")
    assert json.loads(purged.stdout)["removed"] == {broker.queue: 2}
    assert set(waiting(broker).values()) == {0}


def test_cpp_senders_spread_alike(broker: Broker, effects: Path, sender: Path) -> None:
    words = ["reject", '"no"', f"shards={SHARDS}", f"times={2 * SHARDS}"]
    subprocess.run([sender, broker.url, broker.queue, *words], check=True)
    assert waiting(broker) == dict.fromkeys(names(broker), 2)
    assert broker.drain(effects)["dead"] == 2 * SHARDS


def test_keys_stay_in_order_beside_shards(broker: Broker, effects: Path) -> None:
    with broker.worker(effects, "--ordered", broker.queue), leveret.App(broker.url) as app:
        keyed = app.native(queue=broker.queue, shards=SHARDS, ordered=True, key="key")(_keyed)
        path = str(broker.effects_file)
        jobs = keyed.send_many((path, n % 5, n // 5) for n in range(100))
        assert list(jobs.results(timeout=60)) == [n // 5 for n in range(100)]
    order: dict[str, list[int]] = {}
    for line in filter(None, broker.effects_file.read_text().splitlines()):
        what, key, number, _ = line.split()
        if what == "begin":
            order.setdefault(key, []).append(int(number))
    assert order == {str(key): list(range(20)) for key in range(5)}


def _keyed(path: str, key: int, number: int) -> int:
    raise NotImplementedError


_keyed.__name__ = "keyed"
