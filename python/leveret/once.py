"""Jobs that are to be there once: their keys, and how long these hold."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from leveret._time import milliseconds
from leveret.keys import constant_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from leveret._core import LineWriter
    from leveret.keys import KeyOf

__all__ = ["Claim", "Once", "UniqueUntil"]

UniqueUntil: TypeAlias = Literal["start", "end"]
Claim: TypeAlias = tuple[str, int, int]
"""The key within the broker; until when it is held (0: window, 1: start, 2: end); the window in ms."""

_DAY_MS = 86_400_000
_MOST_KEY_BYTES = 255
_UNTIL = {None: 0, "start": 1, "end": 2}


class Once(NamedTuple):
    """Which jobs of a task are the same, and for how long."""

    key: KeyOf | None = None
    """What finds the key; None: it is made of the arguments."""
    until: UniqueUntil | None = None
    window_ms: int = _DAY_MS
    constant: bool = False
    """Whether the key is the same for all jobs: it was given in `options`."""

    @property
    def claims(self) -> bool:
        """Whether jobs claim anything."""
        return self.key is not None or self.until is not None

    def changed(
        self,
        key: str | int | None,
        window: float | timedelta | None,
        until: str | None,
    ) -> Once:
        """Return these settings with what is not None changed. Raises TypeError or ValueError for nonsense."""
        new = self
        if key is not None:
            new = new._replace(key=constant_key(key, "idempotency_key"), constant=True)
        if window is not None:
            new = new._replace(window_ms=milliseconds(window, "idempotency_window"))
            if new.window_ms == 0:
                raise ValueError("idempotency_window must be more than 0 seconds")
        if until is not None:
            if until not in {"start", "end"}:
                raise ValueError(f'unique_until must be "start" or "end", not {until!r}')
            new = new._replace(until=cast("UniqueUntil", until))
        return new

    def claim(
        self,
        task: str,
        function: Callable[..., Any] | None,
        writer: LineWriter,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Claim:
        """Return what one job claims; `function` is None for a task known by its name. Raises what `send` raises."""
        if self.key is None:
            return self._claim(task, "=" + _digest(_line(function, writer, args, kwargs)))
        return self._claim(task, ":" + self.key(args, kwargs))

    def claim_of_line(self, task: str, line: bytes) -> Claim:
        """Return what a job claims that is given by its line. Raises ValueError for too long a key."""
        return self._claim(task, "=" + _digest(line) if self.key is None else ":" + self.key((), {}))

    def _claim(self, task: str, text: str) -> Claim:
        """Return a claim: `text` is `:` and a key, or `=` and a digest of the arguments."""
        size = len(text.encode()) - 1
        if size > _MOST_KEY_BYTES:
            raise ValueError(
                f'cannot send "{task}": its idempotency key has {size} bytes, at most {_MOST_KEY_BYTES} are allowed; '
                "send a hash of it"
            )
        return f"{len(task.encode())}:{task}{text}", _UNTIL[self.until], self.window_ms


def _line(
    function: Callable[..., Any] | None, writer: LineWriter, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    """Return the line of a job, the same however its arguments are given."""
    line = writer.line(args, kwargs)  # what is wrong with them is said by the signature
    if function is not None:
        import inspect

        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        line = writer.line(bound.args, bound.kwargs)
    return line


def _digest(line: bytes) -> str:
    """Return a digest of the arguments in a job's line, whatever the order of keys in them."""
    job = json.loads(line)
    given = [job.get("args", []), job.get("kwargs", {})]
    text = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
