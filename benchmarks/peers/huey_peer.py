"""Huey on SQLite: a sync for each commit, its processes."""

from effects import URL, ran
from huey import SqliteHuey

huey = SqliteHuey(filename=URL, fsync=True, results=False)


@huey.task()
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> None:
    """Send a job."""
    work(number, number % 25)
