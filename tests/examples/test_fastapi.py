"""examples/fastapi under uvicorn: two processes, one SQLite file."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.example import Example
from support.rabbitmq_node import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    number = free_port()
    example = Example("fastapi", tmp_path)
    server = ["uvicorn", "web:api", "--port", str(number)]
    with (
        example.running("leveret", "worker", "jobs:app", "--threads", "4", ready="  stop "),
        example.running(*server, ready="Uvicorn running on"),
    ):
        yield number


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def events(port: int, path: str) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    lines = answer.read().decode().splitlines()
    connection.close()
    assert [line for line in lines if line.startswith("event:")] == ["event: state"] * (len(lines) // 3)
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data:")]


def test_a_request_sends_a_job_and_its_states_are_streamed(port: int) -> None:
    status, sent = ask(port, "POST", "/counts", {"text": "a hare a tortoise", "pause": 0.7})
    assert status == 202
    counted = {"a": 2, "hare": 1, "tortoise": 1}
    *seen, last = events(port, sent["events"])
    assert last == {"state": "succeeded", "result": counted}
    assert {event["state"] for event in seen} <= {"queued", "running"}
    progress = [event["progress"] for event in seen if event["progress"] is not None]
    assert len(progress) >= 2
    assert progress == sorted(progress)
    assert {0.25: "a", 0.5: "hare", 0.75: "a", 1.0: "tortoise"}[progress[-1]] == seen[-1]["text"]
    assert ask(port, "GET", f"/counts/{sent['id']}") == (200, {"state": "succeeded", "result": counted})
    assert events(port, sent["events"]) == [{"state": "succeeded", "result": counted}], "the end is told at once"


def test_a_dead_job_is_told_with_its_error(port: int) -> None:
    sent = ask(port, "POST", "/counts", {"text": " "})[1]
    assert events(port, sent["events"])[-1] == {"state": "dead", "error": "there is no word in it"}


def test_what_is_wrong_is_refused(port: int) -> None:
    assert ask(port, "POST", "/counts", {"text": 5})[0] == 422
    status, why = ask(port, "GET", "/counts/nonsense")
    assert status == 404
    assert "no job id" in why["detail"]
