"""The ends of many jobs, of one send or of many: asked for together, one question for all."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from leveret.errors import JobFailed, ResultMismatch, ResultTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from leveret._core import Client
    from leveret.job import Job
    from leveret.results import Outcomes

__all__ = ["Ended", "as_completed", "as_completed_async", "in_order", "in_order_async"]

C = TypeVar("C")

_SLICE = 0.25
"""Seconds after which outcomes that other threads received are looked for."""
_LOOK_AGAIN = 0.05
"""Seconds between two looks into the store, where results are not pushed."""
_AT_ONCE = 10_000
"""Messages asked for in one question."""
_AHEAD = 65_536
"""Jobs looked at together by `in_order`: what bounds its memory."""


class Ended(NamedTuple, Generic[C]):
    """A job that has ended. Nothing was raised: `failure` says what `job.result()` would raise."""

    job: Job[C]
    state: str
    """succeeded, dead, expired or cancelled."""
    result: C | None
    """What the handler returned; None if it did not succeed."""
    failure: JobFailed | ResultMismatch | None
    """None if it succeeded and its result is of the type that the signature promises."""


class _Collector:
    """Jobs whose ends are waited for."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Outcomes, int], dict[int, list[Job[Any]]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, job: Job[Any]) -> None:
        """Wait for one more. Raises Unsupported if nobody keeps its result."""
        outcomes, message, line = job.place
        outcomes.check_wanted(message, line)
        self._waiting.setdefault((outcomes, message), {}).setdefault(line, []).append(job)
        self._count += 1

    def known(self) -> list[Ended[Any]]:
        """Take out those whose ends are known here already."""
        found: list[Ended[Any]] = []
        for outcomes, message in list(self._waiting):
            found += self._known_of(outcomes, message)
        return found

    def _known_of(self, outcomes: Outcomes, message: int) -> list[Ended[Any]]:
        lines = self._waiting[outcomes, message]
        found: list[Ended[Any]] = []
        for line, row in outcomes.known(message, lines):
            found += [_ended(job, outcomes, message, line, row) for job in lines.pop(line)]
        if not lines:
            del self._waiting[outcomes, message]
        self._count -= len(found)
        return found

    def wait(self, seconds: float) -> list[Ended[Any]]:
        """Ask the brokers once, for at most `seconds`, and take out what has ended."""
        pushed: dict[int, tuple[Client, dict[str, tuple[Outcomes, int]]]] = {}
        stored: dict[int, tuple[Client, dict[str, tuple[Outcomes, int]]]] = {}
        for outcomes, message in islice(self._waiting, _AT_ONCE):
            client, is_stored = outcomes.source(message)
            group = (stored if is_stored else pushed).setdefault(id(client), (client, {}))
            group[1][outcomes.messages[message][0]] = (outcomes, message)
        limit = seconds if len(pushed) + len(stored) == 1 and pushed else min(seconds, _LOOK_AGAIN)
        touched: dict[tuple[Outcomes, int], None] = {}
        for client, places in pushed.values():
            for name, _, _, chunk in client.take_results(list(places), limit):
                places[name][0].store(places[name][1], [chunk])
                touched[places[name]] = None
        for client, places in stored.values():
            chunks: dict[str, list[bytes]] = {}
            for name, _, _, chunk in client.fetch_results(list(places)):
                chunks.setdefault(name, []).append(chunk)
            for name, all_chunks in chunks.items():
                places[name][0].refresh(places[name][1], all_chunks)
                touched[places[name]] = None
        found = [ended for place in touched if place in self._waiting for ended in self._known_of(*place)]
        if not found:
            found = self.known()  # another thread may have received them
        if not found and not pushed:
            time.sleep(limit)
        return found

    def last_look(self) -> list[Ended[Any]]:
        """Take out what the stores have, though it was not pushed here yet."""
        for outcomes, message in list(self._waiting):
            outcomes.look(message, next(iter(self._waiting[outcomes, message])))
        return self.known()

    def missing(self, seconds: float) -> ResultTimeout:
        """Return the error for those that have not ended in time."""
        (outcomes, message), lines = next(iter(self._waiting.items()))
        text = outcomes.timeout_text(message, next(iter(lines)), seconds)
        return ResultTimeout(
            text if self._count == 1 else f"{self._count} jobs have not ended, the first of them: {text}"
        )


def _ended(job: Job[Any], outcomes: Outcomes, message: int, line: int, row: Any) -> Ended[Any]:
    if row.state != "succeeded":
        return Ended(job, row.state, None, outcomes.failure(message, line, row))
    try:
        return Ended(job, row.state, outcomes.value(message, line, row), None)
    except ResultMismatch as error:
        return Ended(job, row.state, None, error)


def as_completed(jobs: Iterable[Job[Any]], timeout: float | None) -> Iterator[Ended[Any]]:
    """Give jobs as they end."""
    collector = _Collector()
    for job in jobs:
        collector.add(job)
    yield from collector.known()
    deadline = None if timeout is None else time.monotonic() + timeout
    while len(collector):
        left = _SLICE if deadline is None else min(_SLICE, deadline - time.monotonic())
        if left <= 0:
            yield from collector.last_look()
            if len(collector):
                raise collector.missing(timeout or 0)
            return
        yield from collector.wait(left)


async def as_completed_async(jobs: Iterable[Job[Any]], timeout: float | None) -> AsyncIterator[Ended[Any]]:  # noqa: ASYNC109 - the API's word
    """Give jobs as they end, without blocking the event loop."""
    import asyncio

    collector = _Collector()
    for job in jobs:
        collector.add(job)
    found = collector.known()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        for ended in found:
            yield ended
        if not len(collector):
            return
        left = _SLICE if deadline is None else min(_SLICE, deadline - time.monotonic())
        if left <= 0:
            for ended in await asyncio.to_thread(collector.last_look):
                yield ended
            if len(collector):
                raise await asyncio.to_thread(collector.missing, timeout or 0)
            return
        found = await asyncio.to_thread(collector.wait, left)


def in_order(jobs: Iterable[Job[Any]], timeout: float | None) -> Iterator[Ended[Any]]:
    """Give jobs in the order given, each when it has ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    rest = iter(jobs)
    while part := list(islice(rest, _AHEAD)):
        ended: dict[int, Ended[Any]] = {}
        waiting = deque(part)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        for one in as_completed(part, left):
            ended[id(one.job)] = one
            while waiting and id(waiting[0]) in ended:
                yield ended.pop(id(waiting.popleft()))


async def in_order_async(jobs: Iterable[Job[Any]], timeout: float | None) -> AsyncIterator[Ended[Any]]:  # noqa: ASYNC109 - the API's word
    """Give jobs in the order given, without blocking the event loop."""
    deadline = None if timeout is None else time.monotonic() + timeout
    rest = iter(jobs)
    while part := list(islice(rest, _AHEAD)):
        ended: dict[int, Ended[Any]] = {}
        waiting = deque(part)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        async for one in as_completed_async(part, left):
            ended[id(one.job)] = one
            while waiting and id(waiting[0]) in ended:
                yield ended.pop(id(waiting.popleft()))
