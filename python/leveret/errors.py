"""The errors of Leveret: one tree, the same in C++ (`leveret/error.hpp`).

Everything that the world does (brokers, disks, other programs) derives from `Error`. A caller's own mistakes are
`TypeError` and `ValueError`, raised before anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta

    from leveret.job import Jobs

__all__ = [
    "BrokerUnavailable",
    "Closed",
    "Error",
    "JobCancelled",
    "JobDead",
    "JobExpired",
    "JobFailed",
    "NotFound",
    "PublishRefused",
    "PublishUnknown",
    "Reject",
    "ResultMismatch",
    "ResultTimeout",
    "RetryAfter",
    "SendManyError",
    "SoftTimeLimit",
    "StorageFailed",
    "TimedOut",
    "Unsupported",
]


_TRACEBACK = "Traceback (most recent call last):"


class Error(Exception):
    """Base of every error that Leveret raises for the world's failures."""


class BrokerUnavailable(Error):  # noqa: N818 - the tree's names are the same in C++, where none ends in Error
    """Raised when there is no broker, the connection is lost, or the database file stays locked."""


class PublishRefused(Error):  # noqa: N818
    """Raised when the broker answered no: nothing was stored."""


class PublishUnknown(Error):  # noqa: N818
    """Raised when no answer came before the deadline: the jobs may be stored or not."""


class Unsupported(Error):  # noqa: N818
    """Raised when this broker can't do it; the text names the remedy."""


class NotFound(Error):  # noqa: N818
    """Raised when there is no such queue, job or file."""


class TimedOut(Error, TimeoutError):  # noqa: N818
    """Raised when what was waited for did not happen in time."""


class Closed(Error):  # noqa: N818
    """Raised when an app or a connection is used after it was closed."""


class StorageFailed(Error):  # noqa: N818
    """Raised when the disk or the database failed."""


class SendManyError(Error):
    """Raised when `send_many` could not send all jobs; `__cause__` says why.

    Attributes:
        index: The position in the iterable of the first job that was not accepted. After `PublishUnknown` it and some
            that follow may be stored nevertheless.
        accepted: The jobs before it. All of them are durable; nothing after them was sent.
    """

    def __init__(self, message: str, index: int, accepted: Jobs[Any]) -> None:
        """Make the error; `message` is what people read."""
        super().__init__(message)
        self.index = index
        self.accepted = accepted


class ResultTimeout(TimedOut):
    """Raised when a result was not there in time; says where it was looked for and whether any worker is there."""


class ResultMismatch(Error):  # noqa: N818
    """Raised when a worker's result is not of the type that the task's signature promises."""


class JobFailed(Error):  # noqa: N818
    """Base of what `result()` raises for a job that ended without one.

    Attributes:
        id: The job's id.
        task: The name of its task.
    """

    def __init__(self, message: str, id: str, task: str) -> None:  # noqa: A002 - the word for it everywhere else
        """Make the error; `message` is what people read."""
        super().__init__(message)
        self.id = id
        self.task = task


class JobDead(JobFailed):
    """Raised for a job that ended dead: it failed for good, and is kept in the dead jobs of its queue.

    Attributes:
        reason: The contract's word for why, such as "exception", "rejected" or "bad_arguments".
        error: The text of its last failure: of a Python handler's exception its type and message, and the traceback.
        attempts: How often it was run.
        type: The name of the exception's class, as text: nothing is imported. None if it was no Python exception.
        message: The exception's message; all of `error` if it was no Python exception.
        traceback: Where it was raised, in the worker, as Python prints it. None if it was no Python exception.
    """

    def __init__(self, message: str, id: str, task: str, reason: str, error: str, attempts: int) -> None:  # noqa: A002, PLR0913, PLR0917
        """Make the error; `message` is what people read."""
        super().__init__(message, id, task)
        self.reason = reason
        self.error = error
        self.attempts = attempts
        head, found, trace = error.partition(f"\n\n{_TRACEBACK}")
        self.type: str | None = None
        self.message = error
        self.traceback: str | None = None
        if found:
            self.type, _, self.message = head.partition(": ")
            self.traceback = _TRACEBACK + trace


class JobExpired(JobFailed):
    """Raised for a job that nobody ran before its expiry."""


class JobCancelled(JobFailed):
    """Raised for a job that was cancelled."""


class Reject(Exception):  # noqa: N818 - a handler's verdict, not an error of Leveret
    """Raise it in a handler to make the job dead at once, without retries."""


class RetryAfter(Exception):  # noqa: N818
    """Raise it in a handler to have the job run again after a delay.

    Attributes:
        delay: Seconds or a timedelta.
    """

    def __init__(self, delay: float | timedelta) -> None:
        """Make the verdict."""
        super().__init__(f"run again after {delay}")
        self.delay = delay


class SoftTimeLimit(Exception):  # noqa: N818 - what a handler may catch, not an error of Leveret
    """Raised in a handler that runs for longer than its task's `soft_limit`: clean up, and end.

    Not caught, it fails the attempt as any exception.
    """

    def __str__(self) -> str:
        """Return why it was raised."""
        return super().__str__() or "the task's soft_limit was over"
