"""Jobs of one key run one after another, in the order sent: over several workers, through a kill and a drain."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import leveret
import pytest
from faults.checker import check
from faults.history import NUMBERS, Effects, Event
from support.processes import Broker, Worker, until
from support.processes import leveret as run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = 50
IN_BATCHES = 60
"""Jobs of each key that are sent together."""
AT_A_TIME = 5
"""Jobs of each key that are sent one by one after that, by a thread for some of the keys: again and again."""


class Mark(NamedTuple):
    """An attempt began or ended."""

    begins: bool
    key: int
    number: int
    pid: int


def marks(broker: Broker) -> list[Mark]:
    """Return what has been noted so far, in the order written."""
    if not broker.effects_file.exists():
        return []
    written = broker.effects_file.read_text()
    rows = [line.split() for line in written[: written.rfind("\n") + 1].splitlines()]
    whole = [row for row in rows if len(row) == len(Mark._fields)]
    return [Mark(what == "begin", int(key), int(number), int(pid)) for what, key, number, pid in whole]


def processes_of(worker: Worker) -> set[int]:
    """Return the ids of a worker's process and of its children, whichever of its threads started them."""
    lists = Path(f"/proc/{worker.pid}/task").glob("*/children")
    return {worker.pid, *(int(child) for each in lists for child in each.read_text().split())}


def overlaps(found: list[Mark], killed: set[int]) -> list[tuple[Mark, Mark]]:
    """Return the attempts that began while another one of their key ran; what was killed ran no more."""
    running: dict[int, Mark] = {}
    wrong = []
    for mark in found:
        other = running.get(mark.key)
        if not mark.begins:
            running.pop(mark.key, None)
            continue
        if other is not None and other.pid not in killed:
            wrong.append((other, mark))
        running[mark.key] = mark
    return wrong


def by_key(number: int) -> int:
    """Return the key of a job, as the checker knows it."""
    return number // NUMBERS


def declared(app: leveret.App, queue: str) -> Any:
    """Return the task as its senders know it."""

    @app.native(queue=queue, ordered=True, key="key")
    def keyed(path: str, key: int, number: int) -> int:
        raise NotImplementedError

    return keyed


@pytest.fixture(params=["python", "native"])
def start(
    request: pytest.FixtureRequest, broker: Broker, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Worker]]:
    """Start a worker: Python's tasks in processes, or a plugin's in threads."""
    monkeypatch.setenv("KEYED_QUEUE", broker.queue)
    monkeypatch.setenv("PYTHONPATH", str(request.path.parent / "apps"))
    started: list[Worker] = []

    def worker() -> Worker:
        if request.param == "python":
            made = broker.worker("keyed:app", "--processes", "2", threads=2, pool="processes")
        else:
            made = broker.worker(effects, "--ordered", broker.queue, threads=4)
        started.append(made)
        return made

    yield worker
    for each in started:
        each.__exit__()


