"""What every peer's handler does: the same for all.

A handler adds 1 and its number to counters of its own in a file that is mapped into memory, so the suite sees at any
time how many jobs were executed and whether it was each once, at no cost that would matter: some 0.2 µs a job.

This file needs the standard library alone: it runs in each peer's environment.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

URL = os.environ.get("BENCH_URL", "")
QUEUE = os.environ.get("BENCH_QUEUE", "bench")
RESULTS = os.environ.get("BENCH_RESULTS", "")
"""Where results are kept, which the producer reads: a Redis's url, or `broker`. Without: nobody wants them."""
SENDERS = int(os.environ.get("BENCH_SENDERS", "1"))
"""How many send at once."""
UNSENT = int(os.environ.get("BENCH_UNSENT", "-1"))
"""The number of a job that its sender pretends to have sent: for the test of the suite."""
LOST = int(os.environ.get("BENCH_LOST", "-1"))
"""The number of a job that the worker pretends to have executed: for the test of the suite."""
WRONG = int(os.environ.get("BENCH_WRONG", "-1"))
"""The number of a job that returns another one: for the same test."""
SLOTS = 1024


class Effects:
    """Counters of who executes jobs: a slot of two 64-bit words, count and sum, for each process.

    Word 0 is the number of slots taken, word 1 unused.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._process = 0
        self._slot = 0
        self._lock = threading.Lock()
        self._words = self._map()

    def _map(self) -> memoryview:
        with Path(self._path).open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 16 * (SLOTS + 1))).cast("Q")

    @staticmethod
    def create(path: str) -> Effects:
        """Make the file, empty."""
        Path(path).write_bytes(bytes(16 * (SLOTS + 1)))
        return Effects(path)

    def _take(self) -> int:
        with Path(self._path).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._words[0] += 1
            return 2 * self._words[0]

    def ran(self, number: int) -> None:
        """Count a job that was executed. Threads may call it at the same time."""
        with self._lock:
            if self._process != os.getpid():  # the first time in a process that was forked
                self._process, self._slot = os.getpid(), self._take()
            self._words[self._slot] += 1
            self._words[self._slot + 1] += number

    def read(self) -> tuple[int, int]:
        """Return how many jobs were executed so far, and the sum of their numbers."""
        words = self._words[2 : 2 * self._words[0] + 2]
        return sum(words[0::2]), sum(words[1::2])


effects = Effects(os.environ["BENCH_EFFECTS"]) if "BENCH_EFFECTS" in os.environ else None


def ran(number: int) -> int:
    """Count a job; the result that it returns."""
    if effects is not None and number != LOST:
        effects.ran(number)
    return number + 1 if number == WRONG else number
