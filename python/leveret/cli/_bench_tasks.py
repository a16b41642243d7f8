"""What `leveret bench --python` has a worker run: tasks that cost nothing but their being run."""

from __future__ import annotations

import asyncio

import leveret

__all__ = ["NAP_SECONDS", "app"]

NAP_SECONDS = 0.01

app = leveret.App()


@app.task(name="bench_add", ignore_result=True)
def add(x: int, y: int) -> None:
    """Take two numbers, and do nothing with them."""
    del x, y


@app.task(name="bench_nap", ignore_result=True)
async def nap() -> None:
    """Wait as for an answer over a network."""
    await asyncio.sleep(NAP_SECONDS)
