"""The app: a broker's url, and the tasks that are sent through it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from leveret import config
from leveret._time import seconds
from leveret.declare import MOST_NAME_BYTES, declare, shared_tasks
from leveret.errors import Closed, Unsupported
from leveret.job import Job, refuse_in_loop
from leveret.sends import Sends
from leveret.tasks import C, NativeTask, P, R, Sender, Settings, Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import timedelta
    from os import PathLike
    from types import ModuleType, TracebackType
    from typing import Self, Unpack

    from leveret._core import Client
    from leveret.collect import Ended
    from leveret.current import CurrentJob
    from leveret.declare import NativeDecorator, NativeSettings, TaskDecorator, TaskSettings
    from leveret.once import UniqueUntil
    from leveret.results import Outcomes, Pump
    from leveret.worker import Worker

__all__ = ["App"]

_LARGEST_MESSAGE = 1 << 20
_MOST_LINES = (1 << 32) - 1
_LONGEST_LINGER = 1.0
_GRACE = 5.0
"""Seconds that closing waits for what is being published."""


class App:
    """A broker and the tasks sent through it. Any thread may use it; the connection opens at the first use.

    Example:
        >>> app = App("memory://")
        >>> @app.native
        ... def work(id: int, value: int = 3) -> int:
        ...     raise NotImplementedError
        >>> with app:
        ...     job = work.send(1)
    """

    def __init__(  # noqa: PLR0913 - each is named at the call
        self,
        url: str | None = None,
        *,
        publish_deadline: float | timedelta | None = None,
        batch_bytes: int | None = None,
        linger: float | timedelta | None = None,
        results: str | None = None,
        include: Sequence[str | ModuleType] = (),
        lifespan: Callable[[App], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]] | None = None,
        middleware: Sequence[Callable[[CurrentJob], AbstractContextManager[Any]]] = (),
    ) -> None:
        """Make an app. Touches nothing yet.

        Args:
            url: `sqlite:///path`, `amqp://host`, `amqps://host` or `memory://`. None: the variable LEVERET_URL, or
                `url` in `[tool.leveret]` of the nearest pyproject.toml, in the working folder or above, or the file
                leveret.db beside that, else in the working folder.
            publish_deadline: Seconds, or a timedelta, after which a send without an answer raises. None: as
                configured, else 30.
            batch_bytes: The size up to which `send_many` packs jobs into one message; at most 1 MiB. None: as
                configured, else 64 KiB.
            linger: Seconds, or a timedelta, at most 1, for which a job sent alone waits for others to share its message
                with. Those sent while another one's answer is awaited share one anyway. None: as configured, else 0.
            results: With RabbitMQ, where results are kept as well, so that other programs can ask for them:
                `app.job(id)`. `redis://user:password@host:port/db` (`rediss://` with TLS) serves many machines,
                `sqlite:///path` the programs of this one. Workers need it too: it becomes a parameter of the url
                (`amqp://host?results=redis://host`), which may as well stand there.
            include: Modules, or their names, whose tasks (`@leveret.task`, `@leveret.native`) are this app's. Names are
                imported when a worker starts, or at the first send of such a task: so there are no import cycles.
            lifespan: Called with the app in each worker process before its first job; gives a context manager, sync or
                async, that is entered then and left when the worker has stopped: connections, Sentry. Each job
                begins with the context variables that it set.
            middleware: Each is called with the `CurrentJob` around every attempt of a Python task, and gives a context
                manager: entered in this order before the function is called, left after, with its exception if it
                raised. One that takes an exception makes the job succeed, with no result.

        Raises:
            TypeError: If `include` is a str instead of a list of them.
            ValueError: For a number that makes no sense.
        """
        self._url = url
        self._results: str | None = results
        self._publish_deadline = None if publish_deadline is None else seconds(publish_deadline, "publish_deadline")
        if batch_bytes is not None and not 1 <= batch_bytes <= _LARGEST_MESSAGE:
            raise ValueError(f"batch_bytes must be from 1 to {_LARGEST_MESSAGE}, not {batch_bytes}")
        self._batch_bytes = batch_bytes
        self._linger = None if linger is None else seconds(linger, "linger")
        if self._linger is not None and self._linger > _LONGEST_LINGER:
            raise ValueError(f"linger must be at most {_LONGEST_LINGER:g} second, not {self._linger:g}")
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._outcomes: type[Outcomes] | None = None
        self.sends = Sends()
        """What is sent one by one. For this package's own use."""
        self._pump: Pump | None = None
        self._closed = False
        self._record: bool = False
        if isinstance(include, str):
            raise TypeError(f"include must be a list of modules or their names, not {include!r}; write [{include!r}]")
        self._include = list(include)
        self.lifespan = lifespan
        """What runs around a worker process's life. For this package's own use."""
        self.middleware = tuple(middleware)
        """What runs around each attempt. For this package's own use."""
        self.generation = 0
        """Counts the connections: jobs of an earlier one get no results pushed. For this package's own use."""
        self.tasks: dict[str, Task[..., Any] | NativeTask[..., Any]] = {}
        """The tasks by name; those of `include` as soon as they are loaded."""
        for module in self._include:
            if not isinstance(module, str) or module in sys.modules:
                self._bind(module if isinstance(module, str) else module.__name__)
        _apps.add(self)

    @property
    def url(self) -> str:
        """The broker's url for people: an absolute path or a host, never a password."""
        from leveret import _core

        return _core.display_url(self.broker_url())

    # Tasks

    @overload
    def task(self, function: Callable[P, C], /) -> Task[P, C]: ...
    @overload
    def task(self, /, *, name: str | None = None, **settings: Unpack[TaskSettings]) -> TaskDecorator: ...
    def task(self, function: Any = None, /, *, name: str | None = None, **settings: Any) -> Any:
        """Make a Python function a task: `@app.task` or `@app.task(queue="mail", max_retries=5)`.

        Args:
            function: The function, sync or async. A method is refused.
            name: The task's name; the function's by default. At most 255 bytes.
            settings: How its jobs are sent, as in `options`: `queue` (`default` by default), `shards`, `max_retries`,
                `deadline`, `expires`, `ignore_result`. With `ordered=True` jobs of one `key` run one after another in
                the order sent, whatever the number of workers: `key` names a parameter, or is a function that gets the
                arguments and returns a str or an int. `idempotency_key`, which does the same, `idempotency_window` and
                `unique_until` have a job there once. And how Python workers run them:

                `backoff`: how long a failed job waits for its next attempt. A number of seconds or a timedelta is the
                longest wait after the first failure, doubled for each further one up to 300 s; a tuple of two says
                that cap as well; the wait is a random part of it. A function gets the number of failures before this
                one and returns the seconds. By default the worker's, 1 s.

                `retry_on`, `reject_on`: an exception class or a tuple of them. With `retry_on` only these are retried;
                `reject_on` makes the job dead at once.

                `soft_limit`: seconds, or a timedelta, after which `SoftTimeLimit` is raised in the handler.
                `hard_limit`: after which the process that runs it is ended, and the job is charged.

        Raises:
            TypeError: For what is no plain function, or a setting that there is none.
            ValueError: For a setting that makes no sense; for a second task of the name: the text says where both are.
        """
        if function is None:
            return partial(self._declare, Task, name, settings)
        return self._declare(Task, name, settings, function)

    @overload
    def native(self, function: Callable[P, C], /) -> NativeTask[P, C]: ...
    @overload
    def native(self, /, *, name: str | None = None, **settings: Unpack[NativeSettings]) -> NativeDecorator: ...
    def native(self, function: Any = None, /, *, name: str | None = None, **settings: Any) -> Any:
        """Declare a task that C++ workers run: the function is its signature, its body is never run.

        Calls are bound to positions and defaults are filled in here, so that the C++ function gets every argument.

        Args:
            function: The function whose signature counts. A method is refused.
            name: The task's name in C++; the function's by default.
            settings: How its jobs are sent, as in `options`: `queue` (`native` by default), `shards`, `max_retries`,
                `deadline`, `expires`, `ignore_result`; `ordered` and `key` as in `task`.

        Raises:
            TypeError: For what is no plain function, or a setting that there is none.
            ValueError: For a setting that makes no sense; for a second task of the name: the text says where both are.
        """
        if function is None:
            return partial(self._declare, NativeTask, name, settings)
        return self._declare(NativeTask, name, settings, function)

    def _declare(self, kind: Any, name: str | None, given: Mapping[str, Any], function: Any) -> Any:
        """Make a task and note its name."""
        made = declare(kind, self, name, given, function)
        self._add(made)
        return made

    def _add(self, made: Task[..., Any] | NativeTask[..., Any]) -> None:
        """Note a task by its name. Raises ValueError if the name is taken."""
        with self._lock:
            first = self.tasks.setdefault(made.name, made)
        if first is not made:
            raise ValueError(
                f'cannot add a second task "{made.name}": one is defined at {first.place}, the other at {made.place}; '
                "rename one, or give it another name=..."
            )

    def load(self) -> dict[str, Task[..., Any] | NativeTask[..., Any]]:
        """Import the modules of `include` that were named, and return all tasks by name.

        Raises:
            ImportError: Or whatever importing them raises.
            ValueError: If two tasks have one name, or one is another app's.
        """
        from importlib import import_module

        for module in self._include:
            if isinstance(module, str):
                import_module(module)
                self._bind(module)
            else:
                self._bind(module.__name__)
        return self.tasks

    def _bind(self, module: str) -> None:
        """Make the tasks that a module declared without an app this one's."""
        tasks = shared_tasks(module)
        for task in tasks:
            if task.app is self:
                continue
            task.bind(self)
            known = self.tasks.get(task.name)
            if known is not None and known not in tasks and known.function.__module__ == module:
                del self.tasks[task.name]  # of the module as it was before it was imported again
            self._add(task)

    def send_task(  # noqa: PLR0913 - the options of a send
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        shards: int | None = None,
        max_retries: int | None = None,
        delay: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        expires: float | timedelta | None = None,
        ignore_result: bool | None = None,
        idempotency_key: str | int | None = None,
        idempotency_window: float | timedelta | None = None,
        unique_until: UniqueUntil | None = None,
    ) -> Job[Any]:
        """Send a job of a task known by its name alone: nothing is checked but that the values can be sent.

        A task of this app is sent by its own signature and settings.

        Args:
            name: The task's name.
            args: Its positional arguments.
            kwargs: Its named arguments.
            queue: The queue. By default the task's if this app has it, else `native`, the queue of C++ tasks.
            shards: As in `options`.
            max_retries: As in `options`.
            delay: As in `options`.
            deadline: As in `options`.
            expires: As in `options`.
            ignore_result: As in `options`.
            idempotency_key: As in `options`.
            idempotency_window: As in `options`.
            unique_until: As in `options`.

        Raises:
            TypeError, ValueError, BrokerUnavailable, PublishRefused, PublishUnknown, Unsupported, Closed: As `send`.
        """
        given: dict[str, Any] = {
            "queue": queue,
            "shards": shards,
            "max_retries": max_retries,
            "delay": delay,
            "deadline": deadline,
            "expires": expires,
            "ignore_result": ignore_result,
            "idempotency_key": idempotency_key,
            "idempotency_window": idempotency_window,
            "unique_until": unique_until,
        }
        known: Any = self.tasks.get(name)
        if known is not None:
            job: Job[Any] = known.options(**given).send(*args, **(kwargs or {}))
            return job
        if isinstance(args, (str, bytes)):
            raise TypeError(f'cannot send "{name}": args must be a list or tuple, not {type(args).__name__}')
        if not name or len(name.encode("utf-8", "surrogatepass")) > MOST_NAME_BYTES:
            raise ValueError(f"cannot send a task named {name!r}: a name has 1 to {MOST_NAME_BYTES} bytes")
        from leveret import _core
        from leveret.signature import any_signature

        settings = Settings("native").changed(**given)
        compiled = any_signature(name)
        writer = _core.LineWriter(compiled.native, settings.max_retries, settings.deadline_ms, settings.expires_ms)
        client = self.client()
        given_args, given_kwargs = tuple(args), dict(kwargs or {})
        once = settings.once
        claim = once.claim(name, None, writer, given_args, given_kwargs) if once and once.claims else None
        sent = client.send(
            writer,
            given_args,
            given_kwargs,
            settings.queue,
            settings.delay_ms,
            settings.want_results,
            claim,
            settings.shards,
        )
        return self.sends.job(self, client, name, settings, compiled.returns, *sent)

    # Jobs

    @overload
    def job(self, id: str, task: Sender[..., Coroutine[Any, Any, R]], /) -> Job[R]: ...
    @overload
    def job(self, id: str, task: Sender[..., R], /) -> Job[R]: ...
    @overload
    def job(self, id: str, /) -> Job[Any]: ...
    def job(self, id: str, task: Any = None, /) -> Job[Any]:  # noqa: A002 - the word for it everywhere else
        """Return a job by its id, also one that another program sent: its state and result come from the store.

        Args:
            id: What `job.id` was.
            task: Its task, so that the result is read as that returns; by default as plain JSON.

        Raises:
            ValueError: For a text that is no job id.
            Unsupported: If the broker keeps no results that other programs can read (RabbitMQ).
        """
        message, _, line = id.rpartition("/")
        if not message or not line.isascii() or not line.isdigit() or not 1 <= int(line) <= _MOST_LINES:
            raise ValueError(f"{id!r} is no job id: it must be <message id>/<line>, as job.id is")
        client = self.client()
        if not client.capabilities()["fetch"]:
            raise Unsupported(
                f"cannot look up job {id!r}: {client.where()} hands results to the program that sent the job alone; "
                'have them kept where others can read them: App(results="redis://…") or App(results="sqlite:///…"), '
                "for its workers too"
            )
        from leveret.results import Outcomes

        returns = Any if task is None else task.compiled().returns
        name, queue = ("", "") if task is None else (task.name, "")
        return Job(
            Outcomes(self, client, name, queue, returns, [(message, int(line))], wanted=True, stored=True), 0, int(line)
        )

    def results(self, jobs: Iterable[Job[R]], timeout: float | timedelta | None = None) -> Iterator[Ended[R]]:
        """Give the jobs in the order given, each when it has ended. One question to the broker serves all.

        Args:
            jobs: Jobs of any sends: a list of `Job`s, a `Jobs`, or several chained. Read as results come.
            timeout: For all together, in seconds or as a timedelta; None waits for ever.

        Raises:
            ResultTimeout: At the end, if some have not ended in time. A job's failure is never raised: it is in
                `Ended.failure`.
            Unsupported: If one was sent with `ignore_result=True`.
            RuntimeError: Inside a running event loop: use `results_async` there.
        """
        from leveret.collect import in_order

        refuse_in_loop("async for ended in app.results_async(jobs)")
        return in_order(jobs, None if timeout is None else seconds(timeout, "timeout"))

    def as_completed(self, jobs: Iterable[Job[R]], timeout: float | timedelta | None = None) -> Iterator[Ended[R]]:
        """Give the jobs as they end; else as `results`. `jobs` is read at once."""
        from leveret.collect import as_completed

        refuse_in_loop("async for ended in app.as_completed_async(jobs)")
        return as_completed(jobs, None if timeout is None else seconds(timeout, "timeout"))

    def results_async(
        self,
        jobs: Iterable[Job[R]],
        timeout: float | timedelta | None = None,
    ) -> AsyncIterator[Ended[R]]:
        """Give the jobs in the order given, as `results`, without blocking the event loop."""
        from leveret.collect import in_order_async

        return in_order_async(jobs, None if timeout is None else seconds(timeout, "timeout"))

    def as_completed_async(
        self,
        jobs: Iterable[Job[R]],
        timeout: float | timedelta | None = None,
    ) -> AsyncIterator[Ended[R]]:
        """Give the jobs as they end, as `as_completed`, without blocking the event loop."""
        from leveret.collect import as_completed_async

        return as_completed_async(jobs, None if timeout is None else seconds(timeout, "timeout"))

    # The connection

    def client(self) -> Client:
        """Return the connection, opened if it is not. For this package's own use."""
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise Closed(
                    f"cannot use the app for {self.url}: it was closed; make another, or enter it again: with app"
                )
            if self._client is None:
                from leveret import _core

                deadline, size, linger = self._publish_deadline, self._batch_bytes, self._linger
                self._client = _core.Client(
                    self.broker_url(),
                    config.lookup("publish_deadline").value if deadline is None else deadline,
                    config.lookup("batch_bytes").value if size is None else size,
                    config.lookup("linger").value if linger is None else linger,
                    record=self._record,
                )
            return self._client

    @contextmanager
    def redirected(self, url: str) -> Generator[None]:
        """Send to another broker for a while, and keep a record of what is sent. For leveret.testing."""
        before = self._url, self._results, self._closed, self._record
        self.close(0)
        self._url, self._results, self._closed, self._record = url, None, False, True
        try:
            yield
        finally:
            self.close(0)
            self._url, self._results, self._closed, self._record = before

    def broker_url(self) -> str:
        """Return the broker's url, with its password. For this package's own use."""
        url = self._url or config.url()
        if self._results is None:
            return url
        from urllib.parse import quote

        return f"{url}{'&' if '?' in url else '?'}results={quote(self._results, safe='/:')}"

    def worker(  # noqa: PLR0913 - each is named at the call
        self,
        *,
        threads: int = 1,
        queues: Sequence[str] | None = None,
        plugins: Sequence[str | PathLike[str]] = (),
        concurrency: int = 100,
        grace: float | timedelta = 25.0,
        log_level: str = "warning",
    ) -> Worker:
        """Return a worker of this app's tasks for this process: `with app.worker(): …`, or `run_until_idle()`.

        Args:
            threads: How many threads run jobs. Python code runs on one at a time, unless it waits.
            queues: What to consume; by default the queues of the tasks.
            plugins: Compiled C++ tasks (`leveret build`) to run as well.
            concurrency: How many coroutines run at once, at most.
            grace: Seconds, or a timedelta, that running jobs get when it stops.
            log_level: The least level of what it tells the logger `leveret.worker`: debug, info, warning or error.

        Raises:
            ValueError: For a number that makes no sense.
        """
        from leveret.worker import Worker

        return Worker(
            self,
            threads=threads,
            queues=queues,
            plugins=plugins,
            concurrency=concurrency,
            grace=grace,
            log_level=log_level,
        )

    @property
    def connected(self) -> Client | None:
        """The connection if it is open. For this package's own use."""
        return self._client

    def outcomes(  # noqa: PLR0913 - what a send knows
        self,
        client: Client,
        task: str,
        settings: Settings,
        returns: Any,
        messages: list[tuple[str, int]],
        *,
        stored: bool = False,
    ) -> Outcomes:
        """Return the record of a send; `stored`: its outcomes are looked up. For this package's own use."""
        record = self._outcomes
        if record is None:  # an import that finds its module there costs as much as the record
            from leveret.results import Outcomes

            record = self._outcomes = Outcomes
        # The first job of a key may have gone to another queue.
        queue = "" if stored else settings.queue
        return record(self, client, task, queue, returns, messages, wanted=settings.want_results, stored=stored)

    @property
    def pump(self) -> Pump:
        """The thread that fetches results for event loops. For this package's own use."""
        with self._lock:
            if self._pump is None:
                from leveret.results import Pump

                self._pump = Pump()
            return self._pump

    def close(self, grace: float | timedelta = _GRACE) -> None:
        """Close the connection; whoever waits for a result gets `Closed`. Idempotent, any thread.

        Args:
            grace: Seconds, or a timedelta, to wait for what is being published.
        """
        limit = seconds(grace, "grace")
        with self._lock:
            client, self._client = self._client, None
            self._pump = None
            self._closed = True
            self.generation += 1
        if client is not None:
            client.close(limit)

    def __enter__(self) -> Self:
        """Use the app in a `with` block; a closed one opens again."""
        with self._lock:
            self._closed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close the connection."""
        self.close()

    def __repr__(self) -> str:
        """Return the url, without a password."""
        return f"<App {self.url}>"

    def leave_to_parent(self) -> None:
        """Forget the connection in a child after fork. For this package's own use.

        The parent's threads are not here, and its sockets and locks stay the parent's.
        """
        self._lock = threading.Lock()
        client, self._client = self._client, None
        self._pump = None
        self.sends = Sends()
        self.generation += 1
        if client is not None:
            client.abandon()


_apps: weakref.WeakSet[App] = weakref.WeakSet()


def load_all() -> None:
    """Load what the apps of this process include, so that a task of `leveret.task` finds its own."""
    for app in list(_apps):
        app.load()


def _after_fork_in_child() -> None:
    for app in list(_apps):
        app.leave_to_parent()


def _close_all() -> None:
    """End the workers' and connections' threads before the interpreter takes away what they stand on."""
    workers = sys.modules.get("leveret.worker")
    if workers is not None:
        workers.stop_all()
    for app in list(_apps):
        app.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)
