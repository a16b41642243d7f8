"""The outcomes of the jobs of one send: fetched from the broker on demand, shared by the `Job`s and `Jobs` of it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from sys import is_finalizing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from leveret.errors import (
    JobCancelled,
    JobDead,
    JobExpired,
    JobFailed,
    NotFound,
    ResultMismatch,
    ResultTimeout,
    Unsupported,
)
from leveret.signature import decode_hook, mismatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

    from leveret._core import Client
    from leveret.app import App

__all__ = ["Outcomes"]

T = TypeVar("T")

_LOOK_AGAIN = 0.05
"""Seconds between two looks into the store, where results are not pushed."""
_SHARED_WAIT = 0.5
"""Seconds after which a waiting thread looks whether another one, or an event loop, got its result."""
_STATES = {"delayed": "scheduled", "ready": "queued", "running": "running"}
"""What it says of a job where its message is."""
_DECODED = 8
"""Messages whose outcomes are held as objects; those of others are held as they came."""


class _Row(msgspec.Struct, Generic[T], gc=False):
    """One line of a result chunk, as the contract writes it."""

    line: int
    result: T | msgspec.UnsetType = msgspec.UNSET
    results: list[T] | None = None
    """Of this line and those behind it; no such row is kept."""
    state: str = "succeeded"
    reason: str = ""
    error: str = ""
    attempts: int = 0


_ROW: Any = _Row
"""For subscripts that are known only when the program runs."""
_RAW = msgspec.json.Decoder(_Row[msgspec.Raw])


class _Part:
    """What is known of one message's outcomes."""

    __slots__ = ("chunks", "decoded", "rows", "taking", "waiters")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.decoded = 0
        """How many of the chunks are in `rows`."""
        self.rows: dict[int, _Row[Any]] = {}
        self.taking = False
        """Whether a thread asks the broker for this message now."""
        self.waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []


class _Kept:
    """What came for a send, and who waits for it."""

    __slots__ = ("changed", "decoder", "given", "parts", "recent")

    def __init__(self) -> None:
        self.decoder: msgspec.json.Decoder[Any] | None = None
        self.parts: dict[int, _Part] = {}
        self.recent: deque[_Part] = deque()
        self.given: set[int] = set()
        self.changed = threading.Condition()


