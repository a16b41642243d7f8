"""What producers and handlers leave behind in a run with faults, and how it is read back.

A job is known by its number: the producer's index times `NUMBERS`, and a sequence from 0. A producer notes in a file of
its own, one line by one write, when it begins to send (`invoke`) and what came of it: `ok` (durable), `fail` (certainly
not sent) or `unknown`. The handler appends a line to one file for each attempt, before it returns. Both survive
`kill -9` of whoever wrote them, up to the line being written.

An odd index stands for a producer's jobs with keys.
"""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["KEYS", "NUMBERS", "Effects", "Event", "Log", "key_of", "read_effects", "read_log"]

NUMBERS = 1_000_000_000
"""Numbers that one producer has."""
KEYS = 40
"""Keys that one producer uses: more than there are queues for them, so that some share one."""


def key_of(number: int) -> int | None:
    """Return the key of a job; None: it has none."""
    index, sequence = divmod(number, NUMBERS)
    return index * KEYS + sequence % KEYS if index % 2 == 1 else None


class Log:
    """A producer's notes."""

    def __init__(self, path: str) -> None:
        """Open the file; append to it."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, first: int, count: int) -> None:
        """Note what became of jobs `first` to `first + count - 1`."""
        if count:
            os.write(self._file, f"{what} {first} {count} {time.monotonic():.6f}\n".encode())


@dataclass(frozen=True)
class Event:
    """A line of a producer's notes."""

    what: str
    first: int
    count: int
    time: float
    """On the machine's monotonic clock, in seconds."""


def read_log(path: Path) -> Iterator[Event]:
    """Give the events of a producer's notes in order; a line cut short at the end is left out."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        what, first, count, when = line.decode().split()
        yield Event(what, int(first), int(count), float(when))


@dataclass
class Effects:
    """What handlers noted, in the order written: parallel arrays."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Of the jobs."""
    places: array[int] = field(default_factory=lambda: array("q"))
    """Where each line begins in the file."""
    workers: array[int] = field(default_factory=lambda: array("q"))
    """The process ids of who ran them."""


_FIELDS = 4


def read_effects(path: Path) -> Effects:
    """Read the handlers' file; lines are `number job_id retry_count process_id`.

    A worker that is killed amid its write leaves the first part of a line: a run that nobody has seen.
    """
    found = Effects()
    place = 0
    if not path.exists():
        return found
    with path.open("rb") as file:
        for line in file:
            fields = line.split()
            if line.endswith(b"\n") and len(fields) == _FIELDS:
                found.numbers.append(int(fields[0]))
                found.workers.append(int(fields[-1]))
                found.places.append(place)
            place += len(line)
    return found
