"""What a worker holds is bounded by bytes, whatever the messages' sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import leveret as package
from support.processes import PATIENCE, Broker

if TYPE_CHECKING:
    import pytest

APPS = Path(__file__).resolve().parent / "apps"
LARGEST = 1 << 20
JOBS = 1_000
MOST_MEMORY = 256_000_000


def most_resident(pid: int) -> int:
    """Return the most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024


def test_a_thousand_messages_of_the_largest_size_take_bounded_memory(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(APPS))
    with package.App(broker.url) as app:

        @app.task(queue=broker.queue)
        def weigh(data: str) -> int:
            raise NotImplementedError

        data = "x" * (LARGEST - len('{"task":"weigh","args":[""],"retry_count":0}\n'))
        jobs = weigh.send_many((data,) for _ in range(JOBS))
        assert len(jobs.messages) == JOBS, "each fills a message"
        # By the number of messages it might hold all of them.
        with broker.worker("chores:app", "--max-memory", "256MB", "--prefetch", "1000", pool="processes") as worker:
            weighed = [ended.result for ended in app.results(jobs, timeout=2 * PATIENCE)]
            held = most_resident(worker.pid)
            counts = worker.stop()
    assert weighed == [len(data)] * JOBS
    assert counts["succeeded"] == JOBS
    assert held < MOST_MEMORY, f"{held / 1e6:.0f} MB"
