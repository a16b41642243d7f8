"""Opens a SQLite file with Python's own module and another with Leveret; says which libsqlite3 this process maps.

Exit code 1 unless it is one: two copies in a process break each other's locks, since closing a file frees the POSIX
locks of both.
"""

import re
import sqlite3
import sys
import tempfile
from pathlib import Path

import leveret

with tempfile.TemporaryDirectory() as folder:
    connection = sqlite3.connect(f"{folder}/own.db")
    connection.execute("CREATE TABLE t (x)")
    with leveret.App(f"sqlite:///{folder}/jobs.db") as app:

        @app.native
        def work(number: int) -> int:
            raise NotImplementedError

        work.send(1)
        connection.close()
        with sqlite3.connect(f"{folder}/jobs.db") as opened:
            version = opened.execute("SELECT sqlite_version()").fetchone()[0]
        mapped = set(re.findall(r"\S*libsqlite3\S*", Path("/proc/self/maps").read_text()))
print(version, *sorted(mapped))
sys.exit(0 if len(mapped) == 1 and version == sqlite3.sqlite_version else 1)
