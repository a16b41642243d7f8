"""`leveret dead` on both brokers: dead jobs are listed, shown, put back and dropped by what they are like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.processes import Broker, leveret

if TYPE_CHECKING:
    from pathlib import Path


def dead(broker: Broker, verb: str, *words: str, expect: int = 0) -> dict[str, Any]:
    done = leveret("dead", verb, *words, "--queue", broker.queue, "--url", broker.url, "--json", expect=expect)
    found: dict[str, Any] = json.loads(done.stdout) if expect == 0 else {"error": done.stderr}
    return found


def numbers(broker: Broker, *words: str) -> list[int]:
    return sorted(json.loads(job["body"])["args"][1] for job in dead(broker, "list", *words)["jobs"])


@pytest.fixture
def failed(broker: Broker, effects: Path) -> Broker:
    """A queue with dead jobs: three exceptions, two with bad arguments, one of an unknown sort."""
    path = str(broker.effects_file)
    broker.send(
        *({"task": "fail_until", "args": [path, n, 1], "max_retries": 0} for n in (1, 2, 3)),
        *({"task": "effect", "args": [path, n, "too many"]} for n in (4, 5)),
    )
    assert broker.drain(effects)["dead"] == 5
    return broker


def test_dead_jobs_are_chosen_by_task_reason_and_age(failed: Broker) -> None:
    assert numbers(failed) == [1, 2, 3, 4, 5]
    assert numbers(failed, "--task", "effect") == [4, 5]
    assert numbers(failed, "--reason", "exception", "--newer", "1h") == [1, 2, 3]
    assert numbers(failed, "--reason", "exception", "--reason", "bad_arguments", "--newer", "2.5d") == [1, 2, 3, 4, 5]
    assert numbers(failed, "--older", "10m") == []
    for _ in range(50):  # each look counts as a delivery on RabbitMQ
        leveret("dead", "list", "--queue", failed.queue, "--url", failed.url)
    assert numbers(failed) == [1, 2, 3, 4, 5]
    assert "duration" in dead(failed, "list", "--older", "soon", expect=2)["error"]


def test_a_dead_job_is_shown_with_its_attempts(failed: Broker) -> None:
    (job,) = [j for j in dead(failed, "list", "--task", "fail_until")["jobs"] if json.loads(j["body"])["args"][1] == 2]
    assert dead(failed, "show", job["id"])["job"] == job
    shown = leveret("dead", "show", job["id"], "--queue", failed.queue, "--url", failed.url).stdout
    for part in (job["id"], "fail_until", "exception", "attempt 0", job["attempts"][0]["time"]):
        assert part in shown
    assert "not among the dead jobs" in dead(failed, "show", "nope/1", expect=2)["error"]


def test_what_is_put_back_runs_and_what_is_dropped_is_gone(failed: Broker, effects: Path) -> None:
    assert "5 dead jobs" in dead(failed, "replay", "--all", expect=2)["error"], "the count comes first"
    assert "Which JOBs" in dead(failed, "replay", "--yes", expect=2)["error"]
    assert "Which JOBs" in dead(failed, "drop", "--all", "--task", "effect", "--yes", expect=2)["error"]
    counts = dead(failed, "replay", "--reason", "exception", "--yes")
    assert (counts["matched"], counts["replayed"]) == (3, 3)
    assert numbers(failed) == [4, 5]
    first = dead(failed, "list")["jobs"][0]["id"]
    assert dead(failed, "drop", first, "--yes")["dropped"] == 1
    assert "not among the dead jobs" in dead(failed, "drop", first, "--yes", expect=2)["error"]
    assert len(numbers(failed)) == 1
    assert dead(failed, "drop", "--older", "1h", "--yes") | {"url": ""} == {
        "url": "", "queue": failed.queue, "matched": 0, "dropped": 0,
    }  # fmt: skip
    # Their retries begin at 0 again, and each fails in its first attempt alone.
    leveret("dead", "drop", "--all", "--yes", "--queue", failed.queue, "--url", failed.url)
    assert failed.drain(effects, "--max-retries", "0")["dead"] == 3
    assert failed.times_run() == {1: 2, 2: 2, 3: 2}


def test_thousands_are_put_back_at_once(broker: Broker, effects: Path) -> None:
    path = str(broker.effects_file)
    broker.send(*({"task": "fail_until", "args": [path, n, 1], "max_retries": 0} for n in range(5_000)))
    assert broker.drain(effects)["dead"] == 5_000
    counts = dead(broker, "replay", "--all", "--yes")
    assert (counts["matched"], counts["replayed"]) == (5_000, 5_000)
    assert numbers(broker) == []
    assert broker.drain(effects, "--max-retries", "0")["dead"] == 5_000
    assert set(broker.times_run().values()) == {2}
