"""Part `scaling`: what a drain's rate depends on: results, the backlog, how many jobs a message has, the worker's pool.

Each figure is a run of `leveret bench`, which publishes, drains with C++ handlers that do nothing, and fails unless
every job was run once and the queue is empty; that of pools and processes one of `leveret worker`, whose jobs do
nothing, or compute, and fail if they compute something else than their sender did.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from leveret.cli.demo import demo_plugin
from measure import LEVERET, Contender, NotMeasuredError, Row, answer_of, compare, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

JOB_BYTES = 32
"""Of a job of the benchmark, as Leveret writes it."""
BACKLOGS = (10_000, 1_000_000, 10_000_000)
MESSAGES = {"1 job": (1, 50_000), "10 jobs": (10, 200_000), "100 jobs": (100, 1_000_000)}
"""Jobs of a message, and of the run."""
WHOLE, WHOLE_JOBS = "64 KiB, as sent", (64 << 10) // JOB_BYTES
FOLDER = Path(__file__).resolve().parent / "scaling"
STEPS_QUEUE = "bench-steps"
STEPS = {1_000: 400_000, 10_000: 80_000, 100_000: 8_000, 1_000_000: 1_000}
"""Steps of a C++ job, of some 0.9 ns each, and the jobs of a run."""
COMPUTED = "jobs that compute, C++, SQLite"
BARE = "bare loop"
BARE_STEPS, BARE_JOBS = 1_000_000, 1_000
"""Of a job, and the jobs of a run, of programs that only compute: what the machine's cores give."""
IDLE_QUEUE = "bench-idle"
POOLS = {
    "C++, 4 threads": ("", "--pool", "threads", "--threads", "4"),
    "C++, 1 process of 4 threads": ("", "--pool", "processes", "--processes", "1", "--threads", "4"),
    "Python, 1 process": ("noops:app", "--processes", "1", "--threads", "1"),
}
"""Of jobs that do nothing: the handlers, by default the C++ ones that Leveret brings, and a worker's words."""
IDLE_JOBS = 20_000_000
PYTHON_TARGET = "steps:app"
PYTHON_STEPS = {14_000: 800}
"""The same for Python, of some 70 ns each."""


def drained(url: str, jobs: int, *words: str, message_bytes: int | None = None) -> tuple[float, None]:
    """Run the benchmark; return the drain's rate."""
    environ = dict(os.environ)
    if message_bytes is not None:
        environ["LEVERET_BATCH_BYTES"] = str(message_bytes)
    command = [LEVERET, "bench", "--jobs", str(jobs), "--json", *words, *(["--url", url] if url else [])]
    found = answer_of(command, environ=environ)["drain"]
    if not isinstance(found, dict) or found["jobs"] != jobs:
        raise NotMeasuredError(f"{found} is not the drain of {jobs:,} jobs")
    return float(found["jobs_per_s"]), None


def built_plugin(folder: Path) -> str:
    """Build the plugin whose jobs compute; return its path."""
    plugin = str(folder / "steps.so")
    command = [LEVERET, "build", str(FOLDER / "steps.cpp"), "-o", plugin]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(built.stderr)
    return plugin


def generated(value: int, count: int) -> int:
    """Return where the generator is after some steps from a value, without taking each: a step is an affine map."""
    factor, constant, left = 1664525, 1013904223, count
    while left:
        if left % 2:
            value = (value * factor + constant) % 2**32
        factor, constant = factor * factor % 2**32, (factor * constant + constant) % 2**32
        left //= 2
    return value


def stepped(target: str, processes: int, steps: int, jobs: int) -> tuple[float, None]:
    """Have a worker with some processes compute; return its rate. A job that computes something else is dead."""
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder, leveret.App(f"sqlite:///{folder}/q.db") as app:

        @app.native(name="steps", queue=STEPS_QUEUE, ignore_result=True)
        def sent(value: int, count: int, end: int) -> None:
            raise NotImplementedError

        ends = [generated(value, steps) for value in range(25)]
        sent.send_many((number % 25, steps, ends[number % 25]) for number in range(jobs))
        return worked(app, STEPS_QUEUE, jobs, target, "--processes", str(processes), "--threads", "1"), None


def idled(target: str, *words: str, jobs: int) -> tuple[float, None]:
    """Have a worker run jobs that do nothing; return its rate."""
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder, leveret.App(f"sqlite:///{folder}/q.db") as app:

        @app.native(name="noop", queue=IDLE_QUEUE, ignore_result=True)
        def sent() -> None:
            raise NotImplementedError

        sent.send_many(() for _ in range(jobs))
        return worked(app, IDLE_QUEUE, jobs, target or str(demo_plugin()), *words), None


