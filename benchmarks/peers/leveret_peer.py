"""Leveret: `send` and `send_many`, its processes, on either broker."""

import leveret
from effects import QUEUE, URL, ran

app = leveret.App(URL)


@app.task(name="work", queue=QUEUE, ignore_result=True)
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> None:
    """Send a job."""
    work.send(number, number % 25)


def send_many(numbers: range) -> None:
    """Send jobs at once."""
    work.send_many((number, number % 25) for number in numbers)


def close() -> None:
    """Disconnect."""
    app.close()
