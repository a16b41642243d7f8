"""Decides whether a run with faults kept its promises: what was accepted, and what became of it.

After Jepsen's total-queue checker, with the invariants of this project: every accepted job ran or is dead (I1), nothing
ran that nobody sent, and how often a job ran again (I5); first runs in send order where an order was promised (I4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faults.history import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from faults.history import Effects, Event

__all__ = ["Verdict", "check"]

_INVOKED, _UNKNOWN, _OK, _FAILED = 1, 2, 3, 4


@dataclass
class Verdict:
    """What was found, by the jobs' numbers."""

    accepted: int = 0
    ran: int = 0
    """Accepted jobs that ran at least once."""
    dead: int = 0
    """Accepted jobs on record as dead."""
    recovered: int = 0
    """Jobs that ran or are dead although their sender was not told that they were accepted."""
    lost: list[int] = field(default_factory=list)
    """Accepted jobs that neither ran nor are dead."""
    unexpected: list[int] = field(default_factory=list)
    """Jobs that ran, or are dead, though nobody sent them, or their sender was told that they were not sent."""
    misordered: list[int] = field(default_factory=list)
    """Accepted jobs that ran for the first time after a later one that they were to come before had."""
    duplicates: list[int] = field(default_factory=list)
    """Positions, in the effects, of runs that were not the first of their job."""

    @property
    def good(self) -> bool:
        """Whether nothing is lost, unexpected or out of order. How many duplicates are too many is another matter."""
        return not (self.lost or self.unexpected or self.misordered)


class _Senders:
    """What the senders of all jobs were told, a byte a job."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.states: dict[int, bytearray] = {}
        codes = {"invoke": _INVOKED, "unknown": _UNKNOWN, "ok": _OK, "fail": _FAILED}
        for event in events:
            producer, sequence = divmod(event.first, NUMBERS)
            known = self.states.setdefault(producer, bytearray())
            known.extend(bytes(max(0, sequence + event.count - len(known))))
            known[sequence : sequence + event.count] = bytes([codes[event.what]]) * event.count

    def accepted(self, number: int) -> bool:
        """Tell whether a job's sender was told that it was accepted."""
        producer, sequence = divmod(number, NUMBERS)
        known = self.states.get(producer, b"")
        return sequence < len(known) and known[sequence] == _OK

    def sent(self, number: int) -> bool:
        """Tell whether a job may run."""
        producer, sequence = divmod(number, NUMBERS)
        known = self.states.get(producer, b"")
        return sequence < len(known) and known[sequence] not in {0, _FAILED}


def _misordered(numbers: Iterable[int], order: Callable[[int], int | None]) -> list[int]:
    found = []
    last: dict[int, int] = {}
    for number in numbers:
        key = order(number)
        if key is None:
            continue
        if number < last.get(key, -1):
            found.append(number)
        last[key] = max(number, last.get(key, -1))
    return found


def check(
    events: Iterable[Event],
    effects: Effects,
    dead: Iterable[int] = (),
    *,
    order: Callable[[int], int | None] = lambda _number: None,
) -> Verdict:
    """Compare what producers noted with what ran.

    Args:
        events: Of all producers.
        effects: What handlers noted.
        dead: Numbers of the jobs on record as dead.
        order: Gives a job's key by its number: the first runs of a key's accepted jobs must be in the order of their
            numbers. None: it has no key.
    """
    senders = _Senders(events)
    verdict = Verdict()
    ran: set[int] = set()
    first_runs: list[int] = []
    for position, number in enumerate(effects.numbers):
        if number in ran:
            verdict.duplicates.append(position)
            continue
        ran.add(number)
        first_runs.append(number)
        if not senders.sent(number):
            verdict.unexpected.append(number)
    verdict.misordered = _misordered((number for number in first_runs if senders.accepted(number)), order)
    dead = set(dead)
    verdict.unexpected += [number for number in dead - ran if not senders.sent(number)]
    for producer, states in senders.states.items():
        for sequence, state in enumerate(states):
            number = producer * NUMBERS + sequence
            ended = number in ran or number in dead
            if state == _OK:
                verdict.accepted += 1
                verdict.ran += number in ran
                verdict.dead += number in dead
                if not ended:
                    verdict.lost.append(number)
            elif ended and state != _FAILED:
                verdict.recovered += 1
    return verdict
