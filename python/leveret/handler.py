"""Python tasks as workers run them: compiled once per process, then called by the extension module for each job.

`bindings/handlers.cpp` reads arguments whose annotation is int, float, str, bool or None, calls the function and writes
the result. What is here runs once per task, or for values that need msgspec, for failures, and for coroutines.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import sys
import traceback
import types
import typing
from contextlib import ExitStack, suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from leveret._time import milliseconds
from leveret.coroutines import Coroutines
from leveret.current import CurrentJob, current, current_job
from leveret.encoding import to_builtins
from leveret.errors import Reject, RetryAfter
from leveret.signature import KINDS, decode_hook, hints_of, is_hashable, mismatch
from leveret.tasks import Policy, Task
from leveret.words import type_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from leveret.app import App

__all__ = ["Handler", "Handlers"]

# leveret_outcome of leveret/abi.h.
_FAILED = 1
_REJECTED = 2
_RETRY_AFTER = 3

# The JSON values that need no further look, as bits that bindings/handlers.cpp knows.
_TAKEN: dict[object, int] = {int: 1, float: 2, str: 4, bool: 8, None: 16, type(None): 16}
_ANYTHING = 32

_LONGEST_TEXT = 4000
"""Bytes of a failure's text: what a record has room for, less what the host adds."""
_LONGEST_MESSAGE = 900
"""Bytes of an exception's own text, so that an entry of `errors` (1 KiB) shows where it was raised as well."""

_Verdict = tuple[int, str, int]
_Middleware = "Callable[[CurrentJob], AbstractContextManager[Any]]"


class Handler:
    """One task, compiled. Its attributes are what `bindings/handlers.cpp` reads."""

    current = current
    describe = CurrentJob
    to_builtins = staticmethod(to_builtins)

    @staticmethod
    def end_child(error: BaseException | None) -> NoReturn:
        """End this process: a child that a handler forked, and which left the handler."""
        code: Any = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed: nobody is there to be told
                stream.flush()
        os._exit(code)

    def __init__(
        self,
        task: Task[..., Any],
        *,
        context: Context,
        coroutines: Coroutines | None,
        told: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Compile a task.

        Args:
            task: The task.
            context: The context variables that each attempt begins with.
            coroutines: What runs its coroutines; None if it is a plain function.
            told: Called with what its attempts raise.
        """
        self._told = told
        self.name = task.name
        self.queue = task.queue
        self.place = task.place
        self.max_retries = -1 if task.settings.max_retries is None else task.settings.max_retries
        self.hard_limit_ms = task.policy.hard_limit_ms or 0
        self.context = context
        self.spawn = None if coroutines is None else coroutines.spawn
        self.function: Callable[..., Any] = task.function
        self.parameters: list[tuple[str, str, int, Callable[[bytes], Any], bool]] = []
        self._policy = task.policy
        hints = hints_of(task.function)
        for name, parameter in inspect.signature(task.function).parameters.items():
            annotation = hints.get(name, Any)
            mask, decode = _reader(annotation)
            required = parameter.default is inspect.Parameter.empty
            self.parameters.append((KINDS[parameter.kind], name, mask, decode, required))
        self.signature = json.dumps(_signature(task), ensure_ascii=False)
        if task.policy.soft_limit_ms is not None:
            from leveret.limits import limited

            self.function = limited(self.function, task.policy.soft_limit_ms / 1000)
        middleware = task.app.middleware if task.app is not None else ()
        if middleware:
            self.function = _surrounded(self.function, middleware)

    @staticmethod
    def mismatch(error: BaseException) -> tuple[str, str]:
        """Return why a value was not decoded or encoded, as (path behind the value, text)."""
        if isinstance(error, msgspec.ValidationError):
            return mismatch(error)
        return "", _cut(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE)

    def failed(self, error: BaseException, retry_count: int) -> _Verdict:
        """Return (outcome, text, delay in milliseconds) of an attempt that raised `error`."""
        if self._told is not None:
            self._told(error)
        policy = self._policy
        if isinstance(error, Reject):
            return _REJECTED, _cut(str(error) or "rejected", _LONGEST_TEXT), 0
        if isinstance(error, RetryAfter):
            return _RETRY_AFTER, _cut(_because(error), _LONGEST_TEXT), milliseconds(error.delay, "delay")
        text = _described(error)
        if isinstance(error, policy.reject_on):
            return _REJECTED, text, 0
        if policy.retry_on is not None and not isinstance(error, policy.retry_on):
            return _REJECTED, text, 0
        if policy.backoff is None:
            return _FAILED, text, 0
        return _RETRY_AFTER, text, delay_of(policy, retry_count)


def _signature(task: Task[..., Any]) -> dict[str, Any]:
    """Return a task's signature in the form that C++ plugins give theirs."""
    hints = hints_of(task.function)
    arguments = [
        {
            "name": name,
            "type": type_words(hints.get(name, Any)),
            "required": parameter.default is inspect.Parameter.empty
            and parameter.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD},
        }
        for name, parameter in inspect.signature(task.function).parameters.items()
    ]
    return {"args": arguments, "returns": type_words(hints.get("return", Any))}


