"""`leveret worker` with its processes: Python and C++ handlers, and what a bad one costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret as package
import pytest
from support.processes import LEVERET, PATIENCE, Broker, Worker, leveret, until

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = Path(__file__).resolve().parent / "apps"


@pytest.fixture(autouse=True)
def _apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(APPS))


@pytest.fixture
def app(broker: Broker) -> Iterator[package.App]:
    with package.App(broker.url) as made:
        yield made


def send(app: package.App, broker: Broker, task: str, *args: Any, **more: Any) -> package.Job[Any]:
    return app.send_task(task, args, queue=broker.queue, **more)


def start(broker: Broker, *words: str, threads: int = 2) -> Worker:
    return broker.worker("chores:app", *words, threads=threads, pool="processes")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def test_python_and_native_jobs_of_one_queue_run_in_one_worker(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send(*({"task": "note" if n % 2 else "effect", "args": [path, n]} for n in range(2_000)))
    with start(broker, str(effects), "--processes", "2", "--burst") as worker:
        assert worker.summary()["succeeded"] == 2_000
    assert broker.times_run() == dict.fromkeys(range(2_000), 1)


def test_jobs_that_take_their_process_down_cost_themselves_alone(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    jobs: list[dict[str, Any]] = [
        {"task": "note", "args": [path, n, 200]} if n % 2 else {"task": "effect", "args": [path, n]}
        for n in range(1_000)
    ]
    culprits: dict[int, dict[str, Any]] = {
        150: {"task": "segv"},
        300: {"task": "leave", "args": [7]},
        450: {"task": "hold"},
        600: {"task": "abort"},
        750: {"task": "crash", "args": [path, 750]},  # as the kernel does where memory is short
    }
    for n, job in culprits.items():
        jobs[n] = job
    broker.send(*jobs)
    noted = set(range(1_000)) - (culprits.keys() - {750})
    # No burst: RabbitMQ may hand over a retry later than a burst waits for it.
    with start(broker, str(effects), "--processes", "2", "--max-crashes", "2") as worker:
        until(lambda: set(broker.times_run()) == noted, "all others have run")
        until(lambda: len(broker.dead()) == len(culprits), "the culprits are dead")
        counts = worker.stop()
    assert counts["succeeded"] == 995
    times = broker.times_run()
    assert set(times) == noted
    # Beside another job in its process nobody knows which it was: both run alone then, uncharged so far. So each of its
    # two charges takes one run or two. It runs again uncharged, too, if it meets its end beside another culprit.
    assert 2 <= times.pop(750) <= 2 * 2 + (len(culprits) - 1) * 2
    # Those that ran beside a culprit in its process may have run again; none was charged.
    assert sum(times.values()) <= 995 + len(culprits) * 4 * 3
    assert all(effect.retry_count == 0 for effect in broker.effects() if effect.n != 750)
    dead = {job["task"]: job for job in broker.dead()}
    assert {task: job["reason"] for task, job in dead.items()} == {
        "segv": "crashed",
        "leave": "crashed",
        "hold": "time_limit",
        "abort": "crashed",
        "crash": "crashed",
    }
    assert "SIGSEGV" in dead["segv"]["error"]
    assert "exit code 7" in dead["leave"]["error"]
    assert "hard time limit" in dead["hold"]["error"]
    assert "SIGABRT" in dead["abort"]["error"]
    assert "SIGKILL" in dead["crash"]["error"]
    assert "MiB resident" in dead["segv"]["error"]


def test_children_end_with_a_killed_worker_and_its_jobs_run_elsewhere(broker: Broker) -> None:
    path = str(broker.effects_file)
    broker.send(*({"task": "note", "args": [path, n, 1_000]} for n in range(2_000)))
    with start(broker, "--processes", "2") as victim:
        until(lambda: len(broker.effects()) > 100, "the run is on")
        children = children_of(victim.pid)
        assert len(children) == 2
        victim.kill()
        until(lambda: all(map(is_gone, children)), "its processes are gone")
        started = len(broker.effects())
    broker.wait_returned()
    with start(broker, "--burst") as worker:
        worker.summary()
    times = broker.times_run()
    assert set(times) == set(range(2_000))
    assert sum(times.values()) <= 2_000 + started + 4, "at most what was started and not settled ran twice"


def test_a_stop_lets_running_jobs_end_and_returns_the_others_uncharged(broker: Broker) -> None:
    path = str(broker.effects_file)
    # The first one ends with the stop, however late that comes.
    task = ["until_stopped", *["note"] * 19]
    broker.send(*({"task": task[n], "args": [path, n]} for n in range(20)))
    with start(broker, threads=1) as worker:
        until(lambda: len(broker.effects()) > 0, "it runs")
        counts = worker.stop()
    assert 0 < counts["succeeded"] < 20
    assert len(broker.effects()) == counts["succeeded"]
    with start(broker, "--burst", "--processes", "2") as worker:
        assert worker.summary()["succeeded"] == 20 - counts["succeeded"]
    assert broker.times_run() == dict.fromkeys(range(20), 1)
    assert all(effect.retry_count == 0 for effect in broker.effects())


def test_past_the_grace_running_jobs_are_given_back_and_their_processes_killed(
    app: package.App, broker: Broker
) -> None:
    job = send(app, broker, "nap", 3_600.0)
    with start(broker, "--grace", "0.3") as worker:
        children = children_of(worker.pid)
        until(lambda: any(running["id"] == job.id for running in _running(broker)), "it runs")
        worker.signal(signal.SIGTERM)
        assert worker.summary(expect=1)["grace_exceeded"] is True
        until(lambda: all(map(is_gone, children)), "its processes are gone")
    until(lambda: broker.stats()["ready"] == 1, "it was given back")


def test_coroutines_run_at_once_on_one_loop(app: package.App, broker: Broker) -> None:
    # As many as a worker takes of RabbitMQ's messages before it knows how large they are.
    jobs = [send(app, broker, "count_at_once", 60) for _ in range(60)]
    with start(broker, "--concurrency", "60", threads=1):
        assert [job.result(timeout=PATIENCE) for job in jobs] == [None] * 60, "none ends before all run"


def test_more_coroutines_than_run_at_once_wait_for_their_turn(app: package.App, broker: Broker) -> None:
    most = send(app, broker, "most_at_once", 1_000)
    with start(broker, "--concurrency", "20", "--max-retries", "0", "--burst", threads=4) as worker:
        until(lambda: most.progress() is not None, "it runs before all others")
        broker.send(*({"task": "count_at_once", "args": [19]} for _ in range(1_000)))
        assert most.result(timeout=PATIENCE) == 20
        counts = worker.summary()
    assert (counts["succeeded"], counts["retried"], counts["dead"]) == (1_001, 0, 0)


OUTCOMES = [
    ("raise_it", ["exit"], "exception", "SystemExit: 3"),
    ("raise_it", ["interrupt"], "exception", "KeyboardInterrupt"),
    ("raise_it", ["Odd"], "exception", "as asked"),
    ("unencodable", [], "bad_result", "result.deep[0]"),
    ("too_large", [], "bad_result", "result too large"),
    ("hold", [], "time_limit", "hard time limit"),
    ("leave", [0], "crashed", "exit code 0"),
]


def test_whatever_a_handler_does_its_job_has_a_defined_end(app: package.App, broker: Broker) -> None:
    bad = [(send(app, broker, task, *args), reason, text) for task, args, reason, text in OUTCOMES]
    good = {task: send(app, broker, task) for task in ("chatter", "fork", "threads")}
    with start(broker, threads=1) as worker:
        for job, reason, text in bad:
            with pytest.raises(package.JobDead) as caught:
                job.result(timeout=PATIENCE)
            assert caught.value.reason == reason, str(caught.value)
            assert text in str(caught.value)
        assert good["chatter"].result(timeout=PATIENCE) == "said"
        assert good["fork"].result(timeout=PATIENCE) == "original"
        assert good["threads"].result(timeout=PATIENCE) == "started"
        # And the worker is as good as new.
        _child, parent = send(app, broker, "pids").result(timeout=PATIENCE)
        assert parent == worker.pid
        worker.signal(signal.SIGTERM)
        out = worker.wait()
    assert "chatter was here" not in out, "what handlers print is not the worker's output"
    assert any("chatter was here" in line for line in worker.log)


def test_a_job_that_is_cancelled_by_force_ends_at_once_and_its_neighbour_does_not(
    app: package.App, broker: Broker
) -> None:
    path = str(broker.effects_file)
    hung = send(app, broker, "stay", path, 1)
    with start(broker, "--processes", "2", threads=1) as worker:
        until(lambda: len(broker.effects()) == 1, "it runs")
        until(lambda: any(child["id"] == hung.id for child in _running(broker)), "it is shown")
        assert not hung.cancel(terminate=True)
        with pytest.raises(package.JobCancelled):
            hung.result(timeout=PATIENCE)
        worker.wait_log("job_terminated")
        again = send(app, broker, "stay", path, 2)
        until(lambda: len(broker.effects()) == 2, "the other runs")
        done = leveret("jobs", "cancel", "--terminate", again.id, "--url", broker.url)
        assert done.returncode == 0, done.stderr
        with pytest.raises(package.JobCancelled):
            again.result(timeout=PATIENCE)
        assert send(app, broker, "nap", 0.0).result(timeout=PATIENCE) == 0.0
        counts = worker.stop()
    assert (counts["succeeded"], counts["cancelled"], counts["retried"], counts["dead"]) == (1, 2, 0, 0)
    assert broker.times_run() == {1: 1, 2: 1}


def test_a_worker_of_threads_says_that_it_cannot_end_a_job_by_force(
    app: package.App, broker: Broker, effects: Path
) -> None:
    path = str(broker.effects_file)
    with broker.worker(effects, threads=1) as worker:
        job = send(app, broker, "spin", path, 1, 600_000_000)
        until(lambda: any(child["id"] == job.id for child in _running(broker)), "it is shown")
        assert not job.cancel(terminate=True)
        worker.wait_log("job_not_terminated")


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_native_job_tells_how_far_it_is_and_hears_that_it_was_cancelled(
    app: package.App, broker: Broker, effects: Path, pool: str
) -> None:
    with broker.worker(effects, pool=pool):
        job = send(app, broker, "patient")
        until(lambda: job.progress() == (0.5, "half"), "it says how far it is")
        assert not job.cancel()
        assert job.result(timeout=PATIENCE) == "ended as asked"


def _running(broker: Broker) -> list[dict[str, Any]]:
    workers = json.loads(leveret("inspect", "workers", "--url", broker.url, "--json").stdout)["workers"]
    return [job for worker in workers if broker.queue in worker["queues"] for job in worker["running"]]


def test_a_process_is_replaced_after_so_many_jobs(app: package.App, broker: Broker) -> None:
    with start(broker, "--max-jobs-per-child", "1", threads=1) as worker:
        seen: set[int] = set()
        for _ in range(3):
            seen.add(send(app, broker, "pids").result(timeout=PATIENCE)[0])
            worker.wait_log("child_recycled")
            until(lambda: not set(children_of(worker.pid)) & seen and bool(children_of(worker.pid)), "it was replaced")
    assert len(seen) == 3


def test_an_app_that_cannot_be_imported_says_why_and_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import leveret\napp = leveret.App()\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def broken(:\n")
    (tmp_path / "plain.py").write_text("app = 7\n")
    for target, *wanted in (
        ("broken:app", "ZeroDivisionError", str(tmp_path), "broken.py", "1 / 0"),
        ("syntax:app", "SyntaxError", "syntax.py"),
        ("plain:app", "it is int, not a leveret.App"),
        ("plain:other", 'has no "other"'),
        ("nowhere:app", 'no module "nowhere"', str(tmp_path)),
    ):
        done = subprocess.run(
            [LEVERET, "worker", target, "--url", f"sqlite:///{tmp_path}/q.db"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 2, done.stderr
        for text in wanted:
            assert text in done.stderr, (target, text, done.stderr)
