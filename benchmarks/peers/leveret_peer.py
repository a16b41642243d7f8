"""Leveret: its sends and processes, on either broker; where results are kept stands in the url."""

import asyncio
from collections.abc import Iterable

import leveret
from effects import QUEUE, RESULTS, URL, ran

app = leveret.App(URL)
runner = asyncio.Runner()


@app.task(name="work", queue=QUEUE, ignore_result=not RESULTS)
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> leveret.Job[int]:
    """Send a job."""
    return work.send(number, number % 25)


async def send_async(number: int) -> leveret.Job[int]:
    """Send a job from an event loop."""
    return await work.send_async(number, number % 25)


def send_many(numbers: range) -> leveret.Jobs[int]:
    """Send jobs at once."""
    return work.send_many((number, number % 25) for number in numbers)


def results(sent: leveret.Jobs[int] | list[leveret.Job[int]], seconds: float) -> Iterable[int | None]:
    """Wait for the results: of one send, or of many."""
    if isinstance(sent, leveret.Jobs):
        return sent.results(timeout=seconds)
    return (ended.result for ended in app.results(sent, timeout=seconds))


def close() -> None:
    """Disconnect."""
    runner.close()
    app.close()
