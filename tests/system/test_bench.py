"""`leveret bench --python`: what it counts, and what it says when a worker did not do its work. Never how fast."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret as package
import pytest
from leveret.cli._bench_python import problem
from support.processes import LEVERET, PATIENCE, Worker, leveret

if TYPE_CHECKING:
    from support.rabbitmq_node import RabbitNode

DEMO = Path(package.__file__).parent / "plugins/demo.so"
KEYS = [
    "row", "what", "unit", "jobs", "values", "best", "median", "spread", "against", "ratio", "goal", "reached", "why",
]  # fmt: skip
SMALL = ("--python", "--jobs", "2000", "--rounds", "2")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in report["rows"]}


def test_every_row_is_measured_in_every_round_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/q.db"
    done = leveret("bench", *SMALL, "--url", url, "--threads", "2", "--json")
    report = json.loads(done.stdout)
    assert list(report) == ["command", "machine", "url", "jobs", "rounds", "threads", "rows"]
    assert (report["url"], report["jobs"], report["rounds"], report["threads"]) == (url, 2_000, 2, 2)
    assert report["command"] == f"leveret bench --python --url {url} --jobs 2000 --rounds 2 --threads 2"
    assert list(report["machine"]) == ["cpu", "cores", "kernel", "python", "leveret", "libraries", "file_system"]
    assert all(report["machine"].values())
    assert all(list(row) == KEYS for row in report["rows"])
    assert [(row["row"], row["unit"], row["jobs"], len(row["values"])) for row in report["rows"]] == [
        ("python", "jobs/s", 2_000, 2),
        ("coroutines", "jobs/s", 200, 2),
        ("fsync", "writes/s", 8, 8),
        ("fsync_in_place", "writes/s", 8, 8),
        ("send", "jobs/s", 8, 8),
        ("send_threads", "jobs/s", 8, 8),
        ("native_processes", "jobs/s", 8_000, 2),
        ("native_threads", "jobs/s", 8_000, 2),
        ("import", "ms", None, 20),
        ("help", "ms", None, 20),
    ]
    for row in report["rows"]:
        assert row["why"] is None
        least, most = min(row["values"]), max(row["values"])
        assert row["best"] == (least if row["unit"] == "ms" else most)
        assert 0 < least <= row["median"] <= most
    rows = rows_of(report)
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "python": 300_000, "coroutines": 20_000, "send": 0.8, "send_threads": 4.0, "native_processes": 0.9,
    }  # fmt: skip
    assert rows["python"]["reached"] == pytest.approx(rows["python"]["median"] / 300_000, abs=0.002)
    assert rows["send"]["reached"] == pytest.approx(rows["send"]["ratio"] / 0.8, abs=0.002)
    queues = json.loads(leveret("queues", "--url", url, "--json").stdout)["queues"]
    assert not any(queue["ready"] or queue["running"] or queue["dead"] for queue in queues)
    assert not list(tmp_path.glob("*.fsync"))


def test_on_rabbitmq_no_disk_is_measured_beside_it(node: RabbitNode) -> None:
    report = json.loads(leveret("bench", *SMALL, "--url", node.url, "--json").stdout)
    rows = rows_of(report)
    assert not {"fsync", "fsync_in_place"} & set(rows)
    assert rows["send"]["goal"] is rows["send"]["ratio"] is None
    assert all(row["why"] is None and row["values"] for row in rows.values())
    assert report["machine"]["file_system"] is None


def test_people_get_a_table_with_the_machine_and_the_command() -> None:
    out = leveret("bench", "--python", "--jobs", "800", "--rounds", "1").stdout
    assert "leveret bench --python --jobs 800 --rounds 1 --threads 4\n" in out
    for text in ("cores, Linux", "Python no-op", "300 k/s", "0.9 of threads", "leveret --help"):
        assert text in out, text


def test_a_row_whose_worker_lost_jobs_has_no_figures_and_the_exit_code_is_1(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/q.db"
    # Another worker of the queue, with the same tasks: it takes what is measured, in one of the rounds at least.
    thief = ("--url", url, "--queue", "leveret-bench", str(DEMO))
    with Worker("leveret.cli._bench_tasks:app", *thief):
        done = leveret("bench", "--python", "--jobs", "800", "--rounds", "4", "--url", url, "--json", expect=1)
    rows = rows_of(json.loads(done.stdout))
    row = rows["python"]
    assert row["why"].startswith("of 800 jobs ")
    assert row["values"] == []
    assert row["best"] is row["median"] is row["spread"] is row["ratio"] is row["reached"] is None
    assert rows["fsync"]["why"] is None, "what could be measured was"
    assert done.stderr.startswith("leveret bench: not measured: python: of 800 jobs ")
    assert done.stderr.count("\n") == 1


def test_a_worker_that_cannot_run_is_named(tmp_path: Path) -> None:
    # An app that can't be imported, where the worker looks first.
    (tmp_path / "asyncio.py").write_text("raise ImportError('not this one')\n")
    done = subprocess.run(
        [LEVERET, "bench", "--python", "--jobs", "800", "--rounds", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 1, done.stderr
    rows = rows_of(json.loads(done.stdout))
    assert "exit code 2" in rows["python"]["why"]
    assert rows["native_threads"]["why"] is None


COUNTS = {"succeeded": 10, "retried": 0, "dead": 0, "expired": 0, "cancelled": 0, "returned": 0}
STATS = {"ready": 0, "running": 0, "delayed": 0, "dead": 0}


@pytest.mark.parametrize(
    ("counts", "stats", "said"),
    [
        ({}, {}, None),
        ({}, {"running": None, "delayed": None}, None),
        ({"succeeded": 9}, {}, "of 10 jobs 9 succeeded"),
        ({"succeeded": 11}, {}, "of 10 jobs 11 succeeded"),
        ({"succeeded": 9, "dead": 1}, {}, "of 10 jobs 9 succeeded, 1 dead"),
        ({"retried": 2, "returned": 3}, {}, "of 10 jobs 10 succeeded, 2 retried, 3 returned"),
        ({}, {"ready": 1, "delayed": 2}, "the queue is not empty: 1 ready, 2 delayed"),
        ({}, {"running": 1}, "the queue is not empty: 1 running"),
    ],
)
def test_a_run_counts_if_every_job_was_run_once_and_none_is_left(
    counts: dict[str, int], stats: dict[str, int], said: str | None
) -> None:
    assert problem({**COUNTS, **counts}, {**STATS, **stats}, 10) == said
