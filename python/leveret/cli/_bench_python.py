"""`leveret bench --python`: what Python costs, side by side in one run.

Every row is measured in each round, so that rows that are compared had the same minute of the machine. A worker is
a real `leveret worker` in a process of its own; a row counts only if that settled every job and left the queue empty.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from leveret.cli import _common
from leveret.cli.demo import demo_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from leveret import NativeTask
    from leveret.app import App

__all__ = ["NotMeasured", "Row", "problem", "run", "show"]

QUEUE = "leveret-bench"
TASKS = "leveret.cli._bench_tasks:app"
SENDERS = 8
INTERPRETERS = 20
CONCURRENCY = 1_000
BLOCK = b"\n".rjust(4096)
"""What is written beside an fsync: a page, the least that a database writes."""

# How many jobs each row has, of `--jobs`: about as many seconds for each.
COROUTINES_PER_JOB = 10
SENDS_PER_JOB = 1_000
NATIVE_JOBS = 4
TURNS = 4
"""In a round, of sends and of writes to the disk: what others do to the disk lasts longer than one."""


class NotMeasured(Exception):  # noqa: N818 - no error of the program's: a row says it
    """Why a row has no figures."""


@dataclass
class Row:
    """One thing that is measured."""

    name: str
    what: str
    unit: str
    """Of the values: jobs/s, writes/s or ms."""
    jobs: int | None = None
    """How many, for each value."""
    goal: float | None = None
    """The least median that is good, or with `against` the least ratio to that row."""
    against: str | None = None
    """The name of another row."""
    values: list[float] = field(default_factory=list[float])
    why: str | None = None
    """Why it could not be measured."""

    def report(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the row as `--json` prints it."""
        shown: dict[str, Any] = {"row": self.name, "what": self.what, "unit": self.unit, "jobs": self.jobs}
        measured = self.why is None and bool(self.values)
        median = statistics.median(self.values) if measured else None
        other = next((row for row in rows if row.name == self.against and row.why is None), None)
        ratio = None
        if measured and other is not None:
            # Of each turn: what others took from the machine then, they took from both.
            ratio = statistics.median(mine / its for mine, its in zip(self.values, other.values, strict=True))
        reached = median if self.against is None else ratio
        return {
            **shown,
            "values": [_short(value) for value in self.values] if measured else [],
            "best": _short((min if self.unit == "ms" else max)(self.values)) if measured else None,
            "median": None if median is None else _short(median),
            "spread": None if not median else round((max(self.values) - min(self.values)) / median, 3),
            "against": self.against,
            "ratio": None if ratio is None else round(ratio, 3),
            "goal": self.goal,
            "reached": None if reached is None or self.goal is None else round(reached / self.goal, 3),
            "why": self.why,
        }


def _short(value: float) -> float:
    """Return a figure without digits that mean nothing."""
    return round(value) if value >= 100 else round(value, 2)  # noqa: PLR2004 - three digits


def run(
    url: str, jobs: int, rounds: int, threads: int, bars: _common.Progress, *, named: bool = True
) -> dict[str, Any]:
    """Measure everything; return what `--json` prints.

    Args:
        url: A broker that other processes can reach.
        named: Whether somebody chose it.
        jobs: Of no-op handlers in each round; the other rows have a part or a multiple of it.
        rounds: How often each row is measured.
        threads: Of the workers that run C++ handlers.
        bars: Show how far it is.
    """
    import leveret

    with leveret.App(url) as app:
        bench = _Bench(app, url, jobs, threads)
        steps = list(bench.steps(rounds))
        for names, measure in bars.over(iter(steps), len(steps), "measured"):
            bench.step(names, measure)
        shown = app.url
    rows = list(bench.rows.values())
    where = f" --url {shown}" if named else ""
    return {
        "command": f"leveret bench --python{where} --jobs {jobs} --rounds {rounds} --threads {threads}",
        "machine": machine(bench.folder),
        "url": shown,
        "jobs": jobs,
        "rounds": rounds,
        "threads": threads,
        "rows": [row.report(rows) for row in rows],
    }


class _Tasks(NamedTuple):
    """What is sent: the tasks of _bench_tasks.py, and one of the demo's plugin."""

    add: NativeTask[[int, int], None]
    nap: NativeTask[[], None]
    noop: NativeTask[[], None]


def _declare(app: App) -> _Tasks:
    @app.native(name="bench_add", queue=QUEUE, ignore_result=True)
    def add(x: int, y: int) -> None:
        raise NotImplementedError

    @app.native(name="bench_nap", queue=QUEUE, ignore_result=True)
    def nap() -> None:
        raise NotImplementedError

    @app.native(queue=QUEUE, ignore_result=True)
    def noop() -> None:
        raise NotImplementedError

    return _Tasks(add, nap, noop)


