"""The event loop on which a worker process runs its coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from leveret._core import PendingJob

__all__ = ["Coroutines"]


class Coroutines:
    """One event loop on a thread of its own, for all coroutine tasks of a process. The thread starts at first use."""

    def __init__(self, concurrency: int) -> None:
        """Make it; `concurrency` coroutines of jobs run at once, at most."""
        self._room: SimpleQueue[None] = SimpleQueue()
        """An entry for each coroutine that may be started: a semaphore, at a tenth of what threading's costs."""
        for _ in range(concurrency):
            self._room.put(None)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiting: deque[tuple[Coroutine[Any, Any, Any], Context, PendingJob]] = deque()
        self._woken = False
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any], context: Context, pending: PendingJob) -> None:
        """Run a job's coroutine; waits for room. Called by pool threads, which come many at a time.

        One wake of the loop serves all that were added before it ran.
        """
        self._room.get()
        loop = self._started()
        self._waiting.append((coroutine, context, pending))
        with self._lock:
            wake, self._woken = not self._woken, True
        if wake:
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        """Start what waits. On the loop."""
        with self._lock:
            self._woken = False
        while self._waiting:
            coroutine, context, pending = self._waiting.popleft()
            self._running.add(asyncio.get_running_loop().create_task(self._finish(coroutine, pending), context=context))

    async def _finish(self, coroutine: Coroutine[Any, Any, Any], pending: PendingJob) -> None:
        """Run a coroutine to its end, and say what came of it."""
        try:
            result = await coroutine
        except BaseException as error:  # noqa: BLE001 - SystemExit and its like end the job, not the worker
            pending.failed(error)
        else:
            pending.succeeded(result)
        # Not a callback of the task: the loop would be asked once more for each job.
        task = asyncio.current_task()
        if task is not None:
            self._running.discard(task)
        self._room.put(None)

    def run(self, function: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> Any:
        """Run a coroutine function on the loop, in a context, and wait for it. Not on the loop."""
        loop = self._started()
        done: deque[asyncio.Task[Any]] = deque()
        ended = threading.Event()

        def begin() -> None:
            task = loop.create_task(function(), context=context)
            done.append(task)
            task.add_done_callback(lambda _task: ended.set())

        loop.call_soon_threadsafe(begin)
        ended.wait()
        return done[0].result()

    def _started(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started if it is not."""
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="leveret-coroutines", daemon=True
                )
                self._thread.start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def stop(self) -> None:
        """Cancel what still runs and end the loop. Idempotent; not on the loop."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._cancel(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _cancel(self) -> None:
        """Cancel the coroutines, and wait for their ends."""
        while self._waiting:
            self._waiting.popleft()[0].close()  # the end of its PendingJob says so
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
