"""A producer of the fault runs: sends numbered jobs until SIGTERM, and notes what came of each.

    python -m faults.producer URL QUEUE EFFECTS LOG INDEX SEED RATE CALM_OVER

Batches of all sizes, some of them with keys, one job at a time from several threads, and, once there is a file
CALM_OVER, a job now and then that takes its process down. INDEX is even; the next one is that of the jobs with keys.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret

from faults.history import NUMBERS, Log, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 4
CRASHES = 1 / 500
"""How many of the single jobs take their process down."""
SHARDS = 3
"""Queues that the native jobs without keys are spread over."""
PYTHON_QUEUE = "-python"
"""What the queue of the Python handlers ends with."""


def key(_path: str, n: int) -> int:
    """Return the key of a job that has one."""
    found = key_of(n)
    assert found is not None
    return found


class Producer:
    """Sends numbered jobs and notes what came of each."""

    def __init__(self, url: str, queue: str, effects: str, log: Log) -> None:
        """Open nothing yet."""
        self.app = leveret.App(url, publish_deadline=20, batch_bytes=2_048)
        self.ordered_app = leveret.App(url, publish_deadline=20, batch_bytes=2_048)
        self._effects = effects
        self._log = log

        @self.app.native(name="effect", queue=queue, shards=SHARDS, ignore_result=True)
        def effect(path: str, n: int) -> int:
            raise NotImplementedError

        @self.app.native(name="crash", queue=queue, ignore_result=True)
        def crash(path: str, n: int) -> None:
            raise NotImplementedError

        @self.app.task(name="note", queue=queue + PYTHON_QUEUE, ignore_result=True)
        def note(path: str, n: int) -> None:
            raise NotImplementedError

        self.effect, self.crash, self.note = effect, crash, note

        # The same handler: one app has but one task of a name.
        @self.ordered_app.native(name="effect", queue=queue, ignore_result=True, ordered=True, key=key)
        def keyed(path: str, n: int) -> int:
            raise NotImplementedError

        self.keyed = keyed

    def close(self) -> None:
        """Wait for what is under way."""
        self.app.close(20)
        self.ordered_app.close(20)

    def send_many(self, first: int, count: int, task: Any) -> None:
        """Send a batch."""
        self._log.note("invoke", first, count)
        jobs = ((self._effects, first + i) for i in range(count))
        try:
            task.send_many(jobs)
        except leveret.SendManyError as error:
            self._log.note("ok", first, error.index)
            self._log.note("unknown", first + error.index, count - error.index)
        except leveret.Error:
            self._log.note("unknown", first, count)
        else:
            self._log.note("ok", first, count)

    def send_one(self, number: int, *, crashes: bool) -> None:
        """Send one job."""
        self._log.note("invoke", number, 1)
        try:
            if crashes:
                self.crash.send(self._effects, number)
            else:
                self.effect.send(self._effects, number)
        except leveret.PublishRefused:
            self._log.note("fail", number, 1)
        except leveret.Error:
            self._log.note("unknown", number, 1)
        else:
            self._log.note("ok", number, 1)

    def send_at_once(self, first: int, crashes: Sequence[bool]) -> None:
        """Send jobs one by one from several threads."""

        def send_some(start: int) -> None:
            for i in range(start, len(crashes), THREADS):
                self.send_one(first + i, crashes=crashes[i])

        threads = [threading.Thread(target=send_some, args=(start,)) for start in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    """Send until SIGTERM."""
    url, queue, effects, log, index, seed, rate, calm_over = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    chance = random.Random(int(seed))
    producer = Producer(url, queue, effects, Log(log))
    number, with_key = int(index) * NUMBERS, (int(index) + 1) * NUMBERS
    due = time.monotonic()
    while not stop.is_set():
        kind = chance.random()
        if kind < 0.1:
            count = chance.choice((1, 10, 100))
            producer.send_many(with_key, count, producer.keyed)
            with_key += count
        elif kind < 0.7:
            count = chance.choice((1, 10, 100, 1_000))
            producer.send_many(number, count, producer.note if chance.random() < 0.2 else producer.effect)
            number += count
        else:
            count = 16
            calm = not Path(calm_over).exists()
            producer.send_at_once(number, [not calm and chance.random() < CRASHES for _ in range(count)])
            number += count
        # Not faster than asked for: a backlog would hide how fast a fault is got over. Lost time is not made up for.
        due = max(due + count / float(rate), time.monotonic())
        stop.wait(due - time.monotonic())
    producer.close()


if __name__ == "__main__":
    main()
