"""Jobs that are sent one by one: where each went, and how an event loop waits for it."""

from __future__ import annotations

import select
import threading
import weakref
from typing import TYPE_CHECKING, Any

from leveret.job import Job

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from leveret._core import Client, LineWriter
    from leveret.app import App
    from leveret.job import Sent
    from leveret.once import Claim
    from leveret.results import Outcomes
    from leveret.tasks import OneSend, Settings

    _Expected = tuple[asyncio.Future[Job[Any]], App, Client, str, Settings, Any]
    """Who waits for a send, and what its `Job` is made of."""

__all__ = ["Sends", "send_once"]

_ON_THEIR_WAY = 256


class Sends:
    """What an app sends one by one. Thread-safe.

    Jobs that are sent at the same time share messages. What comes back for a message comes once, so their `Job`s share
    one record of it, which is kept here until each of them has its own `Job`.
    """

    def __init__(self) -> None:
        """Make an empty record."""
        self._lock = threading.Lock()
        self.shared: dict[str, tuple[Outcomes, int]] = {}
        """By message id: the record, and how many of its jobs have their `Job` already."""
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopSends] = weakref.WeakKeyDictionary()
        self._last: LoopSends | None = None

    def job(  # noqa: PLR0913, PLR0917 - what a send knows
        self,
        app: App,
        client: Client,
        task: str,
        settings: Settings,
        returns: Any,
        message: str,
        line: int,
        jobs: int,
    ) -> Job[Any]:
        """Return the `Job` of line `line`, from 1, of a message of `jobs`. Once for each.

        `jobs` is 0 for a job that was there already: its outcome is looked up.
        """
        if jobs == 0:
            return Job(app.outcomes(client, task, settings, returns, [(message, 1)], stored=True), 0, line)
        if not settings.want_results:  # most are never asked for anything: what could answer is made when one is
            return Job((app, client, task, settings, returns, message, jobs), 0, line)
        if jobs == 1:
            return Job(app.outcomes(client, task, settings, returns, [(message, jobs)]), 0, line)
        with self._lock:
            known = self.shared.get(message)
            outcomes, told = known or (app.outcomes(client, task, settings, returns, [(message, jobs)]), 0)
            if told + 1 == jobs:
                self.shared.pop(message, None)
            else:
                self.shared[message] = (outcomes, told + 1)
        return Job(outcomes, 0, line)

    def of_loop(self) -> LoopSends:
        """Return what the running event loop sends."""
        import asyncio

        loop = asyncio.get_running_loop()
        sends = self._last  # nearly always; the dictionary costs a tenth of a send
        if sends is None or sends.loop() is not loop:
            sends = self._loops.get(loop)
            if sends is None:
                # What a closed loop's sends still wait for would keep it: their futures.
                for closed in [each for each in list(self._loops) if each.is_closed()]:
                    self._loops.pop(closed, None)
                sends = self._loops[loop] = LoopSends(loop)
            self._last = sends
        return sends


class LoopSends:
    """What one event loop has sent and waits for. Of that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        from leveret import _core

        self.loop = weakref.ref(loop)
        """Weak, since what is known by a loop is not to keep it. While sends wait for answers, their futures do."""
        self.queue = _core.SentQueue()
        self._expected: dict[int, _Expected] = {}
        self.connecting = 0
        """How many wait for the connection."""
        self._connect = asyncio.Lock()
        self._last = 0
        loop.add_reader(self.queue.fileno(), self._take)

    async def connect(self, app: App) -> Client:
        """Return the connection, opened without blocking the loop; who asked first goes on first."""
        import asyncio

        self.connecting += 1
        try:
            async with self._connect:  # fair
                client = app.connected
                return await asyncio.to_thread(app.client) if client is None else client
        finally:
            self.connecting -= 1

    def send(  # noqa: PLR0913, PLR0917 - as `job`
        self,
        app: App,
        client: Client,
        writer: LineWriter,
        task: str,
        settings: Settings,
        returns: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        once: Claim | None,
    ) -> asyncio.Future[Job[Any]]:
        """Send one job; return what has its `Job` once it is durable. Raises as `Sender.send`."""
        loop = self.loop()
        assert loop is not None  # noqa: S101 - for the type checker: it runs
        future: asyncio.Future[Job[Any]] = loop.create_future()
        self._last = ticket = self._last + 1
        self._expected[ticket] = (future, app, client, task, settings, returns)
        try:
            client.send_soon(
                writer,
                args,
                kwargs,
                settings.queue,
                settings.delay_ms,
                settings.want_results,
                self.queue,
                ticket,
                once,
                settings.shards,
            )
        except BaseException:
            del self._expected[ticket]
            raise
        return future

    def _take(self) -> None:
        sent: Sent | None = None  # of jobs whose results nobody wants, one for those of a task that come together
        for ticket, message, line, jobs, error in self.queue.take():
            future, app, client, task, settings, returns = self._expected.pop(ticket)
            if error is not None:
                if not future.done():
                    future.set_exception(error)
                continue
            # Also for one who waits no longer: those who share its message count on it.
            if jobs == 0 or settings.want_results:
                job: Job[Any] = app.sends.job(app, client, task, settings, returns, message, line, jobs)
            else:
                if sent is None or sent[5] != message or sent[2] != task:
                    sent = (app, client, task, settings, returns, message, jobs)
                job = Job(sent, 0, line)
            if not future.done():
                future.set_result(job)


def send_once(
    client: Client, jobs: Iterator[OneSend], *, want_results: bool
) -> tuple[list[tuple[str, int]], Exception | None, BaseException | None, int]:
    """Send jobs that are to be there once, each in a message of its own, many on their way at a time.

    Returns:
        (message id, 1) of each job before the first that was not accepted, what publishing failed with, what `jobs`
        raised, and how many behind the first that was not accepted were.
    """
    from leveret import _core

    queue = _core.SentQueue()
    answers: dict[int, tuple[str, Exception | None]] = {}
    sent = 0
    failed: Exception | None = None
    raised: BaseException | None = None

    def take(most: int) -> None:
        """Wait until at most so many are on their way."""
        nonlocal failed
        while sent - len(answers) > most:
            select.select([queue], [], [])
            for ticket, message, _line, jobs_there, error in queue.take():
                answers[ticket] = (message, error)
                failed = failed or error
                if error is None and jobs_there != 0 and want_results:
                    client.forget_results([message])  # they are looked up, like those of jobs that were there already

    try:
        for job in jobs:
            take(_ON_THEIR_WAY - 1)
            if failed is not None:
                break
            client.send_soon(
                job.writer,
                job.args,
                job.kwargs,
                job.queue,
                job.delay_ms,
                want_results,
                queue,
                sent,
                job.claim,
                job.shards,
            )
            sent += 1
    except BaseException as error:  # noqa: BLE001 - the caller tells what was sent before it
        raised = error
    take(0)
    accepted: list[tuple[str, int]] = []
    while len(accepted) < sent and answers[len(accepted)][1] is None:
        accepted.append((answers[len(accepted)][0], 1))
    if failed is not None:
        failed = answers[len(accepted)][1]
    behind = sum(1 for ticket, (_, error) in answers.items() if error is None and ticket >= len(accepted))
    return accepted, failed, raised, behind
