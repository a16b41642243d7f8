"""The Python side of the fault runs' handlers; effects.cpp of the system tests is the native one."""

from __future__ import annotations

import os

import leveret

app = leveret.App()


@app.task(name="note")
def note(path: str, n: int) -> None:
    """Append a line as effects.cpp does: `n id retry_count pid` between newlines, by one write."""
    job = leveret.current_job()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"\n{n} {job.id} {job.retry_count} {os.getpid()}\n".encode())
    finally:
        os.close(file)
