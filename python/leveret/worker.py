"""A worker inside a program: `app.worker()`."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from leveret._time import seconds
from leveret.errors import ResultTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from os import PathLike
    from types import TracebackType
    from typing import Self

    from leveret import _core
    from leveret.app import App
    from leveret.handler import Handlers
    from leveret.logs import LogPump

__all__ = ["Worker", "WorkerCounts"]

_GRACE = 25.0
_MOST_THREADS = 4096


class WorkerCounts(NamedTuple):
    """What became of the jobs that a worker ran."""

    succeeded: int
    retried: int
    """Attempts that failed and were followed by another."""
    dead: int
    expired: int
    cancelled: int
    """Not run: somebody called `job.cancel()`."""
    returned: int
    """Given back without having run: the worker stopped, or did not know the task."""


class Worker:
    """Runs an app's jobs on threads of this process: its Python tasks, and those of plugins.

    In a `with` block it runs beside the program; `run_until_idle` runs what is there, and returns. Python tasks share
    this program's interpreter lock; a job that crashes takes the program with it: `leveret worker` has processes.

    Example:
        >>> import leveret
        >>> app = leveret.App("memory://worker-example")
        >>> @app.task
        ... def add(x: int, y: int) -> int:
        ...     return x + y
        >>> with app.worker(threads=1):
        ...     add.send(2, 3).result(timeout=10)
        5
    """

    def __init__(  # noqa: PLR0913 - each is named at the call
        self,
        app: App,
        *,
        threads: int = 1,
        queues: Sequence[str] | None = None,
        plugins: Sequence[str | PathLike[str]] = (),
        concurrency: int = 100,
        grace: float | timedelta = _GRACE,
        log_level: str = "warning",
    ) -> None:
        """Made by `app.worker`, whose arguments these are."""
        if isinstance(queues, str):
            raise TypeError(f"queues must be a list of names, not {queues!r}; write [{queues!r}]")
        for name, number, most in (("threads", threads, _MOST_THREADS), ("concurrency", concurrency, 1_000_000)):
            if type(number) is not int or not 1 <= number <= most:
                raise ValueError(f"{name} must be from 1 to {most}, not {number!r}")
        self._app = app
        self._threads = threads
        self._queues = list(queues or ())
        self._plugins = [str(plugin) for plugin in plugins]
        self._concurrency = concurrency
        self._grace = seconds(grace, "grace")
        self._log_level = log_level
        self._lock = threading.Lock()
        self._handlers: Handlers | None = None
        self._core: _core.Worker | None = None
        self._log: LogPump | None = None

    def start(self) -> None:
        """Connect and begin to run jobs; consuming when this returns.

        Raises:
            RuntimeError: If it runs already.
            ValueError: If there is no task to run, or a plugin can't be loaded.
            BrokerUnavailable: No broker.
        """
        self._start(burst=False)

    def _start(self, *, burst: bool) -> _core.Worker:
        from leveret import _core
        from leveret.handler import Handlers
        from leveret.keys import ordered_queues
        from leveret.logs import LogPump

        with self._lock:
            if self._core is not None:
                raise RuntimeError(f"cannot start a worker of {self._app!r}: it runs already; stop it first")
            handlers = Handlers([self._app], concurrency=self._concurrency)
            handlers.__enter__()
            try:
                self._app.client()  # memory:// lives as long as somebody is connected: results are to be read later
                core = _core.Worker(
                    self._plugins,
                    self._app.broker_url(),
                    self._queues,
                    self._threads,
                    burst=burst,
                    log_level=self._log_level,
                    handlers=handlers,
                    keep_log=True,
                    ordered_by_tasks=ordered_queues(self._app),
                )
                log = LogPump(core)
                try:
                    core.start()
                except BaseException:
                    log.stop()
                    raise
            except BaseException:
                handlers.__exit__()
                raise
            self._handlers, self._core, self._log = handlers, core, log
            _running.add(self)
            return core

    def stop(self, grace: float | timedelta | None = None) -> WorkerCounts:
        """Receive nothing more, let what runs end, give the rest back uncharged, and leave the lifespans.

        Args:
            grace: Seconds, or a timedelta, that running jobs get; by default the worker's. Past it they are given back
                as well: another worker runs them again, though their threads may still be at it here.

        Returns:
            What was run since the start; nothing if it did not run. Idempotent.
        """
        limit = self._grace if grace is None else seconds(grace, "grace")
        with self._lock:
            core, self._core = self._core, None
            handlers, self._handlers = self._handlers, None
            _running.discard(self)
            if core is None or handlers is None:
                return WorkerCounts(0, 0, 0, 0, 0, 0)
            log, self._log = self._log, None
            try:
                counts = core.stop(limit)
            finally:
                handlers.__exit__()
                if log is not None:
                    log.stop()
        return WorkerCounts(**{name: counts[name] for name in WorkerCounts._fields})

    def leave_to_parent(self) -> None:
        """Forget everything in a child after fork. For this package's own use."""
        self._lock = threading.Lock()
        core, self._core = self._core, None
        self._handlers = None
        self._log = None
        if core is not None:
            core.abandon()

    def run_until_idle(self, timeout: float | timedelta | None = None) -> WorkerCounts:
        """Run all jobs that wait in the queues, with the jobs that these send and their retries, and return.

        Jobs that are delayed are waited for only if they are retries.

        Args:
            timeout: Seconds or a timedelta; None waits for ever.

        Raises:
            ResultTimeout: If the queues are not empty by then. What was running was given its grace.
            RuntimeError: If it runs already.
        """
        limit = math.inf if timeout is None else seconds(timeout, "timeout")
        core = self._start(burst=True)
        try:
            finished = core.wait_finished(limit)
        finally:
            counts = self.stop()
        if not finished:
            raise ResultTimeout(
                f"the queues of {self._app!r} were not empty within {limit:g} s: {counts.succeeded} jobs succeeded, "
                f"{counts.dead} are dead, {counts.returned} were given back"
            )
        return counts

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Stop it."""
        self.stop()

    def __repr__(self) -> str:
        """Return its app, and whether it runs."""
        return f"<Worker of {self._app!r}, {'running' if self._core is not None else 'stopped'}>"


_running: set[Worker] = set()
"""Held here: one that nobody keeps runs until the program ends."""


def _leave_to_parent() -> None:
    """Forget the workers in a child after fork: their threads are the parent's."""
    for worker in list(_running):
        worker.leave_to_parent()
    _running.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def stop_all() -> None:
    """End the workers' threads before the interpreter goes. For this package's own use."""
    for worker in list(_running):
        worker.stop(0)
