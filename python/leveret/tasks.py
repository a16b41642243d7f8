"""Tasks: functions that workers can run, and what sends jobs of them."""

from __future__ import annotations

import functools
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    TypeVarTuple,
    cast,
    overload,
)

from leveret._time import milliseconds, seconds
from leveret.errors import SendManyError, Unsupported
from leveret.job import Job, Jobs, warn_in_loop
from leveret.keys import constant_key
from leveret.once import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from datetime import timedelta
    from typing import TypeAlias

    from leveret._core import LineWriter
    from leveret.app import App
    from leveret.keys import KeyOf
    from leveret.once import Claim, UniqueUntil
    from leveret.signature import Compiled

    Backoff: TypeAlias = float | timedelta | tuple[float | timedelta, float | timedelta] | Callable[[int], float]
    _Exceptions: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
    _Route: TypeAlias = tuple[App, LineWriter, Any, bool, str, int, bool, int]
    """App, writer, type of results, whether all jobs go alike, and of the settings: queue, delay in ms, whether results
    are wanted, shards. A tuple, since each look at an attribute of the settings costs as much as this whole."""

__all__ = ["NO_POLICY", "Args", "NativeTask", "OneSend", "Policy", "Sender", "Settings", "Task"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", covariant=True)  # noqa: PLC0105 - the name says what it is elsewhere
Ts = TypeVarTuple("Ts")

_MOST_RETRIES = 1_000_000


class Settings(NamedTuple):
    """How jobs are sent."""

    queue: str
    max_retries: int | None = None
    delay_ms: int = 0
    deadline_ms: int | None = None
    expires_ms: int | None = None
    want_results: bool = True
    ordered: bool = False
    key: KeyOf | None = None
    """How the key of an ordered task's job is found; None: it must be given in `options`."""
    once: Once | None = None
    """Which jobs are to be there once; None: nobody has said."""
    shards: int = 1
    """How many queues of the broker the queue's messages are spread over."""

    def key_of(self, task: str) -> KeyOf:
        """Return how the key is found. Raises ValueError if nobody has said."""
        if self.key is None:
            raise ValueError(
                f'cannot send "{task}": it is ordered, and this job has no key; declare key="PARAMETER" or '
                f"key=FUNCTION, or send it by {task}.options(key=...)"
            )
        return self.key

    def placed(self, task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Settings:
        """Return the settings for one job: with the queue that keeps the jobs of its key in order."""
        if not self.ordered:
            return self
        from leveret import _core

        return self._replace(queue=_core.ordered_queue(self.queue, self.key_of(task)(args, kwargs)), shards=1)

    def _located(
        self, queue: str | None, key: str | int | None, *, ordered: bool | None, shards: int | None
    ) -> Settings:
        """Return these settings with another place for the jobs."""
        new = self
        if ordered is not None:
            if type(ordered) is not bool:
                raise TypeError(f"ordered must be True or False, not {ordered!r}")
            new = new._replace(ordered=ordered)
        if queue is not None:
            new = new._replace(queue=queue, shards=1)
        if shards is not None:
            if type(shards) is not int:
                raise TypeError(f"shards must be an int, not {type(shards).__name__}")
            from leveret import _core

            _core.check_shards(new.queue, max(0, min(shards, 2**31)))
            new = new._replace(shards=shards)
        if queue is not None or ordered:
            from leveret import _core

            _core.check_queue_name(new.queue)
            if new.ordered:
                _core.check_queue_name(f"{new.queue}.ordered.{_core.ordered_shards - 1}")
        if key is not None:
            if not new.ordered:
                raise ValueError("key= keeps jobs in order, for tasks that are declared with ordered=True")
            new = new._replace(key=constant_key(key))
        return new

    def changed(  # noqa: PLR0913 - all that `options` takes
        self,
        *,
        queue: str | None = None,
        max_retries: int | None = None,
        delay: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        expires: float | timedelta | None = None,
        ignore_result: bool | None = None,
        ordered: bool | None = None,
        key: str | int | None = None,
        idempotency_key: str | int | None = None,
        idempotency_window: float | timedelta | None = None,
        unique_until: str | None = None,
        shards: int | None = None,
    ) -> Settings:
        """Return these settings with what is not None changed. Raises TypeError or ValueError for nonsense."""
        new = self._located(queue, key, ordered=ordered, shards=shards)
        if max_retries is not None:
            if type(max_retries) is not int:
                raise TypeError(f"max_retries must be an int, not {type(max_retries).__name__}")
            if not 0 <= max_retries <= _MOST_RETRIES:
                raise ValueError(f"max_retries must be from 0 to {_MOST_RETRIES}, not {max_retries}")
            new = new._replace(max_retries=max_retries)
        if delay is not None:
            new = new._replace(delay_ms=milliseconds(delay, "delay"))
        if deadline is not None:
            new = new._replace(deadline_ms=_positive(deadline, "deadline"))
        if expires is not None:
            new = new._replace(expires_ms=_positive(expires, "expires"))
        if ignore_result is not None:
            new = new._replace(want_results=not ignore_result)
        if not (idempotency_key is None and idempotency_window is None and unique_until is None):
            once = (new.once or Once()).changed(idempotency_key, idempotency_window, unique_until)
            new = new._replace(once=once)
        return new


def _positive(value: float | timedelta, name: str) -> int:
    """Return a duration in milliseconds. Raises ValueError for none at all."""
    number = milliseconds(value, name)
    if number == 0:
        raise ValueError(f"{name} must be more than 0 seconds")
    return number


class Policy(NamedTuple):
    """How workers run a Python task."""

    backoff: tuple[float, float] | Callable[[int], float] | None = None
    """(base, cap) in seconds, or what gives the seconds for a retry count; None: the worker's."""
    retry_on: tuple[type[BaseException], ...] | None = None
    reject_on: tuple[type[BaseException], ...] = ()
    soft_limit_ms: int | None = None
    hard_limit_ms: int | None = None

    @classmethod
    def of(
        cls,
        *,
        backoff: Backoff | None = None,
        retry_on: _Exceptions | None = None,
        reject_on: _Exceptions | None = None,
        soft_limit: float | timedelta | None = None,
        hard_limit: float | timedelta | None = None,
    ) -> Policy:
        """Return the policy of these settings. Raises TypeError or ValueError for nonsense."""
        soft = None if soft_limit is None else _positive(soft_limit, "soft_limit")
        hard = None if hard_limit is None else _positive(hard_limit, "hard_limit")
        if soft is not None and hard is not None and soft >= hard:
            raise ValueError(
                f"soft_limit must be shorter than hard_limit: {soft / 1000:g} s leave no time before {hard / 1000:g} s"
            )
        return cls(
            _backoff(backoff),
            None if retry_on is None else _exceptions(retry_on, "retry_on"),
            () if reject_on is None else _exceptions(reject_on, "reject_on"),
            soft,
            hard,
        )


NO_POLICY = Policy()

_LONGEST_BACKOFF = 300.0
"""The default cap, in seconds: the workers' own."""


def _backoff(given: Any) -> tuple[float, float] | Callable[[int], float] | None:
    """Return (base, cap) in seconds, or the callable."""
    if given is None:
        return None
    if callable(given):
        return cast("Callable[[int], float]", given)
    pair: tuple[Any, ...] = given if issubclass(type(given), tuple) else (given, _LONGEST_BACKOFF)
    if len(pair) != 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"backoff must be a duration or a pair of them, the first and the longest, not {given!r}")
    found = seconds(pair[0], "backoff"), seconds(pair[1], "the longest backoff")
    if found[0] == 0:
        raise ValueError("backoff must be more than 0 seconds")
    return found[0], max(found)


def _exceptions(given: Any, name: str) -> tuple[type[BaseException], ...]:
    """Return classes of exceptions, as `except` takes them."""
    classes: tuple[Any, ...] = given if issubclass(type(given), tuple) else (given,)
    for each in classes:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise TypeError(f"{name} must be a class of exceptions or a tuple of them, not {each!r}")
    return classes


class OneSend(NamedTuple):
    """One job of a `send_many` whose jobs are to be there once."""

    writer: LineWriter
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    delay_ms: int
    claim: Claim
    shards: int


class Args(Generic[P]):
    """The arguments of one job for `send_many`, made by `task.args(…)`, checked by type checkers like a call."""

    __slots__ = ("keywords", "positional")

    def __init__(self, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Made by `task.args`; not by hand."""
        self.positional = positional
        self.keywords = keywords


class _Positional(Protocol[*Ts, C]):
    def _fn(self, *args: *Ts) -> C: ...


class Sender(Generic[P, C]):
    """Sends jobs of one task, with the settings that `options` gave it. Immutable; any thread may use it."""

    native: ClassVar[bool] = False
    """Whether C++ workers run it. For this package's own use."""

    def __init__(
        self, owner: App | Sender[P, C] | None, function: Callable[P, C], name: str, settings: Settings
    ) -> None:
        """Made by `app.task`, `app.native` and `options`; not by hand."""
        self._owner = owner
        self._compiled: Compiled | None = None
        self._writer: LineWriter | None = None
        self._route: _Route | None = None
        self.function = function
        """The decorated function. For this package's own use."""
        self.settings = settings
        """How jobs are sent. For this package's own use."""
        self.name = name
        """The task's name, as it stands in its jobs."""

    @property
    def app(self) -> App | None:
        """The app that it is sent by; None for a task of `leveret.task` that no app includes yet."""
        owner = self._owner
        return owner.app if isinstance(owner, Sender) else owner

    def _sending_app(self) -> App:
        """Return the app. Raises Unsupported if there is none."""
        app = self.app
        if app is None:
            from leveret.app import load_all

            load_all()
            app = self.app
        if app is None:
            raise Unsupported(
                f'cannot send "{self.name}": no app includes it; write App(include=["{self.function.__module__}"])'
            )
        return app

    def _fn(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Run the function; type checkers read the task's own signature here."""
        return self.function(*args, **kwargs)

    @property
    def queue(self) -> str:
        """The queue that jobs are sent to."""
        return self.settings.queue

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Args[P]:
        """Return the arguments of one job for `send_many`, for jobs that leave out defaults or name arguments."""
        return Args(args, kwargs)

    def options(  # noqa: PLR0913 - each is named at the call
        self,
        *,
        queue: str | None = None,
        shards: int | None = None,
        max_retries: int | None = None,
        delay: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        expires: float | timedelta | None = None,
        ignore_result: bool | None = None,
        key: str | int | None = None,
        idempotency_key: str | int | None = None,
        idempotency_window: float | timedelta | None = None,
        unique_until: UniqueUntil | None = None,
    ) -> Sender[P, C]:
        """Return a sender with other settings; None leaves one as it is.

        Args:
            queue: The queue to send to. With another queue, `shards` is 1 again unless it is said too.
            shards: How many queues of the broker the queue's messages are spread over, 1 to 256, for more than one
                queue carries: the queue itself, `QUEUE.shard.1` and so on. Each is a FIFO, all together are none.
                Workers find out how many there are. Jobs with keys keep their order.
            max_retries: How often a failed job is run again; the worker's default is 3.
            delay: Seconds, or a timedelta, before which no worker gets the jobs. On RabbitMQ delays are rounded up to
                32 ms.
            deadline: Seconds, or a timedelta, within which an attempt should end; the handler sees it.
            expires: Seconds, or a timedelta, from sending after which no worker starts a job any more: `result()` of
                one that waited too long raises `JobExpired`.
            ignore_result: Have no results stored: `result()` of these jobs raises `Unsupported`. Cheaper.
            key: Of an ordered task: the key of these jobs, in the place of the declared one.
            idempotency_key: While a job of this task that was sent with the same key is not older than the window,
                `send` stores nothing and returns that one. At most 255 bytes.
            idempotency_window: Seconds, or a timedelta, that a key holds from the sending on; a day by default.
            unique_until: As `idempotency_key`, but only until the first job is begun ("start") or has ended ("end"; a
                retry is no end), at most for the window. Without a key, jobs of the same arguments are the same.

        Raises:
            TypeError: For a value of the wrong type.
            ValueError: For a value that makes no sense, such as a negative delay.
        """
        settings = self.settings.changed(
            queue=queue,
            shards=shards,
            max_retries=max_retries,
            delay=delay,
            deadline=deadline,
            expires=expires,
            ignore_result=ignore_result,
            key=key,
            idempotency_key=idempotency_key,
            idempotency_window=idempotency_window,
            unique_until=unique_until,
        )
        sender: Sender[P, C]
        if self.native:
            sender = _NativeSender(self, self.function, self.name, settings)
        else:
            sender = Sender(self, self.function, self.name, settings)
        sender._compiled = self._compiled
        return sender

    @overload
    def send(self: Sender[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def send(self: Sender[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send one job: durable when this returns. Blocks for the broker's answer; the GIL is free meanwhile.

        Inside a running event loop it warns, once: the loop stands still meanwhile. `await send_async(…)` there.

        Raises:
            TypeError: If the arguments do not fit the signature, or have no form in JSON. Nothing was sent.
            ValueError: If a value can't be sent exactly (NaN, too large an integer, broken text). Nothing was sent.
            BrokerUnavailable: No broker. PublishRefused: it answered no. PublishUnknown: no answer in 30 s.
            Unsupported: For a job that is to be there once, if the broker keeps no keys (RabbitMQ without a store).
            Closed: If the app was closed.
        """
        warn_in_loop("send_async")
        app, writer, returns, each_alike, queue, delay_ms, want_results, shards = self._route or self._find_route()
        settings = self.settings
        once: Claim | None = None
        if not each_alike:
            settings = settings.placed(self.name, args, kwargs)
            queue, shards = settings.queue, settings.shards
            if settings.once is not None:
                once = self._claim(settings.once, writer, args, kwargs)
        client = app.client()
        message, line, jobs = client.send(writer, args, kwargs, queue, delay_ms, want_results, once, shards)
        if want_results or jobs == 0:
            return app.sends.job(app, client, self.name, settings, returns, message, line, jobs)
        job: Job[Any] = Job((app, client, self.name, settings, returns, message, jobs), 0, line)
        return job

    @overload
    async def send_async(self: Sender[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def send_async(self: Sender[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    async def send_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send one job, as `send`, without blocking the event loop. Cancelling it takes no job back that is on its way.

        Jobs that coroutines send at the same time share messages: thousands may wait, and cost little more than one.
        """
        app = self._sending_app()
        writer, compiled = self._ready()
        settings = self.settings.placed(self.name, args, kwargs)
        once = None if settings.once is None else self._claim(settings.once, writer, args, kwargs)
        sends = app.sends.of_loop()
        client = app.connected
        if client is None or sends.connecting:
            client = await sends.connect(app)
        return await sends.send(app, client, writer, self.name, settings, compiled.returns, args, kwargs, once)

    @overload
    def send_many(self: Sender[P, Coroutine[Any, Any, R]], jobs: Iterable[Args[P]], /) -> Jobs[R]: ...
    @overload
    def send_many(self: Sender[P, R], jobs: Iterable[Args[P]], /) -> Jobs[R]: ...
    @overload
    def send_many(self: _Positional[*Ts, Coroutine[Any, Any, R]], jobs: Iterable[tuple[*Ts]], /) -> Jobs[R]: ...
    @overload
    def send_many(self: _Positional[*Ts, R], jobs: Iterable[tuple[*Ts]], /) -> Jobs[R]: ...
    def send_many(self, jobs: Any, /) -> Any:
        """Send many jobs, packed into large messages: all are durable when this returns.

        Args:
            jobs: Any iterable of tuples of arguments, or of what `args(…)` makes. It is read once, as jobs are sent, in
                bounded memory.

        Raises:
            SendManyError: If one could not be sent, or the iterable raised: all jobs before `index` are durable,
                nothing after it was sent. `__cause__` is the reason, as `send` would raise it. Jobs with keys go to
                several queues at once: the text says how many of other keys were sent after it.
            TypeError: If `jobs` is no iterable.
            Closed: If the app was closed.
        """
        warn_in_loop("send_many_async")
        app = self._sending_app()
        writer, compiled = self._ready()
        settings = self.settings
        client = app.client()
        behind = 0
        places: bytes | None = None
        stored = False
        if settings.once is not None and settings.once.claims:
            stored = True
            from leveret.sends import send_once

            each = self._one_by_one(self._checked(settings.once), jobs, writer)
            accepted, failed, raised, behind = send_once(client, each, want_results=settings.want_results)
        elif settings.ordered:
            key = settings.key_of(self.name)
            accepted, places, failed, raised, behind = client.send_many_keyed(
                writer, jobs, Args, key, settings.queue, settings.delay_ms, settings.want_results
            )
            settings = settings._replace(queue="")  # several
        else:
            accepted, failed, raised = client.send_many(
                writer, jobs, Args, settings.queue, settings.delay_ms, settings.want_results, settings.shards
            )
        outcomes = app.outcomes(client, self.name, settings, compiled.returns, accepted, stored=stored)
        sent: Jobs[Any] = Jobs(outcomes, places)
        if failed is None and raised is None:
            return sent
        if failed is None and raised is not None and not isinstance(raised, Exception):
            raise raised  # Ctrl-C and the like
        cause = failed or raised
        index = len(sent)
        after = f"so are {behind} jobs of other keys after it" if behind else "nothing after it was sent"
        raise SendManyError(
            f'cannot send job {index} of "{self.name}" (counted from 0): {cause}; the {index} before it are durable, '
            f"{after}",
            index,
            sent,
        ) from cause

    @overload
    async def send_many_async(self: Sender[P, Coroutine[Any, Any, R]], jobs: Iterable[Args[P]], /) -> Jobs[R]: ...
    @overload
    async def send_many_async(self: Sender[P, R], jobs: Iterable[Args[P]], /) -> Jobs[R]: ...
    @overload
    async def send_many_async(
        self: _Positional[*Ts, Coroutine[Any, Any, R]], jobs: Iterable[tuple[*Ts]], /
    ) -> Jobs[R]: ...
    @overload
    async def send_many_async(self: _Positional[*Ts, R], jobs: Iterable[tuple[*Ts]], /) -> Jobs[R]: ...
    async def send_many_async(self, jobs: Any, /) -> Any:
        """Send many jobs, as `send_many`, without blocking the event loop. `jobs` is read in another thread."""
        import asyncio

        return await asyncio.to_thread(self.send_many, jobs)

    def _claim(self, once: Once, writer: LineWriter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Claim | None:
        """Return what one job claims; None: nothing."""
        return once.claim(self.name, self.function, writer, args, kwargs) if once.claims else None

    def _checked(self, once: Once) -> Once:
        """Return what tells many jobs apart. Raises ValueError if nothing does."""
        if once.constant:
            raise ValueError(
                f'cannot send many jobs of "{self.name}" with one idempotency key: only the first would be stored; '
                "declare idempotency_key=PARAMETER or FUNCTION, or send each with its own"
            )
        return once

    def _one_by_one(self, once: Once, jobs: Iterable[Any], writer: LineWriter) -> Iterator[OneSend]:
        """Give the sends of jobs that are to be there once, as `jobs` is read. Raises what `send` raises."""
        settings = self.settings
        for job in jobs:
            args: tuple[Any, ...]
            kwargs: dict[str, Any] = {}
            if isinstance(job, Args):
                args, kwargs = job.positional, job.keywords
            elif isinstance(job, tuple):
                args = cast("Any", job)
            else:
                raise TypeError(
                    f'cannot send "{self.name}": each job must be a tuple of arguments or {self.name}.args(...), not '
                    f"{type(job).__name__}; for one argument write (x,)"
                )
            placed = settings.placed(self.name, args, kwargs)
            claim = once.claim(self.name, self.function, writer, args, kwargs)
            yield OneSend(writer, args, kwargs, placed.queue, settings.delay_ms, claim, placed.shards)

    def compiled(self) -> Compiled:
        """Return the compiled signature. For this package's own use."""
        return self._ready()[1]

    def _ready(self) -> tuple[LineWriter, Compiled]:
        """Compile the signature at the first send: annotations may name what is defined after the task."""
        writer, compiled = self._writer, self._compiled
        if writer is None or compiled is None:
            from leveret import _core
            from leveret.signature import compile_signature

            compiled = compiled or compile_signature(self.function, self.name, native=self.native)
            settings = self.settings
            writer = _core.LineWriter(compiled.native, settings.max_retries, settings.deadline_ms, settings.expires_ms)
            self._compiled = compiled
            self._writer = writer
        return writer, compiled

    def _find_route(self) -> _Route:
        """Find what `send` needs each time, at the first. None of it changes: a task never gets another app."""
        app = self._sending_app()
        writer, compiled = self._ready()
        s = self.settings
        each_alike = not s.ordered and s.once is None
        self._route = route = (app, writer, compiled.returns, each_alike, s.queue, s.delay_ms, s.want_results, s.shards)
        return route

    def __repr__(self) -> str:
        """Return the task's name and queue."""
        return f"<{type(self).__name__} {self.name} on {self.queue}>"


class _NativeSender(Sender[P, C]):
    """Sends jobs of a native task with settings of their own."""

    native = True


class _Declared(Sender[P, C]):
    """A task as it was declared."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a declaration says
        self,
        app: App | None,
        function: Callable[P, C],
        name: str,
        settings: Settings,
        place: str,
        policy: Policy = NO_POLICY,
    ) -> None:
        """Made by `app.task` and `app.native`; not by hand."""
        wrapper: Any = self  # NativeTask is no callable to type checkers
        functools.update_wrapper(wrapper, function)
        super().__init__(app, function, name, settings)
        self.place = place
        """File and line of the declaration. For this package's own use."""
        self.policy = policy
        """How workers run it. For this package's own use."""

    def bind(self, app: App) -> None:
        """Give a task of `leveret.task` its app. For this package's own use.

        Raises:
            ValueError: If it has another one.
        """
        if self.app is not None and self.app is not app:
            raise ValueError(
                f'cannot include "{self.name}" ({self.place}) in {app!r}: {self.app!r} includes it already; '
                "a task is sent by one app: make one app, and import that"
            )
        self._owner = app


class NativeTask(_Declared[P, C]):
    """A task that a C++ worker runs; the decorated function is its signature alone."""

    native = True

    if not TYPE_CHECKING:
        # To type checkers the call is an error; without them it should say what to do.
        def __call__(self, *_args: object, **_kwargs: object) -> None:
            """Refuse: the code is in C++."""
            raise TypeError(f'cannot call "{self.name}" here: its code is in C++; send it: {self.name}.send(...)')


class Task(_Declared[P, C]):
    """A task that is a Python function; called, it runs here and now."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Run the function in this process, as if it were no task."""
        return self.function(*args, **kwargs)
