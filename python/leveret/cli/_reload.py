"""`leveret worker --reload`: a supervisor that starts the worker again when its sources have changed.

The worker is a process of its own, with the arguments of the command; this one watches files, and signals. Everything
is decided on its main thread, which sleeps until a signal, a change, or a word from the worker wakes it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from leveret.cli._sources import Watcher, forget_compiled, sources
from leveret.logs import configure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from leveret.cli._sources import Sources

__all__ = ["supervise"]

_USAGE = 2
_START_PATIENCE = 5.0
"""Seconds that a worker that does not consume yet gets to notice a stop: it may hang in an import."""
_STOP_MARGIN = 10.0
"""Seconds beyond the grace after which a worker that does not end is killed."""
_TELL_PATIENCE = 2.0
"""Seconds that systemd gets to take a message."""
_ALIVE = b"WATCHDOG=1"
_SHOWN = 3
"""Changed files that are named."""

_log = logging.getLogger("leveret.reload")


def supervise(context: click.Context, folders: Sequence[str], *, grace: float, log_level: str, log_format: str) -> int:
    """Run the worker until SIGTERM or Ctrl-C, again and again; returns the exit code of the last one.

    Args:
        context: Of the command, whose arguments the worker gets.
        folders: As `--reload-dir` names them.
        grace: What the worker gives running jobs at a stop, in seconds.
        log_level: Of the command.
        log_format: Of the command.

    Raises:
        ValueError: If there is nothing to watch, or no package to watch with.
    """
    targets: tuple[str, ...] = context.params["targets"]
    words = _words(context)
    # A command line, with a password in the url, is for every user to see.
    environment = dict(os.environ)
    if context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
        environment["LEVERET_URL"] = context.params["url"]
    watched = sources(targets, folders)
    supervisor = _Supervisor(words, environment, targets, watched, grace)
    configure(log_level, log_format)
    return supervisor.run()


def _words(context: click.Context) -> list[str]:
    """Return the arguments that the command line gave; what variables and pyproject.toml say the worker reads anew."""
    words: list[str] = []
    for option in context.command.params:
        name = str(option.name)
        if name in {"reload", "reload_dirs", "url"} or not isinstance(option, click.Option):
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value: Any = context.params[name]
        if option.is_flag:
            words.append(option.opts[0])
        else:
            words += [f"{option.opts[0]}={each}" for each in (value if option.multiple else [value])]
    return [*words, "--", *context.params["targets"]]


class _Notifications:
    """What the worker tells systemd (sd_notify(3)), which listens to this process alone: passed on, and looked at."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(0)
        self.socket.bind("")  # the kernel finds a free name, of no file
        self._systemd = os.environ.get("NOTIFY_SOCKET", "")
        pid = os.environ.get("WATCHDOG_PID", "")
        usec = os.environ.get("WATCHDOG_USEC", "")
        watched = bool(self._systemd) and usec.isdecimal() and pid in {"", str(os.getpid())}
        self.interval = int(usec) / 2e6 if watched else None
        """Seconds after which systemd wants to hear from us."""

    def environment(self) -> dict[str, str]:
        """Return the variables of a worker that is to talk to us."""
        name: bytes = self.socket.getsockname()
        found = {"NOTIFY_SOCKET": "@" + name[1:].decode()}
        return found if self.interval is None else {**found, "WATCHDOG_USEC": str(int(self.interval * 2e6))}

    def take(self) -> list[bytes]:
        """Return what has come."""
        found: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096))
        return found

    def tell(self, message: bytes) -> None:
        """Tell systemd, if there is one. What can't be told is nobody's fault."""
        if self._systemd:
            address = "\0" + self._systemd[1:] if self._systemd.startswith("@") else self._systemd
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                # Its queue may be as short as ten messages. One that is said again soon need not wait for a place.
                out.settimeout(0 if message == _ALIVE else _TELL_PATIENCE)
                out.connect(address)
                out.send(message)


