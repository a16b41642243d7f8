"""Plots of a run: `plots.py RESULTS.json FOLDER` writes one SVG for each part. Needs matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "leveret", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what draws

OURS, OTHERS = "#1b6ca8", "#b0b7bf"


def draw(part: str, rows: list[dict[str, object]], folder: Path) -> None:
    """Draw the rates of a part's comparisons, each in a panel of bars on a logarithmic scale."""
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
        members = [row for row in rows if row["comparison"] == comparison and "median" in row][::-1]
        names = [str(row["name"]) for row in members]
        rates = [float(str(row["median"])) for row in members]
        bars = panel.barh(names, rates, color=[OURS if name.startswith("leveret") else OTHERS for name in names])
        panel.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=3)
        panel.set(xscale="log", title=f"{comparison}, {members[0].get('unit', 'jobs/s')}")
        panel.title.set_horizontalalignment("left")
        panel.title.set_position((0, 1))
        panel.set_xlim(min(rates) / 3, max(rates) * 8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("median of the rounds (logarithmic)")
    figure.savefig(folder / f"{part}.svg", metadata={"Date": None})


def main() -> None:
    """Draw all parts."""
    rows = json.loads(Path(sys.argv[1]).read_text())["rows"]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for part in dict.fromkeys(row["part"] for row in rows):
        draw(part, [row for row in rows if row["part"] == part], folder)


if __name__ == "__main__":
    main()
