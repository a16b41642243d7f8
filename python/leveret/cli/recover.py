"""`leveret recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leveret.cli import _common

__all__ = ["command"]

_SHOWN = 10


@click.command("recover", epilog="Example: leveret recover leveret.db --to saved.db")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "new", metavar="NEW", type=click.Path(path_type=Path), help="Default: FILE-recovered.")
@_common.as_json
def command(file: Path, new: Path | None, as_json: bool) -> int:
    """Save what can be read of the SQLite file FILE, damaged or not, into the new file NEW.

    Jobs that wait, are delayed or were running (they wait again), dead jobs and results. FILE is only read, without
    SQLite; nobody may be using it. NEW must not exist. Exit code 1 if something of FILE could not be read.
    """
    from leveret import _core

    new = new or _common.new_sibling(file, "recovered")
    with _common.progress(shown=not as_json) as bars:
        saved = _core.recover_sqlite(str(file), str(new), bars.report("reading"))
    missing = bool(saved["lost"] or saved["lost_rows"] or saved["unreadable_pages"])
    if as_json:
        _common.emit({"file": str(file), "to": str(new), **saved})
    else:
        show(new, saved)
    return 1 if missing else 0


def show(new: Path, saved: dict[str, Any]) -> None:
    """Print what was saved and what was not."""
    rows = [
        ["messages that wait", saved["waiting"]],
        ["  of them, that were running", saved["running"]],
        ["  of them, whose place in the queue is lost", saved["unplaced"]],
        ["messages that are delayed", saved["delayed"]],
        ["jobs in all these", saved["jobs"]],
        ["dead jobs", saved["dead"]],
        ["stored results", saved["results"]],
    ]
    _common.print_table([str(new), "saved"], rows)
    for sentence in saved["damage"]:
        print(f"damaged: {sentence}")
    if saved["unreadable_pages"]:
        print(f"{saved['unreadable_pages']:,} of {saved['pages']:,} pages could not be read")
    if saved["lost_rows"]:
        print(f"{saved['lost_rows']:,} rows could not be read")
    if saved["lost"]:
        print(f"{len(saved['lost']):,} messages could not be read (--json names all):")
        for one in saved["lost"][:_SHOWN]:
            print(f"  {one['queue'] or 'unknown queue'}: {one['id'] or 'unknown id'}")
