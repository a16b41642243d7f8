"""Testing programs that send jobs: the real engine in the test's own process and thread, on a clock that tests move.

Nothing is simulated: jobs are encoded, published to a broker in memory, decoded, bound to their signatures, retried and
ended as in production. What differs: they run when `run_until_idle` or `advance` is called, one at a time and in order,
and time stands still in between.

Example:
    >>> import leveret
    >>> from leveret.testing import Engine
    >>> app = leveret.App()
    >>> @app.task
    ... def add(x: int, y: int) -> int:
    ...     return x + y
    >>> with Engine(app) as engine:
    ...     job = add.options(delay=60).send(2, 3)
    ...     assert engine.sent(add)[0].args == (2, 3)
    ...     assert engine.run_until_idle().succeeded == 0
    ...     assert engine.advance(60).succeeded == 1
    ...     job.result(0)
    5

With pytest the fixture `leveret_engine` makes engines, and ends them with the test: `engine = leveret_engine(app)`.
"""

from __future__ import annotations

import threading
from asyncio import CancelledError
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from leveret._time import milliseconds
from leveret.contract import decode_line, split_lines
from leveret.worker import WorkerCounts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from types import TracebackType
    from typing import Self

    from leveret import _core
    from leveret.app import App
    from leveret.tasks import Sender

__all__ = ["Engine", "SentJob"]

_numbers = count(1)


class SentJob(NamedTuple):
    """A job that was sent, as it stands on the wire."""

    id: str
    task: str
    args: tuple[Any, ...]
    """As JSON has them: a tuple is a list here, a dataclass a dict, a datetime text."""
    kwargs: dict[str, Any]
    queue: str
    delay: timedelta
    """How long from its sending until workers get it."""


class Engine:
    """Runs an app's jobs in a test. Use it in a `with` block, or by the fixture `leveret_engine`.

    Inside, the app's jobs go to a broker in memory that is the engine's own, whatever its url; outside it is as it was.
    The app's lifespan is entered at the beginning and left at the end.

    The clock is the engine's: delays, retries and expiries wait until `advance` lets time pass. What handlers ask of
    `time` and `datetime` is not touched.
    """

    def __init__(
        self,
        app: App,
        *,
        queues: Sequence[str] | None = None,
        plugins: Sequence[str | PathLike[str]] = (),
        seed: int = 1,
        log_level: str = "error",
    ) -> None:
        """Make it.

        Args:
            app: Whose tasks are run.
            queues: What is consumed; by default the queues of the tasks.
            plugins: Compiled C++ tasks to run as well.
            seed: Of the random part of retries' delays: the same seed leads to the same times.
            log_level: The least level of its lines on standard error: debug, info, warning or error.
        """
        self._app = app
        self._queues = list(queues or ())
        self._plugins = [str(plugin) for plugin in plugins]
        self._seed = seed
        self._log_level = log_level
        self._stack = ExitStack()
        self._worker: _core.TestWorker | None = None
        self._thread = 0
        self._sent: list[SentJob] = []
        self._interruption: BaseException | None = None

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            ValueError: If there is no task to run, or another engine of this process runs.
        """
        from leveret import _core
        from leveret.handler import Handlers
        from leveret.keys import ordered_queues

        url = f"memory://leveret-testing-{next(_numbers)}"
        with ExitStack() as stack:
            stack.enter_context(self._app.redirected(url))
            handlers = stack.enter_context(Handlers([self._app], concurrency=1, told=self._note))
            self._app.client()  # the broker lives as long as somebody is connected
            worker = _core.TestWorker(
                url, self._queues, self._plugins, handlers, self._seed, self._log_level, ordered_queues(self._app)
            )
            stack.callback(worker.close)
            self._stack = stack.pop_all()
        self._worker = worker
        self._thread = threading.get_ident()
        self._sent = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """End it: what was not run is gone."""
        self._worker = None
        self._stack.close()

    def run_until_idle(self) -> WorkerCounts:
        """Run all jobs that are due, with those that they send, and return what became of them. No time passes.

        A handler that waits for another job's result waits for ever: they run one at a time. `KeyboardInterrupt` and
        what pytest raises to end a test go on to the test, once this is done.
        """
        worker, before = self._running()
        worker.run_until_idle()
        self._pass_on()
        return _since(before, worker)

    def advance(self, time: float | timedelta) -> WorkerCounts:
        """Let seconds, or a timedelta, pass: what becomes due on the way runs, each at its own time.

        Returns:
            What became of the jobs that ran, those included that were due before.
        """
        worker, before = self._running()
        worker.advance(milliseconds(time, "time"))
        self._pass_on()
        return _since(before, worker)

    def _note(self, error: BaseException) -> None:
        """Remember what was meant for the test and reached a handler: Ctrl-C, a timeout, `pytest.fail`."""
        meant_for_the_job = isinstance(error, (Exception, SystemExit, GeneratorExit, CancelledError))
        if not meant_for_the_job and threading.get_ident() == self._thread:
            self._interruption = error

    def _pass_on(self) -> None:
        """Raise what was meant for the test; its job has failed by it as well."""
        error, self._interruption = self._interruption, None
        if error is not None:
            raise error

    @property
    def now(self) -> datetime:
        """The engine's time, in UTC: that of the computer at its start, and what `advance` added."""
        return datetime.fromtimestamp(self._running()[0].wall() / 1000, UTC)

    def sent(self, task: Sender[..., Any] | str | None = None) -> list[SentJob]:
        """Return the jobs sent since the start, by the test and by handlers, in order; run or not.

        Args:
            task: Only those of this task, or of the task of this name.
        """
        self._running()
        for message, queue, delay_ms, body in self._app.client().take_recorded():
            delay = timedelta(milliseconds=delay_ms)
            for number, line in enumerate(split_lines(body), 1):
                job = decode_line(line)
                name = job.id or f"{message}/{number}"
                self._sent.append(SentJob(name, job.task, tuple(job.args), job.kwargs, queue, delay))
        wanted = task if isinstance(task, str) or task is None else task.name
        return [job for job in self._sent if wanted is None or job.task == wanted]

    def _running(self) -> tuple[_core.TestWorker, dict[str, int]]:
        if self._worker is None:
            raise RuntimeError("cannot use this engine: it does not run; use it in a with block, or by leveret_engine")
        if self._thread != threading.get_ident():
            raise RuntimeError("cannot use this engine in this thread: it belongs to the one that started it")
        return self._worker, self._worker.counts()

    def __repr__(self) -> str:
        """Return its app."""
        return f"<Engine of {self._app!r}>"


def _since(before: dict[str, int], worker: _core.TestWorker) -> WorkerCounts:
    after = worker.counts()
    return WorkerCounts(**{name: after[name] - before[name] for name in WorkerCounts._fields})
