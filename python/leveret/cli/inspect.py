"""`leveret inspect`."""

from __future__ import annotations

import time

import click

from leveret.cli import _common
from leveret.cli._workers import duration, workers

__all__ = ["command"]


@click.group("inspect", epilog="Example: leveret inspect workers --json")
def command() -> None:
    """Ask what workers do."""


@command.command("workers", epilog="Example: leveret inspect workers --url amqp://localhost --json")
@_common.url_option
@_common.as_json
def show_workers(url: str | None, as_json: bool) -> None:
    """Show the workers of a broker: where they are, what they consume, what they run.

    Workers report every 5 seconds; one that is gone without a word is shown for 15 more.
    """
    broker = _common.client(url, must_exist=True)
    found = workers(broker)
    where = broker.where()
    broker.close(1.0)
    if as_json:
        _common.emit({"url": _common.shown_url(url), "workers": found})
        return
    if not found:
        print(f"no workers at {where}; start one: leveret worker")
        return
    now = time.time()
    rows = [
        [
            worker["name"],
            worker["state"],
            ", ".join(worker["queues"]),
            worker["threads"],
            duration(now - worker["started"] / 1000),
            worker["succeeded"],
            worker["dead"],
            len(worker["running"]),
        ]
        for worker in found
    ]
    _common.print_table(
        ["worker", "state", "queues", "threads", "up", "succeeded", "dead", "running"], rows, title=where
    )
    jobs = [
        [worker["name"], job["task"], job["id"], duration(now - job["since"] / 1000)]
        for worker in found
        for job in worker["running"]
    ]
    if jobs:
        _common.print_table(["worker", "runs", "job", "for"], jobs)
