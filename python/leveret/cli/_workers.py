"""What workers report about themselves: shared by `leveret inspect workers`, `leveret top` and messages."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leveret._core import Client

__all__ = ["duration", "workers"]


def workers(broker: Client) -> list[dict[str, Any]]:
    """Return the workers that reported lately, by name, each with the seconds since its report."""
    found: list[dict[str, Any]] = []
    now = time.time()
    for _, reported, text in broker.known("worker", ""):
        worker = json.loads(text)
        worker["reported_s"] = max(0.0, round(now - reported / 1000, 3))
        found.append(worker)
    return sorted(found, key=lambda worker: str(worker["name"]))


def duration(seconds: float) -> str:
    """Return a duration for people: 4 s, 3 min, 2 h, 5 d."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
