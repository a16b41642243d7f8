"""Soft time limits: `SoftTimeLimit` is raised in a handler that runs too long, so that it can end in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from leveret.errors import SoftTimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["limited"]


class _Entry:
    """A handler that runs under a limit."""

    __slots__ = ("deadline", "raised", "taken", "thread")

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.thread = threading.get_ident()
        self.taken = False
        """The watching thread wants it."""
        self.raised = threading.Lock()
        """Released once the watching thread has interrupted the handler."""
        self.raised.acquire()


class _Watch:
    """A thread that interrupts handlers.

    An interrupt comes between any two steps of a handler's thread, and may come while that thread is in here: had it
    just taken a lock, nobody would ever release it. So the threads share a set and no lock: whoever removes an entry
    decides whether its handler ended in time. Adding to a set and removing from it are one step each.
    """

    def __init__(self) -> None:
        self._running: set[_Entry] = set()
        self._bell = threading.Lock()
        """Released to wake the watching thread."""
        self._wakes_at = 0.0
        self._process = 0
        """Where the thread runs: a fork has none."""
        self._start = threading.Lock()

    def enter(self, entry: _Entry) -> None:
        """Begin to watch the calling thread."""
        if self._process != os.getpid():
            self._begin()
        self._running.add(entry)
        if entry.deadline < self._wakes_at:
            self._ring()

    def leave(self, entry: _Entry) -> None:
        """End watching. What was raised and has not arrived yet is taken back."""
        try:
            self._running.remove(entry)
        except KeyError:
            if entry.taken:
                entry.raised.acquire()
                _raise_in(entry.thread, None)

    def _begin(self) -> None:
        with self._start:
            if self._process == os.getpid():
                return
            self._running = set()
            self._bell = threading.Lock()
            self._bell.acquire()
            self._wakes_at = math.inf
            threading.Thread(target=self._run, name="leveret-limits", daemon=True).start()
            self._process = os.getpid()  # last: where no thread could be started, the next handler tries again

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _run(self) -> None:
        while True:
            # Whoever enters from here on rings; whoever was faster is in the set.
            self._wakes_at = math.inf
            try:
                running = list(self._running)
            except RuntimeError:  # it changed meanwhile
                continue
            now = time.monotonic()
            for entry in running:
                if entry.deadline <= now:
                    self._interrupt(entry)
            self._wakes_at = min((entry.deadline for entry in running if entry.deadline > now), default=math.inf)
            self._bell.acquire(timeout=min(self._wakes_at - now, threading.TIMEOUT_MAX))

    def _interrupt(self, entry: _Entry) -> None:
        entry.taken = True
        try:
            self._running.remove(entry)
        except KeyError:
            return
        _raise_in(entry.thread, SoftTimeLimit)
        entry.raised.release()


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
        entry = _Entry(seconds)
        try:
            _watch.enter(entry)
            return function(*args, **kwargs)
        finally:
            _watch.leave(entry)

    return call
