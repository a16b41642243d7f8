"""Signed messages on both brokers: what is signed well runs, nothing else does; keys are replaced without a stop."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret as package
import pika
import pytest
from leveret.contract import signature
from support.processes import PATIENCE, Broker, leveret, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

APPS = Path(__file__).resolve().parent / "apps"
VARIABLE = "LEVERET_SIGNING_KEYS"
OLD = "old:geheim-0123456789abcdef-0123456789"
NEW = "new:geheim-fedcba9876543210-fedcba9876"
OTHER = "other:geheim-ffffffffffffffff-ffffffffff"


@pytest.fixture(autouse=True)
def _apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(APPS))
    monkeypatch.delenv(VARIABLE, raising=False)


class Keys:
    """The keys that a process begun now has."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(self, keys: str) -> None:
        if keys:
            self._patch.setenv(VARIABLE, keys)
        else:
            self._patch.delenv(VARIABLE, raising=False)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(monkeypatch)


def note(app: package.App, broker: Broker, n: int, task: str = "note", queue: str = "") -> package.Job[Any]:
    return app.send_task(task, (str(broker.effects_file), n), queue=queue or broker.queue)


def tamper(broker: Broker, source: str, change: Callable[[bytes], bytes]) -> None:
    """Put the message that waits in a queue into the broker's queue, its body changed, all else as it is."""
    if broker.url.startswith("sqlite"):
        file = sqlite3.connect(broker.url.removeprefix("sqlite:///"), timeout=PATIENCE)
        with file:
            keys = dict(file.execute("SELECT name, queue FROM queue"))
            ((msg, data),) = file.execute("SELECT msg, data FROM body WHERE queue = ?", (keys[source],)).fetchall()
            target = keys[broker.queue]
            file.execute("UPDATE body SET data = ?, queue = ? WHERE msg = ?", (change(data), target, msg))
            file.execute("UPDATE ready SET queue = ? WHERE msg = ?", (target, msg))
        file.close()
        return
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    found, properties, body = channel.basic_get(source)
    assert found is not None
    channel.confirm_delivery()
    channel.basic_publish("", broker.queue, change(body), properties, mandatory=True)
    channel.basic_ack(found.delivery_tag)
    connection.close()


def test_what_is_signed_well_runs_and_nothing_else_does(broker: Broker, keys: Keys) -> None:
    with package.App(broker.url) as plain:
        unsigned = note(plain, broker, 3)
        keys(OLD)
        with package.App(broker.url) as app:
            old = note(app, broker, 1)
        keys(OTHER)
        with package.App(broker.url) as app:
            note(app, broker, 2)
        keys(f"{NEW} {OLD}")
        with package.App(broker.url) as app:
            side = f"{broker.queue}-side"
            note(app, broker, 5, queue=side)
            tamper(broker, side, lambda body: body.replace(b",5]", b",6]"))
            note(app, broker, 7, queue=side)
            tamper(broker, side, lambda body: body)
            new = note(app, broker, 4)
            with broker.worker("chores:app", "--burst", pool="processes") as worker:
                counts = worker.summary()
            new.result(timeout=PATIENCE)
        with pytest.raises(package.JobDead) as told:
            unsigned.result(timeout=PATIENCE)
    assert (counts["succeeded"], counts["dead"]) == (2, 4)
    assert broker.times_run() == {1: 1, 4: 1}
    assert told.value.reason == "unsigned"
    assert VARIABLE in str(told.value)
    dead = {record["body"][-22:].partition(",")[2].partition("]")[0]: record for record in broker.dead()}
    assert {n: record["reason"] for n, record in dead.items()} == {
        "2": "bad_signature",
        "3": "unsigned",
        "6": "bad_signature",
        "7": "bad_signature",
    }
    assert 'the key "other", which this worker does not have' in dead["2"]["error"]
    assert "altered or moved" in dead["6"]["error"]
    assert "altered or moved" in dead["7"]["error"]
    assert old.id not in {record["id"] for record in dead.values()}


