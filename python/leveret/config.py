"""Configuration: flags, then `LEVERET_*`, then `[tool.leveret]` of the nearest pyproject.toml, then defaults.

A key `log_level` is the variable `LEVERET_LOG_LEVEL`, and the flag `--log-level` of the commands that have it. The
nearest pyproject.toml is the one in the working folder or in the first folder above it that has one; programs
in C++ read flags and variables alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEYS", "Key", "Setting", "from_project", "lookup", "project_file", "settings", "unknown_variables", "url"]

PREFIX = "LEVERET_"
DEFAULT = "default"
"""The source of values that nobody set."""


class Key(NamedTuple):
    """What a setting is."""

    name: str
    kind: str
    """text, names, choice, count (a whole number), seconds, size (bytes, with a unit), or secret (never shown, and in
    the environment alone)."""
    default: Any
    doc: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment's variable."""
        return PREFIX + self.name.upper()

    def wanted(self) -> str:
        """Return what a value must be, for messages."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind == "count":
            return f"a whole number from {self.low:,.0f} to {self.high:,.0f}"
        if self.kind == "size":
            return f"a size with its unit, like 256MB or 1GiB, from {self.low / 2**20:,.0f} MiB"
        if self.kind == "seconds":
            return f"a number of seconds from {self.low:,g} to {self.high:,.0f}"
        return "a name or an array of names" if self.kind == "names" else "a text"

    def read(self, value: Any, source: str) -> Any:
        """Return a value from a file or a variable, checked.

        Args:
            value: As TOML gives it; a variable's is a string.
            source: Where it stands, for messages.

        Raises:
            ValueError: If it is none; the text says where it stands and what it must be.
        """
        if self.kind == "secret" and source != self.variable:
            raise ValueError(
                f"{source}: {self.name} must not stand in a file that is shared with the code; set {self.variable}"
            )
        found = self._convert(value, text=source == self.variable)
        if found is None:
            # A url may have a password in it.
            shown = "" if self.name == "url" or self.kind == "secret" else f", not {value!r}"
            raise ValueError(f"{source}: {self.name} must be {self.wanted()}{shown}")
        return found

    def _convert(self, value: Any, *, text: bool) -> Any:
        if self.kind in {"count", "seconds"}:
            return self._number(value, text=text)
        if self.kind == "size":
            size = bytes_of(value) if isinstance(value, str) else None
            return size if size is not None and self.low <= size <= self.high else None
        if self.kind == "names":
            names = value.replace(",", " ").split() if isinstance(value, str) else value
            if not isinstance(names, list) or not all(map(_is_text, cast("list[Any]", names))):
                return None
            return cast("list[str]", names) or None
        if not _is_text(value) or (self.choices and value not in self.choices):
            return None
        return value

    def _number(self, value: Any, *, text: bool) -> int | float | None:
        whole = self.kind == "count"
        if text:
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                return None
        if type(value) is not int and (whole or type(value) is not float):
            return None
        return value if self.low <= value <= self.high else None


def bytes_of(text: str) -> int | None:
    """Return the bytes of a size with its unit: KB, MB, GB in thousands, KiB, MiB, GiB by 1,024. None: it is none."""
    number = text.rstrip("kmgibKMGIB").strip()
    unit = text.strip()[len(number) :].strip().lower()
    scale = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}.get(unit)
    if scale is None or not number.isascii() or not number.isdecimal():
        return None
    return int(number) * scale


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


_ALL = (
    Key("url", "text", None, "The broker: sqlite:///PATH, amqp://HOST, amqps://HOST; leveret.db beside pyproject.toml"),
    Key("queue", "names", None, "Queues that a worker consumes; those of its tasks"),
    Key("ordered", "names", None, "Queues whose jobs with keys a worker runs too, in order; those of its tasks"),
    Key("threads", "count", None, "Threads that run handlers; one a core", 1, 4096),
    Key("processes", "count", 1, "Processes that run handlers", 1, 4096),
    Key("concurrency", "count", 100, "Coroutines that run at once in a process", 1, 1_000_000),
    Key("pool", "choice", "processes", "Where plugins run", choices=("processes", "threads")),
    Key("max_crashes", "count", 3, "How often a job may take its process down", 1, 1_000_000),
    Key("max_jobs_per_child", "count", None, "Jobs after which a process is replaced; never", 0, 2**31 - 1),
    Key("max_memory_per_child", "count", None, "MiB beyond which a process is replaced; never", 0, 2**31 - 1),
    Key("grace", "seconds", 25.0, "What running jobs get at a stop", 0, 86_400),
    Key("max_retries", "count", 3, "Retries where neither job nor task says", 0, 1_000_000),
    Key("prefetch", "count", 64, "Messages of a queue that a worker holds at once", 1, 65_535),
    Key("max_memory", "size", None, "Memory that the messages held take; 256 MiB a queue", 16 << 20, 1 << 40),
    Key("default_task", "text", None, 'The task that gets JSON objects without a "task"'),
    Key("publish_deadline", "seconds", 30.0, "After which a send without an answer raises", 0, 86_400),
    Key("batch_bytes", "count", 64 << 10, "Up to which send_many packs jobs into one message", 1, 1 << 20),
    Key("linger", "seconds", 0.0, "For which a job sent alone waits for others to share its message", 0, 1),
    Key("signing_keys", "secret", None, "Keys of signed messages, ID:SECRET, the one that signs first; or @FILE"),
    Key("health", "text", None, "Where a worker answers probes: HOST:PORT"),
    Key("log_level", "choice", "info", "The least level of log lines", choices=("debug", "info", "warning", "error")),
    Key("log_format", "choice", "text", "text, or json for one JSON object a line", choices=("text", "json")),
)
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
"""The settings by name."""


class Setting(NamedTuple):
    """A setting's value and where it came from."""

    key: str
    value: Any
    source: str
    """A variable's name, a pyproject.toml's path, or "default"."""


