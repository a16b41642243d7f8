"""`leveret dead`."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from leveret.cli import _common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leveret._core import Client

__all__ = ["command"]

_PAGE = 2000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group("dead", epilog="Example: leveret dead list --queue native --json")
def command() -> None:
    """Show jobs that ended dead: they failed for good, and are kept; run them again, or drop them."""


class Filter(NamedTuple):
    """Which dead jobs are meant: those that fit all that is given."""

    ids: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    older: float | None = None
    newer: float | None = None

    @property
    def all(self) -> bool:
        """Whether every job fits."""
        return self == Filter()

    def fits(self, record: dict[str, Any], now: float) -> bool:
        """Tell whether a record is meant. A job's age counts from its last attempt; without one it has none."""
        if (self.ids and record["id"] not in self.ids) or (self.tasks and record["task"] not in self.tasks):
            return False
        if self.reasons and record["reason"] not in self.reasons:
            return False
        if self.older is None and self.newer is None:
            return True
        age = _age(record, now)
        if age is None:
            return False
        return (self.older is None or age >= self.older) and (self.newer is None or age <= self.newer)


def _age(record: dict[str, Any], now: float) -> float | None:
    from datetime import datetime

    if not record["attempts"]:
        return None
    return now - datetime.fromisoformat(record["attempts"][-1]["time"]).timestamp()


def _duration(_context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Read `90s`, `15m`, `2h`, `3d`, or seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration: write 90s, 15m, 2h or 3d", param=parameter)
    return float(found[1]) * _UNITS[found[2] or "s"]


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which jobs are meant."""
    for option in (
        click.option("--newer", metavar="DURATION", callback=_duration, help="Failed last within it."),
        click.option(
            "--older", metavar="DURATION", callback=_duration, help="Failed last before it: 90s, 15m, 2h, 3d."
        ),
        click.option("--reason", "reasons", multiple=True, metavar="REASON", help="Dead for this reason; repeatable."),
        click.option("--task", "tasks", multiple=True, metavar="TASK", help="Of this task; repeatable."),
    ):
        function = option(function)
    return function


@command.command("list", epilog="Example: leveret dead list --queue native --limit 20 --json")
@_common.queue_options
@_filters
@_common.url_option
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="At most so many jobs a queue."
)
@_common.as_json
def list_dead(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    tasks: tuple[str, ...],
    reasons: tuple[str, ...],
    older: float | None,
    newer: float | None,
    url: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the dead jobs of QUEUEs, oldest first, with their reason, error, attempts and body.

    Without names: of all queues on SQLite; of `default` and `native` on RabbitMQ.
    """
    broker = _common.client(url, must_exist=True)
    found = _common.known_queues(broker, names, queues)
    meant = Filter(tasks=frozenset(tasks), reasons=frozenset(reasons), older=older, newer=newer)
    records = [record for stats in found for record in _dead(broker, stats["queue"], meant, limit)]
    if as_json:
        _common.emit({"url": _common.shown_url(url), "jobs": records})
    elif not records:
        print(f"no dead jobs{'' if meant.all else ' like that'} at {broker.where()}")
    else:
        rows = [[r["queue"], r["id"], r["task"], r["reason"], len(r["attempts"]), r["error"]] for r in records]
        _common.print_table(["queue", "id", "task", "reason", "attempts", "error"], rows, title=broker.where())
    broker.close(1.0)


@command.command("show", epilog="Example: leveret dead show 01936c7a-0000-7000-8000-000000000000/1 --queue native")
@click.argument("job")
@click.option("--queue", required=True, metavar="QUEUE", help="The queue that it died in.")
@_common.url_option
@_common.as_json
def show(job: str, queue: str, url: str | None, as_json: bool) -> None:
    """Show all that is known of a dead JOB: its reason, error, every attempt, and the body."""
    from leveret.errors import NotFound

    broker = _common.client(url, must_exist=True)
    meant = Filter(ids=frozenset([job]))
    found = next((record for one in _common.shards(broker, queue) for record in _dead(broker, one, meant, 1)), None)
    where = broker.where()
    broker.close(1.0)
    if found is None:
        raise NotFound(f'job "{job}" is not among the dead jobs of {queue} at {where}; see leveret dead list {queue}')
    if as_json:
        _common.emit({"url": _common.shown_url(url), "job": found})
        return
    for name in ("id", "task", "queue", "reason", "error"):
        print(f"{name:<9} {found[name]}")
    for number, attempt in enumerate(found["attempts"], 1):
        print(f"attempt {number:<2}{attempt['time']}  {attempt['worker']}  {attempt['error']}")
    body = found["body"]
    print(f"{'body':<9} {body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)}")


def _change(
    verb: str,
    jobs: tuple[str, ...],
    queue: str,
    meant: Filter,
    every: bool,
    url: str | None,
    yes: bool,
    do: Callable[[Client, str, list[str], bool], int],
) -> tuple[int, int]:
    """Count the dead jobs that are meant, ask, and do it; return how many were meant and how many it was done to."""
    from leveret import _core
    from leveret.errors import NotFound

    _core.check_queue_name(queue)
    meant = meant._replace(ids=frozenset(jobs))
    if every != meant.all:
        raise click.UsageError("Which JOBs? Name some, say what they are like, or say --all.")
    broker = _common.client(url, must_exist=True)
    found = {
        one: [record["id"] for record in _dead(broker, one, meant, sys.maxsize)]
        for one in _common.shards(broker, queue)
    }
    ids = [each for here in found.values() for each in here]
    if jobs and len(ids) < len(meant.ids):
        raise NotFound(
            f"{len(meant.ids) - len(ids)} of the {len(meant.ids)} jobs are not among the dead jobs of {queue} at "
            f"{broker.where()} that are meant; see leveret dead list {queue}"
        )
    count = f"{len(ids):,} dead job{'s' * (len(ids) != 1)}"
    if ids and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"It would {verb} {count} of {queue} and nobody can be asked: add --yes.")
        click.confirm(f"{verb.capitalize()} {count} of {queue} at {broker.where()}?", abort=True, err=True)
    done = sum(do(broker, one, here, every) for one, here in found.items() if here)
    broker.close(5.0)
    return len(ids), done


