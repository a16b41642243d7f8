"""`leveret demo`: the main job, end to end, checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from leveret.cli import _common

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from leveret.app import App
    from leveret.job import Jobs

__all__ = ["command", "demo_plugin", "reference", "throwaway_url"]

QUEUE = "leveret-demo"
VALUES = 25
"""Jobs carry the values 0 to 24, as the quickstart's do."""
STOP_GRACE = 30.0


@click.command("demo", epilog="Example: leveret demo --url amqp://localhost --jobs 100000 --threads 4")
@click.option("--url", metavar="URL", help="The broker; memory:// too. Default: a SQLite file in a temporary folder.")
@click.option("--jobs", type=_common.count(_common.MOST_JOBS), default=10_000, show_default=True, help="How many jobs.")
@click.option(
    "--threads", type=_common.count(_common.MOST_THREADS), default=4, show_default=True, help="The worker's threads."
)
@_common.as_json
def command(url: str | None, jobs: int, threads: int, as_json: bool) -> int:
    """Run the main job: Python publishes, a C++ worker executes, and every result is checked here.

    A job's work is a thousand steps of a linear congruential generator from its value. The worker is a process of its
    own; on memory:// it is in this one. On RabbitMQ the jobs go to a queue of their own. Exit code 1 if anything is
    wrong.
    """
    plugin = demo_plugin()
    with throwaway_url(url, "leveret-demo-") as broker:
        report, problems = run(broker, plugin, jobs, threads, as_json=as_json)
    if as_json:
        _common.emit(report)
    else:
        show(report)
    if problems:
        raise click.ClickException("; ".join(problems))
    return 0


def demo_plugin() -> Path:
    """Return the packaged plugin. Raises ValueError if this package was built without it."""
    path = _common.package_folder() / "plugins/demo.so"
    if not path.is_file():
        raise ValueError(f"the demo's plugin {path} is missing: install the package (pip install .), or run make setup")
    return path


@contextmanager
def throwaway_url(url: str | None, prefix: str) -> Generator[str]:
    """Give the url, or that of a SQLite file in a temporary folder that is removed afterwards."""
    if url is not None:
        yield _common.broker_url(url)
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield f"sqlite:///{folder}/leveret.db"


def reference(value: int) -> int:
    """Return what the worker must answer: the computation of examples/quickstart/worker_sim.cpp."""
    x = value % 2**32
    for _ in range(1000):
        x = (x * 1664525 + 1013904223) % 2**32
    return x


class _Worker(Protocol):
    """A worker, wherever it runs."""

    def stop(self) -> dict[str, Any]:
        """End it, and return its counts: succeeded, retried, dead, seconds."""
        ...


class _Thread:
    """A worker in this process, for memory://."""

    def __init__(self, url: str, plugin: Path, threads: int) -> None:
        from leveret import _core

        self._worker = _core.Worker([str(plugin)], url, [QUEUE], threads, burst=False, log_level="warning")
        self._worker.start()

    def stop(self) -> dict[str, Any]:
        """End it, and return its counts."""
        return self._worker.stop(STOP_GRACE)


class _Process:
    """A worker in a process of its own; `app` is closed when it ends too early, so that nobody waits in vain."""

    def __init__(self, url: str, plugin: Path, threads: int, app: App) -> None:
        words = ["--queue", QUEUE, "--threads", str(threads), "--quiet", "--json", "--log-level", "warning"]
        self._app = app
        self._stopping = False
        self.ended_early = False
        # The url travels by the environment: a command line, with its password, is for every user to see.
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "leveret", "worker", str(plugin), *words],
            env={**os.environ, "LEVERET_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which stops the worker
        )
        self._output = ("", "")
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()

    def _wait(self) -> None:
        self._output = self._process.communicate()
        if not self._stopping:
            self.ended_early = True
            self._app.close()

    def stop(self) -> dict[str, Any]:
        """End it, and return its counts."""
        self._stopping = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._watch.join(STOP_GRACE + 10)
        if self._watch.is_alive():
            self._process.kill()
            self._watch.join()
        out, err = self._output
        if self._process.returncode != 0:
            last = (err.strip().splitlines() or ["it said nothing"])[-1]
            raise click.ClickException(f"the worker ended with exit code {self._process.returncode}: {last}")
        counts: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return counts


