"""Python handlers in a worker of this process: what they are given, and what becomes of what they return and raise."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.handler import delay_of
from leveret.tasks import Policy
from leveret.testing import Engine
from leveret.worker import WorkerCounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_names = iter(range(1_000_000))


@pytest.fixture
def app() -> Iterator[leveret.App]:
    """An app on a broker of its own in this process."""
    with leveret.App(f"memory://handler-{next(_names)}") as opened:
        yield opened


def run(app: leveret.App, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run one job of a task of this function, without retries, and return its result."""
    task: Any = app.task(max_retries=0)(function)
    job = task.send(*args, **kwargs)
    app.worker().run_until_idle(30)
    return job.result(0)


def raw(app: leveret.App, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """As `run`, but the arguments are not checked at sending: as another program may send them."""
    app.task(max_retries=0)(function)
    other = leveret.App(app.url)
    job = other.send_task(function.__name__, args, kwargs, queue="default")
    app.worker().run_until_idle(30)
    return job.result(0)


def dead(app: leveret.App, function: Callable[..., Any], *args: Any, **kwargs: Any) -> leveret.JobDead:
    """Run one job of this function, which must end dead."""
    with pytest.raises(leveret.JobDead) as caught:
        raw(app, function, *args, **kwargs)
    return caught.value


def both(a: int, b: float = 2.5, /, c: str = "c", *rest: int, d: bool, e: str | None = None, **more: int) -> list[Any]:
    return [a, b, c, rest, d, e, more]


def test_arguments_are_bound_as_python_binds_them(app: leveret.App) -> None:
    assert run(app, both, 1, d=True) == [1, 2.5, "c", [], True, None, {}]
    other = leveret.App(app.url)
    job = other.send_task("both", [2, 3, "x", 8, 9], {"more": 5, "d": False, "e": "é"}, queue="default")
    named = other.send_task("both", [2], {"c": "y", "d": True}, queue="default")
    app.worker().run_until_idle(30)
    assert job.result(0) == [2, 3.0, "x", [8, 9], False, "é", {"more": 5}]
    assert named.result(0) == [2, 2.5, "y", [], True, None, {}]


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([], {"d": True}, 'args[0] ("a"): missing, and it has no default'),
        ([1], {}, "kwargs.d: missing, and it has no default"),
        ([1], {"d": True, "a": 2}, "kwargs.a: expected int, got"),
        (["1"], {"d": True}, "args[0]: expected int, got str"),
        ([True], {"d": True}, "args[0]: expected int, got bool"),
        ([1, "x"], {"d": True}, "args[1]: expected float, got str"),
        ([1, 2, "c", 3, None], {"d": True}, "args[4]: expected int, got null"),
        ([1], {"d": 1}, "kwargs.d: expected bool, got int"),
        ([1], {"d": True, "e": 5}, "kwargs.e: expected str | null, got int"),
        ([1, 2, "c"], {"d": True, "c": "d"}, "kwargs.c: given in args[2] already"),
    ],
)
def test_arguments_that_do_not_fit_are_dead_with_their_path(
    app: leveret.App, args: list[Any], kwargs: dict[str, Any], text: str
) -> None:
    if "a" in kwargs:
        kwargs["a"] = "no int, and a positional-only name is free for **more"
    error = dead(app, both, *args, **kwargs)
    assert (error.reason, error.attempts) == ("bad_arguments", 1)
    assert text in error.error


def test_too_many_and_unknown_arguments_are_dead(app: leveret.App) -> None:
    def pair(_a: int, _b: int) -> None:
        raise AssertionError

    assert "args: expected at most 2, got 3" in dead(app, pair, 1, 2, 3).error
    job = leveret.App(app.url).send_task("pair", [1], {"c": 2}, queue="default")
    app.worker().run_until_idle(30)
    with pytest.raises(leveret.JobDead, match=r"kwargs\.c: there is no such argument"):
        job.result(0)


@dataclasses.dataclass
class Point:
    x: int
    y: list[float]


