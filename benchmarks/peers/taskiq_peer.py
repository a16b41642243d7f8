"""Taskiq with taskiq-aio-pika: quorum queue, publisher confirms, acknowledgement after execution."""

import asyncio

from effects import QUEUE, URL, ran
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType

broker = AioPikaBroker(URL, qos=256).with_queue(Queue(name=QUEUE, type=QueueType.QUORUM))


@broker.task
async def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


runner = asyncio.Runner()


def open() -> None:  # noqa: A001 - what drive.py calls
    """Connect."""
    runner.run(broker.startup())


def send(number: int) -> None:
    """Send a job."""
    runner.run(work.kiq(number, number % 25))


def close() -> None:
    """Disconnect."""
    runner.run(broker.shutdown())
    runner.close()