class Outcomes:
    """The outcomes of the jobs of one send. Thread-safe.

    Results of a message are asked for when somebody wants one of them, and kept as they came; only those of the
    messages looked into last are held as objects. `stream` keeps nothing behind it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a send knows
        self,
        app: App,
        client: Client,
        task: str,
        queue: str,
        returns: Any,
        messages: list[tuple[str, int]],
        *,
        wanted: bool,
        stored: bool = False,
    ) -> None:
        """Make the record of a send.

        Args:
            app: What the jobs were sent by.
            client: The connection that they were sent over: their results come to it.
            task: The task's name, for messages.
            queue: The queue's name, for messages.
            returns: The type of a result.
            messages: Id and number of jobs of each message, in order.
            wanted: Whether results were asked for at sending.
            stored: Look results up in the store instead of waiting for them to be pushed.
        """
        self.app = app
        self.task = task
        self.queue = queue
        self.messages = messages
        self.wanted = wanted
        self._client = client
        self._stored = stored
        self._returns = returns
        self._generation = app.generation
        self._pid = os.getpid()

    def __del__(self) -> None:
        """Have the connection drop what comes for jobs that nobody holds any more."""
        if not self.wanted or self._stored or is_finalizing():
            return
        with suppress(Exception):  # closed, or the parent process's: then nothing comes
            self._client.forget_results([message for message, _ in self.messages])

    @property
    def _kept(self) -> _Kept:
        """What only those need who ask for an outcome: made for the first of them, since most sends are never asked."""
        kept: _Kept | None = self.__dict__.get("_asked")
        # A lock of its own would cost more than this saves; setdefault is one step.
        return self.__dict__.setdefault("_asked", _Kept()) if kept is None else kept

    def job_id(self, message: int, line: int) -> str:
        """Return a job's id; `message` counts from 0, `line` from 1."""
        return f"{self.messages[message][0]}/{line}"

    # Waiting

    def wait(self, message: int, line: int, timeout: float | None) -> _Row[Any]:
        """Return the outcome of one job; wait for it up to `timeout` seconds.

        Raises:
            ResultTimeout: If it was not there in time.
            Unsupported: If its result was not asked for at sending.
        """
        self.check_wanted(message, line)
        deadline = None if timeout is None else time.monotonic() + timeout
        self._notice_fork()
        while True:
            with self._kept.changed:
                row = self._find(message, line)
                if row is not None:
                    return row
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                part = self._part(message)
                if part.taking:
                    # Another thread asks for this message already, and wakes this one.
                    self._kept.changed.wait(_SHARED_WAIT if left is None else min(left, _SHARED_WAIT))
                    continue
                part.taking = True
            try:
                chunks = self._take(message, _SHARED_WAIT if left is None else min(left, _SHARED_WAIT))
            finally:
                with self._kept.changed:
                    part.taking = False
                    self._kept.changed.notify_all()
            self.store(message, chunks)
        row = self.look(message, line)
        if row is not None:
            return row
        raise ResultTimeout(self.timeout_text(message, line, timeout or 0))

    def look(self, message: int, line: int) -> _Row[Any] | None:
        """Return the outcome of one job if it is known here or in the broker's store; None if it is not there yet.

        What the store has may still be on its way here.
        """
        with self._kept.changed:
            row = self._find(message, line)
        if row is not None or not self._can_fetch():
            return row
        chunks = [chunk for _, _, _, chunk in self.app.client().fetch_results([self.messages[message][0]])]
        self.refresh(message, chunks)
        with self._kept.changed:
            return self._find(message, line)

    def state(self, message: int, line: int) -> str:
        """Return a job's state; `pending` if it has not ended and the broker can't tell where it is."""
        row = self.look(message, line)
        if row is not None:
            return row.state
        client = self.app.client()
        if not client.capabilities()["browse_live"]:
            return "pending"
        queues = [self.queue] if self.queue else [stats["queue"] for stats in client.stats("")]
        # In the order in which a message goes through them, so that one that moves meanwhile is not missed.
        for where, state in _STATES.items():
            for queue in queues:
                with suppress(NotFound):
                    if client.browse(queue, where, self.messages[message][0], "", 1)[0]:
                        return state
        row = self.look(message, line)
        return "pending" if row is None else row.state

    def refresh(self, message: int, chunks: list[bytes]) -> None:
        """Take what the store has of a message, all of it, in the place of what is known. Any thread."""
        with self._kept.changed:
            known = set(self._part(message).chunks)
        # Some may have been pushed before, in another order.
        self.store(message, [chunk for chunk in chunks if chunk not in known])

    def known(self, message: int, lines: Iterable[int]) -> list[tuple[int, _Row[Any]]]:
        """Return (line, outcome) of those of a message's lines whose ends are known here."""
        with self._kept.changed:
            found = [(line, self._find(message, line)) for line in lines]
        return [(line, row) for line, row in found if row is not None]

    def source(self, message: int) -> tuple[Client, bool]:
        """Return the connection to ask for a message's outcomes, and whether they must be looked up."""
        self._notice_fork()
        stored = self._is_stored(message)
        return (self.app.client() if stored else self._client), stored

    def _can_fetch(self) -> bool:
        return self.app.client().capabilities()["fetch"]

    def _take(self, message: int, seconds: float) -> list[bytes]:
        """Ask the broker for outcomes of one message, for at most `seconds`."""
        ids = [self.messages[message][0]]
        if not self._is_stored(message):
            return [chunk for _, _, _, chunk in self._client.take_results(ids, seconds)]
        # The store gives all of them each time.
        chunks = [chunk for _, _, _, chunk in self.app.client().fetch_results(ids)][len(self._part(message).chunks) :]
        if not chunks:
            time.sleep(min(seconds, _LOOK_AGAIN))
        return chunks

    def _is_stored(self, message: int) -> bool:
        """Tell whether results must be looked up: they are not pushed to this program, or no more."""
        if self._stored or (self._generation == self.app.generation and message not in self._kept.given):
            return self._stored
        client = self.app.client()
        if not client.capabilities()["fetch"]:
            gone = (
                "it was handed over by results() already"
                if message in self._kept.given
                else "it was sent over a connection that is closed since"
            )
            raise Unsupported(
                f'cannot get the result of a job of "{self.task}": {gone}, and {client.where()} keeps no results to be '
                "looked up; wait for it before, or use a sqlite:/// url"
            )
        return True

    def _notice_fork(self) -> None:
        """Replace the lock that another thread of the parent may have held at the fork."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._kept.changed = threading.Condition()
        for part in self._kept.parts.values():
            part.taking = False
            part.waiters = []

    def store(self, message: int, chunks: list[bytes]) -> None:
        """Keep chunks that came, and wake who waits for their lines. Any thread."""
        if not chunks:
            return
        with self._kept.changed:
            self._part(message).chunks += chunks
            self._kept.changed.notify_all()
            self._wake_waiters(message)

    def _wake_waiters(self, message: int) -> None:
        """Wake the event loops whose outcomes have come. Under the lock."""
        part = self._part(message)
        if not part.waiters:
            return
        waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        for line, loop, future in part.waiters:
            if self._find(message, line) is None:
                waiting.append((line, loop, future))
            else:
                _tell(loop, future, None)
        part.waiters = waiting

    def fail_waiters(self, message: int, error: Exception) -> None:
        """Have everyone who awaits outcomes of this message get an error."""
        with self._kept.changed:
            part = self._part(message)
            for _, loop, future in part.waiters:
                _tell(loop, future, error)
            part.waiters = []

    def awaited(self, message: int) -> bool:
        """Tell whether anyone still awaits outcomes of this message."""
        with self._kept.changed:
            part = self._part(message)
            part.waiters = [waiter for waiter in part.waiters if not waiter[2].done()]
            return bool(part.waiters)

    async def wait_async(self, message: int, line: int, timeout: float | None) -> _Row[Any]:  # noqa: ASYNC109 - the API's word
        """Return the outcome of one job, as `wait`, without blocking the event loop."""
        import asyncio

        self.check_wanted(message, line)
        self._notice_fork()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._kept.changed:
            row = self._find(message, line)
            if row is not None:
                return row
            stored = self._stored or self._generation != self.app.generation or message in self._kept.given
            if not stored:
                self._part(message).waiters.append((line, loop, future))
        if stored:
            return await asyncio.to_thread(self.wait, message, line, timeout)
        self.app.pump.add(self._client, self, message)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            row = await asyncio.to_thread(self.look, message, line)
            if row is not None:
                return row
            raise ResultTimeout(await asyncio.to_thread(self.timeout_text, message, line, timeout or 0)) from None
        with self._kept.changed:
            row = self._find(message, line)
        if row is None:
            raise NotFound(f'the result of job "{self.job_id(message, line)}" was handed over by results() already')
        return row

    # Looking

    def _part(self, message: int) -> _Part:
        part = self._kept.parts.get(message)
        if part is None:
            part = self._kept.parts[message] = _Part()
        return part

    def _find(self, message: int, line: int) -> _Row[Any] | None:
        """Return a job's outcome if it has come. Under the lock."""
        part = self._part(message)
        if part.decoded < len(part.chunks):
            if part.decoded == 0:
                self._kept.recent.append(part)
                if len(self._kept.recent) > _DECODED:
                    old = self._kept.recent.popleft()
                    old.decoded = 0
                    old.rows = {}
            for chunk in part.chunks[part.decoded :]:
                for row in self._rows(chunk):
                    # A job that ended twice (possible on RabbitMQ) keeps its first outcome.
                    if row.results is None:
                        part.rows.setdefault(row.line, row)
                        continue
                    for number, result in enumerate(row.results, row.line):
                        part.rows.setdefault(number, _Row(number, result))
            part.decoded = len(part.chunks)
        return part.rows.get(line)

    def _rows(self, chunk: bytes) -> list[_Row[Any]]:
        if self._kept.decoder is None:
            try:
                self._kept.decoder = msgspec.json.Decoder(_ROW[self._returns], dec_hook=decode_hook)
            except Exception:  # noqa: BLE001 - an annotation that msgspec can't read: the JSON as it is
                self._kept.decoder = msgspec.json.Decoder(_Row[Any])
        try:
            return self._kept.decoder.decode_lines(chunk)
        except msgspec.ValidationError:
            # Some result is not of the promised type: that job alone shall say so.
            return _RAW.decode_lines(chunk)

    def value(self, message: int, line: int, row: _Row[Any]) -> Any:
        """Return an outcome's result, or raise what the job ended as."""
        if row.state == "succeeded":
            result = row.result
            if type(result) is msgspec.Raw:
                return self._converted(message, line, result)
            return None if result is msgspec.UNSET else result
        raise self.failure(message, line, row)

    def _converted(self, message: int, line: int, raw: msgspec.Raw) -> Any:
        try:
            return msgspec.json.decode(raw, type=self._returns, dec_hook=decode_hook)
        except msgspec.ValidationError as error:
            path, text = mismatch(error)
            raise ResultMismatch(
                f'the result of job "{self.job_id(message, line)}" is not what "{self.task}" promises: '
                f"result{path}: {text}; correct the annotation, or the worker's task"
            ) from None

    def failure(self, message: int, line: int, row: _Row[Any]) -> JobFailed:
        """Return the error for an outcome that is no success."""
        job = self.job_id(message, line)
        if row.state == "expired":
            return JobExpired(f"{self._named(job)} expired before a worker took it", job, self.task)
        if row.state == "cancelled":
            return JobCancelled(f"{self._named(job)} was cancelled", job, self.task)
        text = f"{self._named(job)} is dead after {row.attempts} attempt{'s' * (row.attempts != 1)}: {row.reason}"
        if row.error:
            text += f": {row.error}"
        return JobDead(text, job, self.task, row.reason, row.error, row.attempts)

    def stream(
        self, timeout: float | None, places: Iterator[tuple[int, int, bool]] | None = None
    ) -> Iterator[tuple[int, int, _Row[Any]]]:
        """Give (message, line, outcome) of every job in order, forgetting each message once it was given.

        With `places` in their order: each a message, a line, and whether it is the last one of the message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if places is not None:
            for message, line, last in places:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                yield message, line, self.wait(message, line, left)
                if last:
                    self.forget(message)
            return
        for message, (_, jobs) in enumerate(self.messages):
            part = self._part(message)
            rows = part.rows
            for line in range(1, jobs + 1):
                row = rows.get(line)
                if row is None:
                    row = self.wait(message, line, None if deadline is None else max(0.0, deadline - time.monotonic()))
                    rows = part.rows
                yield message, line, row
            self.forget(message)

    def forget(self, message: int) -> None:
        """Drop a message's outcomes: they were handed over."""
        with self._kept.changed:
            part = self._kept.parts.pop(message, None)
            if part is not None and part in self._kept.recent:
                self._kept.recent.remove(part)
            self._kept.given.add(message)

    # Saying

    def check_wanted(self, message: int, line: int) -> None:
        """Raise Unsupported if the results were not asked for at sending."""
        if not self.wanted:
            raise Unsupported(
                f"cannot get the result of {self._named(self.job_id(message, line))}: it was sent with "
                "ignore_result=True; send it without"
            )

    def _named(self, job: str) -> str:
        """Return a job for messages; the task of one that another program sent may not be known."""
        return f'job "{job}" ("{self.task}")' if self.task else f'job "{job}"'

    def timeout_text(self, message: int, line: int, timeout: float) -> str:
        """Return why a result may be missing: where it was looked for, whether any worker is there. Asks the broker."""
        head = f"no result of {self._named(self.job_id(message, line))} within {timeout:g} s"
        try:
            client = self.app.client()
            where = client.where()
        except Exception as error:  # noqa: BLE001 - said instead
            return f"{head}: {error}"
        head += f" from {where}"
        if not self.queue:
            return head
        try:
            stats = client.stats(self.queue)
        except Exception as error:  # noqa: BLE001 - said instead
            return f'{head}; whether a worker takes jobs of "{self.queue}" can\'t be told: {error}'
        consumers = stats[0]["consumers"] if stats else None
        if consumers is None:
            return head
        if consumers == 0:
            return f'{head}: no worker takes jobs of queue "{self.queue}"{_others(client)}; start one: leveret worker'
        workers = "1 worker takes" if consumers == 1 else f"{consumers} workers take"
        return f'{head}: {workers} jobs of queue "{self.queue}"'