def test_the_jobs_of_a_key_stay_in_order_through_a_kill_and_a_drain(
    broker: Broker, start: Callable[[], Worker]
) -> None:
    path = str(broker.effects_file)
    victim, drained = start(), start()
    with leveret.App(broker.url) as app:
        keyed = declared(app, broker.queue)
        jobs = keyed.send_many((path, key, number) for number in range(IN_BATCHES) for key in range(KEYS))
        assert [job.id for job in jobs] == list(jobs.ids)

        enough = threading.Event()
        sent = dict.fromkeys(range(KEYS), IN_BATCHES)

        def send_one_by_one(keys: range) -> None:
            # The run is on until the test has seen enough of it.
            while not enough.is_set():
                for _ in range(AT_A_TIME):
                    for key in keys:
                        keyed.send(path, key, sent[key])
                        sent[key] += 1

        senders = [threading.Thread(target=send_one_by_one, args=(range(first, KEYS, 5),)) for first in range(5)]
        for sender in senders:
            sender.start()
        try:
            until(lambda: len(marks(broker)) > 800, "the run is on")
            killed = processes_of(victim)
            victim.kill()
            heir = start()
            seen = len(marks(broker))
            until(lambda: len(marks(broker)) > seen + 800, "it goes on")
            counts = drained.stop()
        finally:
            enough.set()
            for sender in senders:
                sender.join()
        assert not counts["grace_exceeded"]
        assert counts["returned"] == 0, "what was begun was ended"
        assert list(jobs.results(timeout=240)) == [n for n in range(IN_BATCHES) for _ in range(KEYS)]
        jobs_sent = sum(sent.values())
        until(lambda: len({mark[1:3] for mark in marks(broker) if not mark.begins}) == jobs_sent, "all have run")
        heir.stop()

    found = marks(broker)
    assert overlaps(found, killed) == []
    first_runs = Effects()
    first_runs.numbers.extend(mark.key * NUMBERS + mark.number for mark in found if mark.begins)
    verdict = check([Event("ok", key * NUMBERS, sent[key], 0.0) for key in range(KEYS)], first_runs, order=by_key)
    assert verdict.good, verdict
    assert verdict.ran == jobs_sent
    # Of each message that the victim had, all that had begun ran again; nothing else did.
    by_victim = {mark[1:3] for mark in found if mark.pid in killed}
    again = [found[i] for i in range(len(found)) if found[i].begins]
    times: dict[tuple[int, int], int] = defaultdict(int)
    for mark in again:
        times[mark.key, mark.number] += 1
    assert {job for job, count in times.items() if count > 1} <= by_victim


def test_workers_share_the_keys(broker: Broker, start: Callable[[], Worker]) -> None:
    """The first worker does not keep all of them."""
    path = str(broker.effects_file)
    first = start()
    with leveret.App(broker.url) as app:
        keyed = declared(app, broker.queue)
        of_first = processes_of(first)
        done = threading.Event()

        def send() -> None:
            number = 0
            while not done.is_set():
                list(keyed.send_many((path, key, number) for key in range(KEYS)).results(timeout=240))
                number += 1

        sender = threading.Thread(target=send)
        sender.start()
        try:
            until(lambda: len(marks(broker)) > 200, "the first runs")
            second = start()
            until(lambda: len({mark.key for mark in marks(broker) if mark.pid not in of_first}) > KEYS // 4, "shared")
        finally:
            done.set()
            sender.join()
        for worker in (first, second):
            worker.stop()
    found = marks(broker)
    assert overlaps(found, set()) == []
    order: dict[int, list[int]] = defaultdict(list)
    for mark in found:
        if mark.begins:
            order[mark.key].append(mark.number)
    assert all(numbers == sorted(set(numbers)) for numbers in order.values())


def test_dead_jobs_of_an_ordered_task_are_listed_with_its_queue_and_replayed(
    broker: Broker,
) -> None:
    ran: list[str] = []
    good = threading.Event()
    with leveret.App(broker.url) as app:

        @app.task(queue=broker.queue, ordered=True, key="key")
        def step(key: str) -> None:
            ran.append(key)
            if not good.is_set():
                raise leveret.Reject("not yet")

        with app.worker(threads=2):
            for key in ("a", "b", "c"):
                with pytest.raises(leveret.JobDead):
                    step.send(key).result(timeout=120)
            dead = broker.dead()
            assert [job["task"] for job in dead] == ["step"] * 3
            queues = {job["queue"] for job in dead}
            assert all(queue.startswith(f"{broker.queue}.ordered.") for queue in queues)
            good.set()
            for job in dead:
                run_cli("dead", "replay", job["id"], "--queue", job["queue"], "--yes", "--url", broker.url)
            until(lambda: sorted(ran) == ["a", "a", "b", "b", "c", "c"], "they ran again")
            assert broker.dead() == []