def _changes(function: Callable[..., None]) -> Callable[..., None]:
    """Add what `replay` and `drop` take."""
    for option in (
        _common.as_json,
        _common.url_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--all", "every", is_flag=True, help="All dead jobs of the queue."),
        _filters,
        click.option("--queue", required=True, metavar="QUEUE", help="The queue that they died in."),
        click.argument("jobs", nargs=-1, metavar="[JOB]..."),
    ):
        function = option(function)
    return function


@command.command("replay", epilog="Example: leveret dead replay --queue native --reason exception --newer 1h --yes")
@_changes
def replay(
    jobs: tuple[str, ...],
    queue: str,
    tasks: tuple[str, ...],
    reasons: tuple[str, ...],
    older: float | None,
    newer: float | None,
    every: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Put dead JOBs back into their queue: they run again, with their retries from 0 on.

    Says how many there are and asks. A job's dead record goes once its new message is durable. Whoever waited for its
    result was told that it is dead, and is not told again. Jobs that no worker would take (malformed ones) stay.
    """
    meant = Filter(tasks=frozenset(tasks), reasons=frozenset(reasons), older=older, newer=newer)
    count, done = _change(
        "replay", jobs, queue, meant, every, url, yes, lambda broker, name, ids, all_: broker.replay(name, ids, all_)
    )
    if as_json:
        _common.emit({"url": _common.shown_url(url), "queue": queue, "matched": count, "replayed": done})
    else:
        stay = f"; {count - done:,} that no worker would take stay" if done < count else ""
        print(f"{queue}: put back {done:,} job{'s' * (done != 1)}{stay}")


@command.command("drop", epilog="Example: leveret dead drop --queue native --older 30d --yes")
@_changes
def drop(
    jobs: tuple[str, ...],
    queue: str,
    tasks: tuple[str, ...],
    reasons: tuple[str, ...],
    older: float | None,
    newer: float | None,
    every: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Remove dead JOBs for good. Says how many there are and asks: it can't be undone."""
    meant = Filter(tasks=frozenset(tasks), reasons=frozenset(reasons), older=older, newer=newer)
    count, done = _change(
        "drop", jobs, queue, meant, every, url, yes, lambda broker, name, ids, all_: broker.drop_dead(name, ids, all_)
    )
    if as_json:
        _common.emit({"url": _common.shown_url(url), "queue": queue, "matched": count, "dropped": done})
    else:
        print(f"{queue}: removed {done:,} dead job{'s' * (done != 1)}")


def _dead(broker: Client, queue: str, meant: Filter, limit: int) -> Iterator[dict[str, Any]]:
    """Give the dead records of a queue that are meant, page by page."""
    import time

    now, cursor, more = time.time(), "", True
    while more and limit > 0:
        entries, more = broker.dead(queue, cursor, _PAGE if meant.ids or not meant.all else min(limit, _PAGE))
        if not entries:
            return
        for _, text in entries:
            record: dict[str, Any] = json.loads(text)
            if limit > 0 and meant.fits(record, now):
                yield record
                limit -= 1
        cursor = entries[-1][0]