def worked(app: leveret.App, queue: str, jobs: int, target: str, *words: str) -> float:
    """Have a worker drain a queue; return its rate. Each job must have succeeded, and nothing be left."""
    command = [LEVERET, "worker", target, "--url", app.broker_url(), "--queue", queue, *words, "--burst", "--json"]
    answer = answer_of(command, cwd=FOLDER)
    left = sum((stats["ready"] or 0) + (stats["running"] or 0) for stats in app.client().stats(queue))
    if answer["succeeded"] != jobs or left:
        raise NotMeasuredError(f"of {jobs:,} jobs {answer['succeeded']:,} succeeded, {left:,} messages were left")
    return jobs / float(str(answer["seconds"]))


def bare(processes: int, steps: int, jobs: int) -> tuple[float, None]:
    """Run programs at once that take the steps of so many jobs, and nothing else; return the rate of all."""
    command = [compiled(FOLDER / "loop.cpp", "-O2"), str(steps * jobs // processes)]
    with ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(answer_of, [command] * processes))
    return jobs / max(float(str(answer["seconds"])) for answer in answers), None


def processes_of(named: str, target: str, lengths: dict[int, int], words: str) -> list[Contender]:
    """Return the rows of one process and of two, for jobs of each length: how many of them there are."""
    out = []
    for steps, jobs in lengths.items():
        one, two = (f"{words.format(steps)}, {processes}" for processes in ("1 process", "2 processes"))
        both = {
            one: (jobs, functools.partial(stepped, target, 1, steps, jobs)),
            two: (jobs, functools.partial(stepped, target, 2, steps, jobs)),
        }
        out += comparison(named, both, one, {one: steps, two: steps} if len(lengths) > 1 else None)
    return out


def comparison(
    named: str,
    contenders: dict[str, tuple[int, Callable[[], tuple[float, None]]]],
    reference: str,
    axis: dict[str, int] | None = None,
) -> list[Contender]:
    """Name the rows of a comparison; `axis` says where they stand in a plot."""
    out = []
    for name, (jobs, once) in contenders.items():
        row = Row("scaling", named, name, leveret.__version__, "python benchmarks/suite.py scaling", jobs)
        row.reference, row.x = reference, (axis or {}).get(name)
        out.append(Contender(row, once))
    return out


def computing(plugin: str) -> list[Contender]:
    """Return the rows of C++ jobs that compute, and of the machine."""
    loops = {
        f"{BARE}, {words}": (BARE_JOBS, functools.partial(bare, processes, BARE_STEPS, BARE_JOBS))
        for processes, words in ((1, "1 process"), (2, "2 processes"))
    }
    contenders = processes_of(COMPUTED, plugin, STEPS, "{:,} steps")
    return contenders + comparison(COMPUTED, loops, f"{BARE}, 1 process")


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    rows: list[Row] = []
    for broker, url, servers in (("SQLite", "", []), ("RabbitMQ", node.url, [node.pid])):

        def run(jobs: int, *words: str, size: int | None = None, at: str = url) -> Callable[[], tuple[float, None]]:
            return lambda: drained(at, jobs, *words, message_bytes=size)

        million = 1_000_000
        results = {
            "results off": (million, run(million, "--results", "off")),
            "results on": (million, run(million, "--results", "on")),
        }
        backlogs = {f"{jobs:,} jobs": (jobs, run(jobs)) for jobs in BACKLOGS}
        sizes = {name: (jobs, run(jobs, size=many * JOB_BYTES)) for name, (many, jobs) in MESSAGES.items()}
        sizes[WHOLE] = (million, run(million))
        waiting = {name: jobs for name, (jobs, _) in backlogs.items()}
        a_message = {name: many for name, (many, _) in MESSAGES.items()} | {WHOLE: WHOLE_JOBS}
        for about, contenders, axis in (
            ("drained, results", results, None),
            ("drained from a backlog", backlogs, waiting),
            ("drained, jobs a message", sizes, a_message),
        ):
            named = f"{about}, {broker}"
            rows += compare(comparison(named, contenders, next(iter(contenders)), axis), rounds, say, servers)
    pools = {name: (IDLE_JOBS, functools.partial(idled, *words, jobs=IDLE_JOBS)) for name, words in POOLS.items()}
    rows += compare(comparison("drained by a worker's pools, SQLite", pools, next(iter(pools))), rounds, say)
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder:
        plugin = built_plugin(Path(folder))
        rows += compare(computing(plugin), rounds, say)
    named = "jobs that compute for a millisecond, Python, SQLite"
    return rows + compare(processes_of(named, PYTHON_TARGET, PYTHON_STEPS, "{:,} steps"), rounds, say)
