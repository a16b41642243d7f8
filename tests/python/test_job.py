from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret.cli.demo import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret import _core


@pytest.fixture
def task(app: leveret.App) -> leveret.NativeTask[[int, int], int]:
    """The quickstart's task."""

    @app.native
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's own names
        raise NotImplementedError

    return work


Task = leveret.NativeTask[[int, int], int]
Work = "Callable[[], _core.Worker]"


def test_result_comes_back(task: Task, work: Callable[[], _core.Worker]) -> None:
    job = task.send(1, 7)
    work()
    assert job.result(timeout=timedelta(seconds=30)) == reference(7)
    assert job.result(timeout=0) == reference(7), "it stays"
    message, line = job.id.split("/")
    assert len(message) == 36
    assert line == "1"
    assert repr(job) == f"<Job work {job.id}>"


def test_defaults_are_filled_in_for_the_worker(app: leveret.App, task: Task, work: Callable[[], _core.Worker]) -> None:
    work()
    assert task.send(1).result(30) == reference(3)
    assert app.send_task("work", [1]).result(30) == reference(3)
    assert app.send_task("work", kwargs={"value": 5, "id": 1}).result(30) == reference(5)
    # Known by its name alone, the C++ side binds the names.
    assert leveret.App.send_task(app, "noop").result(30) is None


def test_a_dead_job_says_why(app: leveret.App, work: Callable[[], _core.Worker]) -> None:
    work()
    job = app.send_task("noop", [1, 2])
    with pytest.raises(leveret.JobDead) as caught:
        job.result(30)
    assert caught.value.id == job.id
    assert caught.value.task == "noop"
    assert (caught.value.reason, caught.value.attempts) == ("bad_arguments", 1)
    assert "args: expected none, got 2" in str(caught.value)


def test_timeout_names_the_file_and_whether_a_worker_is_there(
    task: Task, work: Callable[[], _core.Worker], tmp_path: Any
) -> None:
    job = task.send(1, 7)
    began = time.monotonic()
    with pytest.raises(leveret.ResultTimeout) as caught:
        job.result(0.1)
    assert time.monotonic() - began < 60
    assert f"{tmp_path}/jobs.db" in str(caught.value)
    assert 'no worker takes jobs of queue "native"' in str(caught.value)
    assert "within 0.1 s" in str(caught.value)
    idle = task.options(queue="idle").send(1, 7)
    work()
    with pytest.raises(leveret.ResultTimeout, match='no worker takes jobs of queue "idle"'):
        idle.result(0)
    waiting = task.options(delay=600).send(1, 7)
    # It consumes already, and says so to others a moment later.
    deadline = time.monotonic() + 60
    said = ""
    while '1 worker takes jobs of queue "native"' not in said:
        assert time.monotonic() < deadline, said
        with pytest.raises(leveret.ResultTimeout) as caught:
            waiting.result(0)
        said = str(caught.value)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
def test_a_senseless_timeout_is_refused(task: Task, timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="timeout must be"):
        task.send(1, 1).result(timeout)


def test_ignored_results_can_not_be_had(task: Task) -> None:
    job = task.options(ignore_result=True).send(1, 7)
    with pytest.raises(leveret.Unsupported, match="ignore_result=True"):
        job.result(1)


def test_a_result_of_another_type_than_promised_is_an_error(app: leveret.App, work: Callable[[], _core.Worker]) -> None:
    @app.native(name="work")
    def wrong(id: int, value: int) -> list[str]:  # noqa: A002
        raise NotImplementedError

    work()
    jobs = wrong.send_many([(1, 1)])
    with pytest.raises(leveret.ResultMismatch, match="result: expected array, got int"):
        jobs[0].result(30)


def test_jobs_are_a_sequence_in_the_order_sent(task: Task) -> None:
    jobs = task.send_many((i, i) for i in range(5000))
    assert len(jobs) == 5000
    assert len(jobs.messages) > 1
    assert sum(count for _, count in jobs.messages) == 5000
    ids = [job.id for job in jobs]
    assert len(set(ids)) == 5000
    assert list(jobs.ids) == ids
    assert jobs[-1].id == ids[-1] == jobs.ids[4999]
    assert [job.id for job in jobs[10:20:3]] == ids[10:20:3] == jobs.ids[10:20:3]
    with pytest.raises(IndexError, match="5000 were sent"):
        jobs[5000]
    assert repr(jobs) == "<Jobs work x5000>"


def test_no_jobs_are_no_message(task: Task) -> None:
    jobs = task.send_many([])
    assert len(jobs) == 0
    assert list(jobs) == list(jobs.results(0)) == jobs.messages == []


