"""The shop's tasks, as Django documents them: nothing here knows Leveret."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

if TYPE_CHECKING:
    try:
        from django.tasks import TaskContext
    except ImportError:
        from django_tasks import TaskContext


@task
def total(prices: list[float], discount: float = 0.0) -> float:
    """Add up."""
    return round(sum(prices) * (1 - discount), 2)


@task(queue_name="mail", takes_context=True)
def receipt(context: TaskContext, order: int) -> str:
    """Pretend to send a receipt."""
    return f"receipt for order {order}, attempt {context.attempt}"


@task
async def pause(seconds: float) -> str:
    """Wait without holding a thread."""
    await asyncio.sleep(seconds)
    return "rested"


@task
def broken(order: int) -> None:
    """Fail."""
    raise LookupError(f"there is no order {order}")