def run(url: str, plugin: Path, number: int, threads: int, *, as_json: bool) -> tuple[dict[str, Any], list[str]]:
    """Do it all; return the report and what was wrong."""
    import leveret

    app = leveret.App(url)
    with app, _common.progress(shown=not as_json) as bars:

        @app.native(queue=QUEUE)
        def work(id: int, value: int = 3) -> int:  # noqa: A002 - the quickstart's own names
            raise NotImplementedError

        broker = app.client()
        broker.declare(QUEUE)
        broker.purge(QUEUE)  # what a killed demo left
        began = time.perf_counter()
        jobs = work.send_many(bars.over(((i, i % VALUES) for i in range(number)), number, "published"))
        published = time.perf_counter() - began

        worker: _Worker = (
            _Thread(url, plugin, threads) if url.startswith("memory:") else _Process(url, plugin, threads, app)
        )
        try:
            checked, dead, wrong = check(jobs, bars)
        except leveret.Closed:
            worker.stop()
            raise click.ClickException("the worker ended before all jobs were executed") from None
        except BaseException:
            worker.stop()
            raise
        counts = worker.stop()
        broker.purge(QUEUE)
        broker.purge(f"{QUEUE}.dead")

    executed = counts["succeeded"] + counts["dead"]
    problems: list[str] = []
    if wrong:
        problems.append(f"{len(wrong)} wrong results, the first: {wrong[0]}")
    if dead:
        problems.append(f"{len(dead)} dead jobs, the first: {dead[0]}")
    if checked != number:
        problems.append(f"{checked} of {number} results are right")
    if executed != number:
        problems.append(f"the worker executed {executed} jobs, not {number}")
    report = {
        "url": app.url,
        "jobs": number,
        "threads": threads,
        "published": rate(number, published),
        "executed": rate(executed, counts["seconds"]),
        "succeeded": counts["succeeded"],
        "retried": counts["retried"],
        "dead": counts["dead"],
        "results_checked": checked,
    }
    return report, problems


def check(jobs: Jobs[int], bars: _common.Progress) -> tuple[int, list[str], list[str]]:
    """Compare every result with Python's own; return the number of right ones, dead jobs, wrong results."""
    import leveret

    expected = [reference(value) for value in range(VALUES)]
    right = 0
    dead: list[str] = []
    wrong: list[str] = []
    results = jobs.results(timeout=120 + len(jobs) / 1000, return_exceptions=True)
    for i, result in enumerate(bars.over(results, len(jobs), "executed")):
        if isinstance(result, leveret.JobFailed):
            dead.append(str(result))
        elif result == expected[i % VALUES]:
            right += 1
        else:
            wrong.append(f"job {i}: {result}, not {expected[i % VALUES]}")
    return right, dead, wrong


def rate(jobs: int, seconds: float) -> dict[str, Any]:
    """Return jobs, seconds and jobs per second."""
    return {"jobs": jobs, "seconds": round(seconds, 6), "jobs_per_s": round(jobs / seconds) if seconds > 0 else 0}


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    rows = [
        [name, report[name]["jobs"], f"{report[name]['seconds']:.3f}", report[name]["jobs_per_s"]]
        for name in ("published", "executed")
    ]
    _common.print_table(["", "jobs", "seconds", "jobs/s"], rows, title=report["url"])
    print(
        f"succeeded {report['succeeded']:,}, retried {report['retried']:,}, dead {report['dead']:,}; "
        f"{report['results_checked']:,} of {report['jobs']:,} results are right"
    )
