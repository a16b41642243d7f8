"""`leveret doctor`."""

from __future__ import annotations

import os
import platform
import socket
import ssl
import struct
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from leveret.cli import _common, _policies
from leveret.cli.build import compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["command"]

OK = "ok"
WARNING = "warning"
FAILED = "failed"

_TIMEOUT = 10.0
_LARGEST_FRAME = 1 << 20
_RAM_ONLY = {"tmpfs", "ramfs"}
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "afs",
    "lustre",
}


class Checks:
    """What was looked at, and what was found."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.found: list[dict[str, str]] = []

    def add(self, check: str, status: str, detail: str) -> None:
        """Note a finding."""
        self.found.append({"check": check, "status": status, "detail": detail})

    def run(self, check: str, look: Callable[[], tuple[str, str]]) -> bool:
        """Look, and note what was found; an error is a failed check. True unless it failed."""
        from leveret.errors import Error

        try:
            status, detail = look()
        except (Error, OSError, ValueError, click.ClickException) as error:
            status, detail = FAILED, str(error)
        self.add(check, status, detail)
        return status != FAILED


@click.command("doctor", epilog="Example: leveret doctor --url amqp://localhost")
@_common.url_option
@click.option(
    "--queue",
    "queues",
    multiple=True,
    envvar="LEVERET_QUEUE",
    metavar="QUEUE",
    help="Queue that the url's user must be allowed to use; repeatable. Default: default and native.",
)
@click.option(
    "--management", metavar="URL", help="RabbitMQ's management plugin. Default: port 15672 of the url's host."
)
@_common.as_json
def command(url: str | None, queues: tuple[str, ...], management: str | None, as_json: bool) -> int:
    """Check url, file system, broker, permissions, libraries and compiler.

    Exit code 1 if one of them fails; warnings do not.
    """
    checks = examine(url, queues, management)
    bad = [entry for entry in checks.found if entry["status"] == FAILED]
    if as_json:
        _common.emit({"ok": not bad, "checks": checks.found})
    else:
        _common.print_table(
            ["", "check", "found"],
            [[entry["status"], entry["check"], entry["detail"]] for entry in checks.found],
        )
    return 1 if bad else 0


def examine(url: str | None, queues: Sequence[str] = (), management: str | None = None) -> Checks:
    """Look at everything."""
    from leveret import __version__, _core

    checks = Checks()
    checks.add("leveret", OK, f"{__version__}, plugin ABI {_core.abi_version}")
    checks.add("python", OK, f"{platform.python_version()}, {platform.platform()}")
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(_core.libraries().items()))
    checks.add("libraries", OK, libraries)
    checks.run("plugin", demo_status)
    checks.run("compiler", compiler_status)
    try:
        chosen = _common.broker_url(url)
    except ValueError as error:
        checks.add("url", FAILED, str(error))
        return checks
    checks.add("url", OK, _core.display_url(chosen))
    path = _common.sqlite_path(chosen)
    if path is not None and not checks.run("file system", lambda: file_system_status(path)):
        return checks
    if chosen.startswith("memory:"):
        return checks
    if path is not None and not path.exists():
        checks.add("broker", OK, f"{path} will be made when the first job is sent")
        return checks
    if chosen.startswith(("amqp:", "amqps:")):
        checks.run("broker version", lambda: (OK, rabbitmq_version(chosen)))
    if path is not None:
        checks.run("content", lambda: content_status(path))
    if checks.run("broker", lambda: broker_status(chosen)) and path is None:
        names = list(queues) or ["default", "native"]
        checks.run("permissions", lambda: permission_status(chosen, names))
        checks.run("policies", lambda: policy_status(chosen, queues, management))
    return checks


def demo_status() -> tuple[str, str]:
    """Tell whether the packaged plugin loads: proof that plugins do."""
    from leveret import _core
    from leveret.cli.demo import demo_plugin

    tasks = _core.load_plugins([str(demo_plugin())])
    return OK, f"demo.so loads, with the tasks {', '.join(sorted(task['name'] for task in tasks))}"


def compiler_status() -> tuple[str, str]:
    """Tell which compiler `leveret build` would use. None is no failure: workers run without."""
    try:
        words = compiler()
    except ValueError as error:
        return WARNING, f"{error}; leveret build needs it"
    answer = subprocess.run([*words, "--version"], check=False, capture_output=True, text=True)  # noqa: S603 - the user's own
    if answer.returncode != 0:
        return WARNING, f"{words[0]} --version failed; leveret build needs a C++ compiler"
    return OK, (answer.stdout.splitlines() or [words[0]])[0]


def mount_of(path: Path) -> tuple[str, str]:
    """Return mount point and file system type of a folder."""
    best = ("/", "unknown")
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:  # noqa: PTH123 - a name, no path of ours
        for line in mounts:
            _, point, kind, *_ = line.split(" ")
            point = point.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
            inside = path == type(path)(point) or type(path)(point) in path.parents
            if inside and len(point) >= len(best[0]):
                best = (point, kind)
    return best


def file_system_status(path: Path) -> tuple[str, str]:
    """Tell whether a SQLite file can live there."""
    folder = path.parent
    if not folder.is_dir():
        return FAILED, f"there is no folder {folder}: make it"
    if not os.access(folder, os.W_OK | os.X_OK):
        return FAILED, f"the folder {folder} can't be written by this user"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return FAILED, f"{path} can't be read and written by this user"
    point, kind = mount_of(folder.resolve())
    free = os.statvfs(folder)
    text = f"{kind} at {point}, {free.f_bavail * free.f_frsize / 1e9:.1f} GB free"
    if kind in _NETWORK:
        return FAILED, f"{text}: a network file system can't be locked safely; use a local disk"
    if kind in _RAM_ONLY:
        return WARNING, f"{text}: jobs are gone at the next boot"
    return OK, text


def content_status(path: Path) -> tuple[str, str]:
    """Look for damage in a SQLite file. All of it is read; others may use it meanwhile."""
    from leveret import _core

    found = _core.examine_sqlite(str(path))
    remedy = (
        f"; end workers and producers, then save what is readable with: leveret recover {path}, or go back to a backup"
    )
    if found["damage"]:
        return FAILED, f"{path} is damaged: " + "; ".join(found["damage"]) + remedy
    if found["notes"]:
        return WARNING, f"{path}: " + "; ".join(found["notes"])
    return OK, f"{found['bytes'] / 1e6:.1f} MB, no damage found"


def broker_status(url: str) -> tuple[str, str]:
    """Open the broker."""
    broker = _common.client(url)
    try:
        state, detail = broker.health()
        text = f"{broker.where()} is {state}" + (f": {detail}" if detail else "")
        return (OK if state == "connected" else FAILED), text
    finally:
        broker.close(1.0)


def permission_status(url: str, queues: Sequence[str]) -> tuple[str, str]:
    """Try what producers and workers do with queues, on others that have these names and an ending."""
    broker = _common.client(url)
    try:
        for queue in queues:
            broker.check_access(queue)
    finally:
        broker.close(1.0)
    return OK, f"its user may declare, publish to and consume queues like {', '.join(queues)}"


def policy_status(url: str, queues: Sequence[str], management: str | None) -> tuple[str, str]:
    """Compare the policies with those that `leveret setup` makes. None is no failure: queues work without."""
    if not queues:
        return OK, "not looked at: name the queues by --queue"
    plugin = _policies.Management(url, management)
    if absent := plugin.here():
        return OK, f"not looked at: {absent}; leveret setup prints the commands that make them"
    # How long a job may run is the operator's choice.
    wanted = _policies.policies(queues, _policies.version_of(rabbitmq_version(url)), None)
    states = {policy.name: _policies.compare(policy, plugin.found(policy)) for policy in wanted}
    wrong = [f"{name}: {state}" for name, state in states.items() if state != "as it should be"]
    if wrong:
        return WARNING, f"{', '.join(wrong)}; leveret setup makes them"
    return OK, f"{', '.join(states)}: as leveret setup makes them"


def rabbitmq_version(url: str) -> str:
    """Return what each server of the url says of itself. Raises OSError if one is not there."""
    parts = urlsplit(url)
    secure = parts.scheme == "amqps"
    servers: list[tuple[str, int]] = []
    for server in parts.netloc.rpartition("@")[2].split(","):
        address = urlsplit(f"//{server}")
        servers.append((address.hostname or "localhost", address.port or (5671 if secure else 5672)))
    found = [server_version(host, port, secure=secure) for host, port in servers]
    if len(servers) == 1:
        return found[0]
    return ", ".join(f"{version} at {host}:{port}" for version, (host, port) in zip(found, servers, strict=True))


def server_version(host: str, port: int, *, secure: bool) -> str:
    """Return what the server says of itself: the first frame of AMQP 0-9-1, before any login."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as plain:
            connection = plain
            if secure:
                # Only what the server says of itself is read: whom it proves to be is checked where jobs are sent.
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.set_ciphers("ALL:@SECLEVEL=0")
                connection = context.wrap_socket(plain, server_hostname=host)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            stream = connection.makefile("rb")
            head = stream.read(7)
            if len(head) < 7 or head[0] != 1:  # noqa: PLR2004 - a method frame
                return f"{host}:{port} does not speak AMQP 0-9-1"
            (size,) = struct.unpack(">I", head[3:7])
            properties = start_properties(stream.read(min(size, _LARGEST_FRAME)))
    except OSError as error:
        raise OSError(f"cannot reach {host}:{port}: {error.strerror or error}") from None
    return f"{properties.get('product', 'an AMQP server')} {properties.get('version', 'of unknown version')}"


def start_properties(payload: bytes) -> dict[str, Any]:
    """Return the strings among the server's properties in connection.start.

    The payload is class and method (2 bytes each), version (2 bytes), then a field table: its length, and for each
    field a short string and a value; all are strings, booleans or nested tables, which are skipped by their length.
    """
    (length,) = struct.unpack(">I", payload[6:10])
    table = payload[10 : 10 + length]
    found: dict[str, Any] = {}
    at = 0
    while at < len(table):
        size = table[at]
        name = table[at + 1 : at + 1 + size].decode("utf-8", "replace")
        at += 1 + size
        kind = table[at : at + 1]
        if kind in {b"S", b"F"}:
            (size,) = struct.unpack(">I", table[at + 1 : at + 5])
            if kind == b"S":
                found[name] = table[at + 5 : at + 5 + size].decode("utf-8", "replace")
            at += 5 + size
        elif kind == b"t":
            at += 2
        else:
            break
    return found