def test_structures_arrive_as_what_the_annotation_says(app: leveret.App) -> None:
    def move(p: Point, by: dict[str, int], when: datetime | None = None) -> Point:
        assert isinstance(p, Point)
        assert when == datetime(2026, 1, 2, tzinfo=UTC)
        return Point(p.x + by["x"], p.y)

    assert run(app, move, Point(1, [2.0]), {"x": 4}, when=datetime(2026, 1, 2, tzinfo=UTC)) == Point(5, [2.0])
    job = leveret.App(app.url).send_task("move", [{"x": 1, "y": [1, "no"]}, {}], queue="default")
    app.worker().run_until_idle(30)
    with pytest.raises(leveret.JobDead, match=r"args\[0\]\.y\[1\]: expected float, got str"):
        job.result(0)


def test_values_beyond_the_annotations_come_as_they_are(app: leveret.App) -> None:
    def anything(a, b: Any, *, c: object = None) -> Any:  # type: ignore[no-untyped-def] # noqa: ANN001
        return [a, b, c]

    values = [2**64 - 1, {"x": [None, True, 1.5, "s"]}]
    assert run(app, anything, *values, c=-(2**63)) == [*values, -(2**63)]


def test_a_foreign_object_is_the_first_argument(app: leveret.App) -> None:
    def take(document: dict[str, int]) -> int:
        return document["n"]

    # The whole way from a foreign producer is tests/system's; here an object is bound.
    assert run(app, take, {"n": 3}) == 3


NO_FORM = "has no form in JSON; send its data as dict, list, str or numbers"


class Odd:
    pass


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (float("nan"), "result: NaN has no form in JSON"),
        ({"a": [1, 2**64]}, "result.a[1]: an integer outside"),
        ([Odd()], "Odd has no form in JSON"),
        ("\ud800", "result: a str with a lone surrogate"),
        ("x" * (1 << 20), "result too large"),
    ],
)
def test_results_that_can_not_be_sent_are_dead_with_their_path(app: leveret.App, result: Any, text: str) -> None:
    def give() -> Any:
        return result

    error = dead(app, give)
    assert error.reason == "bad_result"
    assert text in error.error


def test_a_result_that_nobody_wants_is_not_written(app: leveret.App) -> None:
    ran = []

    @app.task(ignore_result=True)
    def give() -> Any:
        ran.append(1)
        return Odd()

    give.send()
    assert app.worker().run_until_idle(30).succeeded == 1
    assert ran


def fails() -> None:
    raise_it = ValueError("out of cheese")
    raise raise_it


def test_an_exception_is_retried_and_then_dead_with_type_message_and_traceback(app: leveret.App) -> None:
    runs: list[int] = []

    @app.task(max_retries=2, backoff=0.001)
    def always() -> None:
        runs.append(leveret.current_job().retry_count)
        fails()

    job = always.send()
    counts = app.worker().run_until_idle(30)
    assert (counts.retried, counts.dead) == (2, 1)
    assert runs == [0, 1, 2]
    with pytest.raises(leveret.JobDead) as caught:
        job.result(0)
    assert (caught.value.reason, caught.value.attempts) == ("exception", 3)
    head, _, trace = caught.value.error.partition("\n\n")
    assert head == "ValueError: out of cheese"
    assert trace.startswith("Traceback (most recent call last):\n  File ")
    assert ", in always\n    fails()" in trace
    assert trace.endswith("raise raise_it")


def test_a_long_traceback_keeps_where_it_was_raised(app: leveret.App) -> None:
    def deep(depth: int) -> None:
        deeper(depth - 1)

    def deeper(depth: int) -> None:
        if depth:
            deep(depth)
        raise KeyError("k" * 5_000)

    error = dead(app, deep, 300)
    assert len(error.error.encode()) <= 4096
    assert error.error.startswith("KeyError: 'kkk")
    assert "more frames outside" in error.error
    assert 'raise KeyError("k" * 5_000)' in error.error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, MemoryError])
