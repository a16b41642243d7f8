"""Tasks that are to be there once, and that note each attempt."""

from __future__ import annotations

import os

import leveret

app = leveret.App(os.environ["ONCE_BROKER"], results=os.environ.get("ONCE_STORE") or None)
QUEUE = os.environ["ONCE_QUEUE"]


def note(text: str) -> None:
    """Append a line in one write."""
    file = os.open(os.environ["ONCE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{text}\n".encode())
    os.close(file)


@app.task(queue=QUEUE, idempotency_key="number")
def once(number: int) -> str:
    """Note the job, and return its id."""
    job = leveret.current_job().id
    note(f"{number} {job}")
    return job


@app.task(queue=QUEUE, unique_until="end", max_retries=1, backoff=0.01)
def until_end(how: str) -> str:
    """End as it is told."""
    job = leveret.current_job()
    note(f"{how} {job.id}")
    if how == "rejected":
        raise leveret.Reject(how)
    if how == "dead" or (how == "retried" and job.retry_count == 0):
        raise ArithmeticError(how)
    return job.id
