"""Taskiq with taskiq-aio-pika: quorum queue, publisher confirms, acknowledgement after execution."""

import asyncio

from effects import QUEUE, RESULTS, URL, ran
from taskiq import AsyncTaskiqTask
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType
from taskiq_redis import RedisAsyncResultBackend

broker = AioPikaBroker(URL, qos=256).with_queue(Queue(name=QUEUE, type=QueueType.QUORUM))
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(RESULTS, result_ex_time=86_400))


@broker.task
async def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


runner = asyncio.Runner()


def open() -> None:  # noqa: A001 - what drive.py calls
    """Connect."""
    runner.run(broker.startup())


async def send_async(number: int) -> AsyncTaskiqTask[int]:
    """Send a job."""
    return await work.kiq(number, number % 25)


def send(number: int) -> AsyncTaskiqTask[int]:
    """Send a job, and run the loop until it is sent."""
    return runner.run(send_async(number))


def results(sent: list[AsyncTaskiqTask[int]], seconds: float) -> list[int]:
    """Wait for the results."""
    return runner.run(read(sent, seconds))


async def read(sent: list[AsyncTaskiqTask[int]], seconds: float) -> list[int]:
    """Ask for the results."""
    ended = [await task.wait_result(check_interval=0.01, timeout=seconds) for task in sent]
    for one in ended:
        one.raise_for_error()
    return [one.return_value for one in ended]


def close() -> None:
    """Disconnect."""
    runner.run(broker.shutdown())
    runner.close()