def test_any_exception_fails_the_job_alone(app: leveret.App, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("enough")

    error = dead(app, leave)
    assert error.error.startswith(f"{kind.__name__}: enough")
    assert run(app, both, 1, d=True)[0] == 1


def test_an_exception_that_can_not_say_what_it_is_is_dead_all_the_same(app: leveret.App) -> None:
    class Mute(Exception):  # noqa: N818 - a name for people
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def mute() -> None:
        raise Mute

    assert "(its text can't be made: RuntimeError)" in dead(app, mute).error


def test_handlers_decide_by_reject_and_retry_after(app: leveret.App) -> None:
    @app.task
    def reject() -> None:
        raise leveret.Reject("not my job")

    @app.task(max_retries=5)
    def later() -> int:
        count = leveret.current_job().retry_count
        if count < 2:
            raise leveret.RetryAfter(timedelta(milliseconds=1))
        return count

    no, yes = reject.send(), later.send()
    counts = app.worker().run_until_idle(30)
    assert (counts.succeeded, counts.retried, counts.dead) == (1, 2, 1)
    assert yes.result(0) == 2
    with pytest.raises(leveret.JobDead, match="rejected: not my job"):
        no.result(0)


def test_retry_on_and_reject_on_say_what_is_worth_another_try(app: leveret.App) -> None:
    runs: list[str] = []

    @app.task(max_retries=1, backoff=0.001, retry_on=OSError)
    def only(kind: str) -> None:
        runs.append(kind)
        raise FileNotFoundError(kind) if kind == "os" else ValueError(kind)

    @app.task(max_retries=1, backoff=0.001, reject_on=(LookupError, ValueError))
    def never(kind: str) -> None:
        runs.append(kind)
        raise KeyError(kind) if kind == "key" else TypeError(kind)

    jobs = [only.send("os"), only.send("value"), never.send("key"), never.send("type")]
    app.worker().run_until_idle(30)
    assert sorted(runs) == ["key", "os", "os", "type", "type", "value"]
    reasons = []
    for job in jobs:
        with pytest.raises(leveret.JobDead) as caught:
            job.result(0)
        reasons.append(caught.value.reason)
    assert reasons == ["exception", "rejected", "rejected", "exception"]


def test_backoff_is_the_tasks_own() -> None:
    for backoff, longest in (((1.0, 300.0), [1, 2, 4, 8]), ((10.0, 15.0), [10, 15, 15, 15])):
        for count, most in enumerate(longest):
            delays = [delay_of(Policy(backoff=backoff), count) for _ in range(300)]
            assert 0 <= min(delays) < most * 200
            assert most * 800 < max(delays) <= most * 1000
    assert delay_of(Policy(backoff=lambda count: count * 1.5), 4) == 6000
    assert delay_of(Policy(backoff=(1.0, 300.0)), 1_000_000) <= 300_000


def test_a_job_that_nobody_started_in_time_expires_unrun(app: leveret.App) -> None:
    ran: list[int] = []

    @app.task(expires=0.05)
    def note(n: int) -> int:
        ran.append(n)
        return n

    late, lasting = note.send(1), note.options(expires=60).send(2)
    assert late.state() == "queued"
    time.sleep(0.06)
    counts = app.worker().run_until_idle(30)
    assert (counts.succeeded, counts.expired, counts.dead) == (1, 1, 0)
    assert (ran, lasting.result(0), late.state()) == ([2], 2, "expired")
    with pytest.raises(leveret.JobExpired, match="expired before a worker took it"):
        late.result(0)
    assert app.client().stats("default")[0]["ready"] == 0


def test_a_job_knows_itself_in_its_thread_and_context(app: leveret.App) -> None:
    seen: list[Any] = []

    @app.task(queue="mail", deadline=60)
    def look() -> str:
        job = leveret.current_job()
        inner: list[leveret.CurrentJob] = []
        asyncio.run(asyncio.to_thread(lambda: inner.append(leveret.current_job())))  # type: ignore[arg-type]
        thread = threading.Thread(target=lambda: seen.append(None if _outside() else "inside"))
        thread.start()
        thread.join()
        assert inner == [job]
        assert leveret.current_job() is job
        seen.append((job.task, job.queue, job.retry_count, job.stopping, job.deadline))
        return job.id

    before = datetime.now(UTC)
    job = look.send()
    app.worker().run_until_idle(30)
    assert job.result(0) == job.id
    assert seen[0] is None, "a thread that copies no context is outside"
    task, queue, count, stopping, deadline = seen[1]
    assert (task, queue, count, stopping) == ("look", "mail", 0, False)
    assert timedelta(0) <= deadline - before - timedelta(seconds=60) < timedelta(seconds=30)
    assert _outside()


def _outside() -> bool:
    try:
        leveret.current_job()
    except RuntimeError:
        return True
    return False


variable: ContextVar[str] = ContextVar("variable", default="unset")


def test_context_variables_end_with_the_job_and_begin_with_the_lifespan() -> None:
    @contextlib.contextmanager
    def lifespan(_app: leveret.App) -> Iterator[None]:
        variable.set("lifespan")
        yield

    with leveret.App(f"memory://handler-{next(_names)}", lifespan=lifespan) as app:

        @app.task
        def look() -> str:
            found = variable.get()
            variable.set("job")
            return found

        jobs = look.send_many([()] * 3)
        app.worker().run_until_idle(30)
        assert list(jobs.results(0)) == ["lifespan"] * 3
    assert variable.get() == "unset"


def test_stopping_is_seen_by_a_job_that_runs(app: leveret.App) -> None:
    began, seen = threading.Event(), threading.Event()

    @app.task
    def wait() -> str:
        began.set()
        job = leveret.current_job()
        deadline = time.monotonic() + 30
        while not job.stopping and time.monotonic() < deadline:
            seen.wait(0.005)
        return "stopped" if job.stopping else "not stopped"

    sent = wait.send()
    with app.worker() as worker:
        assert began.wait(30)
        assert worker.stop().succeeded == 1
    assert sent.result(0) == "stopped"


def test_threads_run_side_by_side_and_share_the_lock(app: leveret.App) -> None:
    barrier = threading.Barrier(3)

    @app.task
    def meet(n: int) -> int:
        barrier.wait(30)
        return n

    with app.worker(threads=3):
        jobs = meet.send_many((n,) for n in range(3))
        assert sorted(jobs.results(30)) == [0, 1, 2]


def test_a_handler_may_send_jobs_and_wait_for_their_results(app: leveret.App) -> None:
    @app.task
    def outer(n: int) -> int:
        return inner.send(n).result(30) + 1

    @app.task(queue="inner")
    def inner(n: int) -> int:
        return n * 10

    with app.worker(threads=2):
        assert outer.send(4).result(30) == 41


def test_coroutines_run_side_by_side_on_one_loop(app: leveret.App) -> None:
    gate: list[asyncio.Event] = []
    loops = set()

    @app.task
    async def meet(n: int) -> str:
        loop = asyncio.get_running_loop()
        loops.add(id(loop))
        if not gate:
            gate.append(asyncio.Event())
        if n == 49:
            gate[0].set()
        await gate[0].wait()
        return leveret.current_job().id

    jobs = meet.send_many((n,) for n in range(50))
    counts = app.worker(concurrency=50).run_until_idle(30)
    assert counts.succeeded == 50
    assert list(jobs.results(0)) == list(jobs.ids)
    assert len(loops) == 1


def test_no_more_coroutines_run_at_once_than_the_limit(app: leveret.App) -> None:
    running = [0, 0]

    @app.task
    async def count() -> None:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.001)
        running[0] -= 1

    count.send_many([()] * 40)
    assert app.worker(concurrency=4).run_until_idle(30).succeeded == 40
    assert running[1] <= 4