def test_a_key_is_replaced_in_three_steps_while_jobs_run(broker: Broker, keys: Keys) -> None:
    steps = [OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", NEW]
    for n, sender in enumerate(steps):
        for workers in steps[max(n - 1, 0) : n + 2]:
            keys(sender)
            with package.App(broker.url) as app:
                job = note(app, broker, n)
                keys(workers)
                with broker.worker("chores:app", "--burst", pool="processes") as worker:
                    assert worker.summary()["succeeded"] == 1, (sender, workers)
                job.result(timeout=PATIENCE)
    assert broker.dead() == []


def test_what_workers_publish_again_is_signed(broker: Broker, keys: Keys) -> None:
    path = str(broker.effects_file)
    keys(NEW)
    with package.App(broker.url) as app:
        for n in range(3):
            note(app, broker, n, "at_second")
        note(app, broker, 3, "once_there")
    broker.send(*({"task": "note", "args": [path, n, 100_000]} for n in range(100, 140)))
    with broker.worker("chores:app", threads=1, pool="processes") as worker:
        until(lambda: len(broker.effects()) > 2, "it runs")
        worker.stop()  # gives the rest of the batch back
    # No burst: it would not wait for retries that another worker has published.
    with broker.worker("chores:app", pool="processes", threads=4) as worker:
        until(lambda: set(broker.times_run()) == {0, 1, 2, *range(100, 140)}, "all have run")
        until(lambda: len(broker.dead()) == 1, "the one that failed is dead")
        worker.stop()
    assert [record["reason"] for record in broker.dead()] == ["exception"]
    Path(f"{path}.there").touch()
    leveret("dead", "replay", "--url", broker.url, "--queue", broker.queue, "--all", "--yes")
    with broker.worker("chores:app", "--burst", pool="processes") as worker:
        assert worker.summary()["succeeded"] == 1
    assert set(broker.times_run()) == {0, 1, 2, 3, *range(100, 140)}
    assert broker.dead() == []


def test_unsigned_messages_are_taken_while_the_keys_say_so(broker: Broker, keys: Keys) -> None:
    for n, sender in enumerate(("", NEW, OTHER)):
        keys(sender)
        with package.App(broker.url) as app:
            note(app, broker, n)
    keys(f"{NEW} unsigned")
    with broker.worker("chores:app", "--burst", pool="processes") as worker:
        counts = worker.summary()
    assert (counts["succeeded"], counts["dead"]) == (2, 1)
    assert broker.times_run() == {0: 1, 1: 1}


def test_a_worker_without_keys_runs_signed_messages_and_others(broker: Broker, keys: Keys) -> None:
    for n, sender in enumerate(("", NEW)):
        keys(sender)
        with package.App(broker.url) as app:
            note(app, broker, n)
    keys("")
    with broker.worker("chores:app", "--burst", pool="processes") as worker:
        assert worker.summary()["succeeded"] == 2


def test_a_forged_message_does_not_pass_for_the_good_one_of_its_id(
    node: RabbitNode, tmp_path: Path, keys: Keys
) -> None:
    broker = Broker(node.url, "forged-id", tmp_path)
    keys(NEW)
    with package.App(broker.url) as app:
        job = note(app, broker, 1)
        connection = pika.BlockingConnection(pika.URLParameters(node.url))
        channel = connection.channel()
        channel.confirm_delivery()
        found, properties, body = channel.basic_get(broker.queue, auto_ack=True)
        assert found is not None
        forged = pika.BasicProperties(message_id=properties.message_id, delivery_mode=2)
        with broker.worker("chores:app", pool="processes") as worker:
            channel.basic_publish("", broker.queue, body.replace(b",1]", b",666]"), forged)
            until(lambda: len(broker.dead()) == 1, "the forged one is dead")
            channel.basic_publish("", broker.queue, body, properties)
            connection.close()
            job.result(timeout=PATIENCE)
            assert worker.stop()["succeeded"] == 1
    assert broker.times_run() == {1: 1}


def test_a_foreign_producer_signs_by_the_contract(node: RabbitNode, tmp_path: Path, keys: Keys) -> None:
    broker = Broker(node.url, "foreign-signed", tmp_path)
    keys(NEW)
    name, _, secret = NEW.partition(":")
    with package.App(broker.url) as app:
        note(app, broker, 0)
    body = b'{"task":"note","args":["%s",1],"retry_count":0}' % str(broker.effects_file).encode()
    signed = signature(name, secret, id="of-my-own", queue=broker.queue, body=body)
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    channel.basic_publish(
        "", broker.queue, body, pika.BasicProperties(message_id="of-my-own", headers={"x-leveret-signature": signed})
    )
    connection.close()
    with broker.worker("chores:app", "--burst", pool="processes") as worker:
        assert worker.summary()["succeeded"] == 2
    assert broker.times_run() == {0: 1, 1: 1}


def test_keys_are_shown_nowhere_and_senseless_ones_are_refused(tmp_path: Path, keys: Keys) -> None:
    broker = Broker(f"sqlite:///{tmp_path}/queue.db", "jobs", tmp_path)
    keys(f"{NEW} {OLD}")
    with broker.worker("chores:app", "--log-level", "debug", pool="processes") as worker:
        arguments = Path(f"/proc/{worker.pid}/cmdline").read_text()
        worker.stop()
        shown = "\n".join(worker.log) + arguments
    shown += leveret("config", "show").stdout + leveret("config", "show", "--json").stdout
    assert "geheim" not in shown
    for bad in ("geheim-0123456789abcdef-0123456789", "a:geheim", f"{NEW} {NEW}", "@/nowhere/geheim-free"):
        keys(bad)
        said = leveret("send", "t", "--url", broker.url, expect=2).stderr
        assert said.startswith("leveret send: cannot use LEVERET_SIGNING_KEYS: "), said
        assert said.count("\n") == 1
        assert bad.startswith("@") or "geheim" not in said, said


def test_a_message_of_too_many_lines_is_one_dead_job(node: RabbitNode, tmp_path: Path) -> None:
    broker = Broker(node.url, "too-many-lines", tmp_path)
    with package.App(broker.url) as app:
        note(app, broker, 1)
        connection = pika.BlockingConnection(pika.URLParameters(node.url))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", broker.queue, b"\n" * 5_000_000, pika.BasicProperties(delivery_mode=2))
        connection.close()
        note(app, broker, 2)
        with broker.worker("chores:app", "--burst", pool="processes") as worker:
            counts = worker.summary()
    assert (counts["succeeded"], counts["dead"]) == (2, 1)
    (record,) = broker.dead()
    assert record["reason"] == "too_long"
    assert "more than 1048576 lines" in record["error"]
    assert len(record["body"]) == 64 << 10