class _Supervisor:
    """The worker's process, and when it is started and stopped. Main thread only: it takes over signals."""

    def __init__(
        self, words: list[str], environment: dict[str, str], targets: Sequence[str], watched: Sources, grace: float
    ) -> None:
        self._command = [sys.executable, "-m", "leveret.cli._reloaded", str(os.getpid()), *words]
        self._targets = targets
        self._sources = watched
        self._grace = grace
        self._wake_out, self._wake_in = socket.socketpair()
        for end in (self._wake_out, self._wake_in):
            end.settimeout(0)
        self._watcher = Watcher(watched, self._wake)
        self._notifications = _Notifications()
        environment.pop("WATCHDOG_PID", None)
        environment.pop("WATCHDOG_USEC", None)
        self._environment = environment | self._notifications.environment()
        self._worker: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._asked = 0
        """How often somebody asked us to stop."""

    def run(self) -> int:
        """Do it all; return the exit code."""
        with self._signals(), self._watcher:
            try:
                return self._supervise()
            finally:
                if self._worker is not None:
                    self._stop(self._worker)

    def _supervise(self) -> int:
        self._tell("reload_watching", f"watching {', '.join(map(str, self._watched()))}")
        first = True
        while True:
            worker = self._start()
            self._until(lambda: self._watcher.waiting, worker)
            if self._is_to_stop():
                return self._stop(worker)
            if worker.poll() is None:
                changed = self._watcher.take()
                self._tell("reload", f"{self._names(changed)} changed: the worker stops, and starts again")
                code = self._stop(worker)
            else:
                code = self._ended(worker)
                if first and code == _USAGE and not self._watcher.waiting and self._loads():
                    return code
                if not self._watcher.waiting:
                    how = f"with exit code {code}" if worker.returncode >= 0 else f"by {_signal_name(worker)}"
                    self._tell("reload_waiting", f"the worker ended {how}: it starts again at the next change", code)
                self._until(lambda: self._watcher.waiting)
                changed = self._watcher.take()
                if changed:
                    self._tell("reload", f"{self._names(changed)} changed: the worker starts again")
            if self._is_to_stop():
                return code
            first = False
            # What changed meanwhile is in what starts now.
            forget_compiled([*changed, *self._watcher.take()])

    def _start(self) -> subprocess.Popen[bytes]:
        self._notifications.take()  # the last words of the one before
        self._ready = False
        self._worker = subprocess.Popen(  # noqa: S603 - this program itself
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which stops the worker
        )
        return self._worker

    def _stop(self, worker: subprocess.Popen[bytes]) -> int:
        """Stop a worker and return its exit code; a second request to stop, to us, reaches it as its second signal."""
        began = time.monotonic()
        told = 1
        worker.terminate()
        while worker.poll() is None:
            patience = self._grace + _STOP_MARGIN if self._ready else _START_PATIENCE
            left = began + patience - time.monotonic()
            if left <= 0:
                self._tell("reload_kill", f"the worker did not end within {patience:g} s: it is killed", 1)
                worker.kill()
                worker.wait()
            elif self._asked > told:
                told = self._asked
                worker.terminate()
            else:
                self._wait(left)
        return self._ended(worker)

    def _ended(self, worker: subprocess.Popen[bytes]) -> int:
        """Return the exit code of a worker that has ended, as a shell gives it."""
        self._worker = None
        code = worker.wait()
        self._hear()  # its last words: it may have ended before we looked
        if code >= 0:
            return code
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # processes of it that had not joined it yet
        if -code == signal.SIGTERM and not self._ready:
            return 0  # stopped before it had begun
        return 128 - code

    def _loads(self) -> bool:
        """Tell whether apps and plugins can be loaded, so that a worker that refused did so for its arguments."""
        words = [sys.executable, "-m", "leveret", "worker", "--describe", "--json", "--", *self._targets]
        quiet = subprocess.DEVNULL
        return subprocess.run(words, check=False, stdin=quiet, stdout=quiet, stderr=quiet).returncode == 0  # noqa: S603 - this program itself

    # ---- waiting ----

    def _is_to_stop(self) -> bool:
        return self._asked > 0

    def _until(self, condition: Callable[[], bool], worker: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until something is so, or the worker has ended, or somebody asks us to stop."""
        while not self._asked and not condition() and (worker is None or worker.poll() is None):
            self._wait(None)

    def _wait(self, seconds: float | None) -> None:
        """Sleep until something happens, and look at what the worker says."""
        interval = None if self._ready else self._notifications.interval
        if interval is not None:
            # Nobody else does so while no worker consumes: an error in the sources is no reason to be killed.
            self._notifications.tell(_ALIVE)
            seconds = interval if seconds is None else min(seconds, interval)
        select.select([self._wake_out, self._notifications.socket], [], [], seconds)
        with suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass
        self._hear()

    def _hear(self) -> None:
        """Look at what the worker has told systemd, and pass it on."""
        for message in self._notifications.take():
            self._ready = self._ready or message == b"READY=1"
            if message != b"STOPPING=1" or self._asked:
                self._notifications.tell(message)

    def _wake(self) -> None:
        """End a `_wait`. Any thread."""
        with suppress(BlockingIOError):  # then it is awake already
            self._wake_in.send(b"\0")

    @contextmanager
    def _signals(self) -> Generator[None]:
        """Have signals wake us; explicitly, for background jobs of shells begin with SIGINT ignored."""

        def ask(_number: int, _frame: object) -> None:
            self._asked += 1

        def noted(_number: int, _frame: object) -> None:
            """Nothing: the signal woke us, and the worker is looked at."""

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, noted)
        wakeup = signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    # ---- telling ----

    def _watched(self) -> list[Any]:
        return [*self._sources.folders, *sorted(self._sources.plugins)]

    def _names(self, changed: Sequence[str]) -> str:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        return ", ".join(map(self._sources.shown, changed[:_SHOWN])) + more

    def _tell(self, event: str, text: str, code: int = 0) -> None:
        _log.log(logging.ERROR if code else logging.INFO, "%s", text, extra={"event": event})


def _signal_name(worker: subprocess.Popen[bytes]) -> str:
    try:
        return signal.Signals(-worker.returncode).name
    except ValueError:
        return f"signal {-worker.returncode}"
