"""Durations as people write them: seconds, or a timedelta."""

from __future__ import annotations

import math
from datetime import timedelta

__all__ = ["milliseconds", "seconds"]

_LONGEST = 100 * 365 * 86_400.0
"""A hundred years: what is longer is a mistake, and would overflow clocks."""


def seconds(value: float | timedelta, name: str) -> float:
    """Return a duration in seconds.

    Raises:
        TypeError: If it is neither a number nor a timedelta.
        ValueError: If it is negative, not finite, or longer than a hundred years; the text says `name`.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif type(value) in {int, float}:
        number = float(value)
    else:
        raise TypeError(f"{name} must be a number of seconds or a timedelta, not {type(value).__name__}")
    if not math.isfinite(number) or not 0 <= number <= _LONGEST:
        raise ValueError(f"{name} must be at least 0 seconds and at most a hundred years, not {value!r}")
    return number


def milliseconds(value: float | timedelta, name: str) -> int:
    """Return a duration in whole milliseconds, rounded up: never shorter than asked for. Raises as `seconds`."""
    return math.ceil(seconds(value, name) * 1000)
