"""What a type checker knows of tasks: read by mypy and pyright, never run.

Both must take it as it stands, and `assert_type` holds the inferred types. A line that ends in an ignore is a wrong
call: test_typing.py takes the ignores out, and then both must find exactly these lines.
"""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

import leveret

app = leveret.App("memory://")


@app.task
def add(x: int, y: int) -> int:
    """Add; a plain task."""
    return x + y


@app.task(max_retries=5, queue="mail")
async def greet(name: str, *, loud: bool = False) -> str:
    """Greet; a coroutine with a keyword of its own."""
    return name.upper() if loud else name


@app.native
def work(id: int, value: int = 3) -> int:  # noqa: A002 - the contract's name
    """Work; run in C++."""
    raise NotImplementedError


@app.native(queue="images")
def resize(path: str, width: int = 80) -> None:
    """Resize; a native task with options and without a result."""
    raise NotImplementedError


@leveret.task(backoff=2.5, retry_on=(OSError, TimeoutError), reject_on=ValueError, soft_limit=timedelta(seconds=1))
def shared(text: str) -> list[str]:
    """Split; a task without an app."""
    return text.split()


@app.task(idempotency_key="order", idempotency_window=timedelta(hours=1), unique_until="end")
def ship(order: int) -> str:
    """Ship; a task whose jobs are there once."""
    return str(order)


@app.native(queue="images", idempotency_key="path", unique_until="start")
def scan(path: str) -> int:
    """Scan; a native task whose jobs are there once."""
    raise NotImplementedError


@leveret.native
def shared_native(x: int) -> float:
    """Work; a native task without an app."""
    raise NotImplementedError


def ends_and_jobs_are_typed() -> None:
    """Hold the types of what is collected, and of the job that runs."""
    assert_type(shared.send("a b").result(), list[str])
    assert_type(shared_native.send(1), leveret.Job[float])
    assert_type(app.job("m/1", greet), leveret.Job[str])
    assert_type(app.job("m/1", add).result(), int)
    for ended in app.as_completed([add.send(1, 2)], timeout=1):
        assert_type(ended, leveret.Ended[int])
        assert_type(ended.result, int | None)
    assert_type(next(app.results(add.send_many([(1, 2)]))).state, str)
    assert_type(leveret.current_job().retry_count, int)
    with app.worker(threads=2) as worker:
        assert_type(worker.stop().succeeded, int)


def types_are_inferred() -> None:
    """Hold the types of what sends give."""
    assert_type(add.send(1, 2), leveret.Job[int])
    assert_type(add.send(1, y=2).result(timeout=1), int)
    assert_type(add(1, 2), int)
    assert_type(greet.send("ann", loud=True), leveret.Job[str])
    assert_type(work.send(1), leveret.Job[int])
    assert_type(work.send(id=1, value=2).id, str)
    assert_type(resize.send("a.png").result(), None)
    assert_type(add.options(delay=timedelta(minutes=5), queue="slow").send(2, 3), leveret.Job[int])
    assert_type(ship.send(17), leveret.Job[str])
    assert_type(scan.send("a.png").result(), int)
    assert_type(add.options(idempotency_key="sum", idempotency_window=60, unique_until="start").send(2, 3).id, str)
    assert_type(app.send_task("x", idempotency_key=7, unique_until="end").id, str)
    assert_type(add.send_many((i, i) for i in range(3)), leveret.Jobs[int])
    assert_type(greet.send_many([greet.args("ann"), greet.args("bob", loud=True)]), leveret.Jobs[str])
    assert_type(list(work.send_many(work.args(i) for i in range(3)).results(timeout=1)), list[int])


async def coroutines_are_unwrapped() -> None:
    """Hold the types of what is awaited."""
    job = await greet.send_async("ann")
    assert_type(job, leveret.Job[str])
    assert_type(await job, str)
    assert_type(await greet("ann"), str)
    assert_type(await add.send_async(1, 2), leveret.Job[int])
    assert_type(await work.send_many_async([(1, 2)]), leveret.Jobs[int])


def wrong_calls_are_errors() -> None:
    """Hold that both checkers refuse them."""
    add.send("1", 2)  # type: ignore[arg-type]
    add.send(1)  # type: ignore[call-arg]
    add.send(1, 2, 3)  # type: ignore[call-arg]
    add.send(1, z=2)  # type: ignore[call-arg]
    add.options(dealy=1).send(1, 2)  # type: ignore[call-arg]
    add.options(unique_until="done").send(1, 2)  # type: ignore[arg-type]
    add.options(idempotency_key=1.5).send(1, 2)  # type: ignore[arg-type]
    app.task(unique_until=True)  # type: ignore[call-overload]
    greet.send("ann", True)  # type: ignore[call-overload]  # noqa: FBT003
    work.send(value=3)  # type: ignore[call-arg]
    work.send("one")  # type: ignore[arg-type]
    add.args(1, "2")  # type: ignore[arg-type]
    add.send_many([(1, "2")])  # type: ignore[list-item]
    add.send_many([add.args(1, 2), greet.args("ann")])  # type: ignore[list-item]
    text: str = add.send(1, 2).result()  # type: ignore[assignment]
    number: int = greet.send("ann").result()  # type: ignore[assignment]
    work(1)  # type: ignore[operator]
    app.task(max_retries="five")  # type: ignore[call-overload]
    app.native(soft_limit=1)  # type: ignore[call-overload]
    leveret.task(retry_on=OSError())  # type: ignore[call-overload]
    app.worker(thread=1)  # type: ignore[call-arg]
    app.as_completed([1])  # type: ignore[arg-type]
    leveret.App(1)  # type: ignore[arg-type]
    del text, number
