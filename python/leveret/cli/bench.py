"""`leveret bench`: rates of publishing and draining on this machine."""

from __future__ import annotations

import time
from typing import Any

import click

from leveret.cli import _common
from leveret.cli.demo import demo_plugin, rate, throwaway_url

__all__ = ["command"]

QUEUE = "leveret-bench"
PATIENCE = 3600.0


@click.command("bench", epilog="Example: leveret bench --url amqp://localhost --jobs 1000000 --threads 4")
@click.option("--url", metavar="URL", help="The broker; memory:// too. Default: a SQLite file in a temporary folder.")
@click.option(
    "--jobs", type=_common.count(_common.MOST_JOBS), default=1_000_000, show_default=True, help="How many jobs."
)
@click.option(
    "--threads", type=_common.count(_common.MOST_THREADS), default=4, show_default=True, help="The worker's threads."
)
@click.option(
    "--results", type=click.Choice(["on", "off"]), default="off", show_default=True, help="Whether results are stored."
)
@click.option(
    "--shards",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Over how many of the broker's queues the queue is spread.",
)
@click.option("--python", is_flag=True, help="Measure what Python costs: handlers, coroutines, sends, start-up.")
@click.option(
    "--rounds",
    type=_common.count(1_000),
    metavar="ROUNDS",
    help="With --python: how often each is measured. Default: 5.",
)
@_common.as_json
def command(
    url: str | None,
    jobs: int,
    threads: int,
    results: str,
    shards: int,
    python: bool,
    rounds: int | None,
    as_json: bool,
) -> int:
    """Publish jobs that do nothing by `send_many`, then drain them: validated, dispatched, settled, counted.

    The worker is in this process and begins when all are published. Both rates are of this machine, this minute:
    compare only what one run gave.

    With --python: Python handlers and coroutines in one process, durable sends beside the disk's own fsync, C++
    handlers in both pools, and start-up, round by round in turn. Exit code 1 if a worker did not run every job once.
    """
    if python:
        if shards > 1:
            raise ValueError("cannot measure --python with --shards: its jobs go to one queue; leave one out")
        return _python(url, jobs, rounds or 5, threads, results, as_json=as_json)
    if rounds is not None:
        raise ValueError("cannot measure --rounds without --python: give both, or neither")
    plugin = demo_plugin()
    with throwaway_url(url, "leveret-bench-") as broker:
        report = run(broker, str(plugin), jobs, threads, shards, results=results == "on")
    if as_json:
        _common.emit(report)
    else:
        rows = [
            [name, report[name]["jobs"], f"{report[name]['seconds']:.3f}", report[name]["jobs_per_s"]]
            for name in STAGES
        ]
        spread = f", {shards} shards" if shards > 1 else ""
        title = f"{report['url']}, {threads} threads, results {results}{spread}"
        _common.print_table(["", "jobs", "seconds", "jobs/s"], rows, title=title)
    return 0


STAGES = ("publish", "drain")


def _python(url: str | None, jobs: int, rounds: int, threads: int, results: str, *, as_json: bool) -> int:
    from leveret.cli import _bench_python

    if results == "on":
        raise ValueError("cannot measure --python with --results on: its jobs have none; leave one out")
    if url is not None:
        url = _common.shared_url(url)
    with throwaway_url(url, "leveret-bench-") as broker, _common.progress(shown=not as_json) as bars:
        report = _bench_python.run(broker, jobs, rounds, threads, bars, named=url is not None)
    if as_json:
        _common.emit(report)
    else:
        _bench_python.show(report)
    _bench_python.check(report)
    return 0


def run(url: str, plugin: str, number: int, threads: int, shards: int, *, results: bool) -> dict[str, Any]:
    """Measure; raise ClickException if the worker did not run every job."""
    import leveret
    from leveret import _core

    # Shards stay when a run is over, and workers would find them.
    queue = QUEUE if shards == 1 else f"{QUEUE}-{shards}"
    with leveret.App(url) as app:

        @app.native(queue=queue, shards=shards, ignore_result=not results)
        def noop() -> None:
            raise NotImplementedError

        broker = app.client()
        broker.declare(queue)
        for one in _common.shards(broker, queue):
            broker.purge(one)  # what a killed bench left
        began = time.perf_counter()
        sent = len(noop.send_many(() for _ in range(number)))
        published = time.perf_counter() - began

        worker = _core.Worker([plugin], url, [queue], threads, burst=True, log_level="warning")
        worker.start()
        finished = worker.wait_finished(PATIENCE)
        counts = worker.stop(10.0)
        for one in _common.shards(broker, queue):
            broker.purge(one)
        shown = app.url
    if not finished:
        raise click.ClickException(f"the worker did not drain {queue} within {PATIENCE:.0f} s")
    if (sent, counts["succeeded"], counts["dead"]) != (number, number, 0):
        raise click.ClickException(
            f"of {number} jobs {sent} were sent, {counts['succeeded']} succeeded and {counts['dead']} are dead"
        )
    return {
        "url": shown,
        "jobs": number,
        "threads": threads,
        "results": results,
        "shards": shards,
        "publish": rate(number, published),
        "drain": rate(counts["succeeded"], counts["seconds"]),
    }
