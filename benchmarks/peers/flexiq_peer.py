"""FlexiQ on SQLite: its threads, polled every millisecond, many jobs a claim; `enqueue_many` for many at once."""

from effects import URL, ran
from flexiq import Queue

queue = Queue(db_path=URL, scheduler_poll_interval_ms=1, scheduler_batch_size=256)


@queue.task()
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> None:
    """Send a job."""
    work.delay(number, number % 25)


def send_many(numbers: range) -> None:
    """Send jobs at once."""
    queue.enqueue_many(work.name, args_list=[(number, number % 25) for number in numbers])
