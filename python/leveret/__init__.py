"""Leveret: distributed task execution. Python publishes jobs, C++17 and Python workers execute them.

One SQLite file serves one machine with nothing to install; RabbitMQ serves many. The code is the same on both.

Example:
    >>> import leveret
    >>> app = leveret.App("memory://")
    >>> @app.native
    ... def work(id: int, value: int = 3) -> int:
    ...     raise NotImplementedError
    >>> job = work.send(1)
"""

from leveret.app import App
from leveret.collect import Ended
from leveret.current import CurrentJob, current_job
from leveret.declare import native, task
from leveret.errors import (
    BrokerUnavailable,
    Closed,
    Error,
    JobCancelled,
    JobDead,
    JobExpired,
    JobFailed,
    NotFound,
    PublishRefused,
    PublishUnknown,
    Reject,
    ResultMismatch,
    ResultTimeout,
    RetryAfter,
    SendManyError,
    SoftTimeLimit,
    StorageFailed,
    TimedOut,
    Unsupported,
)
from leveret.job import Job, Jobs, Progress
from leveret.tasks import Args, NativeTask, Sender, Task

__version__: str

__all__ = [
    "App",
    "Args",
    "BrokerUnavailable",
    "Closed",
    "CurrentJob",
    "Ended",
    "Error",
    "Job",
    "JobCancelled",
    "JobDead",
    "JobExpired",
    "JobFailed",
    "Jobs",
    "NativeTask",
    "NotFound",
    "Progress",
    "PublishRefused",
    "PublishUnknown",
    "Reject",
    "ResultMismatch",
    "ResultTimeout",
    "RetryAfter",
    "SendManyError",
    "Sender",
    "SoftTimeLimit",
    "StorageFailed",
    "Task",
    "TimedOut",
    "Unsupported",
    "current_job",
    "native",
    "task",
]


def __getattr__(name: str) -> str:
    """Return the version, which stands in the C++ headers once, when somebody asks for it."""
    if name == "__version__":
        from leveret import _core

        return _core.version
    raise AttributeError(f"module 'leveret' has no attribute {name!r}")
