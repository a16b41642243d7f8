"""What a handler can ask about the job that it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from leveret._core import JobProbe

__all__ = ["CurrentJob", "current_job"]

_LONGEST_TEXT = 1000


class CurrentJob:
    """The job that a handler runs.

    Attributes:
        id: The job's id.
        task: The name of its task.
        queue: The queue that it came from.
        retry_count: How many attempts of it failed before this one.
    """

    __slots__ = ("_deadline_ms", "_probe", "id", "queue", "retry_count", "task")

    def __init__(  # noqa: PLR0913, PLR0917 - what the extension module knows of a job
        self,
        id: str,  # noqa: A002 - the word for it everywhere else
        task: str,
        queue: str,
        retry_count: int,
        deadline_ms: int | None,
        probe: JobProbe,
    ) -> None:
        """Made by `current_job`; not by hand."""
        self.id = id
        self.task = task
        self.queue = queue
        self.retry_count = retry_count
        self._deadline_ms = deadline_ms
        self._probe = probe

    @property
    def deadline(self) -> datetime | None:
        """When this attempt should end, in UTC; None if nobody said."""
        if self._deadline_ms is None:
            return None
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._deadline_ms / 1000, UTC)

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop: a long handler should end now, by `RetryAfter` for example."""
        return self._probe.stopping()

    @property
    def cancelled(self) -> bool:
        """Whether somebody called `job.cancel()`: a long handler should end now, by raising for example.

        The job ends as its handler does; nothing is done to it.
        """
        return self._probe.cancelled()

    def set_progress(self, fraction: float | None = None, text: str = "") -> None:
        """Say how far the job is; its sender reads it by `job.progress()`.

        Cheap: the latest of each 100 ms is told on. It may be lost when the worker crashes.

        Args:
            fraction: From 0 to 1; None where nobody knows.
            text: For people, at most 1,000 characters.

        Raises:
            ValueError: For a fraction that is none, or a longer text.
        """
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be from 0 to 1, or None, not {fraction!r}")
        if len(text) > _LONGEST_TEXT:
            raise ValueError(f"text must have at most {_LONGEST_TEXT} characters, not {len(text)}")
        from msgspec import json

        told = json.encode({"progress": None if fraction is None else float(fraction), "text": text})
        self._probe.set_progress(told.decode())

    def __repr__(self) -> str:
        """Return the task and the id."""
        return f"<CurrentJob {self.task} {self.id}>"


current: ContextVar[CurrentJob] = ContextVar("leveret.current_job")
"""Each attempt has a context of its own, so that what was set in one is not seen by the next."""


def current_job() -> CurrentJob:
    """Return the job that this handler runs: in its thread, in its coroutine, and in what `asyncio.to_thread` runs.

    Raises:
        RuntimeError: Where no job runs, such as in a function that was called directly.
    """
    job = current.get(None)
    if job is not None:
        return job
    from leveret import _core

    facts = _core.running_job()
    if facts is None:
        raise RuntimeError("there is no current job: this code is not run by a worker; pass what it needs as arguments")
    job = CurrentJob(*facts)
    current.set(job)
    return job
