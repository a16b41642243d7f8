"""`leveret purge`."""

from __future__ import annotations

import sys

import click

from leveret.cli import _common

__all__ = ["command"]


@click.command("purge", epilog="Example: leveret purge native --dead --yes")
@_common.queue_options
@_common.url_option
@click.option("--dead", is_flag=True, help="Remove the dead jobs instead of what waits.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common.as_json
def command(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    url: str | None,
    dead: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove all that waits in QUEUEs and their shards, or their dead jobs. It can't be undone."""
    wanted = list(dict.fromkeys([*names, *queues]))
    if not wanted:
        raise click.UsageError("Which QUEUE? Name at least one.")
    broker = _common.client(url, must_exist=True)
    shards = {name: _common.shards(broker, name) for name in wanted}
    what = "the dead jobs" if dead else "all that waits"
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"It would remove {what} of {', '.join(wanted)} and nobody can be asked: add --yes.")
        click.confirm(f"Remove {what} of {', '.join(wanted)} at {broker.where()}?", abort=True, err=True)
    removed = {name: sum(broker.purge(f"{one}.dead" if dead else one) for one in shards[name]) for name in wanted}
    if as_json:
        _common.emit({"url": _common.shown_url(url), "dead": dead, "removed": removed})
    else:
        for name, number in removed.items():
            unit = "dead job" if dead else "message"
            print(f"{name}: removed {number:,} {unit}{'s' * (number != 1)}")
    broker.close(1.0)
