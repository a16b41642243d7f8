"""Ends of jobs: of many at once, from another program, and what a failure carries."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclasses.dataclass
class Point:
    x: int


def boom(text: str) -> None:
    raise ArithmeticError(text)


@pytest.fixture
def tasks(app: leveret.App) -> dict[str, Any]:
    """Two tasks of the app on a file."""

    @app.task(max_retries=0)
    def half(n: int) -> int:
        if n % 2:
            boom(f"{n}: odd\nand two lines")
        return n // 2

    @app.task
    def point(x: int) -> Point:
        return Point(x)

    return {"half": half, "point": point}


def finish(app: leveret.App) -> None:
    app.worker(threads=2).run_until_idle(30)


def test_results_come_in_the_order_given_and_never_raise(app: leveret.App, tasks: dict[str, Any]) -> None:
    jobs = list(tasks["half"].send_many((n,) for n in range(6)))
    more = tasks["point"].send(7)
    mixed = [more, *jobs[::-1]]
    finish(app)
    ended = list(app.results(mixed, timeout=30))
    assert [one.job for one in ended] == mixed
    assert [one.state for one in ended] == ["succeeded", *["dead", "succeeded"] * 3]
    assert [one.result for one in ended] == [Point(7), None, 2, None, 1, None, 0]
    assert [type(one.failure) for one in ended] == [type(None), *[leveret.JobDead, type(None)] * 3]
    assert list(app.results([], timeout=0)) == []


def test_completed_jobs_come_as_they_end(app: leveret.App, tasks: dict[str, Any]) -> None:
    late = tasks["half"].options(queue="late").send(2)
    jobs = tasks["half"].send_many((n,) for n in range(0, 2000, 2))
    finish(app)
    stream = app.as_completed([late, *jobs], timeout=240)
    first = list(itertools.islice(stream, 1000))
    assert {one.job.id for one in first} == set(jobs.ids)
    app.worker(queues=["late"]).run_until_idle(30)
    assert [(one.job, one.result) for one in stream] == [(late, 1)]


def test_what_has_not_ended_in_time_is_said_at_the_end(app: leveret.App, tasks: dict[str, Any]) -> None:
    jobs = tasks["half"].send_many([(2,), (4,)])
    finish(app)
    waiting = tasks["half"].options(delay=600).send(2), tasks["half"].options(delay=600).send(2)
    got: list[Any] = []
    with pytest.raises(leveret.ResultTimeout, match=r"2 jobs have not ended, the first of them: no result of job"):
        got.extend(ended.result for ended in app.as_completed([*jobs, *waiting], timeout=0.3))
    assert sorted(got) == [1, 2], "those that have ended were given before"
    stream = app.as_completed([*jobs, waiting[0]], timeout=0.3)
    assert {next(stream).result, next(stream).result} == {1, 2}
    with pytest.raises(leveret.ResultTimeout, match=r'^no result of job ".+" \("half"\) within 0\.3 s'):
        next(stream)


def test_asynchronous_streams_are_the_same(app: leveret.App, tasks: dict[str, Any]) -> None:
    jobs = list(tasks["half"].send_many((n,) for n in range(4)))

    async def collect() -> tuple[list[Any], set[Any]]:
        in_order = [ended.result async for ended in app.results_async(jobs, timeout=30)]
        ended = {one.job.id async for one in app.as_completed_async(jobs, timeout=30)}
        with pytest.raises(RuntimeError, match=r"app\.results_async"):
            app.results(jobs)
        with pytest.raises(RuntimeError, match=r"app\.as_completed_async"):
            app.as_completed(jobs)
        late = await tasks["half"].options(delay=600).send_async(2)
        with pytest.raises(leveret.ResultTimeout):
            await anext(aiter(app.as_completed_async([late], timeout=0.05)))
        return in_order, ended

    with app.worker():
        in_order, ended = asyncio.run(collect())
    assert in_order == [0, None, 1, None]
    assert ended == {job.id for job in jobs}


def test_unwanted_results_are_refused_at_once(app: leveret.App, tasks: dict[str, Any]) -> None:
    job = tasks["half"].options(ignore_result=True).send(2)
    with pytest.raises(leveret.Unsupported, match="ignore_result"):
        list(app.as_completed([job]))
    with pytest.raises(leveret.Unsupported, match="ignore_result"):
        job.state()


def test_a_result_of_another_type_in_a_run_of_results_is_that_jobs_alone(app: leveret.App) -> None:
    @app.task
    def sometimes(n: int) -> int:
        wrong: Any = "odd" if n % 2 else n
        result: int = wrong
        return result

    jobs = sometimes.send_many([(n,) for n in range(6)])
    finish(app)
    for n, ended in enumerate(app.results(jobs, timeout=30)):
        assert ended.state == "succeeded"
        if n % 2:
            assert isinstance(ended.failure, leveret.ResultMismatch)
        else:
            assert ended.result == n


def test_a_result_of_another_type_is_a_failure_in_the_stream(app: leveret.App) -> None:
    @app.task
    def text() -> str:
        wrong: Any = 5
        result: str = wrong
        return result

    job = text.send()
    finish(app)
    (ended,) = app.results([job], timeout=30)
    assert ended.state == "succeeded"
    assert isinstance(ended.failure, leveret.ResultMismatch)


def test_a_failure_carries_type_message_traceback_and_attempts(app: leveret.App, tasks: dict[str, Any]) -> None:
    job = tasks["half"].send(3)
    finish(app)
    (ended,) = app.results([job], timeout=30)
    error = ended.failure
    assert isinstance(error, leveret.JobDead)
    assert (error.type, error.message) == ("ArithmeticError", "3: odd\nand two lines")
    assert (error.attempts, error.reason) == (1, "exception")
    assert error.traceback is not None
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert "raise ArithmeticError(text)" in error.traceback


def test_a_failure_that_is_no_exception_has_its_text_alone(app: leveret.App, tasks: dict[str, Any]) -> None:
    tasks["half"].options(queue="default")
    job = app.send_task("half", [2])
    other = leveret.App(app.broker_url()).send_task("half", ["x"], queue="default")
    finish(app)
    assert job.result(30) == 1
    with pytest.raises(leveret.JobDead) as caught:
        other.result(30)
    error = caught.value
    assert (error.type, error.traceback) == (None, None)
    assert error.message == error.error == "args[0]: expected int, got str"


@pytest.fixture
def other(url: str) -> Iterator[leveret.App]:
    """Another program on the same file, as far as the broker can tell."""
    with leveret.App(url) as opened:
        yield opened


def test_another_program_asks_by_id(app: leveret.App, tasks: dict[str, Any], other: leveret.App) -> None:
    point, bad, waiting = tasks["point"].send(3), tasks["half"].send(1), tasks["half"].options(delay=600).send(2)
    assert other.job(point.id).state() == point.state() == "queued"
    assert other.job("01936c7a-0000-7000-8000-000000000000/1").state() == "pending", "nobody's"
    finish(app)
    assert other.job(point.id).result(30) == {"x": 3}
    assert other.job(point.id, tasks["point"]).result(30) == Point(3)
    assert other.job(point.id).state() == "succeeded"
    assert other.job(bad.id).state() == "dead"
    with pytest.raises(leveret.JobDead, match="ArithmeticError"):
        other.job(bad.id).result(30)
    with pytest.raises(leveret.ResultTimeout, match=rf'^no result of job "{waiting.id}" within 0 s from [^ ]+$'):
        other.job(waiting.id).result(0)
    assert other.job(waiting.id).state() == waiting.state() == "scheduled"
    ended = list(other.results([other.job(point.id), other.job(bad.id)], timeout=30))
    assert [one.state for one in ended] == ["succeeded", "dead"]
    assert (bad.state(), point.state()) == ("dead", "succeeded")


def test_a_running_job_says_so(app: leveret.App) -> None:
    began, go = threading.Event(), threading.Event()

    @app.task
    def wait() -> None:
        began.set()
        go.wait(240)

    job = wait.send()
    with app.worker():
        assert began.wait(30)
        assert job.state() == "running"
        go.set()
        job.result(30)
    assert job.state() == "succeeded"


@pytest.mark.parametrize("wrong", ["", "x", "/1", "x/", "x/0", "x/-1", "x/1.0", "x/99999999999", "x/²"])
def test_what_is_no_job_id_is_refused(app: leveret.App, wrong: str) -> None:
    with pytest.raises(ValueError, match="is no job id"):
        app.job(wrong)
