"""The brokers of the fault runs, and what can be done to each."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.rabbitmq_node import RabbitNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["FaultyBroker", "FaultyRabbit", "FaultySqlite"]

_TRANSACTION = """if True:
    import sqlite3, sys, time
    db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
    db.execute("BEGIN IMMEDIATE" if sys.argv[2] == "write" else "BEGIN")
    db.execute("SELECT count(*) FROM queue").fetchall()
    time.sleep(float(sys.argv[3]))
    db.execute("ROLLBACK")
"""
_PROXY = Path(__file__).resolve().parent.parent / "support/proxy.py"


class FaultyBroker(ABC):
    """A broker with faults of its own. `wait` is a time that the run's end cuts short."""

    heals_within: float
    """Seconds in which jobs must run again after a fault (I7)."""

    @property
    @abstractmethod
    def url(self) -> str:
        """For the workers and producers."""

    @property
    @abstractmethod
    def direct_url(self) -> str:
        """For the checks at the end: past what disturbs the others."""

    @abstractmethod
    def faults(self) -> dict[str, tuple[float, Callable[[random.Random, Callable[[float], object]], None]]]:
        """Return what can be done to it: name, weight, and what does it, which returns when it is over."""

    def start(self) -> None:  # noqa: B027 - a file needs none of these
        """Start it."""

    def heal(self) -> None:  # noqa: B027
        """End every disturbance."""

    def stop(self) -> None:  # noqa: B027
        """End it."""


class FaultySqlite(FaultyBroker):
    """A SQLite file."""

    heals_within = 5.0

    def __init__(self, folder: Path) -> None:
        """Use a file in `folder`."""
        self._file = folder / "queue.db"

    @property
    def url(self) -> str:
        """The file's url."""
        return f"sqlite:///{self._file}"

    @property
    def direct_url(self) -> str:
        """The same."""
        return self.url

    def faults(self) -> dict[str, tuple[float, Callable[[random.Random, Callable[[float], object]], None]]]:
        """Return what another program, or a person, does to a file."""
        return {
            "sidecar lost": (0.5, self._lose_sidecar),
            "long reader": (1.0, self._read),
            "foreign writer": (1.0, self._write),
        }

    def _lose_sidecar(self, _chance: random.Random, _wait: Callable[[float], object]) -> None:
        Path(f"{self._file}-bell").unlink(missing_ok=True)

    # In processes of their own: closing a second SQLite connection in a process that has one drops its locks.
    def _run(self, statement: str, seconds: float) -> None:
        subprocess.run(
            [sys.executable, "-c", _TRANSACTION, str(self._file), statement, str(seconds)],
            check=False,
            stderr=subprocess.DEVNULL,
        )

    def _read(self, chance: random.Random, _wait: Callable[[float], object]) -> None:
        self._run("read", chance.uniform(0.1, 2))

    def _write(self, chance: random.Random, _wait: Callable[[float], object]) -> None:
        self._run("write", chance.uniform(0.05, 0.5))

    def integrity(self) -> str:
        """Return what SQLite says of the file: "ok"."""
        db = sqlite3.connect(self._file)
        try:
            found: str = db.execute("PRAGMA integrity_check").fetchone()[0]
            return found
        finally:
            db.close()


class FaultyRabbit(FaultyBroker):
    """A private RabbitMQ node behind a proxy."""

    heals_within = 25.0  # two heartbeats and 5 s

    def __init__(self) -> None:
        """Make it; `start` starts it."""
        self._node = RabbitNode()
        self._proxy: subprocess.Popen[str] | None = None
        self._port = 0
        self._paused = False

    def start(self) -> None:
        """Start the node and the proxy."""
        self._node.start()
        self._proxy = subprocess.Popen(
            [sys.executable, str(_PROXY), str(self._node.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._proxy.stdout is not None
        self._port = int(self._proxy.stdout.readline())

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    @property
    def direct_url(self) -> str:
        """Past it."""
        return self._node.url

    def tell(self, command: str) -> None:
        """Give the proxy a command."""
        proxy = self._proxy
        assert proxy is not None
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        proxy.stdin.write(command + "\n")
        proxy.stdin.flush()
        answer = proxy.stdout.readline()
        assert answer.startswith("ok"), f"the proxy answered {answer!r} to {command!r}"

    def faults(self) -> dict[str, tuple[float, Callable[[random.Random, Callable[[float], object]], None]]]:
        """Return what happens to networks and servers."""
        return {
            "connections reset": (3.0, lambda _chance, _wait: self.tell("reset")),
            "connections closed": (1.0, lambda _chance, _wait: self.tell("close")),
            "cut after some bytes": (3.0, lambda chance, _wait: self.tell(f"cut {chance.randrange(1, 20_000)}")),
            "network stalls": (2.0, self._stall),
            "network lost": (0.6, self._lose),
            "server stalls": (1.0, self._pause),
            "server killed": (0.25, self._kill),
            "server restarted": (0.25, self._restart),
            "memory alarm": (0.2, self._alarm),
        }

    def _stall(self, chance: random.Random, wait: Callable[[float], object]) -> None:
        self.tell("blackhole " + chance.choice(("up", "down", "both")))
        wait(chance.uniform(0.1, 2))
        self.tell("pass")

    def _lose(self, chance: random.Random, wait: Callable[[float], object]) -> None:
        self.tell("blackhole both")
        self.tell("refuse")
        wait(chance.uniform(0.1, 1))
        self.tell("reset")
        self.tell("pass")
        self.tell("accept")

    def _pause(self, chance: random.Random, wait: Callable[[float], object]) -> None:
        self._node.pause()
        self._paused = True
        wait(chance.uniform(0.1, 2))
        self.heal()

    def _kill(self, _chance: random.Random, _wait: Callable[[float], object]) -> None:
        self._node.kill()
        self._node.start()

    def _restart(self, _chance: random.Random, _wait: Callable[[float], object]) -> None:
        self._node.restart()

    def _alarm(self, chance: random.Random, wait: Callable[[float], object]) -> None:
        self._node.ctl("set_vm_memory_high_watermark", "0.000001")
        try:
            wait(chance.uniform(0.1, 1))
        finally:
            self._node.ctl("set_vm_memory_high_watermark", "absolute", "1500MB")

    def heal(self) -> None:
        """Let the server go on and the proxy pass."""
        if self._paused:
            self._node.resume()
            self._paused = False
        for command in ("pass", "accept"):
            self.tell(command)

    def stop(self) -> None:
        """End proxy and node."""
        if self._proxy is not None and self._proxy.stdin is not None and self._proxy.stdout is not None:
            with suppress(OSError):
                self._proxy.stdin.close()
            self._proxy.wait()
            self._proxy.stdout.close()
        self._node.stop()
