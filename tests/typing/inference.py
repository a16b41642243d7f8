"""Calls that are right: `make check` has both type checkers accept every line and infer what `assert_type` says."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

import leveret

app = leveret.App("memory://")


@app.task
def add(x: int, y: int) -> int:
    """A plain task."""
    return x + y


@app.task(queue="mail", max_retries=5)
async def fetch(url: str, *, timeout: float = 1.0) -> bytes:  # noqa: ASYNC109 - a name that users give
    """A coroutine: results are what it returns, not coroutines."""
    return f"{url}{timeout}".encode()


@app.native
def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's own names
    """A native task."""
    raise NotImplementedError


@app.native(name="other", ignore_result=True)
def renamed(text: str) -> list[str]:
    """A native task with settings."""
    raise NotImplementedError


async def loop() -> None:
    """What event loops do."""
    assert_type(await add.send_async(1, 2), leveret.Job[int])
    assert_type(await fetch.send("x"), bytes)
    assert_type(await (await work.send_async(1)).result_async(timeout=1), int)
    jobs = await work.send_many_async([(1, 2)])
    assert_type([result async for result in jobs.results_async()], list[int])


def program() -> None:
    """What other programs do."""
    assert_type(add(1, 2), int)
    assert_type(add.send(1, y=2), leveret.Job[int])
    assert_type(add.send(1, 2).result(timeout=1), int)
    assert_type(add.send(1, 2).result(timeout=timedelta(seconds=1)), int)
    assert_type(fetch.send("x", timeout=2.0).result(), bytes)
    assert_type(work.send(1).result(), int)
    assert_type(renamed.send("x").result(), list[str])
    assert_type(add.options(delay=timedelta(minutes=5), queue="slow").send(1, 2), leveret.Job[int])
    assert_type(work.send_many((i, i % 25) for i in range(10)), leveret.Jobs[int])
    assert_type(work.send_many([work.args(1), work.args(id=2, value=3)]), leveret.Jobs[int])
    assert_type(fetch.send_many([fetch.args("x")]), leveret.Jobs[bytes])
    assert_type(add.send_many([(1, 2)])[0], leveret.Job[int])
    assert_type(add.send_many([(1, 2)])[0:1], list[leveret.Job[int]])
    assert_type(list(add.send_many([(1, 2)]).results(timeout=5)), list[int])
    assert_type(list(add.send_many([(1, 2)]).results(return_exceptions=True)), list[int | leveret.JobFailed])
    assert_type(app.send_task("by name", [1], {"a": 2}, queue="q").id, str)
    try:
        work.send_many([(1, 2)])
    except leveret.SendManyError as error:
        assert_type(error.index, int)
        assert_type(error.accepted.ids[0], str)
