"""What all parts of the suite share: rounds, rows, what was executed, processor time, the machine."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PYTHON = str(ROOT / ".venv/bin/python")
LEVERET = str(ROOT / ".venv/bin/leveret")


class NotMeasuredError(Exception):
    """A figure that can't be given, and why. The suite goes on; the row says so."""


@dataclass
class Row:
    """One contender of one comparison.

    `rates` has a figure for each round, in `unit`; `reference` is the name of the row of the same comparison that
    `ratio` divides by, round by round, and takes the median of. For plots: `x` is where it stands on its comparison's
    axis; `percentiles` are those of single figures, of all rounds; `points` is how its figure came about.
    """

    part: str
    comparison: str
    name: str
    version: str
    command: str
    jobs: int
    note: str = ""
    rates: list[float] = field(default_factory=list)
    cpu_s_per_million: float | None = None
    not_measured: str = ""
    reference: str = ""
    ratio: float | None = None
    unit: str = "jobs/s"
    x: float | None = None
    percentiles: dict[str, float] = field(default_factory=dict)
    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds' rates."""
        return statistics.median(self.rates)

    @property
    def less_is_better(self) -> bool:
        """Whether the figures are times or memory."""
        return self.unit in {"µs", "MB"}

    @property
    def best(self) -> float:
        """The best round's figure."""
        return min(self.rates) if self.less_is_better else max(self.rates)

    def as_json(self) -> dict[str, object]:
        """Return it with median, best and spread (best less worst, over the median)."""
        out = {key: value for key, value in asdict(self).items() if value not in ("", None, {}, [])}
        out["rates"] = [round(rate, 1) for rate in self.rates]
        out["less_is_better"] = self.less_is_better
        if self.not_measured:
            out["not_measured"] = f"not measured: {self.not_measured}"
        else:
            spread = (max(self.rates) - min(self.rates)) / self.median
            out |= {"median": round(self.median, 1), "best": round(self.best, 1), "spread": round(spread, 2)}
        return out


@dataclass
class Contender:
    """Who takes part in a comparison: a row to fill, and what gives one round's rate and processor seconds.

    Who gives None for them is charged with the whole round: publishing, starting and ending programs included.
    """

    row: Row
    once: Callable[[], tuple[float, float | None]]


def compare(
    contenders: list[Contender], rounds: int, say: Callable[[str], None], servers: Sequence[int] = ()
) -> list[Row]:
    """Measure round by round, everybody in turn. Who fails once is out, with the reason.

    `servers` are processes that work for everybody: what they use in a round is its contender's.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(1, rounds + 1):
        for contender in contenders:
            row = contender.row
            if row.not_measured:
                continue
            say(f"{row.part}: {row.comparison}, {row.name}, round {number} of {rounds}")
            used = used_so_far(servers)
            try:
                rate, cpu = contender.once()
            except Exception as why:  # noqa: BLE001 - a server that died, a library that raised: the row says so
                row.not_measured, row.rates = str(why) or type(why).__name__, []
                continue
            row.rates.append(rate)
            seconds.setdefault((row.comparison, row.name), []).append(
                used_so_far(servers) - used if cpu is None else cpu
            )
    rows = [contender.row for contender in contenders]
    for row in rows:
        if row.not_measured:
            continue
        if not row.less_is_better:
            used_up = statistics.median(seconds[row.comparison, row.name])
            row.cpu_s_per_million = round(used_up / row.jobs * 1e6, 2) if used_up else None
        beside = (r for r in rows if (r.comparison, r.name) == (row.comparison, row.reference) and not r.not_measured)
        other = next(beside, None)
        if other is not None:
            ratio = statistics.median(mine / theirs for mine, theirs in zip(row.rates, other.rates, strict=True))
            row.ratio = round(ratio, 2)
    return rows


def machine() -> dict[str, object]:
    """Describe the machine and its load."""
    model = "unknown"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def tree(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def processor_seconds(processes: list[int]) -> float:
    """Return what processes and their descendants have used so far, ended children included."""
    ticks = 0
    for process in {each for top in processes for each in tree(top)}:
        with contextlib.suppress(OSError):
            numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(number) for number in numbers[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def used_so_far(servers: Sequence[int]) -> float:
    """Return the processor seconds of this process, of its children that have ended, and of servers."""
    mine = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in mine) + processor_seconds(list(servers))


@contextlib.contextmanager
def running(command: list[str], log: Path, environ: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its output in a file; end it, and all that it started, by SIGTERM, after 30 s by SIGKILL."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ, cwd=cwd, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_lines(log: Path, count: int = 3) -> str:
    """Return the end of a log on one line."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(line.strip() for line in lines[-count:])


def answer_of(
    command: list[str], timeout: float = 600, environ: dict[str, str] | None = None, cwd: Path = ROOT
) -> dict[str, object]:
    """Run a program that prints one JSON object last; return that.

    Raises:
        NotMeasuredError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, env=environ)
    if done.returncode != 0:
        end = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise NotMeasuredError(f"exit code {done.returncode}: {end}")
    answer: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def bench_rates(words: list[str], jobs: int, environ: dict[str, str] | None = None) -> tuple[float, float]:
    """Run `leveret bench`; return the rates of publishing and of draining.

    Raises:
        NotMeasuredError: it failed, or is not of so many jobs.
    """
    answer = answer_of([LEVERET, "bench", *words, "--json"], environ=environ)
    rates = []
    for stage in ("publish", "drain"):
        found = answer[stage]
        if not isinstance(found, dict) or found["jobs"] != jobs:
            raise NotMeasuredError(f"{stage}: {found} is not that of {jobs:,} jobs")
        rates.append(float(found["jobs_per_s"]))
    return rates[0], rates[1]


class InAndOut:
    """Jobs published, then drained, in one run; each of the two is a contender of a comparison of its own."""

    def __init__(self, run: Callable[[], tuple[float, float]]) -> None:
        """Take what does both and returns both rates."""
        self._run = run
        self._drained: list[float] = []

    def publish(self) -> tuple[float, None]:
        """Do both; return the rate of publishing and keep the other. The processor time is that of both."""
        published, drained = self._run()
        self._drained.append(drained)
        return published, None

    def drain(self) -> tuple[float, float]:
        """Return the rate of draining, whose processor time is counted with the publishing."""
        if not self._drained:
            raise NotMeasuredError("its jobs were not published")
        return self._drained.pop(), 0.0


@functools.cache
def compiled(source: Path, *flags: str) -> str:
    """Build a C++ program under build/bench, once a run; return its path.

    Raises:
        NotMeasuredError: it can't be built.
    """
    program = ROOT / "build/bench" / (source.stem + "".join(flags))
    program.parent.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-std=c++17", str(source), "-o", str(program), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasuredError(f"cannot build {source.name}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return str(program)


def wait_until(true: Callable[[], bool], progress: Callable[[], object], patience: float = 60.0) -> bool:
    """Look every millisecond until something is true; False when `progress` has not changed for `patience` seconds."""
    seen, since = progress(), time.monotonic()
    while not true():
        if (now := progress()) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            return False
        time.sleep(0.001)
    return True
