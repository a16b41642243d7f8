"""`leveret jobs`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import click

from leveret.cli import _common

if TYPE_CHECKING:
    from leveret._core import Client

__all__ = ["command"]

_STATES = ("queued", "scheduled", "running", "dead")
_MESSAGES = {"queued": "ready", "scheduled": "delayed", "running": "running"}
_PAGE = 100
_SHOWN = 60
"""Characters of arguments in a table."""
_MOST_SEARCHED = 10_000
"""Messages looked through for a job that is not in its first message any more."""

Found = Iterator[dict[str, Any]]


@click.group("jobs", epilog="Example: leveret jobs list --queue native --state queued --json")
def command() -> None:
    """List, show, cancel and retry jobs."""


@command.command("list", epilog="Example: leveret jobs list native --state scheduled --limit 20 --json")
@_common.queue_options
@_common.url_option
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these; repeatable.")
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="At most so many jobs a queue."
)
@_common.as_json
def list_jobs(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    url: str | None,
    states: tuple[str, ...],
    task: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the jobs of QUEUEs that wait, run or are dead, in their queue's order.

    A job that shares its message with running ones counts as running. RabbitMQ shows the dead alone: it hands
    messages out and does not show them.
    """
    broker = _common.client(url, must_exist=True)
    stats = _common.known_queues(broker, names, queues)
    shown = states or _default_states(broker)
    found: list[dict[str, Any]] = []
    for queue in (entry["queue"] for entry in stats):
        room = limit
        for state in (state for state in _STATES if state in shown):
            for job in _in_state(broker, queue, state):
                if task is not None and job["task"] != task:
                    continue
                if room == 0:
                    break
                room -= 1
                found.append(job)
    if as_json:
        _common.emit({"url": _common.shown_url(url), "jobs": found})
    elif not found:
        print(f"no jobs at {broker.where()}")
    else:
        rows = [[j["queue"], j["state"], j["id"], j["task"], j["retry_count"], _short(j["arguments"])] for j in found]
        _common.print_table(["queue", "state", "id", "task", "retries", "arguments"], rows, title=broker.where())
    broker.close(1.0)


