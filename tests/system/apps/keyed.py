"""An ordered task that notes when each of its attempts begins and ends."""

from __future__ import annotations

import os
import time

import leveret

app = leveret.App()


def note(path: str, mark: str, key: int, number: int) -> None:
    """Append a line in one write: whoever writes beside it, and whatever a killed one has left of its own."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"\n{mark} {key} {number} {os.getpid()}\n".encode())
    os.close(file)


@app.task(queue=os.environ["KEYED_QUEUE"], ordered=True, key="key")
def keyed(path: str, key: int, number: int) -> int:
    """Run for a millisecond."""
    note(path, "begin", key, number)
    time.sleep(0.001)
    note(path, "end", key, number)
    return number
