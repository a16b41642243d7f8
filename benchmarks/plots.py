"""Plots of a run: `plots.py RESULTS.json FOLDER` writes SVGs. Needs matplotlib.

Bars for each part's figures; lines for what one would rather look at than read: rates over jobs a message, over the
backlog and over senders, what a second process adds, the distribution of latencies, memory over jobs. What was not
measured is left out.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "leveret", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what draws

OURS, OTHERS = "#1b6ca8", "#b0b7bf"
BROKERS = {"SQLite": "#1b6ca8", "RabbitMQ": "#d9822b"}
SCALES = {
    "drained, jobs a message": ("scaling-message", "jobs a message"),
    "drained from a backlog": ("scaling-backlog", "jobs that wait when the worker starts"),
    "durable sends at once": ("sends", "senders, of whom each waits for its send before its next"),
}
"""Comparisons whose rows stand on an axis: the picture, and the axis."""
COMPUTED, BARE = "jobs that compute, C++", "bare loop"
"""A comparison of part `scaling`, of one process and two, and the row of the machine itself."""


def save(figure: Any, path: Path) -> None:
    """Write a figure, the same bytes for the same figures, without matplotlib's spaces at the ends of lines."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    path.write_text("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def titled(panel: Any, title: str) -> None:
    """Title a panel at its left, and take away what it needs no lines for."""
    panel.set_title(title, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


def bars(part: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the figures of a part's comparisons, each in a panel of bars on a logarithmic scale."""
    comparisons = list(dict.fromkeys(row["comparison"] for row in rows))
    counts = [sum(row["comparison"] == comparison for row in rows) for comparison in comparisons]
    figure, panels = plt.subplots(
        len(comparisons),
        figsize=(8, 0.6 * len(comparisons) + 0.32 * len(rows)),
        gridspec_kw={"height_ratios": counts},
        squeeze=False,
        layout="constrained",
    )
    for panel, comparison in zip(panels[:, 0], comparisons, strict=True):
        members = [row for row in rows if row["comparison"] == comparison][::-1]
        names = [row["name"] for row in members]
        rates = [row["median"] for row in members]
        ours = [row["part"] in {"scaling", "shards"} or row["name"].startswith("leveret") for row in members]
        drawn = panel.barh(names, rates, color=[OURS if our else OTHERS for our in ours])
        panel.bar_label(drawn, labels=[f"{rate:,.0f}" for rate in rates], padding=3)
        panel.set(xscale="log", xlim=(min(rates) / 3, max(rates) * 8))
        panel.xaxis.set_minor_formatter("")
        titled(panel, f"{comparison}, {members[0]['unit']}")
    panels[-1, 0].set_xlabel("median of the rounds (logarithmic)")
    save(figure, folder / f"{part}.svg")


def scale(about: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the rates of a comparison over what was varied: a line for each broker, an upright one for rounds' spans."""
    name, axis = SCALES[about]
    figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for broker, color in BROKERS.items():
        members = sorted((row for row in rows if row["comparison"].endswith(broker)), key=lambda row: row["x"])
        if members:
            places, rates = [row["x"] for row in members], [row["median"] for row in members]
            panel.plot(places, rates, "o-", color=color, label=broker)
            panel.vlines(places, [min(r["rates"]) for r in members], [max(r["rates"]) for r in members], color=color)
    places = sorted({row["x"] for row in rows})
    panel.set(xscale="log", yscale="log", xlabel=f"{axis} (logarithmic)", ylabel="jobs/s (logarithmic)")
    panel.set_xticks(places, [f"{place:,.0f}" for place in places])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    titled(panel, f"{about}: jobs/s, median of the rounds")
    save(figure, folder / f"{name}.svg")


def processes(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw how many times as fast two processes are as one, over the length of a job; the machine's own as a line."""
    doubled = [row for row in rows if "ratio" in row and row["name"] != row["reference"]]
    members = sorted((row for row in doubled if "x" in row), key=lambda row: row["x"])
    if not members:
        return
    figure, panel = plt.subplots(figsize=(8, 2.6), layout="constrained")
    places = [row["x"] for row in members]
    panel.plot(places, [row["ratio"] for row in members], "o-", color=OURS, label="leveret")
    for row in doubled:
        if row["name"].startswith(BARE):
            panel.axhline(row["ratio"], color=OTHERS, linestyle="--", label="bare loops: what the cores give")
    panel.set(
        xscale="log", ylim=(0.9, 2.1), xlabel="steps a job, some 0.9 ns each (logarithmic)", ylabel="x one process"
    )
    panel.set_xticks(places, [f"{place:,.0f}" for place in places])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, loc="lower right")
    titled(panel, f"{members[0]['comparison']}: two processes beside one, median of the rounds")
    save(figure, folder / "scaling-processes.svg")


def distributions(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the share of jobs that had begun after so many microseconds, a panel for each broker."""
    comparisons = list(dict.fromkeys(row["comparison"] for row in rows))
    figure, panels = plt.subplots(
        len(comparisons), figsize=(8, 2.6 * len(comparisons)), squeeze=False, sharex=True, layout="constrained"
    )
    for panel, comparison in zip(panels[:, 0], comparisons, strict=True):
        for row in rows:
            if row["comparison"] == comparison:
                who = row["name"].removesuffix(", p50")
                shares, times = [float(share) for share in row["percentiles"]], list(row["percentiles"].values())
                panel.plot(times, shares, color=OURS if who == "leveret" else OTHERS, label=who)
        panel.set(xscale="log", ylim=(0, 100), ylabel="% of all")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, loc="lower right")
        titled(panel, comparison)
    panels[-1, 0].xaxis.set_major_formatter(lambda place, _: f"{place:,.0f}")
    panels[-1, 0].set_xlabel("µs or less (logarithmic)")
    save(figure, folder / "latency.svg")


def memory(row: dict[str, Any], folder: Path) -> None:
    """Draw what a worker held over the jobs that it had done."""
    figure, panel = plt.subplots(figsize=(8, 2.6), layout="constrained")
    jobs, held = zip(*row["points"], strict=True)
    panel.plot(jobs, held, "o-", color=OURS)
    panel.set(xlim=(0, max(jobs) * 1.02), ylim=(0, max(held) * 1.3), xlabel="jobs done", ylabel="MB")
    panel.xaxis.set_major_formatter(lambda place, _: f"{place:,.0f}")
    panel.grid(alpha=0.3)
    titled(panel, row["comparison"])
    save(figure, folder / "memory.svg")


def draw(part: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw what a part has."""
    if part == "latency":
        if distributed := [row for row in rows if "percentiles" in row]:
            distributions(distributed, folder)
        return
    if part == "memory":
        for row in rows:
            if "points" in row:
                memory(row, folder)
        return
    for about in SCALES:
        if placed := [row for row in rows if "x" in row and row["comparison"].startswith(about)]:
            scale(about, placed, folder)
    processes([row for row in rows if row["comparison"].startswith(COMPUTED)], folder)
    if plain := [row for row in rows if "x" not in row and not row["comparison"].startswith(COMPUTED)]:
        bars(part, plain, folder)


def main() -> None:
    """Draw all parts."""
    rows = [row for row in json.loads(Path(sys.argv[1]).read_text())["rows"] if "median" in row]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        row.setdefault("unit", "jobs/s")  # runs of before there were others
    for part in dict.fromkeys(row["part"] for row in rows):
        draw(part, [row for row in rows if row["part"] == part], folder)


if __name__ == "__main__":
    main()