@command.command("show", epilog="Example: leveret jobs show 01936c7a-0000-7000-8000-000000000000/1 --json")
@click.argument("job", metavar="JOB")
@_common.url_option
@_common.as_json
def show(job: str, url: str | None, as_json: bool) -> None:
    """Show what is known of JOB, by its id: its state, arguments, result, progress, attempts.

    On RabbitMQ only dead jobs of `default` and `native` are found.
    """
    broker = _common.client(url, must_exist=True)
    found = _find(broker, job)
    broker.close(1.0)
    if as_json:
        _common.emit({"url": _common.shown_url(url), "job": found})
        return
    width = max(map(len, found))
    for name, value in found.items():
        if value is not None and value != []:
            print(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@command.command("cancel", epilog="Example: leveret jobs cancel 01936c7a-0000-7000-8000-000000000000/1")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--terminate", is_flag=True, help="Kill the process of a worker's pool that runs one.")
@_common.url_option
@_common.as_json
def cancel(jobs: tuple[str, ...], terminate: bool, url: str | None, as_json: bool) -> None:
    """Have JOBs end as cancelled, by their ids.

    One that waits is not run any more; one that runs is asked (`current_job().cancelled`) and ends as its handler does,
    or with --terminate as cancelled, with the process that runs it. Nothing happens to a job that has ended.
    """
    broker = _common.client(url, must_exist=True)
    ended = broker.cancel(list(jobs), terminate)
    broker.close(5.0)
    outcomes = {job: "cancelled" if now else "asked" for job, now in zip(jobs, ended, strict=True)}
    if as_json:
        _common.emit({"url": _common.shown_url(url), "jobs": outcomes})
    else:
        for job, outcome in outcomes.items():
            print(f"{job}: {'cancelled' if outcome == 'cancelled' else 'workers are asked to end it'}")


@command.command("retry", epilog="Example: leveret jobs retry --queue native --all")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--queue", required=True, metavar="QUEUE", help="The queue that they died in.")
@click.option("--all", "every", is_flag=True, help="All dead jobs of the queue.")
@_common.url_option
@_common.as_json
def retry(jobs: tuple[str, ...], queue: str, every: bool, url: str | None, as_json: bool) -> None:
    """Put dead JOBs back into their queue, by their ids: they run again, with their retries from 0 on.

    Whoever waited for their results was told that they are dead, and is not told again. Jobs that no worker would take
    (malformed ones) stay.
    """
    from leveret import _core
    from leveret.errors import NotFound

    _core.check_queue_name(queue)
    if bool(jobs) == every:
        raise click.UsageError("Which JOBs? Name some, or say --all.")
    broker = _common.client(url, must_exist=True)
    wanted = set(jobs)
    number = sum(broker.replay(one, list(wanted), every) for one in _common.shards(broker, queue))
    where = broker.where()
    broker.close(5.0)
    if as_json:
        _common.emit({"url": _common.shown_url(url), "queue": queue, "retried": number})
    else:
        print(f"{queue}: put back {number:,} job{'s' * (number != 1)}")
    if number < len(wanted):
        raise NotFound(
            f"{len(wanted) - number} of the {len(wanted)} jobs are not among the dead jobs of {queue} at {where} that "
            f"can run again; see leveret dead list {queue}"
        )


def _default_states(broker: Client) -> tuple[str, ...]:
    return _STATES if broker.capabilities()["browse_live"] else ("dead",)


def _in_state(broker: Client, queue: str, state: str) -> Found:
    if state == "dead":
        yield from _dead(broker, queue)
        return
    for message in _messages(broker, queue, state):
        yield from _jobs_of(message, queue, state)


def _messages(broker: Client, queue: str, state: str, id_: str = "") -> Found:
    """Give messages in a state, page by page."""
    cursor, more = "", True
    while more:
        entries, more = broker.browse(queue, _MESSAGES[state], id_, cursor, _PAGE)
        if not entries:
            return
        yield from entries
        cursor = entries[-1]["cursor"]


def _jobs_of(message: dict[str, Any], queue: str, state: str, wanted: Callable[[str], bool] | None = None) -> Found:
    """Give the jobs of a message; `wanted` looks at their ids."""
    for number, line in enumerate(message["data"].split(b"\n"), 1):
        if not line.strip():
            continue
        job = _fields(line)
        id_ = str(job["id"]) if "task" in job and "id" in job else f"{message['id']}/{number}"
        if wanted is not None and not wanted(id_):
            continue
        yield {
            "id": id_,
            "task": job.get("task"),
            "queue": queue,
            "state": state,
            "retry_count": job.get("retry_count"),
            "arguments": _arguments(job),
            "due": message["due"] or None,
            "errors": job.get("errors", []),
        }


def _fields(line: str | bytes) -> dict[str, Any]:
    """Return a job's fields; none of what is no object."""
    try:
        found: Any = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _arguments(job: dict[str, Any]) -> Any:
    """Return a job's arguments: an array, an object, or both in an array."""
    args: Any = job.get("args") or []
    kwargs: Any = job.get("kwargs") or {}
    if args and kwargs:
        return [*args, kwargs]
    return kwargs or args


def _dead(broker: Client, queue: str) -> Found:
    cursor, more = "", True
    while more:
        entries, more = broker.dead(queue, cursor, 500)
        if not entries:
            return
        for _, text in entries:
            yield _of_record(json.loads(text))
        cursor = entries[-1][0]


def _of_record(record: dict[str, Any]) -> dict[str, Any]:
    fields = _fields(record.get("body", ""))
    return {
        "id": record["id"],
        "task": record["task"],
        "queue": record["queue"],
        "state": "dead",
        "retry_count": fields.get("retry_count"),
        "arguments": _arguments(fields),
        "due": None,
        "errors": record["attempts"],
        "reason": record["reason"],
        "error": record["error"],
    }


def _find(broker: Client, id_: str) -> dict[str, Any]:
    """Return what is known of a job. Raises NotFound, ValueError for what is no id."""
    from leveret.errors import NotFound

    message, slash, line = id_.rpartition("/")
    if not slash or not message or not line.isdecimal():
        raise ValueError(f'"{id_}" is no job\'s id: <message id>/<line>')
    live = broker.capabilities()["browse_live"]
    queues = [stats["queue"] for stats in _common.known_queues(broker, (), ())]
    for job in _candidates(broker, queues, id_, message, live=live):
        job["progress"] = json.loads(broker.progress(id_) or "null") if live else None
        return job
    if live:
        for _, _, _, chunk in broker.fetch_results([message]):
            for text in chunk.splitlines():
                row: dict[str, Any] = json.loads(text)
                behind = int(line) - row.pop("line")
                run = row.pop("results", None)
                if run is not None and 0 <= behind < len(run):
                    behind, row["result"] = 0, run[behind]
                if behind == 0:
                    told = json.loads(broker.progress(id_) or "null")
                    return {"id": id_, "state": row.pop("state", "succeeded"), **row, "progress": told}
    raise NotFound(
        f"nothing is known of the job {id_} at {broker.where()}: it ended without a result or long ago, or was never "
        "sent" + ("" if live else "; RabbitMQ shows dead jobs alone")
    )


def _candidates(broker: Client, queues: list[str], id_: str, message: str, *, live: bool) -> Found:
    """Give the job from every place where it may be, the likeliest first."""

    def same(other: str) -> bool:
        return other == id_

    states = tuple(_MESSAGES) if live else ()
    for queue in queues:
        for state in states:
            for found in _messages(broker, queue, state, message):
                yield from _jobs_of(found, queue, state, same)
    for queue in queues:
        yield from (job for job in _dead(broker, queue) if job["id"] == id_)
    places = (
        (queue, state, found) for queue in queues for state in states for found in _messages(broker, queue, state)
    )
    for queue, state, found in islice(places, _MOST_SEARCHED):
        if id_.encode() in found["data"]:
            yield from _jobs_of(found, queue, state, same)


def _short(arguments: Any) -> str:
    """Return arguments for a table."""
    text = json.dumps(arguments, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
