"""The producer of every peer: `drive.py MODULE one|many|threads|coroutines JOBS`.

The module has `send(number)`, perhaps `send_many(numbers)`, `send_async(number)` with a `runner` for it, `open()` and
`close()`, and `results(sent, seconds)`, which waits for the results of what the sends gave. Warm-up jobs have the
number 0; then it says "ready", waits for a line, sends, with BENCH_RESULTS reads every result, and says how long that
took, how many sends returned, and what the results sum up to.

`threads` and `coroutines` are BENCH_SENDERS senders at once, of whom each waits for one send before its next, as those
of a web server do. They are there before the clock runs, and each has sent a job.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from effects import RESULTS, SENDERS, UNSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WARM_UP = 20
PATIENCE = 120.0
"""Seconds that results are waited for."""
AT_ONCE = {"threads", "coroutines"}


def warm_ups(how: str, senders: int) -> int:
    """Return how many warm-up jobs there are."""
    return WARM_UP + (senders if how in AT_ONCE else 0)


def in_threads(peer: Any) -> Callable[[list[Iterable[int]]], int]:
    """Return what sends from threads at once, numbers for each; it gives how many sends returned."""
    pool = ThreadPoolExecutor(SENDERS)
    gate = threading.Barrier(SENDERS)

    def each(numbers: Iterable[int]) -> int:
        gate.wait()  # so each thread has one of them
        done = 0
        for number in numbers:
            peer.send(number)
            done += 1
        return done

    return lambda shares: sum(pool.map(each, shares))


def in_coroutines(peer: Any) -> Callable[[list[Iterable[int]]], int]:
    """As `in_threads`, from coroutines on one event loop."""

    async def each(numbers: Iterable[int]) -> int:
        done = 0
        for number in numbers:
            await peer.send_async(number)
            done += 1
        return done

    async def together(shares: list[Iterable[int]]) -> int:
        return sum(await asyncio.gather(*map(each, shares)))

    return lambda shares: int(peer.runner.run(together(shares)))


def leave_out(peer: Any) -> None:
    """Have the peer's sends do nothing for the job UNSENT."""
    send, send_async = peer.send, getattr(peer, "send_async", None)

    async def but_one(number: int) -> Any:
        return None if number == UNSENT else await send_async(number)

    peer.send = lambda number: None if number == UNSENT else send(number)
    peer.send_async = but_one


def main() -> None:
    """Send, and read."""
    peer: Any
    peer, how, jobs = importlib.import_module(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if UNSENT >= 0:
        leave_out(peer)
    getattr(peer, "open", lambda: None)()
    sent = [peer.send(0) for _ in range(WARM_UP)]
    at_once = {"threads": in_threads, "coroutines": in_coroutines}[how](peer) if how in AT_ONCE else None
    if at_once is not None:
        at_once([[0]] * SENDERS)
    if RESULTS:
        sum(peer.results(sent, PATIENCE))
    print("ready", flush=True)
    sys.stdin.readline()
    answer: dict[str, float] = {"sent": jobs}
    began = time.perf_counter()
    if at_once is not None:
        answer["sent"] = at_once([range(first, jobs + 1, SENDERS) for first in range(1, SENDERS + 1)])
    elif how == "many":
        sent = peer.send_many(range(1, jobs + 1))
    elif RESULTS:
        sent = [peer.send(number) for number in range(1, jobs + 1)]
    else:
        for number in range(1, jobs + 1):
            peer.send(number)
    if RESULTS:
        answer["sum"] = sum(peer.results(sent, PATIENCE))
    answer["seconds"] = time.perf_counter() - began
    print(json.dumps(answer), flush=True)
    getattr(peer, "close", lambda: None)()


if __name__ == "__main__":
    main()
