"""The model of what a rate takes (`benchmarks/scale/model.py`)."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCALE = ROOT / "benchmarks/scale"


@pytest.fixture(scope="module")
def model() -> Any:
    """The program, imported."""
    spec = importlib.util.spec_from_file_location("scale_model", SCALE / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["scale_model"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = json.loads((SCALE / "costs.json").read_text())
    return found


def made(nodes: int, size: int, *, fit: bool, fixed: float, each_byte: float) -> dict[str, Any]:
    """Return a run of 1,000 messages whose costs are a line."""
    seconds = 1000 * (fixed + each_byte * size)
    stage = {"seconds": 1.0, "client": seconds, "brokers": nodes * seconds, "written": 2.0 * nodes * size * 1000}
    drained = stage | {"written": 0.0}
    jobs = 1000 * size // 32
    return {
        "nodes": nodes,
        "fit": fit,
        "jobs": jobs,
        "messages": 1000,
        "job_bytes": 32,
        "publish": stage,
        "drain": drained,
    }


def runs(*, off: float = 1.0) -> list[dict[str, Any]]:
    """Return runs of costs that are a line; those to be checked against cost `off` times as much."""
    return [
        made(nodes, size, fit=fit, fixed=1e-5 * times, each_byte=1e-9 * times)
        for nodes in (1, 3)
        for size, fit, times in ((32, True, 1.0), (65536, True, 1.0), (1024, False, off))
    ]


def test_costs_that_are_a_line_are_found(model: Any) -> None:
    line = model.fitted(runs(), 3, "publish", "brokers")
    assert line.fixed == pytest.approx(3e-5)
    assert line.each_byte == pytest.approx(3e-9)
    assert [row["ratio"] for row in model.checked(runs(), 2)] == [1.0] * 4
    assert [row["ratio"] for row in model.checked(runs(off=2.0), 2)] == [0.5] * 4


def test_what_a_rate_takes_is_what_its_costs_come_to(model: Any) -> None:
    server = model.Machine(cores=10, network=1e9, disk=1e9)
    need = model.needed(runs(), 2048e3, 65536, server, 0.0)
    assert need.messages_per_s == pytest.approx(1000)
    message = 1e-5 + 1e-9 * 65536
    assert need.brokers["processor"] == pytest.approx(1000 * 2 * 3 * message / 10 / 0.6)
    assert need.brokers["network"] == pytest.approx(1000 * 65536 * 3 / 1e9 / 0.6)
    assert need.brokers["disk"] == pytest.approx(1000 * 65536 * 6 / 1e9 / 0.6)
    assert (need.first, need.servers) == ("disk", 3)
    assert need.shards == 1
    assert need.producer_cores == pytest.approx(1000 * message / 0.6)
    assert need.worker_cores == pytest.approx(need.producer_cores)
    busy = model.needed(runs(), 2048e3, 65536, server, 1e-6)
    assert busy.worker_cores - need.worker_cores == pytest.approx(2048e3 * 1e-6 / 0.6)


def test_ten_times_the_rate_takes_ten_times_as_much(model: Any) -> None:
    server = model.Machine(cores=16, network=3e9, disk=2e9)
    one, ten = (model.needed(runs(), rate, 65536, server, 0.0) for rate in (1e8, 1e9))
    assert ten.brokers["disk"] == pytest.approx(10 * one.brokers["disk"])
    assert ten.shards == pytest.approx(10 * one.shards, abs=10)


def test_the_committed_costs_are_close_to_the_model(model: Any, committed: dict[str, Any]) -> None:
    rows = model.checked(committed["runs"], committed["machine"]["cores"])
    assert len(rows) == 8
    assert all(0.5 <= row["ratio"] <= 2 for row in rows), rows


def test_the_guide_has_the_tables_of_the_committed_costs(model: Any, committed: dict[str, Any], tmp_path: Path) -> None:
    guide = ROOT / "docs/performance.md"
    page = tmp_path / "page.md"
    page.write_text(guide.read_text())
    sys.argv, kept = ["model.py", "--page", str(page), "--json"], sys.argv
    try:
        model.main()
    finally:
        sys.argv = kept
    assert page.read_text() == guide.read_text()
    assert committed["rounds"] >= 3
