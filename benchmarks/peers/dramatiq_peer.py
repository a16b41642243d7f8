"""Dramatiq: durable queue, publisher confirms, its processes and threads."""

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from effects import QUEUE, URL, ran

broker = RabbitmqBroker(url=URL, confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def work(number: int, value: int) -> None:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    ran(number)


def send(number: int) -> None:
    """Send a job."""
    work.send(number, number % 25)
