"""How functions become tasks: what both `app.task` and `leveret.task` check, and the tasks that no app has yet."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, overload

from leveret.keys import declared_key
from leveret.once import Once
from leveret.tasks import NativeTask, P, Policy, Settings, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Unpack

    from leveret.app import App
    from leveret.once import UniqueUntil
    from leveret.tasks import Backoff

__all__ = ["MOST_NAME_BYTES", "NativeDecorator", "NativeSettings", "TaskDecorator", "TaskSettings", "declare"]

C = TypeVar("C")

MOST_NAME_BYTES = 255

_SENDING = (
    "queue",
    "shards",
    "max_retries",
    "deadline",
    "expires",
    "ignore_result",
    "ordered",
    "idempotency_window",
    "unique_until",
)
_RUNNING = ("backoff", "retry_on", "reject_on", "soft_limit", "hard_limit")


class NativeSettings(TypedDict, total=False):
    """The settings of `app.native`: how jobs are sent."""

    queue: str | None
    shards: int | None
    max_retries: int | None
    deadline: float | timedelta | None
    expires: float | timedelta | None
    ignore_result: bool | None
    ordered: bool | None
    key: str | Callable[..., str | int] | None
    idempotency_key: str | Callable[..., str | int] | None
    idempotency_window: float | timedelta | None
    unique_until: UniqueUntil | None


class TaskSettings(NativeSettings, total=False):
    """The settings of `app.task`: how jobs are sent, and how a Python worker runs them."""

    backoff: Backoff | None
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None
    reject_on: type[BaseException] | tuple[type[BaseException], ...] | None
    soft_limit: float | timedelta | None
    hard_limit: float | timedelta | None


class TaskDecorator(Protocol):
    """What `app.task(…)` returns."""

    def __call__(self, function: Callable[P, C], /) -> Task[P, C]:
        """Make the task."""
        ...


class NativeDecorator(Protocol):
    """What `app.native(…)` returns."""

    def __call__(self, function: Callable[P, C], /) -> NativeTask[P, C]:
        """Make the task."""
        ...


def declare(kind: Any, app: App | None, name: str | None, given: Mapping[str, Any], function: Any) -> Any:
    """Make a task of `kind` (Task or NativeTask) of a function, and check everything that can be checked now.

    Raises:
        TypeError: For what is no plain function, and for a setting that there is none.
        ValueError: For a name or a setting that makes no sense.
    """
    if isinstance(function, (Task, NativeTask)):
        raise TypeError(f'cannot make a task of "{function.name}": it is one already; decorate the plain function')
    code = getattr(function, "__code__", None)
    if isinstance(function, (staticmethod, classmethod)) or code is None:
        raise TypeError(
            f"cannot make a task of {function!r}: only plain functions (def, async def, lambda) can be tasks"
        )
    owner = function.__qualname__.rpartition(".")[0]
    if (owner and not owner.endswith("<locals>")) or hasattr(function, "__self__"):
        raise TypeError(
            f"cannot make a task of \"{function.__qualname__}\": a method's object can't be sent; "
            "use a function of the module that takes what it needs as arguments"
        )
    name = function.__name__ if name is None else name
    if not name or len(name.encode("utf-8", "surrogatepass")) > MOST_NAME_BYTES:
        raise ValueError(f"cannot make a task named {name!r}: a name has 1 to {MOST_NAME_BYTES} bytes")
    native = issubclass(kind, NativeTask)
    unknown = given.keys() - set(_SENDING) - (set() if native else set(_RUNNING)) - {"key", "idempotency_key"}
    if unknown:
        raise TypeError(f'cannot make "{name}" a task: there is no setting {", ".join(sorted(unknown))}')
    place = f"{code.co_filename}:{code.co_firstlineno}"
    try:
        settings = Settings("native" if native else "default").changed(**{key: given.get(key) for key in _SENDING})
        settings = _keyed(settings, given, function, name)
        policy = Policy.of(**{key: given.get(key) for key in _RUNNING})
    except (TypeError, ValueError) as error:
        raise type(error)(f'cannot make "{name}" a task: {error}') from None
    return kind(app, function, name, settings, place, policy)


def _keyed(settings: Settings, given: Mapping[str, Any], function: Any, name: str) -> Settings:
    """Return the settings with the keys that a declaration names. Raises TypeError or ValueError for nonsense."""
    if given.get("key") is not None:
        if not settings.ordered:
            raise ValueError("key= has jobs of one key run in the order sent: add ordered=True, or leave it out")
        settings = settings._replace(key=declared_key(given["key"], function, name))
    if given.get("idempotency_key") is not None:
        key = declared_key(given["idempotency_key"], function, name, "idempotency_key")
        settings = settings._replace(once=(settings.once or Once())._replace(key=key))
    return settings


_lock = threading.Lock()
_shared: dict[str, list[Task[..., Any] | NativeTask[..., Any]]] = {}


def shared_tasks(module: str) -> list[Task[..., Any] | NativeTask[..., Any]]:
    """Return the tasks that a module declared without an app. For this package's own use."""
    with _lock:
        return list(_shared.get(module, ()))


def _share(kind: Any, name: str | None, given: Mapping[str, Any], function: Any) -> Any:
    made = declare(kind, None, name, given, function)
    with _lock:
        tasks = _shared.setdefault(function.__module__, [])
        # A module that is imported again, or reloaded, declares its tasks again.
        module = function.__globals__
        tasks[:] = [task for task in tasks if task.function.__globals__ is module and task.place != made.place]
        tasks.append(made)
    return made


@overload
def task(function: Callable[P, C], /) -> Task[P, C]: ...
@overload
def task(*, name: str | None = None, **settings: Unpack[TaskSettings]) -> TaskDecorator: ...
def task(function: Any = None, /, *, name: str | None = None, **settings: Any) -> Any:
    """Make a Python function a task without an app: as `App.task`, for a module that an app includes.

    Example:
        >>> import leveret
        >>> @leveret.task
        ... def add(x: int, y: int) -> int:
        ...     return x + y
        >>> app = leveret.App("memory://", include=[__name__])
        >>> job = add.send(2, 3)
    """
    if function is None:
        return partial(_share, Task, name, settings)
    return _share(Task, name, settings, function)


@overload
def native(function: Callable[P, C], /) -> NativeTask[P, C]: ...
@overload
def native(*, name: str | None = None, **settings: Unpack[NativeSettings]) -> NativeDecorator: ...
def native(function: Any = None, /, *, name: str | None = None, **settings: Any) -> Any:
    """Declare a task that C++ workers run without an app: as `App.native`, for a module that an app includes."""
    if function is None:
        return partial(_share, NativeTask, name, settings)
    return _share(NativeTask, name, settings, function)
