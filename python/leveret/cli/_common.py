"""What several commands share: their options, the connection, and output."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leveret import config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from leveret._core import Client

__all__ = [
    "as_json",
    "client",
    "count",
    "emit",
    "known_queues",
    "package_folder",
    "print_table",
    "progress",
    "queue_options",
    "shards",
    "size",
    "url_option",
]

F = TypeVar("F", bound="Callable[..., Any]")

PUBLISH_DEADLINE = 30.0
BATCH_BYTES = 64 << 10
MOST_JOBS = 1_000_000_000
MOST_THREADS = 4096
MOST_PROCESSES = 256
MOST_CONCURRENCY = 100_000

url_option = click.option(
    "--url",
    envvar="LEVERET_URL",
    metavar="URL",
    help="The broker: sqlite:///PATH, amqp://HOST[,HOST]... or amqps://HOST. Default: leveret.db beside the nearest "
    "pyproject.toml, else here.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def size(name: str) -> Callable[[str | int], int]:
    """Return the type of an option whose setting is a size: 256MB. It gives bytes."""
    key = config.KEYS[name]

    def convert(value: str | int) -> int:
        found = value if isinstance(value, int) else config.bytes_of(value)
        if found is None or (found and not key.low <= found <= key.high):
            raise click.BadParameter(f"{value!r} is not {key.wanted()}")
        return found

    return convert


def count(most: int) -> click.IntRange:
    """Return the type of a number of things, at least one."""
    return click.IntRange(1, most)


def queue_options(function: F) -> F:
    """Add QUEUE… and --queue, which say the same."""
    function = click.argument("names", nargs=-1, metavar="[QUEUE]...")(function)
    return click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="The same as QUEUE; repeatable.")(
        function
    )


def package_folder() -> Path:
    """Return the installed package's folder: headers, library and plugins are below it."""
    return Path(__file__).absolute().parent.parent


def broker_url(url: str | None) -> str:
    """Return the url to use. Raises ValueError for what is none."""
    from leveret import _core

    url = url or config.url()
    _core.display_url(url)
    return url


def shown_url(url: str | None) -> str:
    """Return the url for people: an absolute path or a host, never a password."""
    from leveret import _core

    return _core.display_url(broker_url(url))


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite url; None for other brokers."""
    from leveret import _core

    shown = _core.display_url(url)
    if not shown.startswith("sqlite:///"):
        return None
    return Path(shown.removeprefix("sqlite:///").partition("?")[0])


def new_sibling(path: Path, word: str) -> Path:
    """Return a name for a file made from another: `jobs.db` and `recovered` give `jobs-recovered.db`."""
    return path.with_name(f"{path.stem}-{word}{path.suffix}")


def shared_url(url: str | None) -> str:
    """Return the url of a broker that other processes can reach. Raises ValueError for memory://."""
    url = broker_url(url)
    if url.startswith("memory:"):
        raise ValueError(f"{url} lives inside one process, so nothing is there: give a sqlite:/// or amqp:// url")
    return url


def client(url: str | None, *, must_exist: bool = False) -> Client:
    """Open a broker.

    Args:
        url: As given by `--url`.
        must_exist: Refuse a SQLite file that is not there instead of making it.
    """
    from leveret import _core

    url = shared_url(url)
    path = sqlite_path(url)
    if must_exist and path is not None and not path.exists():
        raise ValueError(f"there is no file {path}: it is made when the first job is sent, or --url names another")
    return _core.Client(url, PUBLISH_DEADLINE, BATCH_BYTES)


def known_queues(broker: Client, named: Sequence[str], also: Sequence[str]) -> list[dict[str, Any]]:
    """Return the statistics of the named queues, of their shards and of their ordered queues, or of all.

    Args:
        broker: The connection.
        named: What the user named.
        also: The same, by another option.

    Raises:
        NotFound: For a named queue that is not there.
    """
    from leveret.errors import NotFound

    names = list(dict.fromkeys([*named, *also]))
    if names:
        return [stats for name in names for stats in (*broker.stats(name), *beside(broker, name))]
    if broker.capabilities()["list_queues"]:
        return broker.stats("")
    # A broker that can't list them: those that tasks have unless said otherwise.
    found: list[dict[str, Any]] = []
    for name in ("default", "native"):
        try:
            found += broker.stats(name)
        except NotFound:
            continue
        found += beside(broker, name)
    return found


def shards(broker: Client, name: str) -> list[str]:
    """Return the queues that a queue is spread over, itself first. Raises NotFound if there is no such queue."""
    from itertools import count

    from leveret import _core
    from leveret.errors import NotFound

    broker.stats(name)
    found = [name]
    with contextlib.suppress(NotFound):
        for shard in count(1):
            broker.stats(_core.shard_queue(name, shard))
            found.append(_core.shard_queue(name, shard))
    return found


def beside(broker: Client, name: str) -> list[dict[str, Any]]:
    """Return the statistics of what belongs to a queue beside it: its shards, its ordered queues.

    Shards have numbers without gaps. Of the ordered queues a worker has made all, or there are none.
    """
    from leveret import _core
    from leveret.errors import NotFound

    found = [stats for one in shards(broker, name)[1:] for stats in broker.stats(one)]
    with contextlib.suppress(NotFound):
        for shard in range(_core.ordered_shards):
            found += broker.stats(f"{name}.ordered.{shard}")
    return found


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table on standard output; numbers to the right, None as a dash."""
    import re

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title is not None:
        print(title)
    number = re.compile(r"[\d.,]+|-").fullmatch
    cells = [
        ["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        right = bool(cells) and all(number(row[i]) for row in cells)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


class Progress:
    """Progress bars on standard error; nothing at all where that is no terminal."""

    def __init__(self, *, shown: bool) -> None:
        """Make it. Use it in a `with` block."""
        self._bars: Any = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bars = Bars(*columns, console=Console(stderr=True))

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the bars as they are."""
        if self._bars is not None:
            self._bars.stop()

    def over(self, items: Iterator[Any], total: int, what: str) -> Iterator[Any]:
        """Give the items on, and move a bar."""
        if self._bars is None:
            yield from items
            return
        bar = self._bars.add_task(what, total=total)
        step = max(1, total // 200)
        done = 0
        for done, item in enumerate(items, 1):
            yield item
            if done % step == 0:
                self._bars.update(bar, completed=done)
        self._bars.update(bar, completed=done)

    def report(self, what: str) -> Callable[[int, int], None]:
        """Return what moves a bar: it takes how much is done of how much."""
        if self._bars is None:
            return lambda _done, _total: None
        bars = self._bars
        bar = bars.add_task(what, total=None)
        return lambda done, total: bars.update(bar, completed=done, total=total)


def progress(*, shown: bool) -> Progress:
    """Return progress bars for a `with` block."""
    return Progress(shown=shown)
