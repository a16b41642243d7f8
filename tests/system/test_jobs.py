"""What becomes of jobs: outcomes, retries, dead records, bad input, stopping. On both brokers, by the command line."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import leveret
import pika
import pytest
from support.effects import Effects
from support.processes import PATIENCE, Broker, until
from support.processes import leveret as run

if TYPE_CHECKING:
    from pathlib import Path

    from support.rabbitmq_node import RabbitNode


def reasons(broker: Broker) -> dict[str, list[tuple[str, str]]]:
    """Return task -> [(reason, error)] of the dead jobs."""
    found: dict[str, list[tuple[str, str]]] = {}
    for record in broker.dead():
        found.setdefault(record["task"], []).append((record["reason"], record["error"]))
    return found


def test_an_exception_is_retried_up_to_max_retries_and_then_dead_with_its_text(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send(
        {"task": "fail_until", "args": [path, 1, 1]},
        {"task": "fail_until", "args": [path, 2, 100], "max_retries": 1},
        {"task": "fail_until", "args": [path, 3, 100], "max_retries": 0},
    )
    # No burst: RabbitMQ may hand over a retry later than a burst waits for it.
    with broker.worker(effects) as worker:
        until(lambda: broker.times_run() == {1: 2, 2: 2, 3: 1}, "each has run as often as it may")
        summary = worker.stop()
    assert (summary["succeeded"], summary["retried"], summary["dead"]) == (1, 2, 2)
    records = {json.loads(record["body"])["args"][1]: record for record in broker.dead()}
    assert set(records) == {2, 3}
    assert records[2]["reason"] == "exception"
    assert records[2]["error"] == "attempt 1"
    assert [attempt["error"] for attempt in records[2]["attempts"]] == ["attempt 0", "attempt 1"]
    assert all(attempt["worker"] and attempt["time"].endswith("Z") for attempt in records[2]["attempts"])
    assert records[2]["queue"] == broker.queue
    # The id stays over all publications.
    assert {effect.job_id for effect in broker.effects() if effect.n == 2} == {records[2]["id"]}


def test_an_expired_job_is_not_run_and_is_counted(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send(
        {"task": "effect", "args": [path, 1], "expires_at": 1_000},
        {"task": "effect", "args": [path, 2], "expires_at": 9_000_000_000_000},
    )
    summary = broker.drain(effects)
    assert (summary["succeeded"], summary["expired"], summary["dead"]) == (1, 1, 0)
    assert broker.times_run() == {2: 1}
    assert broker.dead() == []


def test_retry_after_is_obeyed_and_counts_as_a_retry(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url) as app:
        job = app.send_task("later", [1500], queue=broker.queue)
        started = time.monotonic()
        with broker.worker(effects) as worker:
            assert job.result(timeout=PATIENCE) == "done"
            assert time.monotonic() - started >= 1.5
            summary = worker.stop()
    assert (summary["succeeded"], summary["retried"], summary["dead"]) == (1, 1, 0)


def test_what_can_never_work_is_dead_at_once_with_the_reason(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send(
        {"task": "effect", "args": [path, "seven"]},
        {"task": "reject", "args": ["no such customer"]},
        {"task": "words", "args": [["a", 1]]},
        {"task": "spin", "args": [path, 1]},
        {"task": "gated", "args": [path, 1, "x", "y"]},
        {"task": "later", "args": [2**63]},
        {"task": "large", "args": [2_000_000]},
        {"task": "fail_until", "kwargs": {"path": path, "n": 1, "attempts": 0, "colour": 3}},
        {"task": "effect", "args": [path], "kwargs": {"n": 5}},
    )
    summary = broker.drain(effects)
    assert (summary["succeeded"], summary["retried"], summary["dead"]) == (1, 0, 8)
    found = reasons(broker)
    assert found["effect"] == [("bad_arguments", "args[1]: expected integer, got string")]
    assert found["reject"] == [("rejected", "no such customer")]
    assert found["words"] == [("bad_arguments", "args[0][1]: expected string, got integer")]
    assert found["large"][0][0] == "bad_result"
    assert "too large" in found["large"][0][1]
    for task, word in (("spin", "microseconds"), ("gated", "4"), ("later", "args[0]"), ("fail_until", "colour")):
        assert found[task][0][0] == "bad_arguments", task
        assert word in found[task][0][1], found[task]


def publish_raw(broker: Broker, body: bytes) -> None:
    """Put a message of any bytes into the queue, as another program would."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    connection.channel().basic_publish("", broker.queue, body, pika.BasicProperties(delivery_mode=2))
    connection.close()