def nearest(name: str, known: Any) -> str:
    """Return "; did you mean …?" for what is not known, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(known), 1)
    return f'; did you mean "{found[0]}"?' if found else f"; there are {', '.join(sorted(known))}"


def project_file() -> str | None:
    """Return the nearest pyproject.toml: in the working folder, or above."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - pathlib costs a third of the package's import time
    except OSError:  # removed meanwhile
        return None
    while True:
        path = os.path.join(folder, "pyproject.toml")  # noqa: PTH118 - the same
        if os.path.isfile(path):  # noqa: PTH113 - the same
            return path
        above = os.path.dirname(folder)  # noqa: PTH120 - the same
        if above == folder:
            return None
        folder = above


def from_project(path: str | None = None) -> dict[str, Any]:
    """Return `[tool.leveret]` of a pyproject.toml, checked; by default of the nearest one.

    A relative path of a `sqlite:///` url in it counts from the file's folder.

    Raises:
        ValueError: For a file that is no TOML, an unknown key or a senseless value; the text says where.
    """
    path = path or project_file()
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs a third of the package's import time
            data = file.read()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if b"leveret" not in data:
        return {}  # most projects' files, without the cost of reading TOML
    import tomllib

    try:
        table: Any = tomllib.loads(data.decode()).get("tool", {}).get("leveret", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    where = f"{path}: [tool.leveret]"
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table")  # noqa: TRY004 - a file's mistake, not a caller's type
    found: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", table).items():
        if name not in KEYS:
            raise ValueError(f'{where}: there is no key "{name}"{nearest(name, KEYS)}')
        found[name] = KEYS[name].read(value, where)
    start = "sqlite:///"
    if found.get("url", "").startswith(start):
        folder = os.path.dirname(path)  # noqa: PTH120 - as above
        for sign in "%?#":  # they mean something in a url
            folder = folder.replace(sign, f"%{ord(sign):02X}")
        found["url"] = start + os.path.join(folder, found["url"].removeprefix(start))  # noqa: PTH118 - as above
    return found


def lookup(name: str, project: Mapping[str, Any] | None = None) -> Setting:
    """Return a setting that no flag and no argument gave.

    Args:
        name: The key.
        project: What `from_project` returned; looked up by default.

    Raises:
        ValueError: For a senseless value.
    """
    key = KEYS[name]
    said = os.environ.get(key.variable)
    if said:
        return Setting(name, key.read(said, key.variable), key.variable)
    if project is None:
        project = from_project()
    if name in project:
        return Setting(name, project[name], project_file() or DEFAULT)
    return Setting(name, key.default, DEFAULT)


def settings() -> list[Setting]:
    """Return every setting. Raises as `lookup`."""
    project = from_project()
    return [lookup(name, project) for name in KEYS]


def unknown_variables() -> list[tuple[str, str]]:
    """Return variables of the environment that begin like ours and mean nothing, each with what to say about it."""
    known = {key.variable for key in KEYS.values()}
    return [
        (name, f"there is no setting of the variable {name}{nearest(name, known)}")
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]


def url() -> str:
    """Return the broker's url where the program gives none. Raises ValueError for a senseless configuration."""
    found = lookup("url").value
    if found is None:
        from leveret import _core

        found = _core.default_url()
    return str(found)