def described(app: App) -> list[dict[str, Any]]:
    """Return an app's Python tasks as `leveret worker --describe` prints them."""
    return [
        {
            "task": task.name,
            "queue": task.queue,
            "max_retries": task.settings.max_retries,
            "signature": _signature(task),
        }
        for task in app.load().values()
        if isinstance(task, Task)
    ]


def delay_of(policy: Policy, retry_count: int) -> int:
    """Return the milliseconds that a task's own backoff gives."""
    backoff = policy.backoff
    if callable(backoff):
        return milliseconds(backoff(retry_count), "what backoff returned")
    base, cap = typing.cast("tuple[float, float]", backoff)
    longest = min(cap, base * 2.0 ** min(retry_count, 64))
    # Full jitter, as the workers' own backoff: jobs that failed together do not come back together.
    return round(random.uniform(0, longest) * 1000)  # noqa: S311 - no secret


def _reader(annotation: Any) -> tuple[int, Callable[[bytes], Any]]:
    """Return the mask of JSON values that are taken as they are, and the decoder for all others."""
    if annotation is Any or annotation is object:
        return _ANYTHING, msgspec.json.Decoder().decode
    try:
        decode: Callable[[bytes], Any] = msgspec.json.Decoder(annotation, dec_hook=decode_hook).decode
    except Exception:  # noqa: BLE001 - an annotation that msgspec can't read: the JSON as it is, as at sending
        return _ANYTHING, msgspec.json.Decoder().decode
    mask = 0
    union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    for member in typing.get_args(annotation) if union else (annotation,):
        mask |= _TAKEN.get(member, 0) if is_hashable(member) else 0
    if union and mask & 4 and any(_is_text_like(member) for member in typing.get_args(annotation)):
        mask &= ~4  # the text may be another member's
    return mask, decode


def _is_text_like(member: Any) -> bool:
    """Tell whether a union's member may be written as text, though it is no str."""
    return member not in {str, int, float, bool, None, type(None)} if is_hashable(member) else True


