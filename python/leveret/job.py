"""Jobs as their sender holds them."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, overload

from leveret._time import seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from datetime import timedelta

    from leveret._core import Client
    from leveret.app import App
    from leveret.errors import JobFailed
    from leveret.results import Outcomes
    from leveret.tasks import Settings

    Sent = tuple[App, Client, str, Settings, Any, str, int]
    """What the record of a send is made of: as `App.outcomes`, with its message's id and how many jobs that has."""

__all__ = ["Job", "Jobs", "Progress", "refuse_in_loop"]

C = TypeVar("C", covariant=True)  # noqa: PLC0105 - the name says what it is elsewhere


_CANCELLED_AT_ONCE = 1000


class Progress(NamedTuple):
    """How far a job is, as its handler says."""

    progress: float | None
    """From 0 to 1; None where nobody knows."""
    text: str
    """For people."""


class Job(Generic[C]):
    """A job that was sent: durable at the broker. Any thread may use it.

    `await job` gives its result inside an event loop, `job.result()` elsewhere.
    """

    __slots__ = ("_line", "_message", "_record")

    def __init__(self, record: Outcomes | Sent, message: int, line: int) -> None:
        """Made by `send`; not by hand."""
        self._record = record
        self._message = message
        self._line = line

    @property
    def _outcomes(self) -> Outcomes:
        record = self._record
        if isinstance(record, tuple):
            app, client, task, settings, returns, message, jobs = record
            record = self._record = app.outcomes(client, task, settings, returns, [(message, jobs)])
        return record

    @property
    def id(self) -> str:
        """The job's id: `<message id>/<line>`, unique for ever."""
        record = self._record
        if isinstance(record, tuple):
            return f"{record[5]}/{self._line}"
        return record.job_id(self._message, self._line)

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._outcomes.task

    @property
    def queue(self) -> str:
        """The queue that it was sent to."""
        return self._outcomes.queue

    @property
    def place(self) -> tuple[Outcomes, int, int]:
        """Where its outcome is kept. For this package's own use."""
        return self._outcomes, self._message, self._line

    def state(self) -> str:
        """Return where it is: `scheduled`, `queued`, `running`, or how it ended.

        It ends as `succeeded`, `dead`, `expired` or `cancelled`. Asks the broker, and waits for nothing else.

        `running` says that a worker has it, with the other jobs of its message. `pending` says that it has not ended as
        far as is known, and that the broker can't tell where it is: on RabbitMQ always, elsewhere between the attempts
        of a job that failed, and for an id that is nobody's.

        Raises:
            Unsupported: If it was sent with `ignore_result=True`.
        """
        self._outcomes.check_wanted(self._message, self._line)
        return self._outcomes.state(self._message, self._line)

    def result(self, timeout: float | timedelta | None = None) -> C:
        """Wait for the job to end and return its result.

        Args:
            timeout: Seconds or a timedelta; None waits for ever.

        Raises:
            JobFailed: `JobDead`, `JobExpired` or `JobCancelled`: it ended without a result.
            ResultTimeout: If it has not ended in time. It may yet.
            ResultMismatch: If the result is not of the type that the signature promises.
            Unsupported: If it was sent with `ignore_result=True`.
            RuntimeError: Inside a running event loop, which would stand still: `await job` there.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        refuse_in_loop("await job")
        row = self._outcomes.wait(self._message, self._line, limit)
        result: C = self._outcomes.value(self._message, self._line, row)
        return result

    async def result_async(self, timeout: float | timedelta | None = None) -> C:  # noqa: ASYNC109 - as result's
        """Return the result, as `result`, without blocking the event loop."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        row = await self._outcomes.wait_async(self._message, self._line, limit)
        result: C = self._outcomes.value(self._message, self._line, row)
        return result

    def cancel(self, *, terminate: bool = False) -> bool:
        """Have the job end as cancelled: it is not run any more, and `result()` raises `JobCancelled`.

        A job that runs is asked: its handler sees `current_job().cancelled`, and the job ends as the handler does.
        Durable when it returns. On RabbitMQ, which has no removal, a worker ends the job when it meets it.

        Args:
            terminate: Don't ask the one that runs, but kill the process that runs it, which ends it as cancelled too.
                Other jobs of that process get a second to end, and run again if they don't. Only a pool of processes
                can do that; a worker of threads logs that it can't, and asks.

        Returns:
            True if the job waited and has ended by this. False if workers were told of it: one that has not started it
            ends it as cancelled. Nothing happens to a job that has ended.

        Raises:
            BrokerUnavailable: No broker. Closed: If the app was closed.
        """
        return self._outcomes.app.client().cancel([self.id], terminate)[0]

    async def cancel_async(self, *, terminate: bool = False) -> bool:
        """Have the job end as cancelled, as `cancel`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.cancel, terminate=terminate)

    def progress(self) -> Progress | None:
        """Return what the job's handler said last by `current_job().set_progress`; None if nothing is known.

        Asks the broker. On RabbitMQ it is known to the program that sent the job, with results wanted, as far as it has
        come: the first call may be too early.

        Raises:
            BrokerUnavailable: No broker. Closed: If the app was closed.
        """
        told = self._outcomes.app.client().progress(self.id)
        if not told:
            return None
        from msgspec import json

        fields = json.decode(told, type=dict[str, Any])
        return Progress(fields.get("progress"), fields.get("text", ""))

    async def progress_async(self) -> Progress | None:
        """Return what the job's handler said last, as `progress`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.progress)

    def __await__(self) -> Generator[Any, None, C]:
        """Wait for the result inside an event loop, for ever."""
        return self.result_async().__await__()

    def __repr__(self) -> str:
        """Return the task and the id."""
        return f"<Job {self.task} {self.id}>"


