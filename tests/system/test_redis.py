"""Results in Redis beside RabbitMQ: processes of users' programs, a server that crashes amid a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import leveret
import pytest
from support.processes import PATIENCE, Worker, until
from support.processes import leveret as command
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.rabbitmq_node import RabbitNode

TASKS = """
import os, time, leveret

app = leveret.App(os.environ["TEST_BROKER"], results=os.environ["TEST_STORE"], batch_bytes=2000)


@app.task(queue=os.environ["TEST_QUEUE"], max_retries=0)
def half(n: int) -> int:
    while n >= 3000 and not os.path.exists(os.environ["TEST_GATE"]):
        time.sleep(0.002)
    if n % 2:
        raise ArithmeticError(f"{n} is odd")
    return n // 2
"""
READER = """
import json, sys
from tasks import app, half

ids = json.load(sys.stdin)
with app:
    jobs = [app.job(id, half) for id in ids]
    ended = list(app.as_completed(jobs, timeout=200))
    plain = app.job(ids[0]).result(timeout=200)
    failures = [one for one in ended if one.failure]
    print(json.dumps({
        "results": {one.job.id: one.result for one in ended},
        "failures": {one.job.id: [one.failure.type, one.failure.message, one.failure.traceback] for one in failures},
        "states": [one.state for one in app.results(jobs, timeout=200)],
        "plain": plain,
    }))
"""


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A Redis server for one test."""
    with RedisServer() as server:
        yield server


class Program:
    """A user's program: tasks.py in a folder, and the variables that it reads."""

    def __init__(self, folder: Path, broker: str, store: str) -> None:
        self.folder = folder
        self.queue = f"redis-{uuid.uuid4().hex[:12]}"
        self.gate = folder / "gate"
        """Jobs of high numbers run once it is there."""
        self.environment = {
            **os.environ,
            "TEST_BROKER": broker,
            "TEST_STORE": store,
            "TEST_QUEUE": self.queue,
            "TEST_GATE": str(self.gate),
            "PYTHONPATH": str(folder),
        }
        (folder / "tasks.py").write_text(TASKS)

    def run(self, code: str, stdin: str = "") -> str:
        """Run Python code to its end; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, numbers: str) -> list[str]:
        """Send jobs from a process of their own, which is gone when this returns; return their ids."""
        code = (
            "import json\nfrom tasks import app, half\n"
            f"with app: print(json.dumps([job.id for job in half.send_many((n,) for n in {numbers})]))"
        )
        ids: list[str] = json.loads(self.run(code))
        return ids

    def worker(self, *words: str) -> Worker:
        """Start `leveret worker`."""
        return Worker("tasks:app", "--threads", "2", *words, environment=self.environment)


def test_results_are_there_for_another_process_on_any_machine(
    node: RabbitNode, store: RedisServer, tmp_path: Path
) -> None:
    program = Program(tmp_path, node.url, store.url)
    ids = program.send("range(1000)")
    with program.worker("--burst") as worker:
        counts = worker.summary()
    assert (counts["succeeded"], counts["dead"]) == (500, 500)
    read = json.loads(program.run(READER, json.dumps(ids)))
    assert read["results"] == {job: None if n % 2 else n // 2 for n, job in enumerate(ids)}
    assert read["states"] == ["succeeded", "dead"] * 500
    assert read["plain"] == 0
    assert len(read["failures"]) == 500
    kind, message, traceback = read["failures"][ids[7]]
    assert (kind, message) == ("ArithmeticError", "7 is odd")
    assert 'raise ArithmeticError(f"{n} is odd")' in traceback
    keys = store.cli("KEYS", "*").split()
    assert {key.removeprefix("leveret:result:") for key in keys} == {job.partition("/")[0] for job in ids}
    assert all(0 < int(store.cli("TTL", key)) <= 86_400 for key in keys)


def test_a_server_killed_amid_a_run_loses_no_job_and_no_result(
    node: RabbitNode, store: RedisServer, tmp_path: Path
) -> None:
    program = Program(tmp_path, node.url, store.url)
    ids = program.send("range(20000)")
    with program.worker() as worker:
        until(lambda: int(store.cli("DBSIZE")) >= 30, "results come")
        store.kill()
        program.gate.touch()
        worker.wait_log("cannot store results of message")  # longer than a call waits for the server to come back
        store.start()
        for least in (150, 300):
            until(lambda least=least: int(store.cli("DBSIZE")) >= least, "results go on")
            store.kill()
            store.start()
        read = json.loads(program.run(READER, json.dumps(ids)))
        assert worker.stop()["dead"] >= len(ids) // 2
    assert read["results"] == {job: None if n % 2 else n // 2 for n, job in enumerate(ids)}
    assert read["states"] == ["succeeded", "dead"] * (len(ids) // 2)


def test_senders_have_results_and_progress_without_asking_the_store(node: RabbitNode, store: RedisServer) -> None:
    queue = f"redis-{uuid.uuid4().hex[:12]}"
    with leveret.App(node.url, results=store.url) as app:

        @app.task(queue=queue)
        def scan(pages: int) -> int:
            leveret.current_job().set_progress(0.5, "half")
            return pages

        job = scan.send(4)
        with app.worker():
            assert job.result(PATIENCE) == 4
        until(lambda: job.progress() is not None, "progress is told")
        assert job.progress() == leveret.Progress(0.5, "half")
        again = app.job(job.id)
        store.pause()
        try:
            assert job.result(PATIENCE) == 4
        finally:
            store.resume()
        assert again.state() == "succeeded"


def test_the_doctor_names_a_store_that_cannot_be_used_and_no_password(node: RabbitNode, tmp_path: Path) -> None:
    with RedisServer("requirepass geheim") as store:
        good = f"{node.url}?results=redis://:geheim@127.0.0.1:{store.port}/1"
        said = command("doctor", "--url", good, cwd=tmp_path).stdout
        assert f"results in redis://127.0.0.1:{store.port}/1" in said
        wrong = command("doctor", "--url", good.replace("geheim", "falsch"), expect=1, cwd=tmp_path).stdout
        assert "refused the user or password" in wrong
        assert "geheim" not in said
        assert "falsch" not in wrong
    gone = command("doctor", "--url", good, expect=1, cwd=tmp_path).stdout
    assert "Connection refused" in gone
    assert "geheim" not in gone
