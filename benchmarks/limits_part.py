"""Part `limits`: what a job's steps cost beside what bounds them, for the budget of docs/performance.md.

Lines read and checked, beside simdjson alone on the same lines; messages of 64 KiB to RabbitMQ, beside plain
rabbitmq-c, and to a SQLite file and out of it again, beside plain SQLite. What reads from RabbitMQ is in part `plain`.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from measure import ROOT, Contender, InAndOut, NotMeasuredError, Row, answer_of, bench_rates, compare, compiled
from plain_part import PLAIN, SIZE, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

PLAIN_SOURCES = ROOT / "benchmarks/plain"
COMMAND = "python benchmarks/suite.py limits"
LINES = {
    "noop()": lambda _: '{"task":"noop","retry_count":0}\n',
    "work(id, value)": lambda n: f'{{"task":"work","args":[{n},{n % 25}],"retry_count":0}}\n',
}
LINES_READ = 200_000
PASSES = 5
"""Times that a program reads the lines; the best counts."""
JOBS = 5_000_000
MESSAGE = 64 << 10
SIMDJSON, SQLITE = "simdjson", "SQLite alone"


@functools.cache
def codec() -> str:
    """Build the program that reads lines as a worker does; return its path."""
    program = ROOT / "build/bench/codec"
    program.parent.mkdir(parents=True, exist_ok=True)
    sources = [
        str(path)
        for path in (ROOT / "benchmarks/codec.cpp", ROOT / "src/body.cpp", *sorted(ROOT.glob("src/codec/*.cpp")))
    ]
    command = ["g++", "-std=c++17", "-O3", "-DNDEBUG", "-Isrc", "-Iinclude", *sources, "-lsimdjson", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise NotMeasuredError(f"cannot build codec.cpp: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return str(program)


def read(program: str, path: Path, expected: int) -> tuple[float, None]:
    """Have a program read the lines of a file; return its rate."""
    answer = answer_of([program, str(path), str(PASSES)])
    if (answer["lines"], answer["sum"]) != (LINES_READ, expected * PASSES):
        raise NotMeasuredError(f"{answer} is not what {LINES_READ:,} lines come to, {expected * PASSES}")
    return LINES_READ / float(str(answer["seconds"])), None


def our_sqlite() -> tuple[float, float]:
    """Publish and drain by `leveret bench`; return both rates."""
    return bench_rates(["--jobs", str(JOBS)], JOBS)


def plain_sqlite() -> tuple[float, float]:
    """Store as many bytes by SQLite alone, and take them out; return both rates, in jobs."""
    program = compiled(PLAIN_SOURCES / "sqlite.cpp", "-O2", "-lsqlite3")
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder:
        answer = answer_of([program, f"{folder}/plain.db", str(JOBS * SIZE // MESSAGE), str(MESSAGE)])
    return JOBS / float(str(answer["publish"])), JOBS / float(str(answer["drain"]))


def row(comparison: str, name: str, jobs: int, note: str, reference: str = "") -> Row:
    """Make a row of this part."""
    version = leveret.__version__ if name == "leveret" else ""
    return Row("limits", comparison, name, version, COMMAND, jobs, note=note, reference=reference)


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run the part."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="leveret-bench-") as folder:
        for number, (job, line) in enumerate(LINES.items()):
            path = Path(folder) / f"lines{number}"
            path.write_text("".join(map(line, range(LINES_READ))))
            total = sum(n + n % 25 for n in range(LINES_READ)) if number else 0
            named = f"lines of {job} read and checked, one thread"
            ours = row(named, "leveret", LINES_READ * PASSES, "checked as a worker does, arguments read", SIMDJSON)
            bound = row(named, SIMDJSON, LINES_READ * PASSES, "valid JSON, its fields read; nothing else is checked")

            def by_codec(path: Path = path, total: int = total) -> tuple[float, None]:
                return read(codec(), path, total)

            def by_simdjson(path: Path = path, total: int = total) -> tuple[float, None]:
                return read(compiled(PLAIN_SOURCES / "json_lines.cpp", "-O2", "-lsimdjson"), path, total)

            rows += compare([Contender(ours, by_codec), Contender(bound, by_simdjson)], rounds, say)

    bench = Bench(node)
    messages = JOBS * SIZE // MESSAGE

    def publish(*, ours: bool) -> tuple[float, None]:
        queue = f"bench-{os.urandom(4).hex()}"
        if ours:
            _, seconds = bench.fill(queue, JOBS, None)
        else:
            bench.fill(queue, 1, 1)
            seconds = bench.plain("publish", queue, messages, MESSAGE)
            if bench.left(queue) != messages + 1:
                raise NotMeasuredError(f"{bench.left(queue):,} messages are in the queue, not {messages + 1:,}")
        node.ctl("delete_queue", queue)
        return JOBS / seconds, None

    named = f"{JOBS:,} jobs in messages of 64 KiB published and confirmed, RabbitMQ"
    rows += compare(
        [
            Contender(row(named, "leveret", JOBS, "send_many from Python", PLAIN), lambda: publish(ours=True)),
            Contender(row(named, PLAIN, JOBS, "as many bytes, ready made"), lambda: publish(ours=False)),
        ],
        rounds,
        say,
        [node.pid],
    )
    stored = f"{JOBS:,} jobs in messages of 64 KiB stored, SQLite"
    drained = f"{JOBS:,} jobs in messages of 64 KiB drained, SQLite"
    ours, alone = InAndOut(our_sqlite), InAndOut(plain_sqlite)
    bytes_alone = "as many bytes, ready made; 16 messages a commit"
    return rows + compare(
        [
            Contender(row(stored, "leveret", JOBS, "send_many from Python", SQLITE), ours.publish),
            Contender(row(drained, "leveret", JOBS, "C++ worker: validated, dispatched, settled", SQLITE), ours.drain),
            Contender(row(stored, SQLITE, JOBS, bytes_alone), alone.publish),
            Contender(row(drained, SQLITE, JOBS, "read and deleted, decodes nothing"), alone.drain),
        ],
        rounds,
        say,
    )
