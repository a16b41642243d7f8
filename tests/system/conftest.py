"""Fixtures of the system tests: real processes, a real RabbitMQ, plugins compiled as users compile them."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.processes import Broker, leveret
from support.rabbitmq_node import RabbitNode

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = Path(__file__).resolve().parent / "plugins"
PROGRAMS = Path(__file__).resolve().parent / "programs"


@pytest.fixture(scope="session")
def node() -> Iterator[RabbitNode]:
    """A RabbitMQ node for the whole run; each test has a queue of its own."""
    with RabbitNode() as running:
        yield running


@pytest.fixture(scope="session")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of plugins/effects.cpp."""
    built = tmp_path_factory.mktemp("plugins") / "effects.so"
    leveret("build", PLUGINS / "effects.cpp", "-o", built)
    return built


@pytest.fixture(scope="session")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of programs/sender.cpp."""
    built = tmp_path_factory.mktemp("programs") / "sender"
    leveret("build", "--exe", PROGRAMS / "sender.cpp", "-o", built)
    return built


@pytest.fixture(params=["sqlite", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    """A queue of its own on each broker."""
    if request.param == "sqlite":
        return Broker(f"sqlite:///{tmp_path}/queue.db", "jobs", tmp_path)
    node: RabbitNode = request.getfixturevalue("node")
    return Broker(node.url, f"jobs-{uuid.uuid4().hex[:12]}", tmp_path)
