"""SHA-256 of every file below a folder, hashed by C++ workers, one job a file; prints what `sha256sum -c` accepts.

    python examples/checksum/checksum.py FOLDER [--url URL] [--threads N]

Files that can't be read, or are gone when their turn comes, are reported on standard error; the exit code is then 1.
The plugin beside this file is compiled at the first run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import leveret

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
LEVERET = Path(sys.executable).parent / "leveret"


def plugin() -> Path:
    """Compile checksum.cpp unless that was done since it changed."""
    source, built = HERE / "checksum.cpp", HERE / "checksum.so"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([LEVERET, "build", source, "-o", built, "--", "-lcrypto"], check=True, stdout=sys.stderr)
    return built


def files_below(folder: bytes, problems: list[str]) -> Iterator[bytes]:
    """Give the regular files below a folder, sorted; folders that can't be read are problems."""

    def unreadable(error: OSError) -> None:
        problems.append(f"{os.fsdecode(error.filename)!r}: {error.strerror}")

    for top, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(top, name)  # noqa: PTH118 - bytes, which pathlib doesn't take
            if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114 - bytes
                yield path


def checksum_line(digest: str, path: bytes) -> bytes:
    """Write a line as sha256sum does: a name with a backslash, newline or carriage return is escaped, and marked so."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != path else b"") + digest.encode() + b"  " + escaped + b"\n"


def main() -> int:
    """Send a job a file, run a worker until the queue is empty, print the results in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--url", help="a broker (default: a SQLite file in a temporary folder)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    folder = os.fsencode(chosen.folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - bytes
        print(f"checksum: {chosen.folder!r} is no folder", file=sys.stderr)
        return 2

    with tempfile.TemporaryDirectory() as temporary:
        url = chosen.url or f"sqlite:///{temporary}/checksum.db"
        with leveret.App(url) as app:

            @app.native(queue="checksum")
            def sha256(path: str) -> str:
                raise NotImplementedError

            problems: list[str] = []
            paths = list(files_below(folder, problems))
            jobs = sha256.send_many((quote_from_bytes(path),) for path in paths)
            worker = [LEVERET, "worker", plugin(), "--url", url, "--threads", str(chosen.threads), "--burst"]
            subprocess.run([*worker, "--quiet", "--log-level", "error"], check=True, stdout=subprocess.DEVNULL)
            for path, outcome in zip(paths, jobs.results(timeout=60, return_exceptions=True), strict=True):
                if isinstance(outcome, leveret.JobDead):
                    problems.append(f"{os.fsdecode(path)!r}: {outcome.error}")
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    sys.stdout.buffer.write(checksum_line(outcome, path))
    for problem in problems:
        print(f"checksum: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
