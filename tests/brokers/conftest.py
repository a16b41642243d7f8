"""Fixtures of the tests that need more than one broker: `make test-brokers`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.processes import leveret
from support.rabbitmq_cluster import RabbitCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = Path(__file__).resolve().parent.parent / "system/plugins/effects.cpp"


@pytest.fixture(scope="session")
def cluster() -> Iterator[RabbitCluster]:
    """Three nodes for the whole run; a test leaves all of them running."""
    with RabbitCluster() as running:
        yield running


@pytest.fixture(scope="session")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of the system tests."""
    built = tmp_path_factory.mktemp("plugins") / "effects.so"
    leveret("build", PLUGIN, "-o", built)
    return built