def test_results_stream_in_order(task: Task, work: Callable[[], _core.Worker]) -> None:
    expected = [reference(value) for value in range(25)]
    jobs = task.send_many((i, i % 25) for i in range(20_000))
    work()
    assert list(jobs.results(60)) == [expected[i % 25] for i in range(20_000)]
    # They were handed over; on SQLite they can be looked up again.
    assert jobs[19_999].result(30) == expected[19_999 % 25]


def test_results_of_dead_jobs_stand_in_their_places(app: leveret.App, work: Callable[[], _core.Worker]) -> None:
    @app.native
    def noop(*args: int) -> None:
        raise NotImplementedError

    work()
    jobs = noop.send_many([(), (1,), ()])
    first, second, third = jobs.results(30, return_exceptions=True)
    assert first is third is None
    assert isinstance(second, leveret.JobDead)
    again = noop.send_many([(), (1,), ()])
    with pytest.raises(leveret.JobDead):
        list(again.results(30))


def test_results_share_one_timeout(task: Task) -> None:
    jobs = task.send_many((i, i) for i in range(10))
    with pytest.raises(leveret.ResultTimeout):
        list(jobs.results(0.1))


def test_threads_may_wait_for_jobs_of_one_message(task: Task, work: Callable[[], _core.Worker]) -> None:
    jobs = task.send_many((i, i % 25) for i in range(64))
    found: dict[int, int] = {}

    def wait(i: int) -> None:
        found[i] = jobs[i].result(60)

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    assert found == {i: reference(i % 25) for i in range(64)}


def test_a_blocking_call_inside_an_event_loop_is_refused(task: Task) -> None:
    async def main() -> None:
        job = await task.send_async(1, 7)
        with pytest.raises(RuntimeError, match="use: await job"):
            job.result(1)
        jobs = await task.send_many_async([(1, 7)])
        with pytest.raises(RuntimeError, match="results_async"):
            jobs.results(1)

    asyncio.run(main())


def test_event_loops_await_results(task: Task, work: Callable[[], _core.Worker]) -> None:
    async def main() -> None:
        jobs = [await task.send_async(i, i % 25) for i in range(50)]
        work()
        assert await asyncio.gather(*jobs) == [reference(i % 25) for i in range(50)]
        assert await jobs[0].result_async(60) == reference(0), "it stays"
        many = await task.send_many_async((i, i % 25) for i in range(3000))
        streamed = [result async for result in many.results_async(60)]
        assert streamed == [reference(i % 25) for i in range(3000)]

    asyncio.run(main())


def test_an_awaited_result_times_out(task: Task) -> None:
    async def main() -> None:
        job = await task.send_async(1, 7)
        with pytest.raises(leveret.ResultTimeout, match="no worker takes jobs"):
            await job.result_async(0.1)

    asyncio.run(main())


def test_a_cancelled_wait_takes_nothing_back(task: Task, work: Callable[[], _core.Worker]) -> None:
    async def main() -> None:
        job = await task.send_async(1, 7)
        waiting = asyncio.ensure_future(job.result_async())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        work()
        assert await job == reference(7)

    asyncio.run(main())


def test_a_wait_given_up_is_no_trouble_when_the_app_closes(app: leveret.App, task: Task) -> None:
    async def main() -> None:
        job = await task.send_async(1, 7)
        waiting = asyncio.ensure_future(job.result_async())
        await asyncio.sleep(0)
        waiting.cancel()

    # A thread that ended with an error would fail the test.
    for _ in range(10):
        asyncio.run(main())
        app.close()
        app.__enter__()


def test_a_loop_and_a_thread_may_wait_for_one_message(task: Task, work: Callable[[], _core.Worker]) -> None:
    jobs = task.send_many([(1, 1), (2, 2)])

    async def main() -> None:
        awaited = asyncio.ensure_future(jobs[0].result_async(60))
        blocked = asyncio.ensure_future(asyncio.to_thread(jobs[1].result, 60))
        await asyncio.sleep(0)
        work()
        assert await asyncio.gather(awaited, blocked) == [reference(1), reference(2)]

    asyncio.run(main())


def test_sending_in_an_event_loop_warns_once(app: leveret.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret.job._warned", False)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    async def send() -> None:
        with pytest.warns(RuntimeWarning, match=r"await task\.send_many_async") as told:
            add.send_many([(1, 2)])
        assert told[0].filename == __file__
        add.send(1, 2)
        await add.send_async(1, 2)

    asyncio.run(send())
    assert app.client().stats("default")[0]["ready_jobs"] == 3
