"""`leveret backup`."""

from __future__ import annotations

from pathlib import Path

import click

from leveret.cli import _common

__all__ = ["command"]


@click.command("backup", epilog="Example: leveret backup leveret.db /var/backups/leveret-monday.db")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@_common.as_json
def command(file: Path, new: Path, as_json: bool) -> None:
    """Copy the SQLite file FILE to NEW as it stands at one moment.

    Producers and workers go on meanwhile. NEW must not exist; it is whole or not there. In the copy no job is running:
    those that were wait. To go back to it, end producers and workers, and put it in FILE's place; remove FILE-wal,
    FILE-shm and FILE-bell with FILE.
    """
    from leveret import _core

    with _common.progress(shown=not as_json) as bars:
        _core.back_up_sqlite(str(file), str(new), bars.report("copying"))
    size = new.stat().st_size
    if as_json:
        _common.emit({"file": str(file), "to": str(new), "bytes": size})
    else:
        print(f"{new}: {size / 1e6:.1f} MB")
