"""Producers and workers at work while what they stand on breaks, and a checker at the end.

    python tests/faults/run.py [sqlite] [rabbitmq] [--seconds 40] [--seed N] [--every 0.4] [--rate 40000] [--json]

Without a broker's name: both, one after the other. Prints one table for each: the faults, how often each was
injected, what was accepted until the next one, what of that was lost, runs of jobs that had run before, and how long it
took until jobs ran again. The exit code is 1 if a promise was broken. The seed decides which faults come when, and what
the producers send; what falls together with what is the machine's affair.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table
from support.processes import LEVERET

if TYPE_CHECKING:
    from collections.abc import Callable

from faults.brokers import FaultyBroker, FaultyRabbit, FaultySqlite
from faults.cast import Actor, children_of, python
from faults.checker import Verdict, check
from faults.history import Effects, Event, key_of, read_effects, read_log
from faults.producer import PYTHON_QUEUE

QUEUE = "jobs"
WORKERS = 3
PRODUCERS = 2
PLUGIN = Path(__file__).resolve().parent.parent / "system/plugins/effects.cpp"
ORDERED = [f"{QUEUE}.ordered.{shard}" for shard in range(16)]
SUSPECTS = [QUEUE + ".suspects", QUEUE + PYTHON_QUEUE + ".suspects"]
GROUPS = [[QUEUE], [QUEUE + PYTHON_QUEUE], *([queue] for queue in SUSPECTS), ORDERED]
"""What is asked for together is there together."""
LAST_RETRY = 12
"""Seconds in which every retry is due: the third waits up to 4 s, in steps of RabbitMQ's delays."""
APPS = "faults.apps:app"
STARTS = 6.0
"""Seconds from the start in which nothing is broken, and no job breaks anything."""
CALM = 3.0
"""Seconds without faults at the start, in which no job may run twice."""
CALM_ROW = "(calm)"
LEAST_FAULTS = 6
"""A run goes on until there were so many: one that restarts a server may take as long as a short run."""
WINDOW_JOBS = 64 * 60
"""Jobs that one worker may have started and not settled: 64 messages of 2 KiB."""


@dataclass
class Injected:
    """One fault of a run."""

    name: str
    began: float
    place: int
    """How long the handlers' file was."""
    back: float | None = None
    """Seconds from its end until jobs ran again."""


@dataclass
class Row:
    """A line of the table."""

    times: int = 0
    accepted: int = 0
    lost: int = 0
    duplicated: int = 0
    back: list[float] = field(default_factory=list)


