"""Who plays in a fault run: workers and producers that are started again whenever they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Actor", "children_of"]

TESTS = Path(__file__).resolve().parent.parent
_AGAIN = 0.2
"""Seconds before what ended is started again: nothing hammers a broker that is away."""


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Actor:
    """A process that is started again when it ends, until `retire`."""

    def __init__(self, command: Callable[[], list[str]], log: Path) -> None:
        """Start it; `command` is asked anew for each start. What it prints goes to `log`."""
        self._command = command
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._retired = threading.Event()
        self.starts = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        while not self._retired.is_set():
            with self._log.open("ab") as log, self._lock:
                if self._retired.is_set():
                    return
                self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, env=environment)
                self.starts += 1
            self._process.wait()
            self._retired.wait(_AGAIN)

    @property
    def pid(self) -> int | None:
        """The id of the process that runs now."""
        with self._lock:
            process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False: nothing runs right now."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def retire(self, patience: float) -> bool:
        """End it for good by SIGTERM. False: it had to be killed."""
        with self._lock:
            self._retired.set()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._thread.join(patience)
        ended = not self._thread.is_alive()
        if not ended:
            self.signal(signal.SIGKILL)
        self._thread.join()
        return ended


def python(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of the tests."""
    return [sys.executable, "-m", module, *words]
