"""The budget of a job: what each step costs in nanoseconds of the clock, beside its bound. Made of a run's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from measure import Row

__all__ = ["MARK", "table"]

MARK = "<!-- budget by benchmarks/suite.py -->"


class Step(NamedTuple):
    """A step: the rows that it comes from, and what the bound is."""

    name: str
    comparison: str
    """How the comparison's name begins."""
    bound: str
    """The row of the bound."""
    because: str


STEPS = (
    Step("`noop()`: the line read and checked, one thread", "lines of noop()", "simdjson", "simdjson, the same lines"),
    Step("`work(id, value)`: the same", "lines of work(id, value)", "simdjson", "simdjson, the same lines"),
    Step(
        "taken, dispatched, run and settled: memory, 4 threads",
        "10,000,000 jobs that do nothing",
        "the page's worker, -O2",
        "a mutex and a queue, no JSON",
    ),
    Step(
        "sent from Python to RabbitMQ, confirmed",
        "5,000,000 jobs in messages of 64 KiB published",
        "rabbitmq-c",
        "rabbitmq-c with as many bytes",
    ),
    Step(
        "from RabbitMQ to its end, 4 threads",
        "10,000,000 jobs in messages of 64 KiB drained",
        "rabbitmq-c",
        "rabbitmq-c, which decodes nothing",
    ),
    Step(
        "sent from Python to SQLite, synced",
        "5,000,000 jobs in messages of 64 KiB stored",
        "SQLite alone",
        "SQLite with as many bytes",
    ),
    Step(
        "from SQLite to its end, 4 threads",
        "5,000,000 jobs in messages of 64 KiB drained",
        "SQLite alone",
        "SQLite, which decodes nothing",
    ),
    Step("1,000 steps computed: memory, 4 threads", "2,000,000 jobs of 1,000 steps", "the bare loop, -O2", "the loop"),
)


def _nanoseconds(rows: Iterable[Row], comparison: str, name: str) -> float | None:
    """Return what a job costs in the row of a name; None: it was not measured."""
    for row in rows:
        if row.comparison.startswith(comparison) and row.name == name and row.rates:
            return 1e9 / row.median
    return None


def table(rows: list[Row]) -> str:
    """Return the budget as a table of Markdown; steps that were not measured are left out."""
    lines = ["| step | ns a job | bound | its ns | ns / its ns |", "| --- | ---: | --- | ---: | ---: |"]
    for step in STEPS:
        ours = _nanoseconds(rows, step.comparison, "leveret")
        bound = _nanoseconds(rows, step.comparison, step.bound)
        if ours is not None and bound is not None:
            lines.append(f"| {step.name} | {ours:,.0f} | {step.because} | {bound:,.0f} | {ours / bound:.2f} |")
    return "\n".join(lines) + "\n"
