"""Cancelled jobs, progress, reports and replays over RabbitMQ, which has no removal and shows nothing: by streams."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from support.processes import PATIENCE
from support.processes import until as wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.rabbitmq_node import RabbitNode


@pytest.fixture
def app(node: RabbitNode) -> Iterator[leveret.App]:
    """An app on the node."""
    with leveret.App(node.url) as opened:
        yield opened


@pytest.fixture
def queue() -> str:
    """A queue of the test's own."""
    return f"jobs-{uuid.uuid4().hex[:12]}"


def until(condition: Callable[[], bool]) -> None:
    wait_until(condition, "it is so")


def cli(*words: str, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "leveret", *words], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == expect, done
    return done.stdout if expect == 0 else done.stderr


def answer(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(*words, "--json"))
    return found


def test_jobs_of_a_batch_that_are_cancelled_before_the_worker_starts_are_not_run(
    app: leveret.App, queue: str, node: RabbitNode
) -> None:
    ran: list[int] = []

    @app.task(queue=queue)
    def note(x: int) -> int:
        ran.append(x)
        return x

    jobs = note.send_many((i,) for i in range(5))
    assert not jobs[1].cancel(), "there is no removal: workers are told"
    assert answer("jobs", "cancel", jobs[3].id, "--url", node.url)["jobs"] == {jobs[3].id: "asked"}
    with app.worker(queues=[queue]):
        outcomes = list(jobs.results(PATIENCE, return_exceptions=True))
    assert [type(o) if isinstance(o, Exception) else o for o in outcomes] == [
        0, leveret.JobCancelled, 2, leveret.JobCancelled, 4,
    ]  # fmt: skip
    assert ran == [0, 2, 4]


def test_a_running_job_is_asked_and_tells_how_far_it_is(app: leveret.App, queue: str, node: RabbitNode) -> None:
    began = threading.Event()

    @app.task(queue=queue)
    def patient() -> str:
        job = leveret.current_job()
        job.set_progress(0.25, "waiting")
        began.set()
        until(lambda: job.cancelled)
        return "ended as asked"

    with app.worker(queues=[queue]):
        job = patient.send()
        assert began.wait(PATIENCE)
        until(lambda: job.progress() == (0.25, "waiting"))
        until(lambda: any(w["running"] for w in answer("inspect", "workers", "--url", node.url)["workers"]))
        (worker,) = [
            w
            for w in answer("top", "--once", "--interval", "0.2", "--url", node.url)["workers"]
            if queue in w["queues"]
        ]
        assert worker["running"][0]["id"] == job.id
        assert not job.cancel()
        assert job.result(PATIENCE) == "ended as asked"
    # It says that it is gone, and does not wait until everybody can read that.
    until(lambda: all(queue not in w["queues"] for w in answer("inspect", "workers", "--url", node.url)["workers"]))


def test_dead_jobs_are_put_back_and_what_waits_is_not_shown(app: leveret.App, queue: str, node: RabbitNode) -> None:
    attempts: list[int] = []

    @app.task(queue=queue, max_retries=0)
    def flaky(x: int) -> None:
        attempts.append(x)
        if len(attempts) <= 3:
            raise ValueError(x)

    jobs = flaky.send_many([(1,), (2,), (3,)])
    with app.worker(queues=[queue]):
        outcomes = list(jobs.results(PATIENCE, return_exceptions=True))
        assert all(isinstance(outcome, leveret.JobDead) for outcome in outcomes)
        listed = answer("jobs", "list", queue, "--url", node.url)["jobs"]
        assert [(j["id"], j["state"]) for j in listed] == [(job.id, "dead") for job in jobs]
        assert answer("jobs", "retry", jobs[1].id, "--queue", queue, "--url", node.url)["retried"] == 1
        until(lambda: len(attempts) == 4)
        assert answer("jobs", "retry", "--all", "--queue", queue, "--url", node.url)["retried"] == 2
        until(lambda: len(attempts) == 6)
    assert attempts == [1, 2, 3, 2, 1, 3]
    assert answer("dead", "list", queue, "--url", node.url)["jobs"] == []
    said = cli("jobs", "list", queue, "--state", "queued", "--url", node.url, expect=2)
    assert "RabbitMQ hands messages out and does not show them" in said
    assert said.count("\n") == 1
