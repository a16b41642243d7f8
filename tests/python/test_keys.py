"""Jobs with keys: which queue keeps them in order, and in which order they run."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret.testing import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def queue_of(key: str, queue: str = "default") -> str:
    return f"{queue}.ordered.{zlib.crc32(key.encode()) % 16}"


def waiting(app: leveret.App) -> dict[str, int]:
    """Return how many jobs wait in each queue that has some."""
    return {each["queue"]: each["ready_jobs"] for each in app.client().stats("") if each["ready_jobs"]}


def step(key: str, number: int = 0, *, late: str = "late") -> str:
    return f"{key} {number} {late}"


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "found"),
    [
        ("key", ("k",), {}, "k"),
        ("key", (), {"key": "k"}, "k"),
        ("number", ("k", 7), {}, "7"),
        ("number", ("k",), {}, "0"),
        ("late", ("k",), {"late": "é"}, "é"),
        ("late", ("k", 1), {}, "late"),
        (lambda key, number=1, **_: f"{key}/{number}", ("k", 2), {"late": "x"}, "k/2"),
        (lambda key, *_: -len(key), ("four",), {}, "-4"),
    ],
)
def test_a_job_goes_to_the_ordered_queue_of_its_key(
    app: leveret.App, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: str
) -> None:
    task: Any = app.task(ordered=True, key=key)(step)
    task.send(*args, **kwargs)
    task.send_many([task.args(*args, **kwargs)])
    assert waiting(app) == {queue_of(found): 2}
    task.options(key="other", queue="elsewhere").send(*args, **kwargs)
    assert waiting(app)[queue_of("other", "elsewhere")] == 1


def test_coroutines_send_in_the_order_in_which_they_are_called(app: leveret.App) -> None:
    tasks: list[Any] = [app.task(name=name, ordered=True, key="key")(step) for name in ("one", "two")]

    async def send() -> None:
        await asyncio.gather(*(tasks[number % 2].send_async("k", number) for number in range(200)))

    asyncio.run(send())
    bodies = [each["data"] for each in app.client().browse(queue_of("k"), "ready", "", "", 1000)[0]]
    lines = [json.loads(line) for body in bodies for line in body.splitlines()]
    assert [line["args"][1] for line in lines] == list(range(200))
    assert [line["task"] for line in lines] == ["one", "two"] * 100


@pytest.mark.parametrize(
    ("key", "kind", "text"),
    [
        (1.5, TypeError, 'the key of a job of "step" must be a str or an int, not float'),
        (None, TypeError, "not NoneType"),
        (True, TypeError, "not bool"),
        ("", ValueError, "is empty"),
        ("\ud800", ValueError, "lone surrogate"),
    ],
)
def test_what_is_no_key_is_refused_and_nothing_is_sent(
    app: leveret.App, key: Any, kind: type[Exception], text: str
) -> None:
    task: Any = app.task(ordered=True, key=lambda *_args, **_kwargs: key)(step)
    with pytest.raises(kind, match=text):
        task.send("k")
    with pytest.raises(leveret.SendManyError, match=text) as caught:
        task.send_many([("k",)])
    assert isinstance(caught.value.__cause__, kind)
    assert waiting(app) == {}


def test_a_job_without_a_key_is_refused_with_the_remedy(app: leveret.App) -> None:
    task: Any = app.task(ordered=True)(step)
    for send in (lambda: task.send("k"), lambda: task.send_many([("k",)])):
        with pytest.raises(
            ValueError, match=r"it is ordered, and this job has no key; declare .*options\(key=\.\.\.\)"
        ):
            send()
    task.options(key=5).send("k")
    assert waiting(app) == {queue_of("5"): 1}
    keyed: Any = app.task(name="keyed", ordered=True, key="key")(step)
    with pytest.raises(TypeError, match="the argument 'key', its key, is missing"):
        keyed.send(number=3)


def test_a_key_for_a_task_that_is_not_ordered_is_refused(app: leveret.App) -> None:
    task: Any = app.task(step)
    with pytest.raises(ValueError, match="declared with ordered=True"):
        task.options(key="k")


def test_jobs_of_many_keys_index_and_stream_in_the_order_given(app: leveret.App) -> None:
    task: Any = app.task(ordered=True, key="key")(step)
    jobs = task.send_many((f"k{number % 37}", number) for number in range(1_000))
    assert len(jobs) == len(jobs.ids) == 1_000
    assert len(set(jobs.ids)) == 1_000
    expected = [f"k{number % 37} {number} late" for number in range(1_000)]
    with app.worker(threads=3):
        assert jobs[999].result(timeout=60) == expected[999]
        assert [job.result(timeout=60) for job in jobs[100:120]] == expected[100:120]
        assert [job.id for job in jobs] == list(jobs.ids)
        assert list(jobs.results(timeout=60)) == expected


def test_results_of_keyed_jobs_stream_in_an_event_loop(app: leveret.App) -> None:
    task: Any = app.task(ordered=True, key="key")(step)

    async def results() -> list[str]:
        jobs = await task.send_many_async((f"k{number % 7}", number) for number in range(100))
        return [result async for result in jobs.results_async(timeout=60)]

    with app.worker(threads=2):
        assert asyncio.run(results()) == [f"k{number % 7} {number} late" for number in range(100)]


def test_jobs_before_a_bad_one_are_durable_in_their_order(app: leveret.App) -> None:
    task: Any = app.task(ordered=True, key="key")(step)

    def jobs() -> Iterator[Any]:
        for number in range(300):
            yield f"k{number % 5}", number
        raise OSError("torn")

    with pytest.raises(leveret.SendManyError, match=r"cannot send job 300 .*the 300 before it are durable") as caught:
        task.send_many(jobs())
    assert caught.value.index == len(caught.value.accepted) == 300
    with app.worker():
        assert caught.value.accepted[299].result(timeout=60) == "k4 299 late"


def test_a_test_engine_runs_ordered_jobs_in_order(app: leveret.App) -> None:
    ran: dict[str, list[int]] = defaultdict(list)

    @app.task(ordered=True, key="key")
    def note(key: str, number: int) -> None:
        ran[key].append(number)

    with Engine(app) as engine:
        note.send_many((f"k{number % 9}", number) for number in range(90))
        for number in range(90, 99):
            note.send(f"k{number % 9}", number)
        assert engine.run_until_idle().succeeded == 99
    assert ran == {f"k{key}": list(range(key, 99, 9)) for key in range(9)}
