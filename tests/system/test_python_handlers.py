"""Python handlers on both brokers: outcomes, retries, results, batches, coroutines, foreign objects; stopping."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import TYPE_CHECKING

import leveret
import pytest
from support.processes import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Broker
    from support.rabbitmq_node import RabbitNode


def test_jobs_end_alike_on_both_brokers(broker: Broker) -> None:
    with leveret.App(broker.url) as app:

        @app.task(queue=broker.queue, max_retries=2, backoff=0.01)
        def half(n: int) -> int:
            if n < 0:
                raise leveret.Reject("negative")
            if n % 2 and leveret.current_job().retry_count == 0:
                raise ArithmeticError(f"{n} is odd")
            return n // 2

        @app.task(queue=broker.queue, max_retries=0)
        async def nap(n: int) -> int:
            await asyncio.sleep(0.001)
            if n == 3:
                raise LookupError(n)
            return n

        with app.worker(threads=2):
            halves = half.send_many((n,) for n in range(1000))
            naps = nap.send_many((n,) for n in range(1000))
            rejected, wrong = half.send(-1), app.send_task("half", [2], {})
            bad = leveret.App(broker.url).send_task("half", ["x"], queue=broker.queue, ignore_result=True)
            assert list(halves.results(PATIENCE)) == [n // 2 for n in range(1000)]
            ended = list(app.results(naps, timeout=PATIENCE))
            assert [one.result for one in ended] == [None if n == 3 else n for n in range(1000)]
            assert isinstance(ended[3].failure, leveret.JobDead)
            assert (ended[3].failure.type, ended[3].failure.message) == ("LookupError", "3")
            assert wrong.result(PATIENCE) == 1
            with pytest.raises(leveret.JobDead, match="rejected: negative"):
                rejected.result(PATIENCE)
    records = {record["id"]: record for record in broker.dead()}
    assert records[bad.id]["error"] == "args[0]: expected int, got str"
    assert records[ended[3].job.id]["error"].startswith("LookupError: 3\n\nTraceback (most recent call last):\n")
    assert len(records) == 3


def test_a_stopped_worker_leaves_the_rest_to_the_next(broker: Broker) -> None:
    ran: list[int] = []
    began = threading.Event()

    with leveret.App(broker.url) as app:

        @app.task(queue=broker.queue)
        def note(n: int) -> None:
            ran.append(n)
            if n == 10:
                began.set()
                while not leveret.current_job().stopping:
                    threading.Event().wait(0.002)

        jobs = note.send_many((n,) for n in range(5000))
        with app.worker():
            assert began.wait(PATIENCE)
        begun = len(ran)
        assert ran == list(range(begun)), "one thread, in order"
        # A handler may see the stop just before its worker stops starting others.
        assert 11 <= begun < 5000, "none started after the stop"
        assert app.worker().run_until_idle(PATIENCE).succeeded == 5000 - begun
        assert list(jobs.results(PATIENCE)) == [None] * 5000
    assert sorted(ran) == list(range(5000))


def test_expired_jobs_are_not_run(broker: Broker) -> None:
    with leveret.App(broker.url) as app:

        @app.task(queue=broker.queue)
        def note(n: int) -> int:
            return n

        late, lasting = note.options(expires=0.001).send(1), note.options(expires=600).send(2)
        with app.worker():
            assert lasting.result(PATIENCE) == 2
            with pytest.raises(leveret.JobExpired):
                late.result(PATIENCE)


def test_results_beside_rabbitmq_are_there_for_other_programs(node: RabbitNode, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/results.db"
    queue = f"results-{uuid.uuid4().hex[:12]}"
    with leveret.App(node.url, results=store) as app, leveret.App(node.url, results=store) as other:

        @app.task(queue=queue, max_retries=0)
        def half(n: int) -> int:
            if n % 2:
                raise ArithmeticError(n)
            return n // 2

        assert app.url.endswith(f", results in sqlite:///{tmp_path}/results.db")
        jobs = half.send_many((n,) for n in range(100))
        asked = [other.job(job.id, half) for job in jobs]
        assert asked[0].state() == "pending"
        with app.worker(threads=2):
            ended = list(other.results(asked, timeout=PATIENCE))
            assert [one.result for one in ended] == [None if n % 2 else n // 2 for n in range(100)]
            assert [one.state for one in ended[:2]] == ["succeeded", "dead"]
            assert jobs[4].result(PATIENCE) == 2, "who sent them has them too"
        assert asked[7].state() == "dead"
    without = leveret.App(node.url)
    with (
        without,
        pytest.raises(leveret.Unsupported, match=r'App\(results="redis://…"\) or App\(results="sqlite:///…"\)'),
    ):
        without.job(jobs[0].id)


@pytest.mark.parametrize("results", ["memory://", "results.db", "amqp://localhost"])
def test_results_are_kept_in_sqlite_and_redis_alone(results: str) -> None:
    with pytest.raises(ValueError, match="write results=sqlite:///path or results=redis://"):
        leveret.App("amqp://localhost:1", results=results).client()
