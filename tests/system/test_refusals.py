"""A broker that refuses: who asks hears what was tried, on what, why, and what helps, once and without a password."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import leveret as library
import pytest
from support.effects import Effects
from support.processes import PATIENCE, Broker, Worker, leveret, until
from support.rabbitmq_node import RabbitNode, free_port

PASSWORD = "canary-7"  # noqa: S105 - of users of a private node
PERMISSIONS = {"configure": ("^$", ".*", ".*"), "write": (".*", "^$", ".*"), "read": (".*", ".*", "^$")}
"""A user each, named by the permission that it lacks."""


class Said(NamedTuple):
    """What each side was told."""

    send: str
    worker: str
    doctor: str


def why_not_sent(url: str, queue: str) -> str:
    """Return the error of `App.send`; empty: there was none."""
    try:
        with library.App(url) as app:
            Effects(app, queue, ignore_result=True).effect.send("/nowhere", 1)
    except library.Error as error:
        return str(error)
    return ""


def why_no_worker(url: str, queue: str, plugin: Path) -> str:
    """Return the one line that `leveret worker` ends with."""
    done = leveret("worker", plugin, "--url", url, "--queue", queue, "--threads", "1", "--pool", "threads", expect=1)
    errors = [line for line in done.stderr.splitlines() if line.startswith("leveret worker: ")]
    # It may have warned before that it can't hear of cancelled jobs, for the same reason.
    assert all("warning cancelled_jobs_unknown" in line for line in done.stderr.splitlines() if line not in errors)
    assert len(errors) == 1, done.stderr
    return errors[0].removeprefix("leveret worker: ")


def failed_checks(url: str, queue: str) -> dict[str, str]:
    """Return what `leveret doctor` finds to be wrong."""
    done = leveret("doctor", "--url", url, "--queue", queue, "--json", expect=1)
    checks = json.loads(done.stdout)["checks"]
    return {check["check"]: check["detail"] for check in checks if check["status"] == "failed"}


def ask_all(url: str, queue: str, plugin: Path) -> Said:
    """Ask each side; none of them may say the password."""
    said = Said(why_not_sent(url, queue), why_no_worker(url, queue, plugin), failed_checks(url, queue)["broker"])
    assert not any(PASSWORD in text for text in said)
    return said


@pytest.fixture(scope="module")
def users(node: RabbitNode) -> RabbitNode:
    """Users on the node that lack one permission each."""
    steps = [
        f'rabbit_auth_backend_internal:add_user(<<"no-{name}">>, <<"{PASSWORD}">>, <<"test">>), '
        f'rabbit_auth_backend_internal:set_permissions(<<"no-{name}">>, <<"/">>, '
        f'<<"{configure}">>, <<"{write}">>, <<"{read}">>, <<"test">>)'
        for name, (configure, write, read) in PERMISSIONS.items()
    ]
    node.ctl("eval", ", ".join(steps) + ".")
    return node


def url_without(permission: str, node: RabbitNode) -> str:
    """Return the url of the user that lacks this permission."""
    return f"amqp://no-{permission}:{PASSWORD}@127.0.0.1:{node.port}/"


@pytest.fixture
def queue() -> str:
    """A name of its own for each test."""
    return f"refused-{uuid.uuid4().hex[:12]}"


def test_a_wrong_password_is_told_as_such(node: RabbitNode, queue: str, effects: Path) -> None:
    said = ask_all(f"amqp://guest:{PASSWORD}@127.0.0.1:{node.port}/", queue, effects)
    for text in said:
        assert f"cannot connect to RabbitMQ at amqp://127.0.0.1:{node.port}/" in text
        assert "refused the user or password of the url" in text


def test_each_server_of_a_url_is_asked_and_named_without_the_password(
    node: RabbitNode, queue: str, effects: Path
) -> None:
    closed = free_port()
    url = f"amqp://guest:{PASSWORD}@127.0.0.1:{node.port},127.0.0.1:{closed}/"
    for text in (why_not_sent(url, queue), why_no_worker(url, queue, effects)):
        assert f"amqp://127.0.0.1:{node.port}/: the broker refused the user or password of the url" in text
        assert f"amqp://127.0.0.1:{closed}/: Connection refused" in text
        assert PASSWORD not in text
    said = leveret("doctor", "--url", url, "--queue", queue, expect=1).stdout
    assert f"cannot reach 127.0.0.1:{closed}" in said
    assert PASSWORD not in said
    with library.App(url.replace(PASSWORD, "guest")) as app, Broker(node.url, queue, Path()).worker(effects) as worker:
        assert Effects(app, queue).words.send(["a"]).result(timeout=PATIENCE) == ["a"]
        worker.stop()


def test_a_missing_vhost_is_told_with_its_name(node: RabbitNode, queue: str, effects: Path) -> None:
    said = ask_all(f"amqp://guest:guest@127.0.0.1:{node.port}/nowhere", queue, effects)
    for text in said:
        assert f"cannot connect to RabbitMQ at amqp://127.0.0.1:{node.port}/nowhere" in text
        assert 'has no vhost "nowhere" for this user' in text
        assert "rabbitmqctl add_vhost" in text


def test_a_vhost_of_others_is_told_with_what_allows_it(users: RabbitNode, queue: str, effects: Path) -> None:
    users.add_vhost("theirs")
    said = ask_all(f"amqp://no-read:{PASSWORD}@127.0.0.1:{users.port}/theirs", queue, effects)
    for text in said:
        assert '"theirs"' in text
        assert "set_permissions" in text


def test_without_permission_to_configure_no_queue_is_made(users: RabbitNode, queue: str, effects: Path) -> None:
    url = url_without("configure", users)
    for text in (why_not_sent(url, queue), why_no_worker(url, queue, effects)):
        assert text.startswith(f'cannot declare queue "{queue}": '), text
        assert "ACCESS_REFUSED" in text
        assert "needs the configure" in text
        assert "rabbitmqctl set_permissions" in text
    assert failed_checks(url, queue).keys() == {"permissions"}
    text = failed_checks(url, queue)["permissions"]
    assert f'may not declare queues like "{queue}"' in text
    assert "needs the configure permission" in text


def test_without_permission_to_write_nothing_is_sent(users: RabbitNode, queue: str) -> None:
    url = url_without("write", users)
    # Where it dead-letters to is the first thing that it may not write to.
    text = why_not_sent(url, queue)
    assert text.startswith(f'cannot declare queue "{queue}": '), text
    assert "needs the write permission" in text
    with library.App(users.url) as app:
        Effects(app, queue, ignore_result=True).effect.send("/nowhere", 1)
    text = why_not_sent(url, queue)
    assert text.startswith(f'cannot publish to "{queue}": the broker refused it (403'), text
    assert "needs the write permission" in text
    text = failed_checks(url, queue)["permissions"]
    assert f'may not publish to queues like "{queue}"' in text
    assert "needs the write permission" in text


def test_without_permission_to_read_nothing_is_consumed(
    users: RabbitNode, queue: str, tmp_path: Path, effects: Path
) -> None:
    url = url_without("read", users)
    text = failed_checks(url, queue)["permissions"]
    assert f'may not consume queues like "{queue}"' in text
    assert "needs the read permission" in text
    text = why_no_worker(url, queue, effects)
    assert text.startswith(f'cannot declare queue "{queue}'), text
    assert "the read permission" in text
    # Where the queues are there already it can begin, and waits for the permission.
    broker = Broker(users.url, queue, tmp_path)
    broker.drain(effects)
    broker.send({"task": "effect", "args": [str(broker.effects_file), 1]})
    words = ["--url", url, "--queue", queue, "--threads", "1", "--pool", "threads"]
    with Worker(effects, *words) as worker:
        worker.wait_log(f'cannot consume queue "{queue}": ACCESS_REFUSED')
        assert any("needs the read permission" in line for line in worker.log)
        users.ctl("set_permissions", "-p", "/", "no-read", ".*", ".*", ".*")
        until(broker.effects_file.exists, "it consumes with the permission")
        worker.stop()
    users.ctl("set_permissions", "-p", "/", "no-read", ".*", ".*", "^$")


def test_the_permissions_that_the_guide_names_are_enough(node: RabbitNode, tmp_path: Path, effects: Path) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    patterns = re.findall(r"^rabbitmqctl set_permissions -p shop shop '(.*)' '(.*)' '(.*)'$", guide, re.MULTILINE)[0]
    node.ctl("add_vhost", "shop")
    node.ctl("add_user", "shop", PASSWORD)
    node.ctl("set_permissions", "-p", "shop", "shop", *patterns)
    broker = Broker(f"amqp://shop:{PASSWORD}@127.0.0.1:{node.port}/shop", "shop.mail", tmp_path)
    assert "warning" not in leveret("doctor", "--url", broker.url, "--queue", broker.queue).stdout
    with library.App(broker.url) as app, broker.worker(effects) as worker:
        tasks = Effects(app, broker.queue)
        path = str(broker.effects_file)
        assert tasks.effect.options(delay=0.3).send(path, 1).result(timeout=PATIENCE) == 1
        assert tasks.fail_until.send(path, 2, 1).result(timeout=PATIENCE) == 2
        with pytest.raises(library.JobDead):
            tasks.reject.send("why").result(timeout=PATIENCE)
        tasks.effect.options(delay=600).send(path, 3).cancel()
        worker.stop()
        assert not any("ACCESS_REFUSED" in line for line in worker.log), worker.log
    assert [job["task"] for job in broker.dead()] == ["reject"]
