"""Processes killed, stopped, added and removed in a run; brokers restarted. Both brokers unless said."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
import pytest
from support.effects import Effects
from support.processes import Broker, Worker, python, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.rabbitmq_node import RabbitNode

JOBS_A_MESSAGE = 50


def send_effects(broker: Broker, jobs: int, microseconds: int = 0, first: int = 0) -> None:
    """Publish `jobs` numbered jobs, some fifty a message; each takes so long."""
    task, more = ("spin", [microseconds]) if microseconds else ("effect", [])
    args = [str(broker.effects_file), first + jobs, *more]
    line = len(json.dumps({"task": task, "args": args, "retry_count": 0})) + 1
    path = str(broker.effects_file)
    with leveret.App(broker.url, batch_bytes=line * JOBS_A_MESSAGE) as app:
        tasks = Effects(app, broker.queue, ignore_result=True)
        if microseconds:
            tasks.spin.send_many((path, n, microseconds) for n in range(first, first + jobs))
        else:
            tasks.effect.send_many((path, n) for n in range(first, first + jobs))


class Feed:
    """Jobs that go on coming: a run is on for as long as a test takes."""

    def __init__(self, broker: Broker) -> None:
        """Send the first ones."""
        self.sent = 0
        self._broker = broker
        self._over = threading.Event()
        self._send()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _send(self) -> None:
        send_effects(self._broker, 2_000, 50, first=self.sent)
        self.sent += 2_000

    def _feed(self) -> None:
        while not self._over.wait(0.01):
            if self.sent - len(self._broker.effects()) < 6_000:
                self._send()

    def end(self) -> None:
        """Send no more."""
        self._over.set()
        self._thread.join()


@contextmanager
def feeding(broker: Broker) -> Iterator[Feed]:
    """Send jobs until the feed's end, or the block's."""
    feed = Feed(broker)
    try:
        yield feed
    finally:
        feed.end()


def test_a_worker_killed_amid_a_run_costs_at_most_what_it_had_started(broker: Broker, effects: Path) -> None:
    jobs = 100_000
    send_effects(broker, jobs)
    with (
        broker.worker(effects) as victim,
        broker.worker(effects, "--burst") as first,
        broker.worker(effects, "--burst") as second,
    ):
        until(lambda: broker.effects_file.exists() and broker.effects_file.stat().st_size > 500_000, "the run is on")
        victim.kill()
        counts = [first.summary(), second.summary()]
    # The bursts end at an empty queue, which may be before the victim died and what it held came back.
    broker.wait_returned()
    counts.append(broker.drain(effects))
    # What the victim settled is in no summary; what it left is in the others'.
    times = broker.times_run()
    assert set(times) == set(range(jobs))
    by_victim = {effect.n for effect in broker.effects() if effect.pid == victim.pid}
    assert by_victim, "the victim took part"
    repeated = {n for n, count in times.items() if count > 1}
    assert repeated <= by_victim
    assert max(times.values()) <= 2
    # Started and unsettled: the message at hand, and those whose settling was on its way.
    assert len(repeated) <= 64 * (JOBS_A_MESSAGE + 5)
    assert sum(c["succeeded"] for c in counts) >= jobs - len(by_victim)
    assert all(c["dead"] == c["retried"] == 0 for c in counts)
    assert broker.drain(effects)["succeeded"] == 0, "all messages are settled"


def test_what_a_killed_producer_was_told_to_be_accepted_is_there_and_no_half_message(
    broker: Broker, effects: Path
) -> None:
    script = """if True:
        import sys, leveret
        url, queue, path = sys.argv[1:]
        app = leveret.App(url)
        @app.native(name="effect", queue=queue, ignore_result=True)
        def effect(path: str, n: int) -> int: ...
        n = 0
        while True:
            effect.send_many((path, n + i) for i in range(2000))
            n += 2000
            print(n)
    """
    with python(script, broker.url, broker.queue, str(broker.effects_file)) as producer:
        assert producer.stdout is not None
        accepted = 0
        while accepted < 20_000:
            accepted = int(producer.stdout.readline())
        producer.send_signal(signal.SIGKILL)
        rest = producer.stdout.read().split("\n")[:-1]  # a number counts once its line ends
    accepted = int(rest[-1]) if rest else accepted
    summary = broker.drain(effects)
    assert summary["dead"] == 0, "no line is cut in two"
    times = broker.times_run()
    assert set(times) == set(range(len(times))), "a prefix of what was sent"
    assert len(times) >= accepted
    assert set(times.values()) == {1}


def test_a_stopped_worker_charges_no_attempt_and_gives_the_rest_back(broker: Broker, effects: Path) -> None:
    half = 5_000
    jobs = 2 * half + 2
    path = str(broker.effects_file)
    send_effects(broker, half, 50)
    # In the midst are two that end with the stop: as many as there are threads.
    with leveret.App(broker.url) as app:
        polite = Effects(app, broker.queue, ignore_result=True).polite
        polite.send_many((path, half + i) for i in range(2))
    send_effects(broker, half, 50, first=half + 2)
    with broker.worker(effects) as stopped:
        until(lambda: {half, half + 1} <= broker.times_run().keys(), "it is in the midst of the run")
        first = stopped.stop()
    assert half + 2 <= first["succeeded"] < jobs
    broker.wait_returned()
    second = broker.drain(effects)
    assert first["succeeded"] + second["succeeded"] == jobs
    effects_seen = broker.effects()
    assert len(effects_seen) == jobs, "a clean stop repeats nothing"
    assert {effect.n for effect in effects_seen} == set(range(jobs))
    assert {effect.retry_count for effect in effects_seen} == {0}


def test_workers_are_added_and_removed_in_a_run(broker: Broker, effects: Path) -> None:
    with feeding(broker) as feed:
        counts = []
        with broker.worker(effects) as first:
            until(lambda: len(broker.effects()) > 1_000, "the first runs")
            with broker.worker(effects) as second:
                until(lambda: len({effect.pid for effect in broker.effects()}) == 2, "the second takes part")
                counts.append(first.stop())
                with broker.worker(effects) as third:
                    until(lambda: len({effect.pid for effect in broker.effects()}) == 3, "the third takes part")
                    counts.append(second.stop())
                    feed.end()
                    until(lambda: len(broker.effects()) >= feed.sent, "all have run")
                    counts.append(third.stop())
    assert sum(c["succeeded"] for c in counts) == feed.sent
    assert broker.times_run() == dict.fromkeys(range(feed.sent), 1)


def test_one_thread_runs_jobs_in_the_order_sent(broker: Broker, effects: Path) -> None:
    jobs = 10_000
    send_effects(broker, jobs)
    broker.drain(effects, threads=1)
    assert [effect.n for effect in broker.effects()] == list(range(jobs))


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_broker_that_comes_back_finds_its_worker_and_no_job_is_lost(
    node: RabbitNode, tmp_path: Path, effects: Path, how: str
) -> None:
    broker = Broker(node.url, f"restart-{how}", tmp_path)
    jobs = 50_000
    send_effects(broker, jobs, 20)
    with broker.worker(effects, "--burst") as worker:
        until(lambda: len(broker.effects()) > 2_000, "the run is on")
        if how == "kill":
            node.kill()
            node.start()
        else:
            node.restart()
        worker.summary()
    times = broker.times_run()
    assert set(times) == set(range(jobs))
    assert len([n for n, count in times.items() if count > 1]) <= 64 * (JOBS_A_MESSAGE + 5)


def test_a_crashing_job_costs_itself_alone(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    jobs = [{"task": "effect", "args": [path, n]} for n in range(20)]
    jobs.insert(7, {"task": "crash", "args": [path, 1000]})
    broker.send(*jobs)
    crashes = 0
    while True:
        broker.wait_returned(broker.queue, *([f"{broker.queue}.suspects"] if crashes else []))
        words = ["--url", broker.url, "--queue", broker.queue, "--threads", "1", "--burst", "--pool", "threads"]
        with Worker(effects, *words, banner=False) as worker:  # it may crash before it can say anything
            if worker.process.wait() == 0:
                break
            crashes += 1
            assert crashes < 12, "a crash loop that never ends"
    times = broker.times_run()
    assert set(times) == {*range(20), 1000}
    # On RabbitMQ a crash between storing the record and the acknowledgement stores it twice, under one id.
    dead = {(job["id"], job["task"], job["reason"]) for job in broker.dead()}
    assert [job[1:] for job in dead] == [("crash", "crashed")]
    assert crashes == times[1000]


def test_a_slow_message_is_shared_with_workers_that_have_nothing_to_do(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    gates = [str(broker.folder / "first"), str(broker.folder / "second")]
    # One message, whose lines run until a gate opens: the first worker is slow for as long as it takes.
    begun = [{"task": "effect", "args": [path, n]} for n in range(10)]
    begun.append({"task": "gated", "args": [path, 10, gates[0]]})
    broker.send(*begun, *({"task": "gated", "args": [path, n, gates[1]]} for n in range(11, 200)))
    with broker.worker(effects, threads=1) as first:
        until(lambda: len(broker.effects()) == 11, "the first has the message")
        with broker.worker(effects, threads=1) as second:
            first.wait_log("split_slow_message")
            Path(gates[0]).touch()
            until(lambda: len({effect.pid for effect in broker.effects()}) == 2, "the second has some of it")
            Path(gates[1]).touch()
            until(lambda: len(broker.effects()) == 200, "all have run")
            counts = [first.stop(), second.stop()]
    assert sum(c["succeeded"] for c in counts) == 200
    assert all(c["succeeded"] > 0 for c in counts)
    assert broker.times_run() == dict.fromkeys(range(200), 1)
    assert [effect.n for effect in broker.effects() if effect.pid == first.pid][:11] == list(range(11))
