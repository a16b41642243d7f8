"""Jobs that are to be there once: idempotency keys and unique jobs."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from leveret.testing import Engine


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[leveret.App]:
    """An app on each broker that keeps keys itself."""
    url = f"memory://once-{uuid.uuid4()}" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    with leveret.App(url) as opened:
        yield opened


def waiting(app: leveret.App, queue: str = "default") -> int:
    """Return how many jobs wait in a queue."""
    ready: int = app.client().stats(queue)[0]["ready_jobs"]
    return ready


def test_a_second_send_with_a_key_stores_nothing_and_returns_the_first_job(app: leveret.App) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def other(x: int, y: int) -> int:
        return x - y

    first = add.options(idempotency_key="order-17").send(2, 3)
    second = add.options(idempotency_key="order-17").send(20, 30)
    assert second.id == first.id
    assert waiting(app) == 1
    ids = {
        first.id,
        add.options(idempotency_key="order-18").send(2, 3).id,
        other.options(idempotency_key="order-17").send(2, 3).id,
        add.send(2, 3).id,
        add.options(idempotency_key=17).send(2, 3).id,
    }
    assert len(ids) == 5, "a key is a task's, and jobs without one have nothing to do with it"
    with app.worker():
        assert second.result(60) == first.result(60) == 5
    third = add.options(idempotency_key="order-17").send(2, 3)
    assert (third.id, third.state(), third.result(60)) == (first.id, "succeeded", 5), "it has ended: the window goes on"


def test_a_key_found_by_the_declaration_serves_every_way_to_send(app: leveret.App) -> None:
    @app.task(idempotency_key="order")
    def ship(order: str, note: str = "") -> str:
        return order + note

    @app.task(idempotency_key=lambda order: f"{order['shop']}/{order['number']}")
    def bill(order: dict[str, Any]) -> int:
        number: int = order["number"]
        return number

    first = ship.send("a", "!")
    assert ship.send(order="a").id == first.id

    async def send_both() -> list[str]:
        return [(await ship.send_async("a")).id, (await ship.send_async("b")).id]

    again, another = asyncio.run(send_both())
    assert again == first.id != another
    assert app.send_task("ship", ["b"]).id == another
    assert app.send_task("ship", ["x"], idempotency_key="a").id == first.id
    jobs = ship.send_many([("c",), ("a",), ship.args("d", note="?"), ("c",)])
    assert [job.id for job in jobs][1] == first.id
    assert jobs[0].id == jobs[3].id
    assert len({job.id for job in jobs}) == 3
    assert waiting(app) == 4
    more = asyncio.run(ship.send_many_async([("c",), ("e",)]))
    assert more[0].id == jobs[0].id
    order = bill.send({"shop": "x", "number": 1, "lines": []})
    assert bill.send({"shop": "x", "number": 1}).id == order.id
    assert bill.send({"shop": "x", "number": 2}).id != order.id
    with app.worker():
        assert list(jobs.results(timeout=60)) == ["c", "a!", "d?", "c"]
        assert list(more.results(timeout=60)) == ["c", "e"]
        assert order.result(60) == 1


def test_what_is_sent_by_name_alone_may_have_a_key(app: leveret.App) -> None:
    first = app.send_task("elsewhere", [1], idempotency_key="k")
    assert app.send_task("elsewhere", [2], idempotency_key="k").id == first.id
    unique = app.send_task("elsewhere", [{"a": 1, "b": [2]}], unique_until="end")
    assert app.send_task("elsewhere", [{"b": [2], "a": 1}], unique_until="end").id == unique.id
    assert app.send_task("elsewhere", [{"b": [2], "a": 2}], unique_until="end").id != unique.id
    assert waiting(app, "native") == 3


def test_the_same_arguments_are_the_same_however_they_are_given(app: leveret.App) -> None:
    @app.task(unique_until="end")
    def render(page: dict[str, int], scale: float = 1.0, *, draft: bool = False) -> None:
        """Do nothing."""

    @app.native(unique_until="end")
    def native(page: int, scale: int = 1) -> None:
        """Do nothing."""

    first = render.send({"a": 1, "b": 2})
    assert render.send({"b": 2, "a": 1}, 1.0, draft=False).id == first.id
    assert render.send(page={"a": 1, "b": 2}, scale=1.0).id == first.id
    others = [render.send({"a": 1}), render.send({"a": 1, "b": 2}, 2.0), render.send({"a": 1, "b": 2}, draft=True)]
    assert len({job.id for job in [first, *others]}) == 4
    assert native.send(1).id == native.send(page=1, scale=1).id != native.send(1, 2).id


def test_senders_in_threads_get_one_job_a_key(app: leveret.App) -> None:
    @app.task(idempotency_key="n")
    def count(n: int) -> int:
        return n

    sent: list[list[str]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def send(ids: list[str]) -> None:
        start.wait()
        ids += [count.send(n).id for n in range(50)]

    threads = [threading.Thread(target=send, args=(ids,)) for ids in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sent[0] == sent[1] == sent[2] == sent[3]
    assert len(set(sent[0])) == waiting(app) == 50


def test_jobs_in_order_may_have_a_key(app: leveret.App) -> None:
    done: list[tuple[str, int]] = []

    @app.task(ordered=True, key="account", idempotency_key="number", unique_until="start")
    def book(account: str, number: int) -> int:
        done.append((account, number))
        return number

    jobs = book.send_many([("ann", 1), ("ann", 2), ("ann", 1), ("ann", 3)])
    assert book.send("ann", 2).id == jobs[1].id
    assert jobs[0].id == jobs[2].id
    with app.worker(threads=4):
        assert list(jobs.results(timeout=60)) == [1, 2, 1, 3]
    assert done == [("ann", 1), ("ann", 2), ("ann", 3)]


# Until the end


def test_until_the_end_holds_while_it_waits_runs_and_is_retried(leveret_engine: Callable[..., Engine]) -> None:
    seen: list[str] = []
    app = leveret.App("memory://")

    @app.task(unique_until="end", max_retries=2, backoff=10)
    def refresh(what: str) -> str:
        seen.append(refresh.send(what).id)
        if leveret.current_job().retry_count == 0:
            raise ConnectionError(what)
        return what

    engine = leveret_engine(app)
    first = refresh.send("x")
    assert refresh.send("x").id == first.id
    assert engine.run_until_idle().retried == 1
    assert refresh.send("x").id == first.id, "a retry is no end"
    assert engine.advance(11).succeeded == 1
    assert seen == [first.id, first.id]
    assert first.result(0) == "x"
    second = refresh.send("x")
    assert second.id != first.id
    assert [job.id for job in engine.sent()] == [first.id, second.id], "what is not stored is not sent"


@pytest.mark.parametrize("end", ["succeeded", "rejected", "dead", "expired", "cancelled", "cancelled later"])
def test_until_the_end_is_over_however_a_job_ends(leveret_engine: Callable[..., Engine], end: str) -> None:
    app = leveret.App("memory://")

    @app.task(unique_until="end", max_retries=1, backoff=1)
    def work(end: str) -> None:
        if end == "rejected":
            raise leveret.Reject("no")
        if end == "dead":
            raise ArithmeticError

    sender = work.options(expires=10) if end == "expired" else work
    sender = sender.options(delay=20) if end == "cancelled later" else sender
    engine = leveret_engine(app)
    first = sender.send(end)
    assert sender.send(end).id == first.id
    if end == "expired":
        # Its worker had something else to do.
        late = work.options(delay=15, expires=10, idempotency_key="late")
        job = late.send(end)
        engine.advance(16)
        assert job.state() == "expired"
        assert late.send(end).id != job.id
        return
    if end.startswith("cancelled"):
        assert first.cancel() == (end == "cancelled later"), "the engine's worker has the other one already"
        engine.run_until_idle()
        assert first.state() == "cancelled"
    else:
        engine.advance(60)
        assert first.state() == ("succeeded" if end == "succeeded" else "dead")
    assert sender.send(end).id != first.id


def test_until_the_end_is_over_after_the_window_at_the_latest(leveret_engine: Callable[..., Engine]) -> None:
    app = leveret.App("memory://")

    @app.task
    def work() -> None:
        """Do nothing."""

    engine = leveret_engine(app)
    held = work.options(unique_until="end", delay=timedelta(days=3))
    first = held.send()
    engine.advance(timedelta(hours=23, minutes=59))
    assert held.send().id == first.id
    engine.advance(timedelta(minutes=1))
    assert held.send().id != first.id, "a day by default"
    short = work.options(idempotency_key="k", idempotency_window=timedelta(seconds=5))
    second = short.send()
    engine.advance(4.9)
    assert short.send().id == second.id
    engine.advance(0.1)
    assert short.send().id != second.id


def test_a_replayed_job_is_unique_again_unless_another_one_is(leveret_engine: Callable[..., Engine]) -> None:
    app = leveret.App("memory://")
    broken = [True]

    @app.task(unique_until="end")
    def work() -> str:
        if broken[0]:
            raise leveret.Reject("broken")
        return "done"

    engine = leveret_engine(app)
    first = work.send()
    engine.run_until_idle()
    broken[0] = False
    assert app.client().replay("default", [], all=True) == 1
    assert work.send().id == first.id
    assert engine.run_until_idle().succeeded == 1
    broken[0] = True
    second = work.send()
    engine.run_until_idle()
    broken[0] = False
    third = work.send()
    assert third.id != second.id
    assert app.client().replay("default", [], all=True) == 1
    assert work.send().id == third.id
    assert engine.run_until_idle().succeeded == 2
    assert work.send().id not in {second.id, third.id}


# Until the start


def test_until_the_start_holds_while_it_waits_in_a_worker_and_not_in_its_handler(app: leveret.App) -> None:
    busy, goes_on = threading.Event(), threading.Event()
    in_handler: list[str] = []

    @app.task
    def block() -> None:
        busy.set()
        assert goes_on.wait(60)

    @app.task(unique_until="start")
    def refresh(what: str) -> str:
        in_handler.append(refresh.options(delay=3600).send(what).id)
        return what

    with app.worker(threads=1):
        block.send()
        assert busy.wait(60)
        first = refresh.send("x")
        behind = block.send()
        # The worker has both by now, or it will: neither has begun.
        assert refresh.send("x").id == first.id
        goes_on.set()
        assert first.result(60) == "x"
        behind.result(60)
    assert in_handler != [first.id], "the key was free when the handler had begun"
    assert refresh.send("x").id == in_handler[0]


def test_until_the_start_a_job_that_is_given_back_unstarted_holds_its_key(app: leveret.App) -> None:
    busy = threading.Event()

    @app.task
    def block() -> None:
        busy.set()
        while not leveret.current_job().stopping:
            time.sleep(0.001)

    @app.task(unique_until="start")
    def refresh() -> str:
        return "fresh"

    with app.worker(threads=1):
        block.send()
        assert busy.wait(60)
        first = refresh.send()
    assert refresh.send().id == first.id
    with app.worker():
        assert first.result(60) == "fresh"
    assert refresh.send().id != first.id


def test_until_the_start_the_other_ends_free_the_key_too(leveret_engine: Callable[..., Engine]) -> None:
    app = leveret.App("memory://")

    @app.task(unique_until="start")
    def work() -> None:
        raise leveret.RetryAfter(5)

    engine = leveret_engine(app)
    cancelled = work.send()
    cancelled.cancel()
    engine.run_until_idle()
    expired = work.options(expires=10, delay=15)
    late = expired.send()
    assert late.id != cancelled.id
    engine.advance(16)
    assert late.state() == "expired"
    first = work.send()
    assert first.id != late.id
    engine.run_until_idle()
    assert work.send().id != first.id, "a job that was begun is over, though it is retried"


# What makes no sense


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"idempotency_key": ""}, ValueError, "idempotency_key is empty"),
        ({"idempotency_key": 1.5}, TypeError, "idempotency_key must be a str or an int, not float"),
        ({"idempotency_key": "\ud800"}, ValueError, "lone surrogate"),
        ({"idempotency_window": 0}, ValueError, "idempotency_window must be more than 0 seconds"),
        ({"idempotency_window": "1"}, TypeError, "idempotency_window must be a number of seconds or a timedelta"),
        ({"unique_until": "done"}, ValueError, 'unique_until must be "start" or "end", not \'done\''),
    ],
)
def test_nonsense_is_refused_where_it_is_said(options: dict[str, Any], error: type[Exception], text: str) -> None:
    app = leveret.App("memory://nonsense")

    @app.task
    def work() -> None:
        """Do nothing."""

    with pytest.raises(error, match=text):
        work.options(**options)


def test_a_key_that_is_too_long_or_one_for_many_jobs_is_refused(app: leveret.App) -> None:
    @app.task
    def work(n: int) -> None:
        """Do nothing."""

    work.options(idempotency_key="k" * 255).send(1)
    with pytest.raises(ValueError, match="has 256 bytes, at most 255 are allowed; send a hash of it"):
        work.options(idempotency_key="k" * 254 + "é").send(1)
    with pytest.raises(ValueError, match="with one idempotency key: only the first would be stored"):
        work.options(idempotency_key="k").send_many([(1,), (2,)])
    with pytest.raises(ValueError, match="idempotency_key='m' is no parameter: they are n"):

        @app.task(idempotency_key="m")
        def wrong(n: int) -> None:
            """Do nothing."""


def test_a_job_that_cannot_be_sent_ends_a_send_many_after_those_before_it(app: leveret.App) -> None:
    @app.task(unique_until="end")
    def work(n: int) -> int:
        return n

    wrong: Any = [(1,), (2,), ("three",), (4,)]
    with pytest.raises(leveret.SendManyError) as failed:
        work.send_many(wrong)
    assert failed.value.index == 2
    assert len(failed.value.accepted) == waiting(app) == 2
    assert "argument 'n'" in str(failed.value) or "n" in str(failed.value.__cause__)
