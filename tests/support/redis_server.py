"""A private Redis server for tests: its own port and folder, started and ended by its process id.

From Python::

    with RedisServer() as server:
        ...server.url, server.kill(), server.start(), server.pause(), server.cli("DBSIZE")...

From other languages, as a child process. It prints the server's URL when the server is ready, and ends it when standard
input closes or on SIGTERM. Arguments are more lines for the server's configuration::

    python3 tests/support/redis_server.py "requirepass secret"

While it runs, the program reads commands from standard input, one a line, and answers each with a line: ``kill`` (like
a crash), ``stop`` (orderly), ``start``, ``cli WORD…`` (a command for the server: ``cli TTL key``), ``pause`` and
``resume`` (SIGSTOP and SIGCONT), ``quit``.

It needs the distribution's package ``redis-server`` (Debian 12: 7.0, Debian 13: 8.0), and nothing but Python's standard
library. ``LEVERET_REDIS_SERVER`` names another program.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

# As a program it is no part of a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.ports import free_port

START_TIMEOUT = 120.0
"""Seconds. A server starts in some hundredths of one on an idle machine."""


class RedisServer:
    """One private Redis server. What it answered survives a crash: it writes its log before it answers.

    Args:
        config: more lines for the server's configuration.

    Raises:
        FileNotFoundError: from ``start``, when Redis is not installed.
        RuntimeError: from ``start``, when the server ended or did not answer in time; holds the end of its log.
    """

    def __init__(self, *config: str) -> None:
        self.port = free_port()
        self._config = config
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._running().pid

    def start(self) -> None:
        """Starts the server, or starts it again on what it had stored, and waits until it answers."""
        if self._process is not None:
            return
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="leveret-redis-"))
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self._home}",
            "daemonize no",
            'save ""',
            "appendonly yes",
            "appendfsync always",
            *self._config,
        ]
        (self._home / "redis.conf").write_text("\n".join(lines) + "\n")
        log = (self._home / "console.log").open("ab")
        self._process = subprocess.Popen(
            [_server_program(), str(self._home / "redis.conf")],
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                why = "ended" if self._process.poll() is not None else f"did not answer within {START_TIMEOUT:.0f} s"
                tail = (self._home / "console.log").read_text(errors="replace")[-3000:]
                self.stop()
                msg = f"the private Redis server {why}; its log ends:\n{tail}"
                raise RuntimeError(msg)
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends the server like a crash (SIGKILL). What it had answered is there after ``start``."""
        self._end(signal.SIGKILL)

    def stop_server(self) -> None:
        """Ends the server in good order and keeps what it stored, for ``start``."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stops the server (SIGSTOP): connections stay open, new ones are made, and nothing answers."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on."""
        os.kill(self._running().pid, signal.SIGCONT)

    def cli(self, *words: str) -> str:
        """Has the server run a command and gives what redis-cli prints of its answer.

        Raises:
            RuntimeError: the server refused it, or did not answer.
        """
        done = self._ask(*words)
        if done.returncode != 0:
            msg = f"redis-cli {' '.join(words)} failed ({done.returncode}): {done.stdout}{done.stderr}"
            raise RuntimeError(msg)
        return done.stdout

    def stop(self) -> None:
        """Ends the server and removes what it stored. Idempotent."""
        self._end(signal.SIGKILL)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        password = next((line.split()[1] for line in self._config if line.startswith("requirepass ")), "")
        return subprocess.run(
            ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), "-e", "--no-auth-warning", *words],
            env={**os.environ, **({"REDISCLI_AUTH": password} if password else {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )

    def _answers(self) -> bool:
        return self._ask("PING").stdout.strip() == "PONG"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = "the server is not running"
            raise RuntimeError(msg)
        return self._process

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            # A paused server does not see SIGTERM.
            os.kill(self._process.pid, signal.SIGCONT)
            os.kill(self._process.pid, sign)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


def _server_program() -> str:
    program = shutil.which(os.environ.get("LEVERET_REDIS_SERVER", "redis-server"))
    if program is None:
        msg = "redis-server is missing: install Redis (apt-get install redis-server) or set LEVERET_REDIS_SERVER"
        raise FileNotFoundError(msg)
    return program


def _serve() -> int:
    def quit_now(_sign: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, quit_now)
    server = RedisServer(*sys.argv[1:])
    try:
        server.start()
        print(server.url, flush=True)
        for line in sys.stdin:
            words = line.split()
            if not words:
                continue
            try:
                if words[0] == "quit":
                    break
                if words[0] == "cli":
                    print("ok " + server.cli(*words[1:]).strip().replace("\n", " "), flush=True)
                    continue
                {
                    "kill": server.kill,
                    "stop": server.stop_server,
                    "start": server.start,
                    "pause": server.pause,
                    "resume": server.resume,
                }[words[0]]()
                print("ok", flush=True)
            except (KeyError, RuntimeError) as problem:
                print("failed " + str(problem).replace("\n", " "), flush=True)
    except (FileNotFoundError, RuntimeError) as problem:
        print(problem, file=sys.stderr)
        return 1
    finally:
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sign, signal.SIG_IGN)
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(_serve())
