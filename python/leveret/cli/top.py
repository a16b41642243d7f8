"""`leveret top`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from leveret.cli import _common
from leveret.cli._workers import duration, workers

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leveret._core import Client

__all__ = ["command"]

_SHOWN_JOBS = 20
_SOONEST = 0.5
"""Seconds between two reports of a worker, at least."""


@click.command("top", epilog="Example: leveret top --url amqp://localhost --once --json")
@_common.queue_options
@_common.url_option
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, metavar="SECONDS", help="How often."
)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print, and end.")
@_common.as_json
def command(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    url: str | None,
    interval: float,
    once: bool,
    as_json: bool,
) -> int:
    """Show live what happens: queues, what waits in them and for how long, rates, workers and what they run.

    Rates are those of workers between two of their reports (every 5 seconds), of queues between two looks.
    Ctrl-C ends it. Without names: all queues on SQLite; `default` and `native` on RabbitMQ.
    """
    if as_json and not once:
        raise click.UsageError("--json needs --once.")
    if not once and not sys.stdout.isatty():
        raise click.UsageError("Standard output is no terminal: add --once.")
    broker = _common.client(url, must_exist=True)
    try:
        view = _View(broker, names, queues, _common.shown_url(url))
        if once:
            view.look()
            time.sleep(interval)
            facts = view.look()
            if as_json:
                _common.emit(facts)
            else:
                _print_once(facts)
            return 0
        _live(view, interval)
    except KeyboardInterrupt:
        pass
    finally:
        broker.close(1.0)
    return 0


class _View:
    """Looks at a broker again and again."""

    def __init__(self, broker: Client, names: tuple[str, ...], queues: tuple[str, ...], url: str) -> None:
        self._broker = broker
        self._names = names
        self._queues = queues
        self._url = url
        self._last: dict[str, tuple[float, int]] = {}
        """When a queue was looked at, and how many messages were there."""
        self._reports: dict[str, tuple[float, int, float]] = {}
        """When a worker reported, how many jobs had ended, and its rate."""

    def look(self) -> dict[str, Any]:
        """Return everything, as `--json` prints it."""
        now = time.time()
        queues = [self._queue(stats, now) for stats in _common.known_queues(self._broker, self._names, self._queues)]
        found = [self._worker(worker, now) for worker in workers(self._broker)]
        return {"url": self._url, "time": round(now, 3), "queues": queues, "workers": found}

    def _queue(self, stats: dict[str, Any], now: float) -> dict[str, Any]:
        name = stats["queue"]
        waiting = stats["ready"] + (stats["delayed"] or 0) + (stats["running"] or 0)
        before = self._last.get(name)
        self._last[name] = (now, waiting)
        change = None if before is None or now <= before[0] else round((waiting - before[1]) / (now - before[0]), 1)
        return {**stats, "oldest_s": self._oldest(name, now), "messages_change_per_s": change}

    def _oldest(self, queue: str, now: float) -> float | None:
        """Return for how long the oldest waiting message waits, by the time in its id; None where nobody can tell."""
        if not self._broker.capabilities()["browse_live"]:
            return None
        entries, _ = self._broker.browse(queue, "ready", "", "", 1)
        digits = entries[0]["id"].replace("-", "")[:12] if entries else ""
        version = entries[0]["id"][14:15] if entries else ""
        try:
            sent = int(digits, 16) / 1000 if version == "7" else None
        except ValueError:
            return None
        return None if sent is None else round(max(0.0, now - max(sent, entries[0]["due"] / 1000)), 3)

    def _worker(self, worker: dict[str, Any], now: float) -> dict[str, Any]:
        reported = now - worker["reported_s"]
        ended = worker["succeeded"] + worker["dead"]
        at, jobs, rate = self._reports.get(worker["name"], (worker["started"] / 1000, 0, 0.0))
        if reported - at > _SOONEST:
            rate = round(max(0, ended - jobs) / (reported - at), 1)
            self._reports[worker["name"]] = (reported, ended, rate)
        return {**worker, "jobs_per_s": rate}


def _tables(facts: dict[str, Any]) -> list[tuple[list[str], list[list[Any]]]]:
    """Return what is shown: headers and rows of each table."""
    queues = [
        [
            q["queue"],
            q["ready"],
            q["ready_jobs"],
            "-" if q["oldest_s"] is None else duration(q["oldest_s"]),
            q["delayed"],
            q["running"],
            q["dead"],
            q["consumers"],
            "-" if q["messages_change_per_s"] is None else f"{q['messages_change_per_s']:+,.1f}",
        ]
        for q in facts["queues"]
    ]
    found = [
        [w["name"], w["state"], ", ".join(w["queues"]), w["threads"], f"{w['jobs_per_s']:,.1f}", len(w["running"])]
        for w in facts["workers"]
    ]
    running = [
        [w["name"], job["task"], job["id"], duration(facts["time"] - job["since"] / 1000)]
        for w in facts["workers"]
        for job in w["running"]
    ]
    header = ["queue", "ready", "ready jobs", "oldest", "delayed", "running", "dead", "consumers", "messages/s"]
    return [
        (header, queues),
        (["worker", "state", "queues", "threads", "jobs/s", "running"], found),
        (["worker", "runs", "job", "for"], running[:_SHOWN_JOBS]),
    ]


def _print_once(facts: dict[str, Any]) -> None:
    print(facts["url"])
    for header, rows in _tables(facts):
        if rows:
            _common.print_table(header, rows)
    if not facts["workers"]:
        print("no workers; start one: leveret worker")


def _render(facts: dict[str, Any]) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{facts['url']}   {time.strftime('%H:%M:%S')}   Ctrl-C ends")]
    for header, rows in _tables(facts):
        if not rows:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in header:
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for row in rows:
            table.add_row(
                *(Text("-" if cell is None else f"{cell:,}" if type(cell) is int else str(cell)) for cell in row)
            )
        parts.append(table)
    if not facts["workers"]:
        parts.append(Text("no workers; start one: leveret worker"))
    return Group(*parts)


def _live(view: _View, interval: float) -> None:
    from rich.live import Live

    with Live(_render(view.look()), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(_render(view.look()), refresh=True)