class Jobs(Sequence[Job[C]]):
    """The jobs of one `send_many`, in its order.

    Holds an id and a count per message, whatever their number; for jobs with keys, eight bytes a job as well.
    """

    __slots__ = ("_ends", "_outcomes", "_places")

    def __init__(self, outcomes: Outcomes, places: bytes | None = None) -> None:
        """Made by `send_many`; not by hand."""
        self._outcomes = outcomes
        self._ends = list(accumulate(jobs for _, jobs in outcomes.messages))
        self._places = None if places is None else memoryview(places).cast("I")
        """Of jobs that lie in messages of several keys: of each its message and its line there."""

    @property
    def messages(self) -> list[tuple[str, int]]:
        """Id and number of jobs of each message that carries them."""
        return list(self._outcomes.messages)

    @property
    def ids(self) -> Sequence[str]:
        """The jobs' ids, made as they are asked for."""
        return _Ids(self)

    def __len__(self) -> int:
        """Return how many there are."""
        if self._places is not None:
            return len(self._places) // 2
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int, /) -> Job[C]: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Job[C]]: ...
    def __getitem__(self, index: int | slice, /) -> Job[C] | list[Job[C]]:
        """Return a job, or the jobs of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"there is no job {index}: {len(self)} were sent")
        if self._places is not None:
            return Job(self._outcomes, self._places[2 * position], self._places[2 * position + 1])
        message = bisect_right(self._ends, position)
        before = self._ends[message - 1] if message else 0
        return Job(self._outcomes, message, position - before + 1)

    def __iter__(self) -> Iterator[Job[C]]:
        """Go through the jobs in order."""
        if self._places is not None:
            for message, line, _ in self._walk():
                yield Job(self._outcomes, message, line)
            return
        for message, (_, jobs) in enumerate(self._outcomes.messages):
            for line in range(1, jobs + 1):
                yield Job(self._outcomes, message, line)

    def _walk(self) -> Iterator[tuple[int, int, bool]]:
        """Go through the places of jobs with keys; True: the last one of its message."""
        places = self._places or memoryview(b"").cast("I")
        left = Counter(places[::2])
        for at in range(0, len(places), 2):
            message, line = places[at], places[at + 1]
            left[message] -= 1
            yield message, line, left[message] == 0

    def cancel(self, *, terminate: bool = False) -> int:
        """Have all of them end as cancelled, as `Job.cancel`; returns how many waited and have ended by this.

        In steps of 1,000: a failure may come when some are cancelled.
        """
        client = self._outcomes.app.client()
        ids = self.ids
        return sum(
            sum(client.cancel(ids[at : at + _CANCELLED_AT_ONCE], terminate))
            for at in range(0, len(ids), _CANCELLED_AT_ONCE)
        )

    async def cancel_async(self, *, terminate: bool = False) -> int:
        """Have all of them end as cancelled, as `cancel`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.cancel, terminate=terminate)

    @overload
    def results(self, timeout: float | timedelta | None = None) -> Iterator[C]: ...
    @overload
    def results(
        self, timeout: float | timedelta | None = None, *, return_exceptions: Literal[True]
    ) -> Iterator[C | JobFailed]: ...
    def results(self, timeout: float | timedelta | None = None, *, return_exceptions: bool = False) -> Iterator[Any]:
        """Stream the results in the order sent, in bounded memory: each is handed over once.

        Args:
            timeout: For all of them together, in seconds or as a timedelta; None waits for ever.
            return_exceptions: Give a `JobFailed` in the place of a job's result instead of raising it.

        Raises:
            JobFailed: At the first job that ended without a result, unless `return_exceptions`.
            ResultTimeout: If one is not there in time.
            Unsupported: If they were sent with `ignore_result=True`.
            RuntimeError: Inside a running event loop: use `results_async` there.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        refuse_in_loop("async for result in jobs.results_async()")
        return self._stream(limit, return_exceptions=return_exceptions)

    def _stream(self, limit: float | None, *, return_exceptions: bool) -> Iterator[Any]:
        outcomes = self._outcomes
        walk = None if self._places is None else self._walk()
        for message, line, row in outcomes.stream(limit, walk):
            if return_exceptions and row.state != "succeeded":
                yield outcomes.failure(message, line, row)
            else:
                yield outcomes.value(message, line, row)

    @overload
    def results_async(self, timeout: float | timedelta | None = None) -> AsyncIterator[C]: ...
    @overload
    def results_async(
        self, timeout: float | timedelta | None = None, *, return_exceptions: Literal[True]
    ) -> AsyncIterator[C | JobFailed]: ...
    def results_async(
        self,
        timeout: float | timedelta | None = None,
        *,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Stream the results, as `results`, without blocking the event loop."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        return self._stream_async(limit, return_exceptions=return_exceptions)

    async def _stream_async(self, limit: float | None, *, return_exceptions: bool) -> AsyncIterator[Any]:
        import asyncio

        outcomes = self._outcomes
        loop = asyncio.get_running_loop()
        deadline = None if limit is None else loop.time() + limit
        for message, line, last in self._walk() if self._places is not None else _in_messages(outcomes):
            left = None if deadline is None else max(0.0, deadline - loop.time())
            row = await outcomes.wait_async(message, line, left)
            if return_exceptions and row.state != "succeeded":
                yield outcomes.failure(message, line, row)
            else:
                yield outcomes.value(message, line, row)
            if last:
                outcomes.forget(message)

    def __repr__(self) -> str:
        """Return the task and how many there are."""
        return f"<Jobs {self._outcomes.task} x{len(self)}>"


def _in_messages(outcomes: Outcomes) -> Iterator[tuple[int, int, bool]]:
    """Go through the places of jobs that lie in their messages one behind the other, as `Jobs._walk`."""
    for message, (_, jobs) in enumerate(outcomes.messages):
        for line in range(1, jobs + 1):
            yield message, line, line == jobs


class _Ids(Sequence[str]):
    """The ids of jobs."""

    __slots__ = ("_jobs",)

    def __init__(self, jobs: Jobs[Any]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[str]: ...
    def __getitem__(self, index: int | slice, /) -> str | list[str]:
        if isinstance(index, slice):
            return [job.id for job in self._jobs[index]]
        return self._jobs[index].id


def _in_loop() -> bool:
    """Tell whether this thread runs an event loop. Costs nothing where asyncio was never imported."""
    running = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)  # another thread may just import it
    return running is not None and running() is not None


def refuse_in_loop(instead: str) -> None:
    """Raise inside a running event loop."""
    if _in_loop():
        raise RuntimeError(
            "cannot wait for a result here: this thread runs an event loop, which would stand still meanwhile; "
            f"use: {instead}"
        )


_warned = False


def warn_in_loop(instead: str) -> None:
    """Warn inside a running event loop, once in a process."""
    global _warned  # noqa: PLW0603 - one word, of this module
    running = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)  # as _in_loop: a call costs as much
    if running is None or _warned or running() is None:
        return
    _warned = True
    import warnings

    warnings.warn(
        "sending waits for the broker, and this thread's event loop stands still meanwhile; "
        f"use: await task.{instead}(…)",
        RuntimeWarning,
        stacklevel=3,
    )
