"""How many brokers, queues, workers and processors 10, 100 and 1,000 million jobs a second take, and what ends first.

    python benchmarks/scale/model.py [--cores 16] [--network 25] [--disk 2] [--handler 0] [--json] [--page FILE]

Its costs are those that `costs.py` measured (`costs.json`): of publishing and of draining a message, processor seconds
of a client and of the brokers are `fixed + each byte x bytes`, from the smallest and the largest messages measured; the
sizes between them are what it is checked against. Everything else is arithmetic:

- a byte that is published reaches three brokers, and is delivered once: by all brokers together it is received three
  times and sent three times;
- a queue does no more than one core of its leader, which is taken to bear what a single node was measured to;
- machines are used to `USED` of what they have, since a broker that is never idle has no answer in time.

It knows nothing of switches, of what a queue's length costs, nor of what a larger machine's cores do to each other.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COSTS = Path(__file__).with_name("costs.json")
RATES = (10e6, 100e6, 1000e6)
USED = 0.6
REPLICAS = 3
MARK = "<!-- modelled by benchmarks/scale/model.py -->"
STAGES = ("publish", "drain")
SIDES = ("client", "brokers")


@dataclass(frozen=True)
class Line:
    """Processor seconds of a message: `fixed + each_byte x bytes`."""

    fixed: float
    each_byte: float

    def of(self, size: float) -> float:
        """Return the seconds of a message of so many bytes."""
        return self.fixed + self.each_byte * size


@dataclass(frozen=True)
class Machine:
    """What a server has."""

    cores: float
    network: float
    """Bytes/s, each way."""
    disk: float
    """Bytes/s written."""


@dataclass(frozen=True)
class Need:
    """What a rate takes."""

    jobs_per_s: float
    message_bytes: float
    messages_per_s: float
    shards: int
    brokers: dict[str, float]
    """Servers, by what would need so many: processor, network, disk."""
    producer_cores: float
    worker_cores: float

    @property
    def first(self) -> str:
        """What of the brokers ends first."""
        return max(self.brokers, key=lambda what: self.brokers[what])

    @property
    def servers(self) -> int:
        """How many brokers, at least as many as there are replicas."""
        return max(REPLICAS, math.ceil(self.brokers[self.first]))


def size_of(run: dict[str, Any]) -> float:
    """Return the bytes of a run's messages."""
    return run["jobs"] * run["job_bytes"] / run["messages"]


def each(run: dict[str, Any], stage: str, side: str) -> float:
    """Return the processor seconds of one message of a run."""
    return float(run[stage][side]) / float(run["messages"])


def fitted(runs: list[dict[str, Any]], nodes: int, stage: str, side: str) -> Line:
    """Return the line through the two sizes that were measured for it."""
    small, large = sorted((run for run in runs if run["nodes"] == nodes and run["fit"]), key=size_of)
    rise = (each(large, stage, side) - each(small, stage, side)) / (size_of(large) - size_of(small))
    return Line(each(small, stage, side) - rise * size_of(small), rise)


def checked(runs: list[dict[str, Any]], cores: int) -> list[dict[str, Any]]:
    """Return what the model says of the runs that it does not come from, beside what was measured.

    `busy` is the share of the machine's cores that the run used: what is left was waiting.
    """
    rows = []
    for run in runs:
        if run["fit"]:
            continue
        for stage in STAGES:
            said = sum(fitted(runs, run["nodes"], stage, side).of(size_of(run)) for side in SIDES)
            found = sum(each(run, stage, side) for side in SIDES)
            rows.append(
                {
                    "nodes": run["nodes"],
                    "message_bytes": round(size_of(run)),
                    "stage": stage,
                    "modelled_us": round(said * 1e6, 1),
                    "measured_us": round(found * 1e6, 1),
                    "ratio": round(said / found, 2),
                    "busy": round(sum(run[stage][side] for side in SIDES) / run[stage]["seconds"] / cores, 2),
                }
            )
    return rows