def _surrounded(function: Callable[..., Any], middleware: Iterable[Any]) -> Callable[..., Any]:
    """Return a function that enters what each middleware gives for the job, and then calls `function`."""
    around = tuple(middleware)
    if inspect.iscoroutinefunction(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            result = None  # what it stays if a middleware takes the exception
            job = current_job()
            with ExitStack() as stack:
                for each in around:
                    stack.enter_context(each(job))
                result = await function(*args, **kwargs)
            return result  # noqa: RET504 - as below

        return call_async

    def call(*args: Any, **kwargs: Any) -> Any:
        result = None
        job = current_job()
        with ExitStack() as stack:
            for each in around:
                stack.enter_context(each(job))
            result = function(*args, **kwargs)
        return result  # noqa: RET504 - also reached where a middleware took the exception

    return call


def _because(error: BaseException) -> str:
    """Return an exception's text, with that of its cause."""
    cause = error.__cause__
    return str(error) if cause is None else f"{error}: {type(cause).__name__}: {cause}"


def _described(error: BaseException) -> str:
    """Return `Type: message`, an empty line, and the traceback, in what a record has room for.

    Where there is too much of it, the outer frames go first: those that raised say the most.
    """
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        message = str(error)
    except Exception as wrong:  # noqa: BLE001 - its __str__ is the user's
        message = f"(its text can't be made: {type(wrong).__name__})"
    head = _cut(f"{name}: {message}" if message else name, _LONGEST_MESSAGE)
    frames = [frame.rstrip("\n") for frame in traceback.format_tb(error.__traceback__)]
    title = "\n\nTraceback (most recent call last):"
    room = _LONGEST_TEXT - len(head.encode("utf-8", "replace")) - len(title)
    kept: list[str] = []
    for frame in reversed(frames):
        size = len(frame.encode("utf-8", "replace")) + 1
        if size > room:
            kept.append(f"  ... {len(frames) - len(kept)} more frames outside")
            break
        room -= size
        kept.append(frame)
    return head + title + "".join(f"\n{frame}" for frame in reversed(kept)) if frames else head


def _cut(text: str, size: int) -> str:
    """Return `text` in at most about `size` bytes."""
    data = text.encode("utf-8", "backslashreplace")
    return data.decode() if len(data) <= size else data[:size].decode("utf-8", "ignore") + "…"


class Handlers:
    """The Python tasks of apps in one worker process, with what runs around them.

    Use it in a `with` block: the apps' lifespans are entered there, and left at its end. Iterating gives the compiled
    handlers, for the extension module.
    """

    def __init__(
        self, apps: Iterable[App], *, concurrency: int = 100, told: Callable[[BaseException], None] | None = None
    ) -> None:
        """Make it.

        Args:
            apps: Whose tasks are run.
            concurrency: How many coroutines run at once, at most.
            told: Called with what attempts raise, in the thread that ran them.
        """
        self._told = told
        self._apps = list(apps)
        self._coroutines = Coroutines(concurrency)
        self._stack = ExitStack()
        self._handlers: list[Handler] = []

    def __enter__(self) -> Self:
        """Enter the lifespans, in a context that every job begins with, and compile the tasks."""
        context = copy_context()
        with ExitStack() as stack:
            stack.callback(self._coroutines.stop)
            for app in self._apps:
                if app.lifespan is not None:
                    self._enter(app, context, stack)
            for app in self._apps:
                for task in app.load().values():
                    if isinstance(task, Task):
                        coroutines = self._coroutines if inspect.iscoroutinefunction(task.function) else None
                        self._handlers.append(Handler(task, context=context, coroutines=coroutines, told=self._told))
            self._stack = stack.pop_all()
        return self

    def _enter(self, app: App, context: Context, stack: ExitStack) -> None:
        """Enter one app's lifespan; one that is asynchronous lives on the loop of the coroutines."""
        made = context.run(app.lifespan, app) if app.lifespan is not None else None
        if hasattr(made, "__aenter__"):
            lifespan = typing.cast("typing.AsyncContextManager[Any]", made)
            self._coroutines.run(lifespan.__aenter__, context)
            stack.callback(self._coroutines.run, lambda: lifespan.__aexit__(None, None, None), context)
        elif hasattr(made, "__enter__"):
            entered = typing.cast("typing.ContextManager[Any]", made)
            context.run(entered.__enter__)
            stack.callback(context.run, entered.__exit__, None, None, None)
        else:
            raise TypeError(
                f"cannot start a worker: the lifespan of {app!r} gave {type(made).__name__}, which is no context "
                "manager; decorate it with contextlib.contextmanager or contextlib.asynccontextmanager"
            )

    def __exit__(self, *_error: object) -> None:
        """Leave the lifespans and end the event loop."""
        self._stack.close()
        self._handlers.clear()

    def __iter__(self) -> Iterator[Handler]:
        """Give the compiled handlers."""
        return iter(self._handlers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._handlers)

    @property
    def has_coroutines(self) -> bool:
        """Whether one is a coroutine function."""
        return any(handler.spawn is not None for handler in self._handlers)
