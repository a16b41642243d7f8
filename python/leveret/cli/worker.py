"""`leveret worker`."""

from __future__ import annotations

import click

from leveret.cli import _common

__all__ = ["command"]


@click.command("worker", epilog="Example: leveret worker tasks:app work.so --url sqlite:///jobs.db --threads 4")
@click.argument("targets", nargs=-1, required=True, metavar="APP|PLUGIN...")
@_common.url_option
@click.option(
    "--queue",
    "queues",
    multiple=True,
    envvar="LEVERET_QUEUE",
    metavar="QUEUE",
    help="Queue to consume; repeatable. Default: those of the tasks.",
)
@click.option(
    "--ordered",
    "ordered",
    multiple=True,
    envvar="LEVERET_ORDERED",
    metavar="QUEUE",
    help="Queue whose jobs with keys are run too, in order; repeatable. Default: those of the apps' ordered tasks.",
)
@click.option(
    "--threads",
    type=_common.count(_common.MOST_THREADS),
    envvar="LEVERET_THREADS",
    help="Threads that run handlers, in each process. Default: one a core.",
)
@click.option(
    "--processes",
    type=_common.count(_common.MOST_PROCESSES),
    default=1,
    show_default=True,
    envvar="LEVERET_PROCESSES",
    help="Processes that run handlers. Python code of one runs on one core.",
)
@click.option(
    "--concurrency",
    type=_common.count(_common.MOST_CONCURRENCY),
    default=100,
    show_default=True,
    envvar="LEVERET_CONCURRENCY",
    help="Coroutines that run at once in each process, at most.",
)
@click.option(
    "--pool",
    type=click.Choice(["processes", "threads"]),
    default="processes",
    show_default=True,
    envvar="LEVERET_POOL",
    help="threads: plugins run in the worker's own process, and a job that crashes takes it down.",
)
@click.option("--burst", is_flag=True, help="End when the queues are empty and nothing is running.")
@click.option(
    "--default-task",
    default="",
    envvar="LEVERET_DEFAULT_TASK",
    metavar="NAME",
    help='The task that gets JSON objects without a "task", each as its one argument.',
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    default=25.0,
    show_default=True,
    envvar="LEVERET_GRACE",
    metavar="SECONDS",
    help="What running jobs get at a stop (SIGTERM, Ctrl-C) before they are given back.",
)
@click.option(
    "--max-retries",
    type=click.IntRange(0, 1_000_000),
    default=3,
    show_default=True,
    envvar="LEVERET_MAX_RETRIES",
    help="Retries where neither job nor task says.",
)
@click.option(
    "--max-crashes",
    type=click.IntRange(1, 1_000_000),
    default=3,
    show_default=True,
    envvar="LEVERET_MAX_CRASHES",
    help="How often a job may take its process down before it is dead.",
)
@click.option(
    "--max-jobs-per-child",
    type=click.IntRange(0),
    default=0,
    envvar="LEVERET_MAX_JOBS_PER_CHILD",
    metavar="JOBS",
    help="A process that ran so many is replaced, once its running jobs have ended. Default: never.",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(0),
    default=0,
    envvar="LEVERET_MAX_MEMORY_PER_CHILD",
    metavar="MIB",
    help="A process that holds more memory of its own is replaced likewise. Default: never.",
)
@click.option(
    "--prefetch",
    type=click.IntRange(1, 65_535),
    default=64,
    show_default=True,
    envvar="LEVERET_PREFETCH",
    metavar="MESSAGES",
    help="Messages of a queue held at once, at most. Fewer leave slow jobs to other workers.",
)
@click.option(
    "--max-memory",
    type=_common.size("max_memory"),
    default=0,
    envvar="LEVERET_MAX_MEMORY",
    metavar="SIZE",
    help="Memory that the messages held take, at most: 256MB, 1GiB. Default: 256MiB for each queue.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="LEVERET_LOG_LEVEL",
    help="The least level of log lines on standard error.",
)
@click.option("--describe", is_flag=True, help="Print the tasks with their signatures, and end.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="LEVERET_LOG_FORMAT",
    help="json: one JSON object a line.",
)
@click.option(
    "--health",
    default="",
    envvar="LEVERET_HEALTH",
    metavar="HOST:PORT",
    help="Answer probes over HTTP: /livez while the worker's loop turns, /readyz while it consumes.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="For development: start again when a source file of the apps, or a plugin, changes. Needs leveret[reload].",
)
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    metavar="DIR",
    help="Folder whose *.py files --reload watches; repeatable. Default: those that the apps are imported from.",
)
@click.option("--quiet", is_flag=True, help="No banner.")
@_common.as_json
def command(
    targets: tuple[str, ...],
    url: str | None,
    queues: tuple[str, ...],
    ordered: tuple[str, ...],
    threads: int | None,
    processes: int,
    concurrency: int,
    pool: str,
    burst: bool,
    default_task: str,
    grace: float,
    max_retries: int,
    max_crashes: int,
    max_jobs_per_child: int,
    max_memory_per_child: int,
    prefetch: int,
    max_memory: int,
    log_level: str,
    log_format: str,
    describe: bool,
    health: str,
    reload: bool,
    reload_dirs: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> int:
    """Run a worker: execute jobs of the Python tasks of APPs (module:name) and of PLUGINs, compiled C++ files.

    Handlers run in processes of their own: one that crashes, hangs or leaks costs its own job alone.

    It runs until SIGTERM or Ctrl-C: then it stops receiving, lets running jobs end within the grace, gives the others
    back uncharged, and exits with 0; past the grace, or at a second signal, with 1.
    """
    if reload_dirs and not reload:
        raise ValueError("cannot watch --reload-dir without --reload: give both, or neither")
    if reload and (burst or describe):
        other = "--burst" if burst else "--describe"
        raise ValueError(f"cannot reload a worker that ends by itself: leave out --reload or {other}")
    if describe:
        from leveret.cli import _describe

        return _describe.describe(targets, as_json=as_json)
    from leveret import _child, _core
    from leveret.loading import is_app

    apps = [target for target in targets if is_app(target)]
    if pool == "threads" and apps:
        raise ValueError(f"cannot run {apps[0]} with --pool threads: Python tasks run in processes; leave it out")
    if processes * (threads or 1) > _common.MOST_THREADS:
        raise ValueError(
            f"cannot run {processes:,} processes of {threads:,} threads: {_common.MOST_THREADS:,} threads in all are "
            "the most"
        )
    if reload:
        from leveret.cli import _reload

        return _reload.supervise(
            click.get_current_context(), reload_dirs, grace=grace, log_level=log_level, log_format=log_format
        )
    if health:
        from leveret.health import serve

        serve(health)
    own = [] if pool == "processes" else list(targets)
    return _core.run_worker_command(
        plugins=own,
        child_command=[]
        if own
        else _child.command(targets, concurrency=concurrency, log_level=log_level, log_format=log_format),
        # Without --url an app's own counts; the processes know it.
        url=_common.shared_url(url) if url or not apps else "",
        processes=processes,
        concurrency=concurrency if apps else 0,
        queues=queues,
        ordered=ordered,
        threads=threads or 0,
        burst=burst,
        default_task=default_task,
        grace=grace,
        max_retries=max_retries,
        max_crashes=max_crashes,
        max_jobs_per_child=max_jobs_per_child,
        max_bytes_per_child=max_memory_per_child << 20,
        prefetch=prefetch,
        max_memory=max_memory,
        json=as_json,
        quiet=quiet,
        log_level=log_level,
        log_format=log_format,
    )