def test_what_coroutines_raise_and_return_is_judged_alike(app: leveret.App) -> None:
    @app.task(max_retries=1, backoff=0.001)
    async def fail(kind: str) -> Any:
        await asyncio.sleep(0)
        if kind == "exit":
            sys.exit("out")
        if kind == "reject":
            raise leveret.Reject("no")
        if kind == "odd":
            return Odd()
        if kind == "cancel":
            raise asyncio.CancelledError
        raise ValueError(kind)

    jobs = {kind: fail.send(kind) for kind in ("exit", "reject", "odd", "cancel", "value")}
    bad = leveret.App(app.url).send_task("fail", [3], queue="default")
    app.worker().run_until_idle(30)
    found = {}
    for kind, job in [*jobs.items(), ("bad", bad)]:
        with pytest.raises(leveret.JobDead) as caught:
            job.result(0)
        found[kind] = (caught.value.reason, caught.value.error.partition("\n")[0])
    assert found == {
        "exit": ("exception", "SystemExit: out"),
        "reject": ("rejected", "no"),
        "odd": ("bad_result", f"result: a value of type {Odd.__module__}.Odd {NO_FORM}"),
        "cancel": ("exception", "asyncio.exceptions.CancelledError"),
        "value": ("exception", "ValueError: value"),
        "bad": ("bad_arguments", "args[0]: expected str, got int"),
    }  # fmt: skip


