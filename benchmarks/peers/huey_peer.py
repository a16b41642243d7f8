"""Huey on SQLite: a sync for each commit, its processes."""

from effects import SENDERS, URL, ran
from huey import SqliteHuey

# SQLite lets one of those who wait write, not the one who waits longest: some wait for long.
huey = SqliteHuey(filename=URL, fsync=True, results=False, timeout=5 if SENDERS == 1 else 60)


@huey.task()
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> None:
    """Send a job."""
    work(number, number % 25)
