"""A private RabbitMQ node for tests: its own port, folder, cookie and epmd; never the machine's service.

As a library::

    with RabbitNode() as node:
        connect(node.url)

As a program it prints the node's URL when the node accepts logins, and ends it, with its epmd, at SIGTERM, SIGINT or
when its standard input closes (so a test that dies takes its broker along)::

    python3 tests/support/rabbitmq_node.py

While it runs, the program reads commands from standard input, one a line, and answers each with a line: ``kill`` (like
a power cut), ``stop`` (orderly), ``start``, ``ctl WORD…`` (rabbitmqctl, e.g. ``ctl set_vm_memory_high_watermark
0.000001``), ``pause`` and ``resume`` (SIGSTOP and SIGCONT), ``quit``.

It needs the distribution's package ``rabbitmq-server`` (Debian 12: 3.10, Debian 13: 4.0), and nothing but Python's
standard library. ``LEVERET_RABBITMQ_SBIN`` names another folder that holds ``rabbitmq-server`` and ``rabbitmqctl``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from types import FrameType, TracebackType

# As a program it is no part of a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.ports import free_port

START_TIMEOUT = 180.0
"""Seconds. A node starts in 3 to 9 s on two idle cores; a loaded machine needs far longer."""
EPMD_TIMEOUT = 60.0
"""Seconds."""


def _short_string(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long_string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def can_log_in(port: int, user: str = "guest", password: str = "guest", timeout: float = 5.0) -> bool:  # noqa: S107
    """Tells whether a broker on 127.0.0.1 accepts an AMQP 0-9-1 login: it answers PLAIN with ``connection.tune``."""

    def read_method(stream: socket.socket) -> tuple[int, int]:
        head = read(stream, 7)
        payload = read(stream, struct.unpack(">I", head[3:7])[0])
        read(stream, 1)
        class_id, method_id = struct.unpack(">HH", payload[:4])
        return class_id, method_id

    def read(stream: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = stream.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as stream:
            stream.settimeout(timeout)
            stream.sendall(b"AMQP\x00\x00\x09\x01")
            if read_method(stream) != (10, 10):
                return False
            response = b"\x00" + user.encode() + b"\x00" + password.encode()
            payload = (
                struct.pack(">HH", 10, 11)
                + _long_string(b"")
                + _short_string(b"PLAIN")
                + _long_string(response)
                + _short_string(b"en_US")
            )
            stream.sendall(b"\x01\x00\x00" + struct.pack(">I", len(payload)) + payload + b"\xce")
            return read_method(stream) == (10, 30)
    except (OSError, struct.error):
        return False


class RabbitNode:
    """One private RabbitMQ node.

    Args:
        config: more lines for ``rabbitmq.conf``.
        plugins: names of plugins to enable.
        joins: a node that runs; this one joins its cluster at its first start, and must be stopped before it.

    Raises:
        FileNotFoundError: from ``start``, when RabbitMQ is not installed.
        RuntimeError: from ``start``, when the node ended or did not accept logins in time; holds the end of its log.
    """

    def __init__(self, config: str = "", plugins: tuple[str, ...] = (), joins: RabbitNode | None = None) -> None:
        self.port = free_port()
        self._dist_port = free_port()
        self._joins = joins
        self._epmd_port: int = free_port() if joins is None else joins._epmd_port  # noqa: SLF001 - of its own kind
        self._cookie: str = secrets.token_hex(20) if joins is None else joins._cookie  # noqa: SLF001 - of its own kind
        self._config = config
        self._plugins = plugins
        self._name = f"leveret{self.port}"
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd_pid: int | None = None

    @property
    def url(self) -> str:
        """The node's URL, for user guest and vhost ``/``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def vhost_url(self, vhost: str) -> str:
        """The URL of another virtual host (see ``add_vhost``)."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @property
    def name(self) -> str:
        """The node's name in its cluster."""
        return f"{self._name}@127.0.0.1"

    @property
    def pid(self) -> int:
        """The Erlang VM's process id."""
        if self._process is None:
            msg = "the node is not running"
            raise RuntimeError(msg)
        return self._process.pid

    def start(self) -> None:
        """Starts the node, or starts it again on what it had stored, and waits until it accepts logins."""
        if self._process is not None:
            return
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="leveret-rabbit-"))
            cookie = self._home / ".erlang.cookie"
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
            (self._home / "env.conf").write_text("")
            (self._home / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
            (self._home / "rabbitmq.conf").write_text(
                f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
                "loopback_users.guest = true\n"
                # Else each login looks up the machine's name: seconds, where neither /etc/hosts nor a server knows it.
                f"cluster_name = {(self._joins or self).name}\n"
                "vm_memory_high_watermark.absolute = 1500MB\n"
                "disk_free_limit.absolute = 50MB\n"
                # Several nodes share one small disk in a test run; the default is 512 MiB of log each.
                "raft.wal_max_size_bytes = 33554432\n" + self._config + "\n"
            )
            if self._joins is not None:
                with (self._home / "rabbitmq.conf").open("a") as config:
                    config.write(
                        "cluster_formation.peer_discovery_backend = classic_config\n"
                        f"cluster_formation.classic_config.nodes.1 = {self._joins.name}\n"
                    )
        # epmd is started first and by itself: started by the node it would outlive it as a daemon of unknown pid.
        self._start_epmd()
        log = (self._home / "console.log").open("ab")
        self._process = subprocess.Popen(
            [str(_server_program())],
            env=self._environment(),
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + START_TIMEOUT
        while not can_log_in(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                why = "ended" if self._process.poll() is not None else f"gave no login within {START_TIMEOUT:.0f} s"
                tail = (self._home / "console.log").read_text(errors="replace")[-3000:]
                self.stop()
                msg = f"the private RabbitMQ node {why}; its log ends:\n{tail}"
                raise RuntimeError(msg)
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends the node like a power cut (SIGKILL). What it had confirmed is there after ``start``."""
        self._end(signal.SIGKILL)

    def stop_node(self) -> None:
        """Ends the node in good order and keeps what it stored, for ``start``."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stops in good order and starts again."""
        self.stop_node()
        self.start()

    def pause(self) -> None:
        """Stops the VM (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused VM go on."""
        os.kill(self.pid, signal.SIGCONT)

    def ctl(self, *words: str) -> str:
        """Runs ``rabbitmqctl`` on this node and gives its standard output. About 1 s.

        Raises:
            RuntimeError: the command failed; holds what it printed.
        """
        done = subprocess.run(
            [str(_server_program().parent / "rabbitmqctl"), "-q", *words],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"rabbitmqctl {' '.join(words)} failed ({done.returncode}): {done.stdout}{done.stderr}"
            raise RuntimeError(msg)
        return done.stdout

    def add_vhost(self, vhost: str) -> str:
        """Makes a virtual host that guest may use; gives its URL."""
        self.ctl("add_vhost", vhost)
        self.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        return self.vhost_url(vhost)

    def stop(self) -> None:
        """Ends the node and its epmd and removes what it stored. Idempotent."""
        self._end(signal.SIGKILL)
        if self._epmd_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._epmd_pid, signal.SIGKILL)
            self._epmd_pid = None
            if self._epmd is not None:
                self._epmd.wait()
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

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": home,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # An address, so that no name has to resolve: a bare machine may have no /etc/hosts.
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_CONF_ENV_FILE": f"{home}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/generated",
            # The start script then becomes the VM (exec) instead of waiting for it, so that its pid is ours.
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _start_epmd(self) -> None:
        if self._epmd_pid is not None or self._joins is not None:
            return
        epmd = shutil.which("epmd", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/lib/erlang/bin")
        if epmd is None:
            msg = "epmd is not installed (Debian package erlang-base): apt-get install rabbitmq-server"
            raise FileNotFoundError(msg)
        process = subprocess.Popen(
            [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._epmd_pid = process.pid
        self._epmd = process
        # A node that finds none starts one of its own.
        deadline = time.monotonic() + EPMD_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._epmd_port)) == 0:
                    return
            time.sleep(0.01)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            # A paused VM does not see SIGTERM.
            os.kill(self._process.pid, signal.SIGCONT)
            if sign == signal.SIGKILL:
                # The VM has helper processes of its own.
                os.killpg(self._process.pid, sign)
            else:
                os.kill(self._process.pid, sign)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None


def _server_program() -> Path:
    # Not /usr/sbin/rabbitmq-server: that wrapper insists on being root or rabbitmq and changes user.
    folder = Path(os.environ.get("LEVERET_RABBITMQ_SBIN", "/usr/lib/rabbitmq/bin"))
    program = folder / "rabbitmq-server"
    if not program.exists():
        msg = f"{program} is missing: install RabbitMQ (apt-get install rabbitmq-server) or set LEVERET_RABBITMQ_SBIN"
        raise FileNotFoundError(msg)
    return program


def _serve() -> int:
    def quit_now(_sign: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, quit_now)
    node = RabbitNode(config="\n".join(sys.argv[1:]))
    try:
        node.start()
        print(node.url, flush=True)
        for line in sys.stdin:
            words = line.split()
            if not words:
                continue
            try:
                if words[0] == "quit":
                    break
                if words[0] == "ctl":
                    print("ok " + node.ctl(*words[1:]).strip().replace("\n", " "), flush=True)
                    continue
                {
                    "kill": node.kill,
                    "stop": node.stop_node,
                    "start": node.start,
                    "pause": node.pause,
                    "resume": node.resume,
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
        node.stop()
    return 0


if __name__ == "__main__":
    sys.exit(_serve())
