"""Jobs that are looked at, cancelled, retried, and that tell how far they are: from Python and by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGIN = str(Path(leveret.__file__).parent / "plugins/demo.so")


def cli(*words: str, expect: int = 0) -> tuple[str, str]:
    """Run `leveret WORDS`; an error is one line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    done = subprocess.run(
        [sys.executable, "-m", "leveret", *words], check=False, capture_output=True, text=True, timeout=240, env=kept
    )
    assert done.returncode == expect, done
    if expect:
        assert done.stderr.count("\n") == 1, done.stderr
    return done.stdout, done.stderr


def answer(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(*words, "--json")[0])
    return found


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread brings about."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def noop(x: int, y: int = 2) -> None:
    """The signature of what is never run here."""
    raise NotImplementedError(x, y)


# From Python


def test_a_waiting_job_that_is_cancelled_ends_so_at_once(app: leveret.App) -> None:
    now = app.send_task("noop")
    later = app.send_task("noop", delay=3600)
    kept = app.send_task("noop")
    assert now.cancel()
    assert asyncio.run(later.cancel_async())
    for job in (now, later):
        with pytest.raises(leveret.JobCancelled, match=job.id):
            job.result(60)
    stats = app.client().stats("native")[0]
    assert (stats["ready"], stats["delayed"]) == (1, 0)
    assert kept.id != now.id


def test_jobs_of_a_batch_are_cancelled_one_by_one(app: leveret.App) -> None:
    ran: list[int] = []

    @app.task
    def note(x: int) -> int:
        ran.append(x)
        return x

    jobs = note.send_many((i,) for i in range(10))
    assert len(jobs.messages) == 1
    assert jobs[3].cancel()
    with pytest.raises(leveret.JobCancelled):
        jobs[3].result(60)
    assert app.worker().run_until_idle(60).cancelled == 1
    assert ran == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert [r if isinstance(r, int) else type(r) for r in jobs.results(60, return_exceptions=True)] == [
        0, 1, 2, leveret.JobCancelled, 4, 5, 6, 7, 8, 9,
    ]  # fmt: skip


def test_all_jobs_of_a_send_are_cancelled(app: leveret.App) -> None:
    @app.task
    def never() -> None:
        raise AssertionError

    jobs = never.send_many(() for _ in range(2500))
    assert asyncio.run(jobs.cancel_async()) == 2500
    counts = app.worker().run_until_idle(60)
    assert (counts.cancelled, counts.succeeded, counts.dead) == (2500, 0, 0)


@pytest.mark.parametrize("where", ["sqlite", "memory"])
def test_a_running_job_is_asked_and_its_handler_decides(where: str, url: str) -> None:
    app = leveret.App(url if where == "sqlite" else "memory://asked")
    began = threading.Event()

    @app.task
    def patient() -> str:
        job = leveret.current_job()
        assert not job.cancelled
        began.set()
        until(lambda: job.cancelled)
        return "ended as asked"

    with app, app.worker():
        job = patient.send()
        assert began.wait(60)
        assert not job.cancel()
        assert job.result(60) == "ended as asked"


@pytest.mark.parametrize("where", ["sqlite", "memory"])
def test_a_jobs_progress_is_read_by_its_sender(where: str, url: str) -> None:
    app = leveret.App(url if where == "sqlite" else "memory://progress")
    go_on = threading.Event()

    @app.task
    async def slow() -> None:
        job = leveret.current_job()
        job.set_progress(0.4, "käse")
        await asyncio.to_thread(go_on.wait, 240)
        job.set_progress(None, "almost")

    with app, app.worker():
        job = slow.send()
        assert app.send_task("another").progress() is None
        until(lambda: asyncio.run(job.progress_async()) == leveret.Progress(0.4, "käse"))
        go_on.set()
        job.result(60)
        until(lambda: job.progress() == (None, "almost"))


def test_senseless_progress_is_refused(app: leveret.App) -> None:
    @app.task
    def wrong(kind: int) -> None:
        if kind:
            leveret.current_job().set_progress(1.5)
        leveret.current_job().set_progress(0, "x" * 2000)

    with app.worker():
        for kind, said in ((0, "1000 characters"), (1, "from 0 to 1")):
            with pytest.raises(leveret.JobDead, match=said):
                wrong.options(max_retries=0).send(kind).result(60)


# By the command line