def _others(client: Client) -> str:
    """Return which queues the broker's workers take instead, as they report; asked where that costs one look."""
    if not client.capabilities()["fetch"]:
        return ""
    with suppress(Exception):
        reports = [msgspec.json.decode(text, type=dict[str, Any]) for _, _, text in client.known("worker", "")]
        queues = sorted({queue for report in reports for queue in report["queues"]})
        if queues:
            workers = "1 worker takes" if len(reports) == 1 else f"{len(reports)} workers take"
            return f" ({workers} those of {', '.join(queues)})"
    return ""


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception | None) -> None:
    """End a future of an event loop from any thread; one whose loop has ended meanwhile needs nothing."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_end, future, error)


def _end(future: asyncio.Future[None], error: Exception | None) -> None:
    """End a future, on its loop, unless whoever awaited it gave up."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class Pump:
    """A thread that fetches results for `await`: one for all jobs of an app, alive while something is awaited."""

    _SLICE = 0.02
    """Seconds after which newly awaited messages are asked for as well."""

    def __init__(self) -> None:
        """Make it; the thread starts with the first `add`."""
        self._lock = threading.Lock()
        self._awaited: dict[str, tuple[Client, Outcomes, int]] = {}
        self._running = False

    def add(self, client: Client, outcomes: Outcomes, message: int) -> None:
        """Fetch results of this message until nobody awaits them any more."""
        with self._lock:
            self._awaited[outcomes.messages[message][0]] = (client, outcomes, message)
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="leveret-results", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                awaited = dict(self._awaited)
            gone = [id_ for id_, (_, outcomes, message) in awaited.items() if not outcomes.awaited(message)]
            with self._lock:
                for id_ in gone:
                    # Someone may have begun to await it since: `add` comes after the waiter was registered.
                    if not awaited[id_][1].awaited(awaited[id_][2]):
                        self._awaited.pop(id_, None)
                if not self._awaited:
                    self._running = False
                    return
                awaited = dict(self._awaited)
            clients = {id(client): client for client, _, _ in awaited.values()}
            for client in clients.values():
                self._fetch(client, {key: entry for key, entry in awaited.items() if entry[0] is client})

    def _fetch(self, client: Client, awaited: dict[str, tuple[Client, Outcomes, int]]) -> None:
        try:
            chunks = client.take_results(list(awaited), self._SLICE)
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            for _, outcomes, message in awaited.values():
                outcomes.fail_waiters(message, error)
            return
        for id_, _, _, chunk in chunks:
            _, outcomes, message = awaited[id_]
            outcomes.store(message, [chunk])