def test_one_bad_line_is_dead_alone_and_its_neighbours_run(node: RabbitNode, tmp_path: Path, effects: Path) -> None:
    broker = Broker(node.url, "bad-lines", tmp_path)
    path = str(broker.effects_file)
    broker.send({"task": "effect", "args": [path, 0]})
    good = [json.dumps({"task": "effect", "args": [path, n], "retry_count": 0}).encode() for n in range(1, 5)]
    bad = [
        b"",
        b"[1,2x,-,01]",
        b'{"task":"effect","args":[1],"retry_count":-1}',
        b'{"task":"effect","args":[1],"args":[2],"retry_count":0}',
        b'\xff{"task":"effect"}',
        b'{"id":7,"value":1,"retry_count":0}',
        b'{"task":"effect","retry_count":0,"key":"k"}',
    ]
    lines = [line for pair in zip(good, bad[:4], strict=True) for line in pair] + bad[4:]
    publish_raw(broker, b"\r\n".join(lines))
    summary = broker.drain(effects)
    assert (summary["succeeded"], summary["dead"]) == (5, len(bad))
    assert broker.times_run() == dict.fromkeys(range(5), 1)
    dead = broker.dead()
    assert sorted(record["reason"] for record in dead) == ["malformed"] * 6 + ["unsupported_field"]
    assert any("body_base64" in record for record in dead), "what is not UTF-8 is kept as it came"


def test_a_foreign_object_goes_whole_to_the_default_task(node: RabbitNode, tmp_path: Path, effects: Path) -> None:
    queue = "foreign-classic"
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    for n in range(100):
        channel.basic_publish("", queue, json.dumps({"id": n, "value": n, "retry_count": 0}).encode())
    connection.close()
    broker = Broker(node.url, queue, tmp_path)
    summary = broker.drain(effects, "--default-task", "foreign")
    assert (summary["succeeded"], summary["dead"]) == (100, 0)


def test_a_task_that_nobody_knows_is_put_back_uncharged(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send({"task": "of_tomorrow", "args": []}, {"task": "effect", "args": [path, 1]})
    summary = broker.drain(effects)
    assert (summary["succeeded"], summary["dead"]) == (1, 0)
    assert summary["returned"] >= 1, "it comes again after some seconds, perhaps while this worker is still there"
    assert broker.dead() == []


def test_results_come_back_to_the_sender(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url) as app:
        tasks = Effects(app, broker.queue)
        odd = ["", "\x00", "\u2028", "\U0001f407", '"\\', "a" * 10_000]
        fine = tasks.words.send(odd)
        bad = tasks.reject.send("because")
        late = tasks.fail_until.send(str(broker.effects_file), 5, 1)
        with pytest.raises(leveret.ResultTimeout) as timeout:
            fine.result(timeout=0.2)
        assert broker.queue in str(timeout.value) or "worker" in str(timeout.value)
        with broker.worker(effects):
            assert fine.result(timeout=PATIENCE) == odd
            with pytest.raises(leveret.JobDead, match="because"):
                bad.result(timeout=PATIENCE)
            assert late.result(timeout=PATIENCE) == 5


def test_the_grace_ends_a_job_that_goes_on_and_it_is_not_charged(broker: Broker, effects: Path) -> None:
    gate = broker.folder / "gate"
    broker.send({"task": "gated", "args": [str(broker.effects_file), 1, str(gate)]})
    with broker.worker(effects, "--grace", "0.3") as worker:
        until(lambda: len(broker.effects()) == 1, "the job runs")
        worker.signal(signal.SIGTERM)
        assert worker.summary(expect=1)["grace_exceeded"]
    gate.touch()
    until(lambda: broker.stats()["ready"] == 1, "it was given back")
    assert broker.drain(effects)["succeeded"] == 1
    assert [effect.retry_count for effect in broker.effects()] == [0, 0]


def test_a_second_signal_ends_the_grace(broker: Broker, effects: Path) -> None:
    broker.send({"task": "gated", "args": [str(broker.effects_file), 1, str(broker.folder / "never")]})
    with broker.worker(effects, "--grace", "600") as worker:
        until(lambda: len(broker.effects()) == 1, "the job runs")
        worker.signal(signal.SIGINT)
        worker.wait_log("stopping")
        worker.signal(signal.SIGINT)
        worker.wait(expect=1)


def test_a_handler_sees_that_its_worker_stops(broker: Broker, effects: Path) -> None:
    broker.send({"task": "polite", "args": [str(broker.effects_file), 1]})
    with broker.worker(effects) as worker:
        until(lambda: len(broker.effects()) == 1, "the job runs")
        assert worker.stop()["succeeded"] == 1


def test_a_delayed_job_waits_for_its_time(broker: Broker, effects: Path) -> None:
    with leveret.App(broker.url) as app:
        effect = Effects(app, broker.queue).effect
        path = str(broker.effects_file)
        started = time.monotonic()
        later = effect.options(delay=1.2).send(path, 2)
        effect.options(delay=3_600).send(path, 3)
        now = effect.send(path, 1)
        with broker.worker(effects):
            assert later.result(timeout=PATIENCE) == 2
            assert time.monotonic() - started >= 1.2
            assert now.result(timeout=PATIENCE) == 1
        assert broker.times_run() == {1: 1, 2: 1}


def test_nothing_is_left_in_the_file_once_all_has_ended(tmp_path: Path, effects: Path) -> None:
    broker = Broker(f"sqlite:///{tmp_path}/queue.db", "jobs", tmp_path)
    broker.send(*({"task": "effect", "args": [str(broker.effects_file), n]} for n in range(50)))
    broker.drain(effects)
    listed = json.loads(run("queues", "--url", broker.url, "--json").stdout)["queues"]
    [stats] = [entry for entry in listed if entry["queue"] == "jobs"]
    assert (stats["ready"], stats["running"], stats["delayed"], stats["dead"]) == (0, 0, 0, 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "queue.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
