"""Soft time limits of handlers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret import limits
from leveret.limits import limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_names = itertools.count()


@pytest.fixture
def app() -> Iterator[leveret.App]:
    """An app on a broker of its own in this process."""
    with leveret.App(f"memory://limits-{next(_names)}") as opened:
        yield opened


def spin() -> None:
    """Run Python code for ever."""
    while True:
        pass


def test_a_handler_that_runs_too_long_is_interrupted_and_may_end_in_its_own_way(app: leveret.App) -> None:
    # Long enough for the handler to be where it catches the interrupt.
    @app.task(soft_limit=1, max_retries=0)
    def tidy() -> str:
        try:
            spin()
        except leveret.SoftTimeLimit:
            return "tidied up"

    @app.task(soft_limit=0.05, max_retries=0)
    def late() -> None:
        spin()

    jobs: list[Any] = [tidy.send(), late.send()]
    app.worker().run_until_idle(30)
    assert jobs[0].result(0) == "tidied up"
    with pytest.raises(leveret.JobDead) as caught:
        jobs[1].result(0)
    assert (caught.value.type, caught.value.message) == (
        "leveret.errors.SoftTimeLimit",
        "the task's soft_limit was over",
    )


def test_a_coroutine_is_cancelled_where_it_awaits(app: leveret.App) -> None:
    seen: list[type[BaseException]] = []

    # Long enough for the coroutine to be where it awaits.
    @app.task(soft_limit=1, max_retries=0)
    async def late() -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    @app.task(soft_limit=30, max_retries=0)
    async def own() -> None:
        raise TimeoutError("of its own")

    first, second = late.send(), own.send()
    app.worker().run_until_idle(30)
    assert seen == [asyncio.CancelledError]
    with pytest.raises(leveret.JobDead, match="SoftTimeLimit"):
        first.result(0)
    with pytest.raises(leveret.JobDead, match="TimeoutError: of its own"):
        second.result(0)


def test_what_ends_in_time_is_left_alone_then_and_later() -> None:
    quick = limited(lambda n: n, 0.0005)
    missed = 0
    for n in range(3000):
        # Some end in the moment in which they are interrupted: the answer, or the error, and nothing afterwards.
        try:
            assert quick(n) == n
        except leveret.SoftTimeLimit:
            missed += 1
    assert missed < 3000
    done = threading.Event()
    done.wait(0.01)  # a stray one would be raised here


def test_an_interrupt_at_any_step_leaves_the_limits_of_others_in_order() -> None:
    def run() -> None:
        quick = limited(lambda: None, 0.00001)
        for _ in range(20_000):
            with contextlib.suppress(leveret.SoftTimeLimit):
                quick()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that many interrupts meet a handler that is about to begin or to end
    try:
        threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        sys.setswitchinterval(usual)
    with pytest.raises(leveret.SoftTimeLimit):
        limited(spin, 0.05)()


def test_a_watch_whose_thread_could_not_be_started_is_started_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_watch", limits._Watch())  # noqa: SLF001 - one whose thread has not been started
    with monkeypatch.context() as failing:

        def start(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        failing.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            limited(spin, 0.05)()
    with pytest.raises(leveret.SoftTimeLimit):
        limited(spin, 0.05)()


def test_the_soonest_limit_comes_first() -> None:
    order: list[str] = []
    over = threading.Event()

    def spin_until_over() -> None:
        while not over.is_set():
            pass

    def run(name: str, what: Callable[[], None], seconds: float) -> None:
        try:
            limited(what, seconds)()
        except leveret.SoftTimeLimit:
            order.append(name)

    late = threading.Thread(target=run, args=("late", spin_until_over, 3_600))
    soon = threading.Thread(target=run, args=("soon", spin, 0.05), daemon=True)
    late.start()
    soon.start()
    soon.join(120)
    over.set()
    late.join()
    assert order == ["soon"]
    run("late", spin, 0.05)
    assert order == ["soon", "late"], "what has ended holds up nobody"