def test_jobs_are_listed_by_queue_state_and_task(app: leveret.App, url: str) -> None:
    jobs = app.native(noop).send_many([(i, 3) for i in range(3)])
    later = app.send_task("later", kwargs={"a": 1}, delay=3600)
    other = app.send_task("other", [1], {"k": 2}, queue="elsewhere")
    listed = answer("jobs", "list", "--url", url)["jobs"]
    assert [(j["queue"], j["state"], j["id"]) for j in listed] == [
        ("elsewhere", "queued", other.id),
        *(("native", "queued", job.id) for job in jobs),
        ("native", "scheduled", later.id),
    ]
    assert set(listed[0]) == {"id", "task", "queue", "state", "retry_count", "arguments", "due", "errors"}
    assert [j["arguments"] for j in listed] == [[1, {"k": 2}], [0, 3], [1, 3], [2, 3], {"a": 1}]
    assert listed[-1]["due"] > time.time() * 1000 + 3_000_000
    assert len(answer("jobs", "list", "native", "--state", "queued", "--limit", "2", "--url", url)["jobs"]) == 2
    assert [j["id"] for j in answer("jobs", "list", "--task", "other", "--url", url)["jobs"]] == [other.id]
    assert other.id in cli("jobs", "list", "--url", url)[0]
    cli("jobs", "list", "no-such-queue", "--url", url, expect=2)


def test_a_job_is_shown_wherever_it_is(app: leveret.App, url: str) -> None:
    @app.task(max_retries=0)
    def share(x: int) -> float:
        leveret.current_job().set_progress(0.5, "half")
        return 1 / x

    good, bad = share.send(2), share.send(0)
    waits = share.options(queue="elsewhere").send(4)
    app.worker(queues=["default"]).run_until_idle(60)
    shown = answer("jobs", "show", good.id, "--url", url)["job"]
    assert (shown["state"], shown["result"]) == ("succeeded", 0.5)
    assert shown["progress"] == {"progress": 0.5, "text": "half"}
    dead = answer("jobs", "show", bad.id, "--url", url)["job"]
    assert (dead["state"], dead["reason"], dead["arguments"]) == ("dead", "exception", [0])
    assert "ZeroDivisionError" in dead["error"]
    assert answer("jobs", "show", waits.id, "--url", url)["job"]["state"] == "queued"
    assert "exception" in cli("jobs", "show", bad.id, "--url", url)[0]
    assert waits.cancel()
    assert answer("jobs", "show", waits.id, "--url", url)["job"]["state"] == "cancelled"
    cli("jobs", "show", "nonsense", "--url", url, expect=2)
    assert "nothing is known" in cli("jobs", "show", "nonsense/1", "--url", url, expect=2)[1]


def test_jobs_whose_results_are_in_one_line_are_shown_each(app: leveret.App, url: str) -> None:
    @app.task
    def twice(x: int) -> int:
        return 2 * x

    jobs = twice.send_many([(x,) for x in range(3)])
    app.worker(queues=["default"]).run_until_idle(60)
    message, _, _ = jobs[0].id.rpartition("/")
    (chunk,) = [chunk for *_, chunk in app.client().fetch_results([message])]
    assert chunk == b'{"line":1,"results":[0,2,4]}\n'
    for x, job in enumerate(jobs):
        shown = answer("jobs", "show", job.id, "--url", url)["job"]
        assert (shown["id"], shown["state"], shown["result"]) == (job.id, "succeeded", 2 * x)
    assert "nothing is known" in cli("jobs", "show", f"{message}/4", "--url", url, expect=2)[1]


def test_a_job_that_waits_for_its_retry_is_found_in_its_new_message(app: leveret.App, url: str) -> None:
    @app.task
    def again() -> None:
        raise leveret.RetryAfter(3600)

    job = again.send()
    with app.worker():
        until(lambda: app.client().stats("default")[0]["delayed"] == 1)
    shown = answer("jobs", "show", job.id, "--url", url)["job"]
    assert (shown["state"], shown["retry_count"], len(shown["errors"])) == ("scheduled", 1, 1)


def test_jobs_are_cancelled_by_their_ids(app: leveret.App, url: str) -> None:
    first, second, third = (app.send_task("noop") for _ in range(3))
    assert answer("jobs", "cancel", first.id, second.id, "--url", url)["jobs"] == {
        first.id: "cancelled",
        second.id: "cancelled",
    }
    assert cli("jobs", "cancel", third.id, "--url", url)[0] == f"{third.id}: cancelled\n"
    with pytest.raises(leveret.JobCancelled):
        first.result(60)
    assert app.client().stats("native")[0]["ready"] == 0
    assert "no job's id" in cli("jobs", "cancel", "x", "--url", url, expect=2)[1]


def test_dead_jobs_are_put_back_and_run_again(app: leveret.App, url: str) -> None:
    attempts: list[int] = []

    @app.task(max_retries=0)
    def flaky(x: int) -> None:
        attempts.append(x)
        if len(attempts) <= 3:
            raise ValueError(x)

    jobs = flaky.send_many([(1,), (2,), (3,)])
    worker = app.worker()
    assert worker.run_until_idle(60).dead == 3
    assert answer("jobs", "retry", jobs[1].id, "--queue", "default", "--url", url)["retried"] == 1
    assert worker.run_until_idle(60).succeeded == 1
    assert cli("jobs", "retry", "--all", "--queue", "default", "--url", url)[0] == "default: put back 2 jobs\n"
    assert worker.run_until_idle(60).succeeded == 2
    assert attempts == [1, 2, 3, 2, 1, 3]
    err = cli("jobs", "retry", jobs[0].id, "--queue", "default", "--url", url, expect=2)[1]
    assert "1 of the 1 jobs are not among the dead jobs" in err