class Run:
    """One run."""

    def __init__(self, broker: FaultyBroker, folder: Path, plugin: Path, arguments: argparse.Namespace) -> None:
        """Make it; `go` does it."""
        self._broker = broker
        self._folder = folder
        self._plugin = plugin
        self._options = arguments
        self._chance = random.Random(arguments.seed)
        self._effects = folder / "effects"
        self._effects.touch()
        self._ended = threading.Event()
        self._workers: list[Actor] = []
        self._producers: list[Actor] = []
        self._calm_over = folder / "calm-over"
        """There from the first fault on."""
        self._indexes = iter(range(1, 1_000_000))
        self.injected: list[Injected] = []
        self.notes: list[str] = []

    # The cast

    def _worker(self, number: int) -> Actor:
        words = [str(LEVERET), "worker", "--url", self._broker.url, "--queue", QUEUE, "--grace", "5"]
        words += ["--ordered", QUEUE]
        if number == 0:
            words += [str(self._plugin), "--pool", "threads", "--threads", "2"]
        else:
            words += [APPS, str(self._plugin), "--queue", QUEUE + PYTHON_QUEUE, "--threads", "2", "--processes", "2"]
        return Actor(lambda: words, self._folder / f"worker{number}.log")

    def _producer(self, number: int) -> Actor:
        def command() -> list[str]:
            index = 2 * next(self._indexes)
            rate = self._options.rate / PRODUCERS
            words = [self._broker.url, QUEUE, str(self._effects), str(self._folder / f"log{index}"), str(index)]
            words += [str(self._options.seed * 1_000 + index), str(rate), str(self._calm_over)]
            return python("faults.producer", *words)

        return Actor(command, self._folder / f"producer{number}.log")

    # The faults that need no broker

    def _kill(self, actors: list[Actor], chance: random.Random, number: signal.Signals = signal.SIGKILL) -> None:
        chance.choice(actors).signal(number)

    def _pause(self, actors: list[Actor], chance: random.Random, wait: Callable[[float], object]) -> None:
        actor = chance.choice(actors)
        if actor.signal(signal.SIGSTOP):
            wait(chance.uniform(0.05, 1.5))
            actor.signal(signal.SIGCONT)

    def _kill_child(self, chance: random.Random) -> None:
        pid = chance.choice(self._workers).pid
        children = children_of(pid) if pid is not None else []
        if children:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(chance.choice(children), signal.SIGKILL)

    def _faults(self) -> dict[str, tuple[float, Callable[[random.Random, Callable[[float], object]], None]]]:
        workers, producers = self._workers, self._producers
        return {
            "worker killed": (4.0, lambda chance, _wait: self._kill(workers, chance)),
            "worker asked to stop": (2.0, lambda chance, _wait: self._kill(workers, chance, signal.SIGTERM)),
            "worker stalls": (2.0, lambda chance, wait: self._pause(workers, chance, wait)),
            "worker's child killed": (4.0, lambda chance, _wait: self._kill_child(chance)),
            "producer killed": (2.0, lambda chance, _wait: self._kill(producers, chance)),
            "producer stalls": (1.0, lambda chance, wait: self._pause(producers, chance, wait)),
            **self._broker.faults(),
        }

    # The run

    def go(self) -> None:
        """Start everything, break things, let all jobs end."""
        calm_until = time.monotonic() + STARTS
        self._workers += [self._worker(number) for number in range(WORKERS)]
        self._producers += [self._producer(number) for number in range(PRODUCERS)]
        try:
            if not self._wait_for_growth(0, 240):
                self.notes.append(f"no job ran within 240 s of the start: see the logs in {self._folder}")
                return
            self._ended.wait(max(CALM, calm_until - time.monotonic()))
            faults = self._faults()
            names, weights = list(faults), [weight for weight, _ in faults.values()]
            end = time.monotonic() + self._options.seconds
            while time.monotonic() < end or len(self.injected) < LEAST_FAULTS:
                name = self._chance.choices(names, weights)[0]
                # Drawn before anything runs: how long things take must not change what comes next.
                inner, pause = random.Random(self._chance.random()), self._chance.expovariate(1 / self._options.every)
                self._inject(name, faults[name][1], inner)
                self._ended.wait(min(pause, 5 * self._options.every))
            self._broker.heal()
        finally:
            self._broker.heal()
            for producer in self._producers:
                if not producer.retire(120):
                    self.notes.append("a producer did not end by SIGTERM within 120 s")
        try:
            self._drain()
        finally:
            for worker in self._workers:
                if not worker.retire(120):
                    self.notes.append("a worker did not end by SIGTERM within 120 s")

    def _inject(
        self, name: str, do: Callable[[random.Random, Callable[[float], object]], None], chance: random.Random
    ) -> None:
        fault = Injected(name, time.monotonic(), self._effects.stat().st_size)
        self.injected.append(fault)
        self._calm_over.touch()  # behind the fault's place: no job breaks anything before
        print(f"{fault.began:.2f} {name}", file=sys.stderr, flush=True)
        do(chance, self._ended.wait)
        over = time.monotonic()
        if self._wait_for_growth(self._effects.stat().st_size, 4 * self._broker.heals_within):
            fault.back = time.monotonic() - over

    def _wait_for_growth(self, size: int, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self._effects.stat().st_size <= size:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _ask(self, *words: str) -> dict[str, Any] | None:
        """Return what the command line answers; None: there is no such queue."""
        command = [LEVERET, *words, "--url", self._broker.direct_url, "--json"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        if "NOT_FOUND" not in done.stderr and "no queue" not in done.stderr:
            self.notes.append(f"leveret {words[0]}: {done.stderr.strip()}")
        return None

    def _drain(self) -> None:
        """Wait until every queue is empty: a queue of RabbitMQ says nothing of retries that are not due yet."""
        deadline = time.monotonic() + 300
        empty = 0
        while empty < (2 if isinstance(self._broker, FaultySqlite) else LAST_RETRY):
            busy = []
            for group in GROUPS:
                found = self._ask("queues", *group)
                busy += [
                    q
                    for q in (found or {"queues": []})["queues"]
                    if any(q[kind] or 0 for kind in ("ready", "delayed", "running"))
                ]
            empty = 0 if busy else empty + 1
            if time.monotonic() > deadline:
                self.notes.append(f"the queues were not empty 300 s after the last fault: {busy}")
                return
            time.sleep(1)

    # The end

    def dead(self) -> list[int]:
        """Return the numbers of the jobs on record as dead."""
        numbers = []
        for group in ([QUEUE], [QUEUE + PYTHON_QUEUE], ORDERED):
            found = self._ask("dead", "list", *group, "--limit", "100000") or {"jobs": []}
            for job in found["jobs"]:
                body = job["body"]
                numbers.append(int((json.loads(body) if isinstance(body, str) else body)["args"][1]))
        return numbers

    def events(self) -> list[Event]:
        """Return what all producers noted."""
        return [event for path in self._folder.glob("log*") for event in read_log(path)]

    def judge(self) -> tuple[Verdict, dict[str, Row]]:
        """Check the promises; what is broken is in `notes`."""
        effects, events = read_effects(self._effects), self.events()
        verdict = check(events, effects, self.dead(), order=key_of)
        rows = self._rows(verdict, effects, events)
        if rows[CALM_ROW].duplicated:
            self.notes.append(f"{rows[CALM_ROW].duplicated} jobs ran twice before the first fault")
        most = (len(self.injected) * WORKERS + verdict.dead * 4) * WINDOW_JOBS
        if len(verdict.duplicates) > most:
            self.notes.append(f"{len(verdict.duplicates)} runs of jobs that had run before: more than {most}")
        for what, numbers in (
            ("lost", verdict.lost),
            ("unexpected", verdict.unexpected),
            ("misordered", verdict.misordered),
        ):
            if numbers:
                self.notes.append(f"{len(numbers)} jobs {what}, among them {sorted(numbers)[:10]}")
        for fault in self.injected:
            if fault.back is None or fault.back > self._broker.heals_within:
                after = f"{fault.back or 4 * self._broker.heals_within:.1f} s"
                self.notes.append(f"no job ran for {after} after: {fault.name}")
        if isinstance(self._broker, FaultySqlite) and (said := self._broker.integrity()) != "ok":
            self.notes.append(f"SQLite's integrity_check: {said}")
        return verdict, rows

    def _rows(self, verdict: Verdict, effects: Effects, events: list[Event]) -> dict[str, Row]:
        """Count for each fault what happened from it to the next one."""
        rows = {CALM_ROW: Row()}
        for fault in self.injected:
            row = rows.setdefault(fault.name, Row())
            row.times += 1
            row.back += [] if fault.back is None else [fault.back]
        names = [CALM_ROW, *(fault.name for fault in self.injected)]
        moments, places = [fault.began for fault in self.injected], [fault.place for fault in self.injected]
        lost = set(verdict.lost)
        for event in events:
            if event.what == "ok":
                row = rows[names[bisect_right(moments, event.time)]]
                row.accepted += event.count
                if lost:
                    row.lost += sum(number in lost for number in range(event.first, event.first + event.count))
        for position in verdict.duplicates:
            rows[names[bisect_right(places, effects.places[position])]].duplicated += 1
        return rows


BROKERS: dict[str, Callable[[Path], FaultyBroker]] = {
    "sqlite": FaultySqlite,
    "rabbitmq": lambda _folder: FaultyRabbit(),
}


def build_plugin(folder: Path) -> Path:
    """Compile the native handlers."""
    built = folder / "effects.so"
    subprocess.run([LEVERET, "build", PLUGIN, "-o", built], check=True, stdout=subprocess.DEVNULL)
    return built


def show(verdict: Verdict, rows: dict[str, Row], heading: str) -> None:
    """Print the table."""
    table = Table(title=heading, title_justify="left")
    table.add_column("fault")
    for name in ("times", "accepted", "lost", "duplicated", "runs again after, s: median", "most"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        median, most = (f"{f(row.back):.2f}" if row.back else "-" for f in (statistics.median, max))
        table.add_row(name, str(row.times), f"{row.accepted:,}", str(row.lost), str(row.duplicated), median, most)
    total = sum(row.times for row in rows.values())
    table.add_section()
    table.add_row(
        "all", str(total), f"{verdict.accepted:,}", str(len(verdict.lost)), str(len(verdict.duplicates)), "", ""
    )
    Console(width=120 if not sys.stdout.isatty() else None).print(table)
    print(
        f"{verdict.accepted:,} jobs accepted: {verdict.ran:,} ran, {verdict.dead:,} are dead, {len(verdict.lost)} "
        f"lost; {verdict.recovered:,} ran whose sender was not told"
    )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("brokers", nargs="*", metavar="sqlite|rabbitmq")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", type=float, default=0.4, help="seconds between faults, on average")
    parser.add_argument("--rate", type=float, default=40_000.0, help="jobs sent a second, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep what the run wrote")
    arguments = parser.parse_args(words)
    arguments.brokers = arguments.brokers or list(BROKERS)
    if unknown := [name for name in arguments.brokers if name not in BROKERS]:
        parser.error(f"there is no broker {unknown[0]}: {', '.join(BROKERS)}")
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1_000_000)
    return arguments


def one(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Do one run; return what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="leveret-faults-"))
    again = f"python tests/faults/run.py {name} --seconds {arguments.seconds:g} --seed {arguments.seed}"
    again += f" --every {arguments.every:g} --rate {arguments.rate:g}"
    print(f"{name}: seed {arguments.seed}; again: {again}", file=sys.stderr, flush=True)
    broker = BROKERS[name](folder)
    try:
        broker.start()
        run = Run(broker, folder, build_plugin(folder), arguments)
        run.go()
        verdict, rows = run.judge()
    finally:
        broker.stop()
    if not arguments.json:
        show(verdict, rows, f"{name}, seed {arguments.seed}, {arguments.seconds:g} s")
    for note in run.notes:
        print(f"broken: {note}", file=sys.stderr)
    good = verdict.good and not run.notes
    if good and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"what was written is in {folder}; again: {again}", file=sys.stderr)
    return {
        "broker": name,
        "seed": arguments.seed,
        "faults": sum(row.times for row in rows.values()),
        "accepted": verdict.accepted,
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicates),
        "dead": verdict.dead,
        "recovered": verdict.recovered,
        "broken": run.notes,
        "good": good,
    }


def main() -> int:
    """Do the runs that were asked for."""
    arguments = parse()
    runs = [one(name, arguments) for name in arguments.brokers]
    if arguments.json:
        print(json.dumps(runs))
    else:
        faults, accepted, lost, duplicated = (
            sum(run[key] for run in runs) for key in ("faults", "accepted", "lost", "duplicated")
        )
        print(
            f"{faults:,} faults on {' and '.join(arguments.brokers)}: {accepted:,} jobs accepted, {lost} lost, "
            f"{duplicated:,} run more than once"
        )
    return 0 if all(run["good"] for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
