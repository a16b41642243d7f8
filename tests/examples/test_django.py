"""examples/django: Django's own task framework with Leveret behind it, a site and a worker on one SQLite file."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.example import Example
from support.rabbitmq_node import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USE = """
import os, sys, time, asyncio, datetime
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.utils import timezone
from shop import tasks
try:
    from django.tasks import default_task_backend
    from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
except ImportError:
    from django_tasks import default_task_backend
    from django_tasks.exceptions import TaskResultMismatch
    from django_tasks.exceptions import TaskResultDoesNotExist

def ended(result):
    deadline = time.monotonic() + 60
    while not result.is_finished:
        assert time.monotonic() < deadline, result
        time.sleep(0.02)
        result.refresh()
    return result
"""


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return Example("django", tmp_path)


@pytest.fixture(params=["threads", "processes"])
def worker(request: pytest.FixtureRequest, example: Example) -> Iterator[None]:
    command, ready = {
        "threads": (("python", "manage.py", "leveret_worker"), "running shop.tasks."),
        "processes": (("leveret", "worker", "worker:app", "--threads", "2"), "  stop "),
    }[request.param]
    with example.running(*command, ready=ready, SHOP_DATA=str(example.folder)):
        yield


def use(example: Example, code: str) -> str:
    return example.run("python", "-W", "error", "-c", USE + code, SHOP_DATA=str(example.folder)).stdout.strip()


@pytest.mark.usefixtures("worker")
def test_a_task_is_enqueued_here_and_run_there(example: Example) -> None:
    code = """
result = tasks.total.enqueue([1.5, 2], discount=0.5)
assert result.status == "READY" and result.args == [[1.5, 2]] and result.enqueued_at
ended(result)
assert result.status == "SUCCESSFUL" and result.attempts == 1, result
assert result.started_at <= result.finished_at
other = tasks.total.get_result(result.id)
assert (other.return_value, other.args, other.kwargs) == (1.75, [[1.5, 2]], {"discount": 0.5})
print(result.return_value)
"""
    assert use(example, code) == "1.75"


@pytest.mark.usefixtures("worker")
def test_queues_contexts_coroutines_and_delays_work(example: Example) -> None:
    code = """
assert ended(tasks.receipt.enqueue(7)).return_value == "receipt for order 7, attempt 1"
assert ended(tasks.pause.enqueue(0.01)).return_value == "rested"
assert ended(asyncio.run(tasks.total.aenqueue([1]))).return_value == 1.0
due = timezone.now() + datetime.timedelta(seconds=1)
late = ended(tasks.total.using(run_after=due).enqueue([2]))
print(late.started_at >= due)
"""
    assert use(example, code) == "True"


@pytest.mark.usefixtures("worker")
def test_a_failure_has_its_class_and_traceback(example: Example) -> None:
    code = """
result = ended(tasks.broken.enqueue(9))
assert result.status == "FAILED" and result.attempts == 1
(error,) = result.errors
assert error.exception_class is LookupError
print(error.traceback.strip().splitlines()[-1])
"""
    assert use(example, code) == "LookupError: there is no order 9"


def test_what_nobody_ran_waits_and_what_is_wrong_is_refused(example: Example) -> None:
    code = """
result = tasks.total.enqueue([1])
assert tasks.total.get_result(result.id).status == "READY"
for wrong in ("nonsense", "os.system:" + result.id.partition(":")[2], "shop.tasks.total:x"):
    try:
        default_task_backend.get_result(wrong)
    except TaskResultDoesNotExist:
        continue
    raise SystemExit(f"{wrong} was found")
try:
    tasks.pause.get_result(result.id)
except TaskResultMismatch:
    print("refused")
"""
    assert use(example, code) == "refused"


@pytest.mark.usefixtures("worker")
def test_a_view_enqueues_and_another_tells(example: Example) -> None:
    port = free_port()
    server = ["python", "-u", "manage.py", "runserver", "--noreload", "--skip-checks", str(port)]

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    with example.running(*server, ready="Quit the server", SHOP_DATA=str(example.folder)):
        status, sent = ask("POST", "/orders", "[1.25, 1.25]")
        assert status == 202
        deadline = time.monotonic() + 60
        while (answer := ask("GET", f"/orders/{sent['id']}")[1])["status"] in ("READY", "RUNNING"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert answer == {"status": "SUCCESSFUL", "total": 2.5}