def test_coroutines_that_outlive_the_grace_are_cancelled_and_given_back(app: leveret.App) -> None:
    began, cancelled = threading.Event(), threading.Event()

    @app.task
    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    endless.send()
    worker = app.worker(grace=0.05)
    worker.start()
    assert began.wait(30)
    counts = worker.stop()
    assert cancelled.wait(30), "on its own loop, which stop does not wait for"
    assert (counts.succeeded, counts.dead) == (0, 0)
    assert app.client().stats("default")[0]["ready"] == 1


def test_lifespan_and_middleware_surround_jobs_in_order() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: leveret.App) -> AsyncIterator[None]:
        events.append(f"up {sorted(app.tasks)}")
        yield
        events.append("down")

    def noted(name: str) -> Callable[[leveret.CurrentJob], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def around(job: leveret.CurrentJob) -> Iterator[None]:
            events.append(f"{name}> {job.task}")
            try:
                yield
            except ValueError as error:
                events.append(f"{name}! {error}")
                raise
            finally:
                events.append(f"<{name}")

        return around

    url = f"memory://handler-{next(_names)}"
    with leveret.App(url, lifespan=lifespan, middleware=[noted("a"), noted("b")]) as app:

        @app.task(max_retries=0)
        def plain() -> int:
            return 1

        @app.task(max_retries=0)
        async def coroutine() -> int:
            await asyncio.sleep(0)
            raise ValueError("x")

        first, second = plain.send(), coroutine.send()
        app.worker().run_until_idle(30)
        assert first.result(0) == 1
        with pytest.raises(leveret.JobDead, match="ValueError: x"):
            second.result(0)
    assert events == [
        "up ['coroutine', 'plain']",
        "a> plain", "b> plain", "<b", "<a",
        "a> coroutine", "b> coroutine", "b! x", "<b", "a! x", "<a",
        "down",
    ]  # fmt: skip


def test_a_lifespan_that_fails_starts_no_worker() -> None:
    @contextlib.contextmanager
    def lifespan(_app: leveret.App) -> Iterator[None]:
        raise OSError("no database")
        yield

    app = leveret.App(f"memory://handler-{next(_names)}", lifespan=lifespan)
    app.task(fails)
    with pytest.raises(OSError, match="no database"):
        app.worker().start()
    wrong: Any = lambda _app: 3  # noqa: E731
    app = leveret.App(f"memory://handler-{next(_names)}", lifespan=wrong)
    with pytest.raises(TypeError, match="gave int, which is no context manager"):
        app.worker().start()


def test_workers_are_refused_with_the_reason(app: leveret.App) -> None:
    with pytest.raises(ValueError, match="no task is registered"):
        app.worker().start()
    app.task(fails)
    for wrong in ({"threads": 0}, {"concurrency": 0}, {"threads": 1.5}, {"grace": -1}, {"log_level": "loud"}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", ".")):
            app.worker(**wrong).start()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="queues must be a list"):
        app.worker(queues="mail")
    with app.worker() as worker:
        with pytest.raises(RuntimeError, match="it runs already"):
            worker.start()
        assert "running" in repr(worker)
    assert worker.stop() == WorkerCounts(0, 0, 0, 0, 0, 0), "stopped already"


def test_not_idle_in_time_is_an_error_that_counts(app: leveret.App) -> None:
    ran: list[str] = []

    @app.task
    def slow() -> None:
        ran.append("slow")
        while not leveret.current_job().stopping:
            time.sleep(0.002)

    slow.send()
    with pytest.raises(leveret.TimedOut, match=r"not empty within 0\.05 s: [01] jobs succeeded") as told:
        app.worker().run_until_idle(0.05)
    # It may not even have begun.
    assert f"{len(ran)} jobs succeeded" in str(told.value)


MISBEHAVING = """
import os, sys, threading, leveret
app = leveret.App("memory://")
@app.task(max_retries=0)
def odd(kind: str) -> str:
    if kind == "print":
        print("printed")
    if kind == "close":
        sys.stdout.close()
        os.close(1)
    if kind == "thread":
        threading.Thread(target=lambda: None).start()
    if kind == "fork":
        child = os.fork()
        if child == 0:
            return "of the child"
        return f"child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
    if kind == "forked exit":
        child = os.fork()
        if child == 0:
            sys.exit(7)
        return f"child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
    if kind == "forked error":
        child = os.fork()
        if child == 0:
            raise ValueError("in the child")
        return f"child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
    return kind
with app.worker():
    for kind in ("print", "thread", "fork", "forked exit", "forked error", "close", "after"):
        print(kind, "->", odd.send(kind).result(30), file=sys.stderr)
"""


def test_handlers_that_print_fork_or_close_their_output_harm_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", MISBEHAVING], check=True, capture_output=True, text=True, timeout=240)
    assert done.stdout == "printed\n"
    lines = [line for line in done.stderr.splitlines() if " -> " in line]
    assert lines == [
        "print -> print",
        "thread -> thread",
        "fork -> child ended with 0",
        "forked exit -> child ended with 7",
        "forked error -> child ended with 1",
        "close -> close",
        "after -> after",
    ]
    assert "ValueError: in the child" in done.stderr


FORKED = """
import os, sys, leveret
app = leveret.App(sys.argv[1])
@app.task
def add(x: int, y: int) -> int: return x + y
with app.worker(threads=2) as worker:
    assert add.send(1, 2).result(30) == 3
    child = os.fork()
    if child == 0:
        assert "stopped" in repr(worker)
        print(app.worker().run_until_idle(30).succeeded, "in the child", flush=True)
        sys.exit(5)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, add.send(2, 3).result(30), flush=True)
"""


def test_a_fork_leaves_the_worker_to_the_parent(tmp_path: Any) -> None:
    # Python 3.12 and later warn of every fork amid threads.
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, f"sqlite:///{tmp_path}/jobs.db"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.stderr) == ("0 in the child\n5 5\n", "")


