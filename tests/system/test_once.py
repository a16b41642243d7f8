"""Jobs that are to be there once, sent by processes and threads at the same time, on brokers as users run them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from support.processes import PATIENCE, Worker, until
from support.processes import leveret as command
from support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.rabbitmq_node import RabbitNode

APPS = Path(__file__).resolve().parent / "apps"
KEYS = 1000
PROCESSES = 3
THREADS = 4
SENDER = """
import asyncio, json, random, sys, threading
from once import app, once

seed, keys, threads = (int(word) for word in sys.argv[1:])
sent = [[] for _ in range(threads)]
numbers = list(range(keys))


def send(index):
    mine = numbers[:]
    random.Random(seed * 100 + index).shuffle(mine)
    if index == 0:
        jobs = once.send_many((n,) for n in mine)
        sent[index] += zip(mine, jobs.ids)
    elif index == 1:
        async def all_of_them():
            jobs = await asyncio.gather(*(once.send_async(n) for n in mine))
            sent[index].extend((n, job.id) for n, job in zip(mine, jobs))
        asyncio.run(all_of_them())
    else:
        sent[index] += [(n, once.send(n).id) for n in mine]


print("ready", flush=True)
sys.stdin.readline()
with app:
    workers = [threading.Thread(target=send, args=(index,)) for index in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
print(json.dumps(sum(sent, [])))
"""


class Place:
    """A broker, with what keeps its keys, and a folder for one test."""

    def __init__(self, url: str, store: str, folder: Path) -> None:
        self.url = f"{url}?results={store}" if store else url
        self.queue = f"once-{uuid.uuid4().hex[:12]}"
        self.notes_file = folder / "notes"
        self.environment = {
            **os.environ,
            "ONCE_BROKER": url,
            "ONCE_STORE": store,
            "ONCE_QUEUE": self.queue,
            "ONCE_NOTES": str(self.notes_file),
            "PYTHONPATH": str(APPS),
        }

    def worker(self, *words: str) -> Worker:
        return Worker("once:app", *words, environment=self.environment)

    def notes(self) -> list[list[str]]:
        return [line.split() for line in self.notes_file.read_text().splitlines()] if self.notes_file.exists() else []

    def run(self, code: str) -> Any:
        """Run Python code that prints JSON, to its end."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(params=["sqlite", "rabbitmq with redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each broker that keeps keys, or has a store that does."""
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path}/queue.db", "", tmp_path)
        return
    node: RabbitNode = request.getfixturevalue("node")
    with RedisServer() as server:
        yield Place(node.url, server.url, tmp_path)


def start_sender(place: Place, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SENDER, str(seed), str(KEYS), str(THREADS)],
        env=place.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_and_threads_that_send_the_same_keys_have_each_job_run_once(place: Place) -> None:
    senders = [start_sender(place, seed) for seed in range(PROCESSES)]
    for sender in senders:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "ready\n"
    with place.worker("--processes", "2"):
        sent: dict[int, set[str]] = {}
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write("go\n")
            sender.stdin.flush()
        for sender in senders:
            out, _ = sender.communicate(timeout=3 * PATIENCE)
            assert sender.returncode == 0
            answers = json.loads(out)
            assert len(answers) == THREADS * KEYS
            for number, job in answers:
                sent.setdefault(number, set()).add(job)
        assert {number: len(jobs) for number, jobs in sent.items()} == dict.fromkeys(range(KEYS), 1)
        until(lambda: len(place.notes()) >= KEYS, "all jobs run")
        # The last ones of the others would be behind it.
        last = place.run("import json\nfrom once import *\nwith app: print(json.dumps(once.send(-1).result(60)))")
    ran = Counter((int(number), job) for number, job in place.notes())
    assert ran == Counter({(number, next(iter(jobs))): 1 for number, jobs in [*sent.items(), (-1, {last})]})
    code = "import json\nfrom once import *\nwith app: print(json.dumps([once.send(n).result(60) for n in range(20)]))"
    assert place.run(code) == [next(iter(sent[n])) for n in range(20)], "each send has the result of the job that ran"


@pytest.mark.parametrize("how", ["succeeded", "rejected", "dead", "retried", "cancelled", "expired"])
def test_a_key_until_the_end_is_free_when_the_job_has_ended(place: Place, how: str) -> None:
    with leveret.App(place.url) as app:
        options: dict[str, Any] = {"queue": place.queue, "unique_until": "end"}
        if how == "expired":
            options["expires"] = 0.001
        first = app.send_task("until_end", [how], **options)
        assert app.send_task("until_end", [how], **options).id == first.id
        if how == "cancelled":
            first.cancel()
        with place.worker("--burst") as worker:
            worker.summary()
        assert first.state() == {"rejected": "dead", "retried": "succeeded"}.get(how, how)
        second = app.send_task("until_end", [how], **options)
        assert second.id != first.id
        assert Counter(job for _, job in place.notes())[first.id] == {
            "cancelled": 0,
            "expired": 0,
            "retried": 2,
            "dead": 2,
        }.get(how, 1)


def test_the_command_line_sends_once(place: Place) -> None:
    words = ("send", "once", "[7]", "--url", place.url, "--queue", place.queue)
    first = command(*words, "--idempotency-key", "k").stdout
    assert command(*words, "--idempotency-key", "k").stdout == first
    said = json.loads(command(*words, "--idempotency-key", "k", "--json").stdout)
    assert (said["id"], said["jobs"]) == (first.strip(), 0)
    assert command(*words, "--idempotency-key", "l").stdout != first
    unique = command(*words, "--unique-until", "end").stdout
    assert command(*words, "--unique-until", "end").stdout == unique
    with place.worker():
        assert command(*words, "--idempotency-key", "k", "--wait", "60").stdout.strip() == f'"{first.strip()}"'
    assert command(*words, "--unique-until", "end").stdout != unique


def test_a_replayed_job_runs(place: Place) -> None:
    with leveret.App(place.url) as app:
        first = app.send_task("until_end", ["rejected"], queue=place.queue, unique_until="end")
        for runs in (1, 2):
            with place.worker("--burst") as worker:
                worker.summary()
            assert place.notes() == [["rejected", first.id]] * runs
            if runs == 1:
                command("dead", "replay", first.id, "--queue", place.queue, "--url", place.url, "--yes")
        assert app.send_task("until_end", ["rejected"], queue=place.queue, unique_until="end").id != first.id


def test_signed_messages_keep_their_keys(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_SIGNING_KEYS", "k:" + "s" * 32)
    place.environment["LEVERET_SIGNING_KEYS"] = "k:" + "s" * 32
    with leveret.App(place.url) as app:
        first = app.send_task("until_end", ["retried"], queue=place.queue, unique_until="end")
        assert app.send_task("until_end", ["retried"], queue=place.queue, unique_until="end").id == first.id
        with place.worker("--burst") as worker:
            assert worker.summary()["succeeded"] == 1
        assert app.send_task("until_end", ["retried"], queue=place.queue, unique_until="end").id != first.id


def send_by_cpp(sender: Path, url: str, queue: str, task: str, argument: object, *settings: str) -> str:
    """Return the id of a job that a C++ program sent, or what it said."""
    words: list[str | Path] = [sender, url, queue, task, json.dumps(argument), *settings]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stderr if done.returncode else done.stdout.strip()


def test_python_and_cpp_senders_find_each_others_jobs(place: Place, sender: Path) -> None:
    send = functools.partial(send_by_cpp, sender, place.url, place.queue)
    with leveret.App(place.url) as app:

        @app.task(queue=place.queue, idempotency_key="number")
        def once(number: int) -> None: ...

        @app.native(queue=place.queue, unique_until="end")
        def rebuild(index: Any) -> None: ...

        assert send("once", 7, "idempotency_key=7") == once.send(7).id
        assert once.send(8).id == send("once", 8, "idempotency_key=8")
        assert once.options(idempotency_key="ü 17").send(0).id == send("once", 0, "idempotency_key=ü 17")
        assert send("rebuild", 8, "idempotency_key=8") != once.send(8).id, "each task has keys of its own"
        for argument in ("é 🐇", 1.5e-7, 1e22, 2**64 - 1, {"b": [1.0, None], "a": {"é": True, "z": -0.0}}):
            first = rebuild.send(argument).id
            assert send("rebuild", argument, "unique_until=end") == first
            other = send("rebuild", [argument], "unique_until=end")
            assert rebuild.send([argument]).id == other != first


def test_python_and_cpp_senders_share_the_order_of_a_key(place: Place, sender: Path) -> None:
    key = "Kundin 7 é"
    ran: list[int] = []
    with leveret.App(place.url) as app:

        @app.task(queue=place.queue, ordered=True)
        def book(amount: int) -> None:
            ran.append(amount)

        for amount in range(0, 6, 2):
            book.options(key=key).send(amount)
            assert send_by_cpp(sender, place.url, place.queue, "book", amount + 1, f"key={key}").endswith("/1")
        assert app.worker(threads=4).run_until_idle(timeout=PATIENCE).succeeded == 6
    assert ran == [0, 1, 2, 3, 4, 5]


def test_rabbitmq_without_a_store_says_what_is_missing(node: RabbitNode, sender: Path) -> None:
    with leveret.App(node.url) as app:
        with pytest.raises(leveret.Unsupported, match=r"keeps no keys; name a store that does: \?results=redis://"):
            app.send_task("work", [1], idempotency_key="k")
        queue = f"once-{uuid.uuid4().hex[:12]}"
        done = command("send", "work", "--url", node.url, "--queue", queue, "--unique-until", "end", expect=2)
        assert "keeps no keys" in done.stderr
        said = send_by_cpp(sender, node.url, queue, "work", 1, "idempotency_key=k")
        assert "cannot send a job that is to be there once" in said
        assert "keeps no keys; name a store that does: ?results=redis://" in said