def needed(runs: list[dict[str, Any]], rate: float, size: float, server: Machine, handler: float) -> Need:
    """Return what a rate of jobs takes, in messages of so many bytes.

    Args:
        runs: The measured runs.
        rate: Jobs a second.
        size: Bytes of a message.
        server: What each broker has.
        handler: Processor seconds that a job's own work takes.
    """
    job_bytes = float(runs[0]["job_bytes"])
    jobs = max(1.0, size / job_bytes)
    size = jobs * job_bytes
    messages = rate / jobs
    brokers = sum(fitted(runs, REPLICAS, stage, "brokers").of(size) for stage in STAGES)
    leader = sum(fitted(runs, 1, stage, "brokers").of(size) for stage in STAGES)
    largest = max((run for run in runs if run["nodes"] == REPLICAS), key=size_of)
    written = sum(largest[stage]["written"] for stage in STAGES) / (largest["jobs"] * job_bytes)
    return Need(
        rate,
        size,
        messages,
        math.ceil(messages * leader / USED),
        {
            "processor": messages * brokers / server.cores / USED,
            "network": messages * size * REPLICAS / server.network / USED,
            "disk": messages * size * written / server.disk / USED,
        },
        messages * fitted(runs, REPLICAS, "publish", "client").of(size) / USED,
        (messages * fitted(runs, REPLICAS, "drain", "client").of(size) + rate * handler) / USED,
    )


def tables(checks: list[dict[str, Any]], needs: list[Need]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, headings and cells of what is shown."""
    check = [
        [
            str(row["nodes"]),
            f"{row['message_bytes']:,}",
            row["stage"],
            f"{row['modelled_us']:,.0f}",
            f"{row['measured_us']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['busy']:.0%}",
        ]
        for row in checks
    ]
    scale = [
        [
            f"{need.jobs_per_s / 1e6:,.0f}",
            f"{need.message_bytes:,.0f}",
            f"{need.messages_per_s:,.0f}",
            f"{need.shards:,}",
            f"{need.servers:,}",
            need.first,
            ", ".join(f"{what} {servers:,.1f}" for what, servers in need.brokers.items()),
            f"{need.producer_cores:,.1f}",
            f"{need.worker_cores:,.1f}",
        ]
        for need in needs
    ]
    return [
        (
            "Processor time of a message, all processes, µs",
            ["nodes", "bytes a message", "stage", "modelled", "measured", "ratio", "cores busy"],
            check,
        ),
        (
            "What a rate takes",
            [
                "million jobs/s",
                "bytes a message",
                "messages/s",
                "shards",
                "brokers",
                "what ends first",
                "brokers by each",
                "producers' cores",
                "workers' cores",
            ],
            scale,
        ),
    ]


def write_page(page: Path, shown: list[tuple[str, list[str], list[list[str]]]]) -> None:
    """Put the tables between the marks of a page."""
    before, _, rest = page.read_text().partition(MARK)
    _, _, after = rest.partition(MARK)
    parts = []
    for title, headings, rows in shown:
        lines = [f"| {' | '.join(headings)} |", f"| {' | '.join(['---:'] * len(headings))} |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        parts.append("\n".join([f"{title}:\n", *lines, ""]))
    page.write_text(before + MARK + "\n\n" + "\n".join(parts) + "\n" + MARK + after)


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=float, default=16, help="of each broker's server")
    parser.add_argument("--network", type=float, default=25, help="Gbit/s of each broker's server, each way")
    parser.add_argument("--disk", type=float, default=2, help="GB/s that each broker's disk takes")
    parser.add_argument("--handler", type=float, default=0, help="µs of a job's own work")
    parser.add_argument("--costs", type=Path, default=COSTS, help="what costs.py wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into a page")
    chosen = parser.parse_args()
    measured = json.loads(chosen.costs.read_text())
    runs = measured["runs"]
    server = Machine(chosen.cores, chosen.network * 1e9 / 8, chosen.disk * 1e9)
    sizes = (max(size_of(run) for run in runs), min(size_of(run) for run in runs))
    needs = [needed(runs, rate, size, server, chosen.handler / 1e6) for size in sizes for rate in RATES]
    checks = checked(runs, measured["machine"]["cores"])
    if chosen.page:
        write_page(chosen.page, tables(checks, needs))
    if chosen.json:
        told = [asdict(need) | {"first": need.first, "servers": need.servers} for need in needs]
        print(
            json.dumps({"measured_on": measured["machine"], "server": asdict(server), "checks": checks, "needs": told})
        )
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for title, headings, rows in tables(checks, needs):
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
