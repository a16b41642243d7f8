"""Runs the command line and workers as processes of their own, as users do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEVERET = Path(sys.executable).parent / "leveret"
PATIENCE = 120.0
"""Seconds that anything may take on a busy machine before a test gives up."""


def leveret(
    *words: str | Path, expect: int = 0, stdin: str | bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `leveret WORDS` to its end and check its exit code."""
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([LEVERET, *words], input=raw, capture_output=True, timeout=PATIENCE * 2, check=False, cwd=cwd)
    out, err = done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")
    assert done.returncode == expect, f"leveret {words}: exit code {done.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition of the outside world holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.005)


class Effect(NamedTuple):
    """One attempt, as the tasks of effects.cpp note it."""

    n: int
    job_id: str
    retry_count: int
    pid: int


@dataclass
class Broker:
    """A queue for one test."""

    url: str
    queue: str
    folder: Path

    @property
    def effects_file(self) -> Path:
        """Where the tasks of effects.cpp write."""
        return self.folder / "effects"

    def effects(self) -> list[Effect]:
        """Return what has run so far, in the order written."""
        with contextlib.suppress(FileNotFoundError):
            written = self.effects_file.read_text()
            # A reader may see the first page of a write before its second: the last line counts once it ends.
            # One that was killed may leave the first part of its line.
            parts = [line.split() for line in written[: written.rfind("\n") + 1].splitlines()]
            whole = [part for part in parts if len(part) == len(Effect._fields)]
            return [Effect(int(n), job, int(retries), int(pid)) for n, job, retries, pid in whole]
        return []

    def times_run(self) -> Counter[int]:
        """Return how often each number has run."""
        return Counter(effect.n for effect in self.effects())

    def dead(self) -> list[dict[str, Any]]:
        """Return the queue's dead jobs."""
        answer = leveret("dead", "list", "--url", self.url, "--queue", self.queue, "--json")
        records: list[dict[str, Any]] = json.loads(answer.stdout)["jobs"]
        return records

    def stats(self, queue: str = "") -> dict[str, Any]:
        """Return what the command line says of the queue, or of another one."""
        answer = leveret("queues", queue or self.queue, "--url", self.url, "--json")
        found: list[dict[str, Any]] = json.loads(answer.stdout)["queues"]
        return found[0]

    def wait_returned(self, *queues: str) -> None:
        """Wait until the broker has noticed that no worker is there: what the last one held has come back by then.

        A burst that starts earlier may find its queues empty, and end.
        """
        names = queues or (self.queue,)
        until(lambda: all(self.stats(name)["consumers"] == 0 for name in names), f"no worker of {names} is left")

    def send(self, *jobs: dict[str, Any]) -> None:
        """Publish jobs by the command line; `retry_count` is filled in."""
        lines = "".join(json.dumps({"retry_count": 0, **job}) + "\n" for job in jobs)
        leveret("send", "--from", "-", "--url", self.url, "--queue", self.queue, stdin=lines)

    def worker(self, plugin: Path | str, *words: str, threads: int = 2, pool: str = "threads") -> Worker:
        """Start a worker of this queue; it consumes when this returns."""
        ours = ["--url", self.url, "--queue", self.queue, "--threads", str(threads), "--pool", pool]
        return Worker(plugin, *ours, *words)

    def drain(self, plugin: Path, *words: str, threads: int = 2) -> dict[str, Any]:
        """Run a burst worker to its end and return its summary."""
        with self.worker(plugin, "--burst", *words, threads=threads) as worker:
            return worker.summary()


class Worker:
    """A `leveret worker` process. Its standard error is kept in `log`."""

    def __init__(
        self,
        plugin: Path | str,
        *words: str,
        banner: bool = True,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start it and wait for the last line of its banner, which it prints once it consumes."""
        command = [str(LEVERET), "worker", str(plugin), *words, "--json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
        )
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            if banner:
                self.wait_log("  stop ")
        except AssertionError:
            self.__exit__()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_log(self, text: str, after: int = 0) -> None:
        """Wait until a line of the log, behind so many others, has this text in it."""

        def seen() -> bool:
            return any(text in line for line in self.log[after:])

        with self._changed:
            self._changed.wait_for(lambda: seen() or not self._reader.is_alive(), PATIENCE)
            assert seen(), f"no line with {text!r} behind {after} others; the log:\n" + "\n".join(self.log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def wait(self, expect: int = 0) -> str:
        """Wait for its end, check the exit code, return its standard output."""
        assert self.process.stdout is not None
        code = self.process.wait(PATIENCE * 2)
        self._reader.join(PATIENCE)
        out = self.process.stdout.read()
        assert code == expect, f"exit code {code}, not {expect}\n{out}\n" + "\n".join(self.log)
        return out

    def summary(self, expect: int = 0) -> dict[str, Any]:
        """Wait for its end and return its JSON summary."""
        counts: dict[str, Any] = json.loads(self.wait(expect).splitlines()[-1])
        return counts

    def stop(self) -> dict[str, Any]:
        """Stop it by SIGTERM and return its JSON summary."""
        self.signal(signal.SIGTERM)
        return self.summary()

    def __enter__(self) -> Self:
        """Return itself; the process ends with the block."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Kill what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                self._reader.join(PATIENCE)
                stream.close()


@contextlib.contextmanager
def python(script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program as a process of its own; killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
