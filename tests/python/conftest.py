"""Fixtures of the package's tests: an app on a SQLite file of the test's own, and workers in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import leveret
import pytest
from leveret import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLUGIN = str(Path(leveret.__file__).parent / "plugins/demo.so")


@pytest.fixture
def demo_plugin() -> str:
    """The demo's compiled tasks."""
    return PLUGIN


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def app(url: str) -> Iterator[leveret.App]:
    """An app on that file."""
    with leveret.App(url) as opened:
        yield opened


@pytest.fixture
def work(url: str) -> Iterator[Callable[[], _core.Worker]]:
    """Starts a worker of the demo's tasks on the queue `native` of that file; it ends with the test."""
    running: list[_core.Worker] = []

    def start() -> _core.Worker:
        worker = _core.Worker([PLUGIN], url, ["native"], 2, burst=False, log_level="error")
        worker.start()
        running.append(worker)
        return worker

    yield start
    for worker in running:
        worker.stop(10.0)
