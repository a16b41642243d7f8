"""Dramatiq: durable queue, publisher confirms, its processes and threads."""

from collections.abc import Iterator

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from effects import QUEUE, RESULTS, URL, ran

broker = RabbitmqBroker(url=URL, confirm_delivery=True)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=RESULTS), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def work(number: int, value: int) -> int | None:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    done = ran(number)
    return done if RESULTS else None


def send(number: int) -> dramatiq.Message[int | None]:
    """Send a job."""
    return work.send(number, number % 25)


def results(sent: list[dramatiq.Message[int | None]], seconds: float) -> Iterator[int | None]:
    """Wait for the results, one after another, as its group does."""
    return (message.get_result(block=True, timeout=int(seconds * 1000)) for message in sent)
