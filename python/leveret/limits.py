"""Soft time limits: `SoftTimeLimit` is raised in a handler that runs too long, so that it can end in its own way."""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from leveret.errors import SoftTimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["limited"]


class _Entry:
    """A handler that runs under a limit."""

    __slots__ = ("deadline", "ended", "fired", "thread")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.thread = threading.get_ident()
        self.ended = False
        self.fired = False

    def __lt__(self, other: _Entry) -> bool:
        return self.deadline < other.deadline


class _Watch:
    """A thread that interrupts handlers; it lives while there are any under a limit."""

    _LINGER = 5.0
    """Seconds that it waits for another handler before it ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._alive = False

    def enter(self, seconds: float) -> _Entry:
        """Begin to watch the calling thread."""
        entry = _Entry(time.monotonic() + seconds)
        with self._changed:
            heapq.heappush(self._entries, entry)
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._run, name="leveret-limits", daemon=True).start()
            elif self._entries[0] is entry:
                self._changed.notify()
        return entry

    def leave(self, entry: _Entry) -> None:
        """End watching. What was raised and has not arrived yet is taken back."""
        with self._changed:
            entry.ended = True
            if entry.fired:
                _raise_in(entry.thread, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                while self._entries and self._entries[0].ended:
                    heapq.heappop(self._entries)
                if not self._entries:
                    if not self._changed.wait(self._LINGER) and not self._entries:
                        self._alive = False
                        return
                    continue
                left = self._entries[0].deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                entry = heapq.heappop(self._entries)
                # Under the lock, which `leave` takes: a handler that has ended gets nothing.
                entry.fired = True
                _raise_in(entry.thread, SoftTimeLimit)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have a thread raise `error` as soon as it runs Python code; None takes back what has not been raised yet."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


_watch = _Watch()


def limited(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Return a function that raises `SoftTimeLimit` in `function` if it runs for longer.

    Python code is interrupted between two of its steps; what waits in C is not, until it comes back. A coroutine is
    cancelled where it awaits, and its job fails by `SoftTimeLimit`.
    """
    if inspect.iscoroutinefunction(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            timeout = asyncio.timeout(seconds)
            try:
                async with timeout:
                    return await function(*args, **kwargs)
            except TimeoutError:
                if timeout.expired():
                    raise SoftTimeLimit from None
                raise

        return call_async

    def call(*args: Any, **kwargs: Any) -> Any:
        entry = _watch.enter(seconds)
        try:
            return function(*args, **kwargs)
        finally:
            _watch.leave(entry)

    return call
