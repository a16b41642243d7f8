"""Tasks that behave well, and all the ways in which they don't."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time

import leveret

app = leveret.App()


@app.task
def note(path: str, n: int, micros: int = 0) -> None:
    """Append a line `n id retry_count pid` by one write, as effects.cpp does."""
    job = leveret.current_job()
    if micros:
        time.sleep(micros / 1e6)
    line = f"\n{n} {job.id} {job.retry_count} {os.getpid()}\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line.encode())
    os.close(file)


@app.task
def until_stopped(path: str, n: int) -> None:
    """Leave a line as `note` does, and end once the worker stops."""
    note(path, n)
    while not leveret.current_job().stopping:
        time.sleep(0.002)


@app.task
def at_second(path: str, n: int) -> None:
    """Fail once, then do as `note` does."""
    if leveret.current_job().retry_count == 0:
        raise OSError("not at first")
    note(path, n)


@app.task(max_retries=0)
def once_there(path: str, n: int) -> None:
    """Do as `note` does, if the file beside it is there."""
    if not os.path.exists(f"{path}.there"):  # noqa: PTH110 - a text is given
        raise OSError("not there yet")
    note(path, n)


@app.task
def weigh(data: str) -> int:
    """Return how long a text is."""
    return len(data)


@app.task
def stay(path: str, n: int) -> None:
    """Leave a line as `note` does, and hang in C, the interpreter's lock held."""
    note(path, n)
    ctypes.PyDLL(None).sleep(3600)


@app.task
async def nap(seconds: float) -> float:
    """Sleep on the event loop."""
    await asyncio.sleep(seconds)
    return seconds


_at_once = 0
_most_at_once = 0
_ended = 0


@app.task
async def count_at_once(enough: int) -> None:
    """Note how many do so at once; end once so many did."""
    global _at_once, _most_at_once, _ended  # noqa: PLW0603 - of this process
    _at_once += 1
    _most_at_once = max(_most_at_once, _at_once)
    while _most_at_once < enough:  # noqa: ASYNC110 - an Event would be of one loop
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.005)
    _at_once -= 1
    _ended += 1


@app.task
async def most_at_once(others: int) -> int:
    """Say that it runs, wait until so many others have ended; return how many ran at once at most, itself included."""
    leveret.current_job().set_progress(0.0)
    while _ended < others:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.001)
    return _most_at_once + 1


@app.task
def pids() -> tuple[int, int]:
    """Return this process's id and its parent's."""
    return os.getpid(), os.getppid()


@app.task(max_retries=0)
def segv() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


@app.task(max_retries=0)
def leave(code: int) -> None:
    """End the process."""
    os._exit(code)


@app.task(max_retries=0, hard_limit=0.5)
def hold() -> None:
    """Hang in C, the interpreter's lock held."""
    ctypes.PyDLL(None).sleep(3600)


@app.task(max_retries=0)
def raise_it(kind: str) -> None:
    """Raise what no handler should."""
    if kind == "exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    raise type(kind, (BaseException,), {})("as asked")


@app.task
def chatter() -> str:
    """Print, and close what is printed to."""
    print("chatter was here")  # noqa: T201 - that is what it is about
    sys.stdout.flush()
    sys.stdout.close()
    os.close(1)
    return "said"


@app.task
def fork() -> str:
    """Leave a copy that returns as well."""
    return "copy" if os.fork() == 0 else "original"


@app.task
def threads() -> str:
    """Leave a thread behind."""
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return "started"


@app.task(max_retries=0)
def unencodable() -> object:
    """Return what has no form in JSON."""
    return {"deep": [object()]}


@app.task(max_retries=0)
def too_large() -> str:
    """Return more than a result may have."""
    return "x" * (2 << 20)