GRACE = """
import leveret, threading, time
app = leveret.App("memory://")
began, gate, over = threading.Event(), threading.Event(), threading.Event()
@app.task
def slow() -> None:
    began.set()
    gate.wait()
    over.set()
slow.send()
worker = app.worker(grace=0.05)
worker.start()
began.wait()
worker.stop()
print(app.client().stats("default")[0]["ready"])
gate.set()
over.wait()
time.sleep(0.5)  # what it returns has somewhere to go
"""


def test_a_thread_that_outlives_the_grace_goes_on_where_it_was() -> None:
    done = subprocess.run([sys.executable, "-X", "dev", "-c", GRACE], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_worker_left_running_ends_with_the_program(tmp_path: Any) -> None:
    code = f"""
import leveret
app = leveret.App("sqlite:///{tmp_path}/jobs.db")
@app.task
def add(x: int, y: int) -> int: return x + y
app.worker(threads=2).start()
print(add.send(2, 3).result(30))
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("5\n", "")


def test_python_and_native_handlers_share_a_worker(app: leveret.App, demo_plugin: str) -> None:
    @app.native
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the demo's own names
        raise NotImplementedError

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.worker(threads=2, plugins=[demo_plugin]):
        numbers = work.send_many((i, 3) for i in range(100))
        sums = add.send_many((i, 3) for i in range(100))
        assert len(set(numbers.results(30))) == 1
        assert list(sums.results(30)) == [i + 3 for i in range(100)]


_numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_scalars = st.none() | st.booleans() | _numbers | st.text(st.characters(exclude_categories=["Cs"]))
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc\u00e9"), inner))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**64 - 1), st.floats(width=64), st.text(), _json), max_size=20))
def test_whatever_can_be_sent_arrives_as_it_was(rows: list[tuple[Any, ...]]) -> None:
    arrived: list[Any] = []
    app = leveret.App("memory://")

    @app.task(max_retries=0)
    def take(i: int, f: float, s: str, j: Any) -> Any:
        arrived.append((i, f, s, j))
        return [i, f, s, j]

    with Engine(app) as engine:
        sent: list[tuple[tuple[Any, ...], leveret.Job[Any]]] = []
        for row in rows:
            try:
                sent.append((row, take.send(*row)))
            except ValueError:
                assert not math.isfinite(row[1]) or any(0xD800 <= ord(c) <= 0xDFFF for c in row[2])
        engine.run_until_idle()
        results = [tuple(job.result(0)) for _, job in sent]
    wanted = [row for row, _ in sent]
    assert repr(arrived) == repr(wanted), "values, types and signs of zero"
    assert repr(results) == repr(wanted)
