"""Jobs that are sent one by one at the same time: they share messages, and each sender gets its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING

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


def messages_of(jobs: list[leveret.Job[int]]) -> int:
    """Return how many messages the jobs came in."""
    ids = [job.id for job in jobs]
    assert len(set(ids)) == len(jobs), "each has an id of its own"
    return len({job_id.partition("/")[0] for job_id in ids})


def test_threads_share_messages_and_each_gets_its_own_results(task: Task, work: Callable[[], _core.Worker]) -> None:
    work()
    jobs: list[leveret.Job[int]] = []
    wrong: list[object] = []
    start = threading.Barrier(8)

    def send_some(first: int) -> None:
        start.wait()
        for value in range(first, first + 25):
            job = task.send(1, value)
            jobs.append(job)
            if (got := job.result(60)) != reference(value):
                wrong.append((value, got))

    threads = [threading.Thread(target=send_some, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert messages_of(jobs) < len(jobs) == 200


def test_coroutines_share_messages_and_their_jobs_keep_their_order(app: leveret.App) -> None:
    ran: list[int] = []

    @app.task
    def note(n: int) -> int:
        ran.append(n)
        return n

    async def send_all() -> list[leveret.Job[int]]:
        jobs = await asyncio.gather(*(note.send_async(n) for n in range(500)))
        with app.worker(threads=1):
            assert await asyncio.gather(*(job.result_async(60) for job in jobs)) == list(range(500))
        return jobs

    jobs = asyncio.run(send_all())
    assert messages_of(jobs) < 100
    assert ran == list(range(500)), "in the order in which they were sent"
    assert asyncio.run(send_all())[0].id != jobs[0].id, "another loop works as well"


def test_jobs_of_other_tasks_and_without_results_keep_apart(app: leveret.App) -> None:
    @app.task
    def one(n: int) -> int:
        return n

    @app.task
    def two(text: str) -> str:
        return text

    async def send_all() -> None:
        jobs = await asyncio.gather(*(one.send_async(n) for n in range(50)))
        texts = await asyncio.gather(*(two.send_async(str(n)) for n in range(50)))
        silent = await asyncio.gather(*(one.options(ignore_result=True).send_async(n) for n in range(50)))
        with app.worker(threads=2):
            assert [await job.result_async(60) for job in jobs] == list(range(50))
            assert [await job.result_async(60) for job in texts] == [str(n) for n in range(50)]
            with pytest.raises(leveret.Unsupported):
                await silent[0].result_async(1)

    asyncio.run(send_all())


def test_jobs_of_two_tasks_whose_results_nobody_wants_share_messages_and_know_their_own_task(
    app: leveret.App,
) -> None:
    @app.task(ignore_result=True)
    def one(n: int) -> None:
        """Do nothing."""

    @app.task(ignore_result=True)
    def two(n: int) -> None:
        """Do nothing."""

    async def send_all() -> list[leveret.Job[None]]:
        await asyncio.to_thread(app.client)
        return await asyncio.gather(*((one, two)[n // 3 % 2].send_async(n) for n in range(300)))

    for _ in range(2):  # by another loop
        jobs = asyncio.run(send_all())
        assert len({job.id for job in jobs}) == 300
        assert len({job.id.partition("/")[0] for job in jobs}) < 100
        for n, job in enumerate(jobs):
            with pytest.raises(leveret.Unsupported, match=f'"{job.id}" .*{("one", "two")[n // 3 % 2]}"'):
                job.result(1)


def test_loops_of_several_threads_take_turns_and_are_not_kept(app: leveret.App) -> None:
    @app.task(ignore_result=True)
    def note(n: int) -> None:
        """Do nothing."""

    ids: list[str] = []
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def send_some(first: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        for n in range(first, first + 40):
            jobs = await asyncio.gather(note.send_async(n), note.send_async(n))
            ids.extend(job.id for job in jobs)

    for _ in range(3):
        threads = [threading.Thread(target=asyncio.run, args=(send_some(100 * n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(ids)) == len(ids) == 3 * 4 * 80
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []


def test_a_loop_that_closed_amid_its_sends_is_not_kept_either(app: leveret.App) -> None:
    @app.task(ignore_result=True)
    def note(n: int) -> None:
        """Do nothing."""

    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def send_and_leave(jobs: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.to_thread(app.client)
        for n in range(jobs):
            asyncio.ensure_future(note.send_async(n))  # noqa: RUF006 - it is to be left
        await asyncio.sleep(0)  # all are on their way

    asyncio.run(send_and_leave(20))
    asyncio.run(send_and_leave(20))
    asyncio.run(send_and_leave(0))

    async def send() -> None:
        await note.send_async(1)

    asyncio.run(send())
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []


def test_a_send_whose_caller_went_away_is_sent_and_its_neighbours_have_their_results(app: leveret.App) -> None:
    ran: list[int] = []

    @app.task
    def note(n: int) -> int:
        ran.append(n)
        return n

    async def send_all() -> None:
        await asyncio.to_thread(app.client)
        sends = [asyncio.ensure_future(note.send_async(n)) for n in range(20)]
        await asyncio.sleep(0)  # all are on their way
        for send in sends[::2]:
            send.cancel()
        jobs = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(job) for job in jobs[:2]] == [asyncio.CancelledError, leveret.Job]
        kept = [job for job in jobs if isinstance(job, leveret.Job)]
        del jobs, sends
        gc.collect()
        with app.worker(threads=1):
            assert [await job.result_async(60) for job in kept] == list(range(1, 20, 2))

    asyncio.run(send_all())
    assert ran == list(range(20))


def test_a_dropped_job_takes_no_result_from_those_that_share_its_message(app: leveret.App) -> None:
    @app.task
    def echo(n: int) -> int:
        return n

    async def send_all() -> list[leveret.Job[int]]:
        return list(await asyncio.gather(*(echo.send_async(n) for n in range(20))))

    jobs = asyncio.run(send_all())
    last = jobs.pop()
    jobs.clear()
    gc.collect()
    with app.worker(threads=1):
        assert last.result(60) == 19
    assert not app.sends.shared, "nothing is kept once each has its own"


def test_what_cannot_be_sent_is_said_to_its_sender_alone(app: leveret.App) -> None:
    @app.task
    def echo(n: object) -> object:
        return n

    async def send_all() -> None:
        outcomes = await asyncio.gather(
            *(echo.send_async(n) for n in (1, object(), 2, float("nan"), "x" * (2 << 20), 3)), return_exceptions=True
        )
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [leveret.Job, TypeError, leveret.Job, ValueError, ValueError, leveret.Job]

    asyncio.run(send_all())
    app.close()

    async def send_one() -> None:
        with pytest.raises(leveret.Closed):
            await echo.send_async(1)

    asyncio.run(send_one())


def test_closing_publishes_what_is_on_its_way(url: str) -> None:
    app = leveret.App(url, linger=1)

    @app.task
    def echo(n: int) -> int:
        return n

    async def send_and_close() -> None:
        sends = [asyncio.ensure_future(echo.send_async(n)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(app.client)
        while not all(send.done() for send in sends):
            await asyncio.to_thread(app.close)
            await asyncio.sleep(0)
        states = {type(send.exception()) for send in sends}
        assert states <= {type(None), leveret.Closed}
        accepted = sum(send.exception() is None for send in sends)
        with leveret.App(url) as other:
            there = [queue["ready_jobs"] for queue in other.client().stats("default")] if accepted else [0]
        assert there == [accepted]

    asyncio.run(send_and_close())


def test_linger_waits_for_company(url: str) -> None:
    with leveret.App(url, linger=1) as app:

        @app.task
        def echo(n: int) -> int:
            return n

        app.client()
        jobs: list[leveret.Job[int]] = []
        threads = [threading.Thread(target=lambda n=n: jobs.append(echo.send(n))) for n in range(16)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 1, "whether company came or not"
        # All of them, unless the last one begins a second after the first.
        assert messages_of(jobs) < len(jobs) / 2


@pytest.mark.parametrize("linger", [-1, 1.5, float("nan")])
def test_a_senseless_linger_is_refused(linger: float) -> None:
    with pytest.raises(ValueError, match="linger"):
        leveret.App("memory://", linger=linger)
