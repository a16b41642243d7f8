"""`leveret queues`."""

from __future__ import annotations

import click

from leveret.cli import _common

__all__ = ["command"]


@click.command("queues", epilog="Example: leveret queues --url amqp://localhost --queue native --json")
@_common.queue_options
@_common.url_option
@_common.as_json
def command(names: tuple[str, ...], queues: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Show QUEUEs and what waits in them: messages, each of which carries one job or many.

    Without names: all queues on SQLite; `default` and `native` on RabbitMQ, which can't list them over AMQP. What a
    broker can't tell is a dash (null in JSON).
    """
    broker = _common.client(url, must_exist=True)
    found = _common.known_queues(broker, names, queues)
    if as_json:
        _common.emit({"url": _common.shown_url(url), "queues": found})
    elif not found:
        print(f"no queues at {broker.where()}")
    else:
        header = ["queue", "ready", "ready_jobs", "delayed", "running", "dead", "consumers"]
        _common.print_table(
            [name.replace("_", " ") for name in header],
            [[stats[name] for name in header] for stats in found],
            title=broker.where(),
        )
    broker.close(1.0)