class _Bench:
    """The rows of a run, and how each is measured."""

    def __init__(self, app: App, url: str, jobs: int, threads: int) -> None:
        self._url = url
        self._threads = threads
        self._tasks = _declare(app)
        self._broker = app.client()
        path = _common.sqlite_path(url)
        self.folder = None if path is None else path.absolute().parent
        """Where a SQLite file is; None for other brokers."""
        naps = max(1, jobs // COROUTINES_PER_JOB)
        sends = max(SENDERS, jobs // SENDS_PER_JOB // SENDERS * SENDERS)
        native = jobs * NATIVE_JOBS
        found = [
            Row("python", "Python no-op", "jobs/s", jobs, 300_000),
            Row("coroutines", "coroutines of 10 ms", "jobs/s", naps, 20_000),
            Row("fsync", "append + fsync", "writes/s", sends),
            Row("fsync_in_place", "overwrite + fsync", "writes/s", sends),
            Row("send", "send, 1 thread", "jobs/s", sends, 0.8, "fsync"),
            Row("send_threads", f"send, {SENDERS} threads", "jobs/s", sends, 4.0, "send"),
            Row("native_processes", "C++ no-op, processes", "jobs/s", native, 0.9, "native_threads"),
            Row("native_threads", "C++ no-op, threads", "jobs/s", native),
            Row("import", "import leveret", "ms"),
            Row("help", "leveret --help", "ms"),
        ]
        if self.folder is None:  # then no disk of this machine is what sends wait for
            found = [row for row in found if not row.name.startswith("fsync")]
            next(row for row in found if row.name == "send").goal = None
            next(row for row in found if row.name == "send").against = None
        self.rows = {row.name: row for row in found}

    def steps(self, rounds: int) -> Iterator[tuple[tuple[str, ...], Callable[[str], float]]]:
        """Yield what is to be done in turn: the rows that belong together, and what measures one of them."""
        sends = ("fsync", "fsync_in_place", "send", "send_threads")
        sending = tuple(name for name in sends if name in self.rows)
        for number in range(rounds):
            yield ("python",), self._handlers
            yield ("coroutines",), self._handlers
            for _ in range(TURNS):
                yield sending, self._sending
            pools = ("native_processes", "native_threads")
            yield pools if number % 2 == 0 else pools[::-1], self._pool
        for _ in range(INTERPRETERS):
            yield ("import", "help"), _start_ms

    def step(self, names: Sequence[str], measure: Callable[[str], float]) -> None:
        """Measure rows that belong together, but those that could not be in an earlier round."""
        for row in map(self.rows.__getitem__, names):
            if row.why is None:
                try:
                    row.values.append(measure(row.name))
                except NotMeasured as error:
                    row.why = str(error)

    def _jobs(self, name: str) -> int:
        return self.rows[name].jobs or 0

    # ---- workers ----

    def _handlers(self, name: str) -> float:
        """Return what one process with Python handlers runs, in jobs a second."""
        number = self._jobs(name)

        with _queue(self._broker):
            if name == "python":
                self._tasks.add.send_many((i, i) for i in range(number))
            else:
                self._tasks.nap.send_many(() for _ in range(number))
            return self._drain(number, TASKS, "--threads", "1", "--concurrency", str(CONCURRENCY))

    def _pool(self, name: str) -> float:
        """Return what a pool runs of C++ handlers, in jobs a second."""
        try:
            plugin = str(demo_plugin())
        except ValueError as error:
            raise NotMeasured(str(error)) from None
        number = self._jobs(name)

        with _queue(self._broker):
            self._tasks.noop.send_many(() for _ in range(number))
            pool = name.removeprefix("native_")
            return self._drain(number, plugin, "--threads", str(self._threads), "--pool", pool)

    def _drain(self, number: int, target: str, *words: str) -> float:
        """Run a worker until the queue is empty; return what it ran in a second, by its own clock.

        That begins at the first delivery and ends when the last is settled.
        """
        own = ["--queue", QUEUE, "--processes", "1", "--burst", "--quiet", "--json", "--log-level", "warning"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
        patience = 60 + number / 1_000
        process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "leveret", "worker", target, *own, *words],
            # The url travels by the environment: a command line, with its password, is for every user to see.
            env={**kept, "LEVERET_URL": self._url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"the worker did not drain {QUEUE} within {patience:,.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            last = (err.strip().splitlines() or ["it said nothing"])[-1]
            raise NotMeasured(f"the worker ended with exit code {process.returncode}: {last}")
        counts: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        wrong = problem(counts, self._broker.stats(QUEUE)[0], number)
        if wrong is not None:
            raise NotMeasured(wrong)
        return number / float(counts["seconds"])

    # ---- sends ----

    def _sending(self, name: str) -> float:
        """Return durable writes, or sends, a second."""
        number = self._jobs(name)
        if self.folder is not None and name.startswith("fsync"):
            return number / _fsync_seconds(self.folder, number, in_place=name == "fsync_in_place")

        def send(some: int) -> None:
            for i in range(some):
                self._tasks.add.send(i, i)

        with _queue(self._broker):
            if name == "send":
                began = time.perf_counter()
                send(number)
                seconds = time.perf_counter() - began
            else:
                seconds = _at_once(send, number // SENDERS)
            stored = self._broker.stats(QUEUE)[0]["ready_jobs"]
            if stored not in {None, number}:
                raise NotMeasured(f"of {number:,} jobs that were sent {stored:,} are in {QUEUE}")
            return number / seconds


class _queue:  # noqa: N801 - used as a function
    """Has the queue there, and empty, at both ends of a block."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    def __enter__(self) -> None:
        self._broker.declare(QUEUE)
        self._broker.purge(QUEUE)  # what a killed bench left

    def __exit__(self, *_error: object) -> None:
        self._broker.purge(QUEUE)
        self._broker.purge(f"{QUEUE}.dead")


def problem(counts: dict[str, Any], stats: dict[str, Any], number: int) -> str | None:
    """Return why a worker's run counts for nothing; None if it ran every job once and the queue is empty.

    Args:
        counts: The worker's summary.
        stats: Of the queue, behind it.
        number: The jobs that were sent.
    """
    ended = {name: counts[name] for name in ("retried", "dead", "expired", "cancelled", "returned") if counts[name]}
    if counts["succeeded"] != number or ended:
        also = "".join(f", {count:,} {name}" for name, count in ended.items())
        return f"of {number:,} jobs {counts['succeeded']:,} succeeded{also}"
    left = {name: stats[name] for name in ("ready", "running", "delayed", "dead") if stats.get(name)}
    if left:
        return f"the queue is not empty: {', '.join(f'{count:,} {name}' for name, count in left.items())}"
    return None


def _fsync_seconds(folder: Path, number: int, *, in_place: bool) -> float:
    """Return what durable writes take; in place the file has its size before, which spares the disk its metadata."""
    path = folder / f"leveret-bench-{os.getpid()}.fsync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if in_place:
            for _ in range(number):
                os.write(file, BLOCK)
            os.fsync(file)
            os.lseek(file, 0, os.SEEK_SET)
        began = time.perf_counter()
        for _ in range(number):
            os.write(file, BLOCK)
            os.fsync(file)
        return time.perf_counter() - began
    finally:
        os.close(file)
        path.unlink()


def _at_once(work: Callable[[int], None], each: int) -> float:
    """Return the seconds that all threads took together; they begin when all are there."""
    start = threading.Barrier(SENDERS + 1)

    def one() -> None:
        start.wait()
        work(each)

    with ThreadPoolExecutor(SENDERS) as threads:
        running = [threads.submit(one) for _ in range(SENDERS)]
        start.wait()
        began = time.perf_counter()
        for each_one in running:
            each_one.result()
        return time.perf_counter() - began


def _start_ms(name: str) -> float:
    """Return the milliseconds that a fresh interpreter took: for the import alone, or for the whole program."""
    if name == "import":
        script = "import time; t = time.perf_counter(); import leveret; print(1e3 * (time.perf_counter() - t))"
        return float(_output("-c", script))
    began = time.perf_counter()
    _output("-m", "leveret", "--help")
    return 1e3 * (time.perf_counter() - began)


def _output(*words: str) -> str:
    answer = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)  # noqa: S603 - this program itself
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotMeasured(f"exit code {answer.returncode}: {last}")
    return answer.stdout


def machine(folder: Path | None) -> dict[str, Any]:
    """Return what the figures are of.

    Args:
        folder: Where the SQLite file is.
    """
    from leveret import __version__, _core
    from leveret.cli.doctor import mount_of

    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a name, no path of ours
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
                break
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "leveret": __version__,
        "libraries": _core.libraries(),
        "file_system": None if folder is None else mount_of(folder.resolve())[1],
    }


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    about = report["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(about["libraries"].items()))
    print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, file system {about['file_system'] or '-'}")
    print(f"Leveret {about['leveret']}, Python {about['python']}, {libraries}")
    print(report["command"])
    rows = [
        [
            row["what"],
            _figure(row["best"], row["unit"]),
            _figure(row["median"], row["unit"]),
            "-" if row["spread"] is None else f"{row['spread']:.0%}",
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
            _goal(row),
            "-" if row["reached"] is None else f"{row['reached']:.0%}",
        ]
        for row in report["rows"]
    ]
    title = f"{report['rounds']} rounds; {INTERPRETERS} interpreters"
    _common.print_table(["", "best", "median", "spread", "ratio", "goal", "reached"], rows, title=title)
    for row in report["rows"]:
        if row["why"] is not None:
            print(f"not measured: {row['row']}: {row['why']}")


def _figure(value: float | None, unit: str) -> str:
    """Return a value with three digits."""
    if value is None:
        return "-"
    if unit == "ms":
        return f"{value:.3g} ms"
    for least, short in ((1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g} {short}/s"
    return f"{value:.0f} /s"


def _goal(row: dict[str, Any]) -> str:
    if row["goal"] is None:
        return "-"
    if row["against"] is None:
        return _figure(row["goal"], row["unit"])
    return f"{row['goal']:g} of {row['against'].removeprefix('native_')}"


def check(report: dict[str, Any]) -> None:
    """Raise ClickException if a row is missing."""
    missing = [f"{row['row']}: {row['why']}" for row in report["rows"] if row["why"] is not None]
    if missing:
        raise click.ClickException(f"not measured: {'; '.join(missing)}")