def test_send_takes_named_arguments_and_waits(url: str, work: Callable[[], object]) -> None:
    work()
    assert cli("send", "work", "[7]", "--kwargs", '{"value": 3}', "--url", url, "--wait")[0] == "2672552427\n"
    cli("send", "work", '{"a": 1}', "--kwargs", "{}", "--url", url, expect=2)
    cli("send", "work", "--kwargs", "[]", "--url", url, expect=2)


def test_workers_and_what_they_run_are_shown(app: leveret.App, url: str) -> None:
    hold = threading.Event()

    @app.task
    def patient() -> None:
        hold.wait(240)

    job = patient.send()
    assert "no workers" in cli("inspect", "workers", "--url", url)[0]
    try:
        with app.worker(threads=2):
            until(lambda: app.client().stats("default")[0]["running"] == 1)
            until(lambda: any(w["running"] for w in answer("inspect", "workers", "--url", url)["workers"]))
            (worker,) = answer("inspect", "workers", "--url", url)["workers"]
            assert {"name", "host", "pid", "version", "state", "queues", "tasks", "threads"} <= set(worker)
            assert {"started", "succeeded", "retried", "dead", "cancelled", "running", "reported_s"} <= set(worker)
            assert (worker["pid"], worker["queues"], worker["threads"]) == (os.getpid(), ["default"], 2)
            assert worker["running"][0]["id"] == job.id
            assert job.id in cli("inspect", "workers", "--url", url)[0]
            seen = answer("top", "--once", "--interval", "0.2", "--url", url)
            assert set(seen) == {"url", "time", "queues", "workers"}
            assert seen["workers"][0]["jobs_per_s"] == 0
            assert seen["workers"][0]["running"][0]["task"] == "patient"
            hold.set()
    finally:
        hold.set()
    assert answer("inspect", "workers", "--url", url)["workers"] == []


def test_top_shows_queues_and_how_long_their_oldest_job_waits(app: leveret.App, url: str) -> None:
    app.native(noop).send_many([(1, 1), (2, 2)])
    (queue,) = answer("top", "--once", "--interval", "0.2", "--url", url)["queues"]
    assert (queue["queue"], queue["ready"], queue["ready_jobs"]) == ("native", 1, 2)
    assert 0.2 <= queue["oldest_s"] < 300
    assert queue["messages_change_per_s"] == 0
    assert "native" in cli("top", "--once", "--interval", "0.2", "--url", url)[0]
    assert "add --once" in cli("top", "--url", url, expect=2)[1]
    cli("top", "--json", "--url", url, expect=2)


def test_the_engine_for_tests_knows_cancelled_jobs_and_progress(leveret_engine: Callable[[leveret.App], Any]) -> None:
    app = leveret.App()
    ran: list[int] = []

    @app.task
    def note(x: int) -> None:
        ran.append(x)
        leveret.current_job().set_progress(x / 10)

    engine = leveret_engine(app)
    jobs = note.send_many([(1,), (2,), (3,)])
    jobs[1].cancel()
    assert engine.run_until_idle().cancelled == 1
    assert ran == [1, 3]
    assert jobs[2].progress() == (0.3, "")


def test_a_missing_result_says_which_queues_workers_take_instead(app: leveret.App) -> None:
    job = app.task(noop).options(queue="idle").send(1)
    with app.worker(queues=["mail", "default"]):
        until(lambda: bool(app.client().known("worker", "")))
        with pytest.raises(
            leveret.ResultTimeout,
            match=r'no worker takes jobs of queue "idle" \(1 worker takes those of default, mail\)',
        ):
            job.result(0.01)


def test_top_draws_until_ctrl_c(app: leveret.App, url: str) -> None:
    app.native(noop).send_many([(1, 1), (2, 2)])
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    program = subprocess.Popen(
        # A shell's background jobs start with the signal ignored; so would the program.
        ["env", "--default-signal=INT", sys.executable, "-m", "leveret", "top", "--interval", "0.2", "--url", url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm", "COLUMNS": "160"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        drawn = b""
        while drawn.count(b"native") < 2 or b"no workers" not in drawn:
            drawn += os.read(ours, 65_536)
        program.send_signal(signal.SIGINT)
        while True:
            try:
                drawn += os.read(ours, 65_536)
            except OSError:  # its end is closed
                break
        assert program.wait(240) == 0
    finally:
        program.kill()
        program.wait()
        os.close(ours)
    assert b"Traceback" not in drawn
