"""The benchmark suite: Leveret beside its peers and beside what the machine gives.

    python benchmarks/suite.py [PART…] [--rounds 5] [--json] [--output FILE]     (make bench ARGS="…")

Parts: `peers`; `publish`, beside a pika loop; `plain`, beside plain rabbitmq-c; `page`, beside the simulated worker of
the page that it began with; `latency`, beside the disk's sync and plain rabbitmq-c; `scaling`: results, backlog, jobs a
message, processes; `sends`: one by one, from many threads or coroutines at once; `shards`, on a cluster; `memory`: a
worker's, over 100 million jobs. All contenders of a comparison run on one machine, in one run, round by round in turn,
on a private RabbitMQ or a fresh file, with durable settings. Only jobs that were executed, each once, and settled,
count: else the row says "not measured", and why.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from measure import Row

ROOT = Path(__file__).resolve().parent.parent
FALLEN = 0.8
HEADINGS = ("", "version", "median", "best", "spread", "ratio", "CPU s per million")
MARK = "<!-- measured by benchmarks/suite.py -->"
sys.path.insert(0, str(ROOT / "tests"))

import budget  # noqa: E402 - beside this file
import latency_part  # noqa: E402 - the same
import limits_part  # noqa: E402 - the same
import memory_part  # noqa: E402 - the same
import page_part  # noqa: E402 - the same
import peers_part  # noqa: E402 - the same
import plain_part  # noqa: E402 - the same
import publish_part  # noqa: E402 - the same
import scaling_part  # noqa: E402 - the same
import sends_part  # noqa: E402 - the same
import shards_part  # noqa: E402 - the same
from environments import environment  # noqa: E402 - the same
from measure import machine  # noqa: E402 - the same
from support.rabbitmq_node import RabbitNode  # noqa: E402 - the tests' own node

PARTS: dict[str, Callable[[RabbitNode, int, Callable[[str], None]], list[Row]]] = {
    "peers": peers_part.measure,
    "publish": publish_part.measure,
    "plain": plain_part.measure,
    "limits": limits_part.measure,
    "page": page_part.measure,
    "latency": latency_part.measure,
    "scaling": scaling_part.measure,
    "sends": sends_part.measure,
    "shards": shards_part.measure,
    "memory": memory_part.measure,
}


def cells(row: Row) -> list[str]:
    """Return a row as a table has it."""
    if row.not_measured:
        return [row.name, row.version, f"not measured: {row.not_measured}", "", "", "", ""]
    return [
        row.name,
        row.version,
        f"{row.median:,.0f}",
        f"{row.best:,.0f}",
        f"{(max(row.rates) - min(row.rates)) / row.median:.0%}",
        "" if row.ratio is None or row.name == row.reference else f"{row.ratio:,.2f} x {row.reference}",
        "" if row.cpu_s_per_million is None else f"{row.cpu_s_per_million:,.1f}",
    ]


def show(rows: list[Row], console: Console) -> None:
    """Print a table for each comparison."""
    for comparison in dict.fromkeys((row.part, row.comparison) for row in rows):
        unit = next(row.unit for row in rows if (row.part, row.comparison) == comparison)
        table = Table(title=f"{comparison[0]}: {comparison[1]}, {unit}", title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
        for row in rows:
            if (row.part, row.comparison) == comparison:
                table.add_row(*cells(row))
        console.print(table)


def write_page(page: Path, result: dict[str, object], rows: list[Row]) -> None:
    """Put a run's tables between the marks of a page."""
    before, _, rest = page.read_text().partition(MARK)
    _, _, after = rest.partition(MARK)
    machine_of = result["machine"]
    assert isinstance(machine_of, dict)  # noqa: S101 - for the type checker
    where = f"{machine_of['processor']}, {machine_of['cores']} cores, {machine_of['system']}"
    when = f"Measured on {result['date']}, {result['rounds']} rounds in turn"
    parts = [f"{when}: {where}, Python {machine_of['python']}.\n"]
    for part, comparison in dict.fromkeys((row.part, row.comparison) for row in rows):
        members = [row for row in rows if (row.part, row.comparison) == (part, comparison)]
        lines = [f"| {' | '.join(HEADINGS)} |", "| --- | --- |" + " ---: |" * (len(HEADINGS) - 2)]
        lines += [f"| {' | '.join(cells(row))} |" for row in members]
        notes = [f"{row.name}: {row.note}." for row in members if row.note]
        parts.append(
            "\n".join([f"### {comparison}, {members[0].unit}\n", *lines, "", *([" ".join(notes), ""] if notes else [])])
        )
    page.write_text(before + MARK + "\n\n" + "\n".join(parts) + "\n" + MARK + after)
    before, found, rest = page.read_text().partition(budget.MARK)
    if found:
        _, _, after = rest.partition(budget.MARK)
        page.write_text(f"{before}{budget.MARK}\n\n{budget.table(rows)}\n{budget.MARK}{after}")


def fallen(rows: list[dict[str, object]], before: list[dict[str, object]]) -> list[str]:
    """Name the ratios that are less than FALLEN of what they were in another run."""
    was = {(row["part"], row["comparison"], row["name"]): row.get("ratio") for row in before}
    found = []
    for row in rows:
        name = (row["part"], row["comparison"], row["name"])
        now, then = row.get("ratio"), was.get(name)
        if not isinstance(now, float) or not isinstance(then, float):
            continue
        if (then < FALLEN * now) if row.get("less_is_better") else (now < FALLEN * then):
            found.append(f"{': '.join(map(str, name))}: {now} x {row['reference']}, was {then}")
    return found


def draw(results: Path, folder: Path) -> None:
    """Draw the plots of a run."""
    python = environment("plots", ["matplotlib"])
    subprocess.run([python, str(ROOT / "benchmarks/plots.py"), str(results), str(folder)], check=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", type=Path, help="write the JSON object to a file too")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="with --output: draw it as SVG")
    parser.add_argument("--page", type=Path, metavar="FILE", help="with --output: put its tables into a page")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="exit code 1 if a ratio is below 0.8 of its")
    chosen = parser.parse_args()
    if unknown := [part for part in chosen.parts if part not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    said = Console(stderr=True)
    where = machine()
    rows: list[Row] = []
    with RabbitNode() as node, said.status("") as status:
        for part in chosen.parts or PARTS:
            rows += PARTS[part](node, chosen.rounds, status.update)
    result = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": where,
        "rounds": chosen.rounds,
        "rows": [row.as_json() for row in rows],
    }
    if chosen.output:
        chosen.output.write_text(json.dumps(result, indent=1) + "\n")
        if chosen.page:
            write_page(chosen.page, result, rows)
        if chosen.plots:
            draw(chosen.output, chosen.plots)
    if chosen.json:
        print(json.dumps(result))
    else:
        show(rows, Console())
    before = json.loads(chosen.compare.read_text())["rows"] if chosen.compare else []
    worse = fallen([row.as_json() for row in rows], before)
    for line in worse:
        said.print(f"fallen: {line}")
    return 1 if worse or any(row.not_measured for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
