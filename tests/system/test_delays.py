"""Delayed jobs start when they are due: not before, and on an idle broker hardly after.

On RabbitMQ a delay is a way through level queues (docs/adr/0007). A long one is not waited for: the test plays the part
of a broker whose messages expire at once, and adds up how long each of them would have stayed.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pika
import pytest
from support.effects import Effects
from support.processes import PATIENCE, Broker

if TYPE_CHECKING:
    from pathlib import Path

    from pika.adapters.blocking_connection import BlockingChannel
    from support.rabbitmq_node import RabbitNode

LATEST = 0.1
"""Seconds after which a job that is due has started, where nothing else goes on."""
UNIT = 0.032
"""Seconds to which RabbitMQ's delays are rounded up."""
DELAYS = [0.25, 0.3, 0.55, 0.9, 1.3, 2.1]
"""Seconds."""
TRIES = 5


def test_a_delayed_job_starts_when_it_is_due(broker: Broker) -> None:
    """A machine that does other things too is late now and then; what is late by construction is late each time."""
    app = leveret.App(broker.url)

    @app.task(queue=broker.queue)
    def starts() -> float:
        return time.monotonic()

    with app, app.worker(threads=2):
        assert starts.send().result(timeout=PATIENCE)
        starts.options(delay=DELAYS[-1]).send().result(timeout=PATIENCE)  # the levels are made when they are needed
        for delay in DELAYS:
            late = []
            for _ in range(TRIES):
                sent = time.monotonic()
                job = starts.options(delay=delay).send()
                accepted = time.monotonic()
                started = job.result(timeout=PATIENCE)
                assert started >= sent + delay - 0.001  # the due time is in whole milliseconds
                late.append(started - accepted - delay)
                if late[-1] <= LATEST:
                    break
            assert min(late) <= LATEST, f"a delay of {delay} s: {late}"


def arguments_of(node: RabbitNode, vhost: str) -> dict[str, dict[str, Any]]:
    """Return each queue's arguments."""
    listed = node.ctl("list_queues", "-p", vhost, "name", "arguments", "--formatter", "json")
    found = {}
    for queue in json.loads(listed):
        arguments = queue["arguments"]
        # RabbitMQ 3 gives triples of name, type and value, 4 an object.
        found[queue["name"]] = arguments if isinstance(arguments, dict) else {a[0]: a[-1] for a in arguments}
    return found


def take(channel: BlockingChannel, queues: list[str]) -> tuple[str, str, pika.BasicProperties, bytes]:
    """Take the one message that is in one of the queues: queue, routing key, properties, body."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for queue in queues:
            got, properties, body = channel.basic_get(queue, auto_ack=True)
            if got is not None and properties is not None and body is not None:
                return queue, got.routing_key, properties, body
    msg = f"no message came into any of {queues}"
    raise AssertionError(msg)


@pytest.mark.parametrize(
    "delay", [timedelta(minutes=10), timedelta(hours=1), timedelta(days=40, seconds=1.5), timedelta(days=198)], ids=str
)
def test_the_way_of_a_long_delay_is_as_long_as_the_delay(
    node: RabbitNode, tmp_path: Path, effects: Path, delay: timedelta
) -> None:
    vhost = f"delays-{uuid.uuid4().hex[:8]}"
    broker = Broker(node.add_vhost(vhost), "jobs", tmp_path)
    with leveret.App(broker.url) as app:
        sent = time.monotonic()
        job = Effects(app, broker.queue).effect.options(delay=delay).send(str(broker.effects_file), 7)
        accepted = time.monotonic()
        known = arguments_of(node, vhost)
        levels = [name for name in known if name.startswith("leveret.delay.")]
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            waited, visited, place = 0.0, [], ""
            while True:
                place, key, properties, body = take(channel, [*levels, broker.queue])
                # Of a short level it may have gone on by itself before it was taken.
                deaths = (properties.headers or {}).get("x-death", [])
                passed = [death["queue"] for death in deaths if death["queue"] not in visited]
                passed += [] if place == broker.queue else [place]
                visited += passed
                waited += sum(known[level]["x-message-ttl"] for level in passed) / 1000
                if place == broker.queue:
                    break
                arguments = known[place]
                channel.basic_publish(arguments["x-dead-letter-exchange"], key, body, properties, mandatory=True)
            assert len(set(visited)) == len(visited), visited
            assert waited >= delay.total_seconds() - (accepted - sent)
            assert waited <= delay.total_seconds() + UNIT, f"{waited} s on the way through {visited}"
            channel.basic_publish("", broker.queue, body, properties, mandatory=True)
        with broker.worker(effects):
            assert job.result(timeout=PATIENCE) == 7
