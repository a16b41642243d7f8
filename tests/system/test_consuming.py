"""Workers that are connected and do not consume: they say so within two heartbeats, and repair themselves."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import leveret as library
import pytest
from support.effects import Effects
from support.processes import PATIENCE, Broker, Worker, until
from support.rabbitmq_node import RabbitNode, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEARTBEAT = 2
SLACK = 40.0
"""Seconds that a loaded machine may add."""
CONSUMER_TIMEOUT = 3
READ = ("set_permissions", "-p", "/", "guest", ".*", ".*", ".*")
NO_READ = ("set_permissions", "-p", "/", "guest", ".*", ".*", "^$")
NO_CONFIGURE = ("set_permissions", "-p", "/", "guest", "^$", ".*", ".*")
WITH_CONSUMER = """{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"QUEUE">>)),
    case [{element(1, C), element(2, C)} || C <- rabbit_amqqueue:consumers(Q)] of
        [{Channel, Tag} | _] -> DO;
        [] -> none
    end."""
"""Erlang: what is done with the first consumer of a queue; a worker that was stalled too long may have none."""


@contextmanager
def withheld(node: RabbitNode, permissions: tuple[str, ...]) -> Iterator[None]:
    """Take permissions away until the block's end."""
    node.ctl(*permissions)
    try:
        yield
    finally:
        node.ctl(*READ)


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitNode]:
    """A node that takes unacknowledged messages back after a few seconds."""
    with RabbitNode(f"consumer_timeout = {CONSUMER_TIMEOUT * 1000}") as running:
        # For channels that are opened from now on: how often they look at the time. It is a minute.
        running.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
        yield running


class Watched:
    """A worker on a queue of its own, and what its probe said all the time."""

    def __init__(self, node: RabbitNode, folder: Path, effects: Path) -> None:
        self.queue = f"consuming-{uuid.uuid4().hex[:12]}"
        self.broker = Broker(f"{node.url}?heartbeat={HEARTBEAT}", self.queue, folder)
        self._port = free_port()
        self._over = threading.Event()
        self.worker: Worker = self.broker.worker(effects, "--health", f"127.0.0.1:{self._port}")
        self.bad: list[tuple[float, str]] = []
        self._watcher = threading.Thread(target=self._watch)

    def _ready(self) -> tuple[bool, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=PATIENCE) as answer:
                return answer.status == 200, ""
        except urllib.error.HTTPError as error:
            with error:
                return False, json.loads(error.read())["detail"]

    def _watch(self) -> None:
        while not self._over.is_set():
            ready, detail = self._ready()
            if not ready:
                self.bad.append((time.monotonic(), detail))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch it until the block's end, and stop it."""
        self._watcher.start()
        try:
            yield
        finally:
            self._over.set()
            self._watcher.join()
            with self.worker:
                if self.worker.process.poll() is None:
                    self.worker.stop()

    def wait_bad(self, since: float, *whys: str) -> float:
        """Wait until the probe has said that it does not consume, within two heartbeats; return when it did first."""

        def found() -> float | None:
            return next((when for when, text in list(self.bad) if text and any(why in text for why in whys)), None)

        until(lambda: found() is not None, f"not ready because of {whys}")
        first = found()
        assert first is not None
        assert first - since < 2 * HEARTBEAT + SLACK
        return first

    def wait_good(self) -> None:
        """Wait until the probe says that it consumes, and a job has run."""
        until(lambda: self._ready()[0], "it consumes again")
        self.run(len(self.broker.effects()))

    def run(self, n: int) -> None:
        """Send a job and wait for its result."""
        with library.App(self.broker.url) as app:
            assert Effects(app, self.queue).effect.send(str(self.broker.effects_file), n).result(timeout=PATIENCE) == n


@pytest.fixture
def watched(node: RabbitNode, tmp_path: Path, effects: Path) -> Iterator[Watched]:
    """A worker that has run a job."""
    made = Watched(node, tmp_path, effects)
    with made.watched():
        made.run(1_000)
        yield made


def test_a_consumer_that_its_queue_forgot_is_made_again(node: RabbitNode, watched: Watched) -> None:
    # The queue drops its consumer, and nobody tells the channel: what defects of the server after partitions look like.
    forget = "ra:process_command(amqqueue:get_pid(Q), rabbit_fifo:make_checkout({Tag, Channel}, cancel, #{}))"
    # It may not consume again yet, so that the state lasts.
    with withheld(node, NO_READ):
        began = time.monotonic()
        node.ctl("eval", WITH_CONSUMER.replace("QUEUE", watched.queue).replace("DO", forget))
        watched.wait_bad(
            began + node_took(began), "counts no consumer of it", "has forgotten its consumer", "does not consume"
        )
    watched.wait_good()


def test_a_channel_that_ended_without_a_word_is_found(node: RabbitNode, watched: Watched) -> None:
    with withheld(node, NO_READ):
        began = time.monotonic()
        end = "rabbit_channel:shutdown(Channel)"
        node.ctl("eval", WITH_CONSUMER.replace("QUEUE", watched.queue).replace("DO", end))
        watched.wait_bad(began + node_took(began), "")
    watched.wait_good()


def test_a_consumer_that_the_broker_cancelled_is_made_again_with_its_queue(node: RabbitNode, watched: Watched) -> None:
    # It may not make the queue again yet, so that the state lasts.
    with withheld(node, NO_CONFIGURE):
        began = time.monotonic()
        node.ctl("delete_queue", watched.queue)
        watched.wait_bad(began + node_took(began), "does not consume")
    watched.wait_good()


def test_a_queue_that_was_deleted_and_made_again_is_consumed(node: RabbitNode, watched: Watched) -> None:
    # RabbitMQ 3.10 hands what comes first to a channel that drops it: 6 heartbeats.
    for n in range(2):
        node.ctl("delete_queue", watched.queue)
        watched.run(n)
    # A worker or a client that is stalled for two heartbeats loses its connection, and its jobs run again.
    assert list(dict.fromkeys(effect.n for effect in watched.broker.effects())) == [1_000, 0, 1]


def test_a_channel_that_was_closed_for_a_slow_job_is_replaced(
    node: RabbitNode, watched: Watched, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    sent = time.monotonic()
    watched.broker.send({"task": "gated", "args": [str(watched.broker.effects_file), 1, str(gate)]})
    until(lambda: watched.broker.times_run()[1] > 0, "the slow job runs")
    began = time.monotonic()
    with withheld(node, NO_READ):
        # consumer_timeout: the broker takes its message back and closes the channel. It may have done so before, while
        # rabbitmqctl was at work, and the job then runs for the second time or the third.
        first = watched.wait_bad(began + node_took(began) + CONSUMER_TIMEOUT, "does not consume")
        assert first - sent > CONSUMER_TIMEOUT / 2
        gate.touch()
    watched.wait_good()
    until(lambda: watched.broker.times_run()[1] >= 2, "the job that was taken back runs again")


def node_took(began: float) -> float:
    """Return the seconds since `began`: rabbitmqctl takes a while before it does anything."""
    return time.monotonic() - began
